//! Which hosts exist, who sees them, and which ports have they? Services, ServiceEntries and `[hosts]` by name, as
//! Istio's analyzers look them up (pkg/config/analysis/analyzers/util).

use std::borrow::Cow;
use std::collections::HashMap;

use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::meta::Labels;
use crate::resource::settings::Settings;

/// Visible in every namespace.
pub(super) const EVERYWHERE: &str = "*";

/// The hosts of one run.
pub(super) struct Hosts<'a> {
    domain: &'a str,
    exact: HashMap<Cow<'a, str>, Vec<Scoped<'a>>>,
    /// By what follows the `*`.
    wildcards: HashMap<&'a str, Vec<Scoped<'a>>>,
}

struct Scoped<'a> {
    /// A namespace, or `*`.
    scope: &'a str,
    host: Host<'a>,
}

/// What is known of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'a> {
    pub ports: Ports<'a>,
    /// The selector of a ServiceEntry; `None` for everything else.
    pub workload_labels: Option<&'a Labels>,
}

/// The ports of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ports<'a> {
    Service(&'a [crate::resource::core::ServicePort]),
    Entry(&'a [crate::resource::networking::ServicePort]),
    /// Any port may be meant.
    Any,
}

impl Ports<'_> {
    /// The port numbers in their order; `None` if any may be meant.
    pub(super) fn numbers(self) -> Option<Vec<u32>> {
        match self {
            Ports::Service(ports) => Some(ports.iter().map(|port| port.port).collect()),
            Ports::Entry(ports) => Some(ports.iter().map(|port| port.number).collect()),
            Ports::Any => None,
        }
    }
}

impl<'a> Hosts<'a> {
    pub(super) fn new(resources: &'a ResourceSet, settings: &'a Settings) -> Self {
        let domain = settings.gateway.cluster_domain.as_str();
        let mut hosts = Hosts { domain, exact: HashMap::new(), wildcards: HashMap::new() };
        for entry in &resources.service_entries {
            let selector = entry.spec.workload_selector.as_ref();
            let known = Host { ports: Ports::Entry(&entry.spec.ports), workload_labels: selector.map(|it| &it.labels) };
            for name in &entry.spec.hosts {
                for scope in export_scopes(&entry.spec.export_to, &entry.meta.namespace) {
                    hosts.add(hosts.qualify(name, &entry.meta.namespace), scope, known);
                }
            }
        }
        for service in &resources.services {
            let known = Host { ports: Ports::Service(&service.spec.ports), workload_labels: None };
            let name = hosts.qualify(&service.meta.name, &service.meta.namespace);
            match service.meta.annotations.get("networking.istio.io/exportTo").map(String::as_str) {
                None | Some("") => hosts.add(name, EVERYWHERE, known),
                Some(words) => {
                    for word in words.split(',') {
                        let scope = if word == "." { service.meta.namespace.as_str() } else { word };
                        hosts.add(name.clone(), scope, known);
                    }
                }
            }
        }
        for name in settings.hosts.keys() {
            let known = Host { ports: Ports::Any, workload_labels: None };
            hosts.add(hosts.qualify(name, &settings.gateway.default_namespace), EVERYWHERE, known);
            // A Service may stand there as `name.namespace`.
            if name.contains('.') {
                hosts.add(Cow::Owned(format!("{name}.svc.{domain}")), EVERYWHERE, known);
            }
        }
        hosts
    }

    fn qualify(&self, name: &'a str, namespace: &str) -> Cow<'a, str> {
        if name.contains('.') || host::is_wildcard(name) {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(format!("{name}.{namespace}.svc.{}", self.domain))
        }
    }

    fn add(&mut self, name: Cow<'a, str>, scope: &'a str, host: Host<'a>) {
        let scoped = Scoped { scope, host };
        match name {
            Cow::Borrowed(name) if host::is_wildcard(name) => {
                self.wildcards.entry(name.trim_start_matches('*')).or_default().push(scoped);
            }
            name => self.exact.entry(name).or_default().push(scoped),
        }
    }

    /// The host that an object of `namespace` means, which is itself seen by `export_to`. The name may be short; a
    /// wildcard is looked up as such.
    pub(super) fn find(&self, name: &str, namespace: &str, export_to: &[String]) -> Option<Host<'a>> {
        let full = host::fully_qualified(name, namespace, self.domain);
        self.find_named(&full, namespace, export_to).or_else(|| self.find_wildcard(name, namespace))
    }

    fn find_named(&self, full: &str, namespace: &str, export_to: &[String]) -> Option<Host<'a>> {
        let known = match full.strip_prefix('*') {
            Some(tail) => self.wildcards.get(tail)?,
            None => self.exact.get(full)?,
        };
        let at = |scope: &str| known.iter().rfind(|known| known.scope == scope).map(|known| known.host);
        at(EVERYWHERE).or_else(|| match export_to {
            [] => at(namespace),
            words => words.iter().find_map(|word| at(if word == "." { namespace } else { word })),
        })
    }

    /// The wildcard host whose tail is a tail of the name.
    fn find_wildcard(&self, name: &str, namespace: &str) -> Option<Host<'a>> {
        if self.wildcards.is_empty() {
            return None;
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        let tails = name.char_indices().map(|(at, _)| name.get(at..).unwrap_or_default()).chain([""]);
        let visible = |known: &&Scoped<'_>| known.scope == EVERYWHERE || known.scope == namespace;
        tails.filter_map(|tail| self.wildcards.get(tail)).flatten().find(visible).map(|known| known.host)
    }

    /// Whether some host that exists is meant by a wildcard, in whatever namespace it is seen.
    pub(super) fn has_some(&self, wildcard: &str) -> bool {
        self.exact.keys().any(|known| host::matches(known, wildcard))
            || self.wildcards.keys().any(|tail| host::matches(&format!("*{tail}"), wildcard))
    }
}

/// Where something is seen that is exported to `words`: namespaces, or `*` alone.
pub(super) fn export_scopes<'a>(words: &'a [String], namespace: &'a str) -> Vec<&'a str> {
    if exports_to_all(words) {
        return vec![EVERYWHERE];
    }
    let mut scopes: Vec<&str> = words.iter().map(|word| if word == "." { namespace } else { word.as_str() }).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// Whether an exportTo means every namespace.
fn exports_to_all(words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| word == EVERYWHERE)
}
