//! Does everything exist that objects name: gateways, hosts, subsets?
//!
//! Secrets and delegates are looked up by `compile`, which says why they cannot be used.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::codes::{self, Code};
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::{Kind, Labels, Object};
use crate::resource::networking::{Destination, DestinationRule, Gateway, VirtualService};
use crate::resource::settings::Settings;

/// Most findings of one object.
const MAX_FINDINGS: usize = 20;

/// Lines that were looked up the last time: a line is looked up by reading its document again, and what is missing
/// usually is missing for many reloads.
#[derive(Default)]
pub(super) struct Places {
    /// By the address of an object that lives on in the analysis' memory, and the path in it.
    earlier: HashMap<(usize, String), Location>,
    now: RefCell<HashMap<(usize, String), Location>>,
}

impl Places {
    fn finding<T: Kind>(&self, object: &Object<T>, code: &Code, path: &str, message: String) -> Finding {
        let key = (std::ptr::from_ref(object).addr(), path.to_owned());
        let location = self.earlier.get(&key).cloned().unwrap_or_else(|| object.origin.locate(path));
        self.now.borrow_mut().insert(key, location.clone());
        Finding::new(code, location, message).about(object.title())
    }
}

/// Everything that is named but does not exist.
pub(super) fn analyze(resources: &ResourceSet, settings: &Settings, places: &mut Places) -> Vec<Finding> {
    places.earlier = places.now.take();
    let known = Known::new(resources, settings, places);
    let mut findings = Vec::new();
    for service in &resources.virtual_services {
        known.check_virtual_service(service, &mut findings);
    }
    for rule in &resources.destination_rules {
        known.check_rule(rule, &mut findings);
    }
    findings
}

/// What exists, by name.
struct Known<'a> {
    settings: &'a Settings,
    places: &'a Places,
    /// Gateways by namespace and name.
    gateways: HashMap<(&'a str, &'a str), &'a Object<Gateway>>,
    /// Full host names with the number of their ports, where it is known.
    hosts: HashMap<String, Option<usize>>,
    wildcards: Vec<&'a str>,
    /// Subsets by the host of their rule.
    subsets: HashMap<String, HashSet<&'a str>>,
    /// Wildcard hosts of rules.
    rule_wildcards: Vec<String>,
}

impl<'a> Known<'a> {
    fn new(resources: &'a ResourceSet, settings: &'a Settings, places: &'a Places) -> Self {
        let mut known = Known {
            settings,
            places,
            gateways: resources.gateways.iter().map(|g| (name_of(g), g.as_ref())).collect(),
            hosts: settings.hosts.keys().map(|name| (name.clone(), None)).collect(),
            wildcards: Vec::new(),
            subsets: HashMap::new(),
            rule_wildcards: Vec::new(),
        };
        for service in &resources.services {
            let name =
                format!("{}.{}.svc.{}", service.meta.name, service.meta.namespace, settings.gateway.cluster_domain);
            known.hosts.insert(name, Some(service.spec.ports.len()));
        }
        for entry in &resources.service_entries {
            for name in &entry.spec.hosts {
                if host::is_wildcard(name) {
                    known.wildcards.push(name);
                } else {
                    known.hosts.entry(name.clone()).or_insert(Some(entry.spec.ports.len()));
                }
            }
        }
        for rule in &resources.destination_rules {
            let name = known.full_name(&rule.spec.host, &rule.meta.namespace);
            if host::is_wildcard(&name) {
                known.rule_wildcards.push(name.clone());
            }
            let subsets = rule.spec.subsets.iter().map(|subset| subset.name.as_str());
            known.subsets.entry(name).or_default().extend(subsets);
        }
        known
    }

    fn full_name(&self, name: &str, namespace: &str) -> String {
        host::fully_qualified(name, namespace, &self.settings.gateway.cluster_domain)
    }

    fn has_host(&self, name: &str) -> bool {
        self.hosts.contains_key(name) || self.wildcards.iter().any(|wildcard| host::matches(name, wildcard))
    }

    fn has_subset(&self, host_name: &str, subset: &str) -> bool {
        let has = |rule_host: &str| self.subsets.get(rule_host).is_some_and(|names| names.contains(subset));
        has(host_name) || self.rule_wildcards.iter().any(|rule| host::is_subset_of(host_name, rule) && has(rule))
    }

    fn check_virtual_service(&self, service: &'a Object<VirtualService>, findings: &mut Vec<Finding>) {
        let mut told = Vec::new();
        for (index, name) in service.spec.gateways.iter().enumerate() {
            self.check_gateway(service, name, &format!("spec.gateways[{index}]"), &mut told);
        }
        for (index, route) in service.spec.http.iter().enumerate() {
            for (position, weighted) in route.route.iter().enumerate() {
                let Some(destination) = &weighted.destination else { continue };
                let path = || format!("spec.http[{index}].route[{position}].destination");
                self.check_destination(service, destination, path, &mut told);
            }
            for (position, entry) in route.matches.iter().enumerate() {
                for (number, name) in entry.gateways.iter().enumerate() {
                    let path = format!("spec.http[{index}].match[{position}].gateways[{number}]");
                    self.check_gateway(service, name, &path, &mut told);
                }
            }
            if told.len() >= MAX_FINDINGS {
                break;
            }
        }
        self.check_hosts_are_served(service, &mut told);
        findings.append(&mut told);
    }

    fn check_gateway(&self, service: &Object<VirtualService>, name: &str, path: &str, findings: &mut Vec<Finding>) {
        if name != "mesh" && self.gateway(service, name).is_none() {
            let finding =
                self.places.finding(service, &codes::REFERENCE_MISSING, path, format!("there is no Gateway `{name}`"));
            findings.push(finding.hint("write namespace/name if it is in another namespace"));
        }
    }

    /// `name`, `namespace/name` or the old `name.namespace…`.
    fn gateway(&self, service: &Object<VirtualService>, name: &str) -> Option<&'a Object<Gateway>> {
        let key = match name.split_once('/') {
            Some(pair) => pair,
            None => match name.split_once('.') {
                Some((name, rest)) => (rest.split('.').next().unwrap_or_default(), name),
                None => (service.meta.namespace.as_str(), name),
            },
        };
        self.gateways.get(&key).copied()
    }

    fn check_destination(
        &self,
        service: &Object<VirtualService>,
        destination: &Destination,
        path: impl Fn() -> String,
        findings: &mut Vec<Finding>,
    ) {
        let name = self.full_name(&destination.host, &service.meta.namespace);
        if !self.has_host(&name) {
            let message = format!("there is no Service or ServiceEntry for the host `{name}`; requests to it get 503");
            let finding = self.places.finding(service, &codes::REFERENCE_MISSING, &format!("{}.host", path()), message);
            return findings.push(finding.hint("add it to the manifests, or name its addresses in [hosts]"));
        }
        if !destination.subset.is_empty() && !self.has_subset(&name, &destination.subset) {
            let message = format!(
                "no DestinationRule for `{name}` has a subset `{}`; requests to it get 503",
                destination.subset
            );
            findings.push(self.places.finding(
                service,
                &codes::REFERENCE_MISSING,
                &format!("{}.subset", path()),
                message,
            ));
        }
        let several = self.hosts.get(&name).copied().flatten().is_some_and(|ports| ports > 1);
        if several && destination.port.is_none() && service.spec.gateways.iter().any(|name| name != "mesh") {
            let message = format!("`{name}` has several ports; without one here the port of the Gateway is used");
            findings.push(self.places.finding(service, &codes::SERVICE_PORT_NEEDED, &path(), message));
        }
    }

    /// Every host has a server in one of the gateways that exist and are ours.
    fn check_hosts_are_served(&self, service: &Object<VirtualService>, findings: &mut Vec<Finding>) {
        let gateways: Vec<_> = service.spec.gateways.iter().filter_map(|name| self.gateway(service, name)).collect();
        let ours: Vec<_> = gateways.into_iter().filter(|gateway| self.is_ours(&gateway.spec.selector)).collect();
        if ours.is_empty() {
            return;
        }
        for (index, name) in service.spec.hosts.iter().enumerate() {
            let full = self.full_name(name, &service.meta.namespace);
            if !ours.iter().any(|gateway| serves(gateway, &service.meta.namespace, &full)) {
                let message = format!("no server of its gateways serves the host `{name}`");
                let path = format!("spec.hosts[{index}]");
                findings.push(self.places.finding(service, &codes::HOST_NOT_IN_GATEWAY, &path, message));
            }
        }
    }

    fn is_ours(&self, selector: &Labels) -> bool {
        selector.iter().all(|(name, value)| self.settings.gateway.labels.get(name) == Some(value))
    }

    fn check_rule(&self, rule: &Object<DestinationRule>, findings: &mut Vec<Finding>) {
        let name = self.full_name(&rule.spec.host, &rule.meta.namespace);
        let meant = if host::is_wildcard(&name) {
            self.hosts.keys().any(|known| host::matches(known, &name))
                || self.wildcards.iter().any(|known| host::matches(known, &name))
        } else {
            self.has_host(&name)
        };
        if !meant {
            let message = format!("there is no Service or ServiceEntry for the host `{name}`");
            findings.push(self.places.finding(rule, &codes::UNKNOWN_RULE_HOST, "spec.host", message));
        }
    }
}

fn name_of<T>(object: &Object<T>) -> (&str, &str) {
    (&object.meta.namespace, &object.meta.name)
}

/// Whether a server lets in the host of a VirtualService of `namespace`.
fn serves(gateway: &Object<Gateway>, namespace: &str, name: &str) -> bool {
    gateway.spec.servers.iter().flat_map(|server| &server.hosts).any(|written| {
        let (from, pattern) = match written.split_once('/') {
            Some((".", pattern)) => (Some(gateway.meta.namespace.as_str()), pattern),
            Some(("*", pattern)) => (None, pattern),
            Some((from, pattern)) => (Some(from), pattern),
            None => (None, written.as_str()),
        };
        from.is_none_or(|from| from == namespace) && host::matches(pattern, name)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resource::core::{Service, ServicePort};
    use crate::resource::meta::{Meta, Origin};
    use crate::resource::networking::Subset;
    use crate::source::decode::decode;

    fn object<T>(name: &str, spec: T) -> Arc<Object<T>> {
        let meta = Meta { name: name.into(), namespace: "default".into(), ..Meta::default() };
        Arc::new(Object { meta, spec, origin: Origin::default() })
    }

    #[test]
    fn what_is_named_has_to_exist() {
        let spec = r#"{"hosts": ["a.com", "b.com"], "gateways": ["gw", "other/gw"], "http": [{"route": [
            {"destination": {"host": "reviews", "subset": "v1"}}, {"destination": {"host": "reviews", "subset": "v9"}},
            {"destination": {"host": "nobody"}}, {"destination": {"host": "many"}}]}]}"#;
        let virtual_service = decode::<VirtualService>(&serde_json::from_str(spec).unwrap(), "spec").unwrap().value;
        let gateway =
            decode::<Gateway>(&serde_json::json!({"servers": [{"hosts": ["default/a.com"]}]}), "spec").unwrap();
        let service = |ports: usize| Service { ports: vec![ServicePort::default(); ports], ..Service::default() };
        let rule = DestinationRule {
            host: "*.svc.cluster.local".into(),
            subsets: vec![Subset { name: "v1".into(), ..Subset::default() }],
            ..DestinationRule::default()
        };
        let resources = ResourceSet {
            virtual_services: vec![object("vs", virtual_service)],
            gateways: vec![object("gw", gateway.value)],
            services: vec![object("reviews", service(1)), object("many", service(2))],
            destination_rules: vec![
                object("all", rule),
                object("none", DestinationRule { host: "none.com".into(), ..Default::default() }),
            ],
            ..ResourceSet::default()
        };
        let codes: Vec<_> = analyze(&resources, &Settings::default(), &mut Places::default())
            .iter()
            .map(|finding| finding.code)
            .collect();
        assert_eq!(codes, ["IST0101", "IST0101", "IST0101", "IST0112", "IST0132", "IST0174"]);
    }
}
