//! Which objects belong to a name? Services by host, VirtualServices by gateway, everything in Istio's order.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::destination_rules::{MergedRule, Rules};
use super::peer_policies::PeerPolicies;
use super::pods::{PodView, Pods};
use super::services::{ServiceSource, ServiceView};
use super::trail::{Answer, Question, Trail, Trails};
use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::core::{EndpointSlice, Endpoints, Secret};
use crate::resource::meta::{Labels, Object};
use crate::resource::networking::{VirtualService, WorkloadEntry};
use crate::resource::settings::{HostAddress, Settings};
use crate::resource::workloads::ConfigMap;

/// The objects of one generation by the names under which they are looked up.
pub(super) struct Index<'a> {
    pub settings: &'a Settings,
    rules: Rules<'a>,
    services: HashMap<Cow<'a, str>, Vec<ServiceView<'a>>>,
    /// How many services were added.
    seen: usize,
    bound: HashMap<String, Vec<&'a Arc<Object<VirtualService>>>>,
    virtual_services: HashMap<(&'a str, &'a str), &'a Arc<Object<VirtualService>>>,
    secrets: HashMap<(&'a str, &'a str), &'a Arc<Object<Secret>>>,
    slices: HashMap<&'a str, HashMap<&'a str, Vec<&'a Object<EndpointSlice>>>>,
    endpoints: HashMap<(&'a str, &'a str), &'a Object<Endpoints>>,
    config_maps: HashMap<(&'a str, &'a str), &'a Object<ConfigMap>>,
    workload_entries: HashMap<&'a str, Vec<&'a Object<WorkloadEntry>>>,
    pods: Pods<'a>,
    peer_policies: PeerPolicies<'a>,
    trails: RefCell<Trails>,
}

impl<'a> Index<'a> {
    pub(super) fn new(resources: &'a ResourceSet, settings: &'a Settings) -> Index<'a> {
        let mut index = Index {
            settings,
            rules: Rules::new(&resources.destination_rules, settings),
            services: HashMap::new(),
            seen: 0,
            bound: HashMap::new(),
            virtual_services: HashMap::new(),
            secrets: resources.secrets.iter().map(|secret| (secret.identity(), secret)).collect(),
            slices: HashMap::new(),
            endpoints: resources.endpoints.iter().map(|object| (object.identity(), &**object)).collect(),
            config_maps: resources.config_maps.iter().map(|object| (object.identity(), &**object)).collect(),
            workload_entries: HashMap::new(),
            pods: Pods::new(resources),
            peer_policies: PeerPolicies::new(&resources.peer_authentications, &settings.gateway.root_namespace),
            trails: RefCell::default(),
        };
        index.add_services(resources);
        index.add_virtual_services(resources);
        for slice in sorted(&resources.endpoint_slices) {
            if let Some(service) = slice.meta.labels.get("kubernetes.io/service-name") {
                index.slices.entry(&slice.meta.namespace).or_default().entry(service).or_default().push(slice);
            }
        }
        for entry in sorted(&resources.workload_entries) {
            index.workload_entries.entry(&entry.meta.namespace).or_default().push(entry);
        }
        index
    }

    /// Kubernetes Services come before ServiceEntries of the same host, and older before younger.
    fn add_services(&mut self, resources: &'a ResourceSet) {
        let domain = &self.settings.gateway.cluster_domain;
        for service in sorted(&resources.services) {
            let exported = service.meta.annotations.get("networking.istio.io/exportTo");
            let written: Vec<String> =
                exported.map(|words| words.split(',').map(|word| word.trim().to_owned()).collect()).unwrap_or_default();
            let words = or_default(&written, &self.settings.mesh.service_export_to);
            if !self.is_visible(words, &service.meta.namespace) {
                continue;
            }
            let host = format!("{}.{}.svc.{domain}", service.meta.name, service.meta.namespace);
            self.add_service(Cow::Owned(host), &service.meta.namespace, ServiceSource::Kubernetes(service));
        }
        for entry in sorted(&resources.service_entries) {
            let words = or_default(&entry.spec.export_to, &self.settings.mesh.service_export_to);
            if !self.is_visible(words, &entry.meta.namespace) {
                continue;
            }
            for host in &entry.spec.hosts {
                let views = self.services.get_mut(host.as_str()).into_iter().flatten();
                let mut own = views.filter(|view| view.namespace == entry.meta.namespace);
                match own.find_map(|view| view.entries_mut()) {
                    Some(entries) => entries.push(entry),
                    None => {
                        let source = ServiceSource::Entries(vec![entry]);
                        self.add_service(Cow::Borrowed(host), &entry.meta.namespace, source);
                    }
                }
            }
        }
        let home = self.settings.gateway.default_namespace.as_str();
        for (name, addresses) in &self.settings.hosts {
            let host = self.qualify(name, home);
            let is_service = host.ends_with(&format!(".svc.{domain}"));
            let namespace = name.split('.').nth(1).filter(|_| is_service).unwrap_or(home);
            if !self.services.contains_key(host.as_str()) {
                self.add_service(Cow::Owned(host), namespace, ServiceSource::Named(addresses));
            }
        }
    }

    /// The addresses that the settings give a host; a Service may stand there as `name.namespace`, and as `name` if it
    /// is of the default namespace.
    pub(super) fn fixed_addresses(&self, host: &str) -> Option<&'a [HostAddress]> {
        let gateway = &self.settings.gateway;
        let short = host.strip_suffix(&gateway.cluster_domain).and_then(|rest| rest.strip_suffix(".svc."));
        let shortest = short.and_then(|short| short.strip_suffix(&gateway.default_namespace)?.strip_suffix('.'));
        let names = [Some(host), short, shortest];
        names.into_iter().flatten().find_map(|name| self.settings.hosts.get(name)).map(Vec::as_slice)
    }

    fn add_service(&mut self, host: Cow<'a, str>, namespace: &'a str, source: ServiceSource<'a>) {
        let view = ServiceView { host: host.clone(), namespace, source, place: self.seen };
        self.seen += 1;
        self.services.entry(host).or_default().push(view);
    }

    /// Istio's order for a gateway: private ones of our namespace, then those exported to it by name, then public
    /// ones; each by age.
    fn add_virtual_services(&mut self, resources: &'a ResourceSet) {
        let ours = self.settings.gateway.namespace.as_str();
        let mut ordered: Vec<(u8, &'a Arc<Object<VirtualService>>)> =
            Vec::with_capacity(resources.virtual_services.len());
        for object in &resources.virtual_services {
            self.virtual_services.insert(object.identity(), object);
            let words = or_default(&object.spec.export_to, &self.settings.mesh.virtual_service_export_to);
            let private = words.iter().any(|word| word == "." || *word == object.meta.namespace);
            let group = match words.is_empty() || words.iter().any(|word| word == "*") {
                true => 2,
                false if private && object.meta.namespace == ours => 0,
                false if words.iter().any(|word| word == ours) => 1,
                false => continue,
            };
            ordered.push((group, object));
        }
        ordered.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| Object::by_age(a.1, b.1)));
        for (_, object) in ordered {
            let mut names: Vec<String> =
                object.spec.gateways.iter().map(|name| gateway_key(name, &object.meta.namespace)).collect();
            names.sort_unstable();
            names.dedup();
            // Delegates are bound to nothing.
            if names.is_empty() && !object.spec.hosts.is_empty() {
                names.push("mesh".to_owned());
            }
            for name in names {
                self.bound.entry(name).or_default().push(object);
            }
        }
    }

    /// Whether an `exportTo` list of an object of `namespace` reaches this gateway.
    fn is_visible(&self, words: &[String], namespace: &str) -> bool {
        let ours = self.settings.gateway.namespace.as_str();
        words.is_empty() || words.iter().any(|word| word == "*" || word == ours || (word == "." && namespace == ours))
    }

    /// The VirtualServices bound to a gateway (`namespace/name`), in the order in which their rules are joined.
    pub(super) fn bound_to(&self, gateway: &str) -> &[&'a Arc<Object<VirtualService>>] {
        self.bound.get(gateway).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn virtual_service(&self, namespace: &str, name: &str) -> Option<&'a Arc<Object<VirtualService>>> {
        let found = self.virtual_services.get(&(namespace, name)).copied();
        self.note(Answer::of(found.map(|object| &**object).into_iter()), || Question::VirtualService {
            namespace: namespace.into(),
            name: name.into(),
        });
        found
    }

    /// The services of a host that this gateway sees; the first one makes the cluster.
    pub(super) fn services(&self, host: &str) -> &[ServiceView<'a>] {
        let found = self.services.get(host).map(Vec::as_slice).unwrap_or_default();
        self.note(answer_of_services(found), || Question::Services { host: host.into() });
        found
    }

    /// Every service that is seen here: Kubernetes Services before ServiceEntries, older before younger.
    pub(super) fn all_services(&self) -> Vec<&ServiceView<'a>> {
        let mut all: Vec<&ServiceView<'a>> = self.services.values().flatten().collect();
        all.sort_by_key(|view| view.place);
        all
    }

    /// From now on a host means the service of our own namespace, if there is one, as it does for workloads.
    pub(super) fn prefer_own_namespace(&mut self) {
        let ours = self.settings.gateway.namespace.as_str();
        self.services.values_mut().for_each(|views| views.sort_by_key(|view| view.namespace != ours));
    }

    /// The DestinationRule that holds for a service.
    pub(super) fn rule(&self, host: &str, namespace: &str) -> Option<MergedRule<'a>> {
        let found = self.rules.find(host, namespace);
        self.note(answer_of_rule(found.as_ref()), || Question::Rule { host: host.into(), namespace: namespace.into() });
        found
    }

    /// The services of the mesh by host, in the order of names: the first of each host that this gateway sees.
    pub(super) fn mesh_services(&self) -> Vec<&ServiceView<'a>> {
        let first = self.services.values().filter_map(|views| views.first());
        let mut services: Vec<_> = first.filter(|view| view.is_in_mesh()).collect();
        services.sort_by(|a, b| a.host.cmp(&b.host));
        services
    }

    /// Follows ExternalName Services to a service that is known under its own name; other hosts stay.
    pub(super) fn resolve_alias(&self, host: &str) -> String {
        let mut resolved = host.to_owned();
        for _ in 0..10 {
            match self.services(&resolved).first().and_then(ServiceView::external_name) {
                Some(target) => resolved = target.to_owned(),
                None => break,
            }
        }
        resolved
    }

    /// A Secret of the gateway's own namespace.
    pub(super) fn secret(&self, name: &str) -> Option<&'a Arc<Object<Secret>>> {
        let found = self.secrets.get(&(self.settings.gateway.namespace.as_str(), name)).copied();
        let answer = Answer::of(found.map(|object| &**object).into_iter());
        self.note(answer, || Question::Secret { name: name.into() });
        found
    }

    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<&'a Object<ConfigMap>> {
        self.config_maps.get(&(namespace, name)).copied()
    }

    /// The slices of a Service; `None` if there are none at all.
    pub(super) fn slices(&self, namespace: &str, service: &str) -> Option<&[&'a Object<EndpointSlice>]> {
        let found = self.slices.get(namespace).and_then(|services| services.get(service)).map(Vec::as_slice);
        self.note(Answer::of(found.into_iter().flatten().copied()), || Question::Slices {
            namespace: namespace.into(),
            service: service.into(),
        });
        found
    }

    pub(super) fn endpoints(&self, namespace: &str, service: &str) -> Option<&'a Object<Endpoints>> {
        let found = self.endpoints.get(&(namespace, service)).copied();
        self.note(Answer::of(found.into_iter()), || Question::Endpoints {
            namespace: namespace.into(),
            service: service.into(),
        });
        found
    }

    /// The WorkloadEntries of a namespace with all of these labels; none for an empty selector.
    pub(super) fn workloads(&self, namespace: &str, selector: &Labels) -> Vec<&'a Object<WorkloadEntry>> {
        if selector.is_empty() {
            return Vec::new();
        }
        let all = self.workload_entries.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let label = |entry: &Object<WorkloadEntry>, key: &str, value: &String| {
            entry.spec.labels.get(key).or(entry.meta.labels.get(key)) == Some(value)
        };
        let chosen = |entry: &&Object<WorkloadEntry>| selector.iter().all(|(key, value)| label(entry, key, value));
        let found: Vec<_> = all.iter().copied().filter(chosen).collect();
        self.note(Answer::of(found.iter().copied()), || Question::Workloads {
            namespace: namespace.into(),
            selector: selector.clone(),
        });
        found
    }

    /// The Pods of a namespace with all of these labels that take traffic; none for an empty selector.
    pub(super) fn ready_pods(&self, namespace: &str, selector: &Labels) -> Vec<PodView<'a>> {
        if selector.is_empty() {
            return Vec::new();
        }
        let found = self.pods.ready(namespace, selector);
        self.note(answer_of_pods(found.iter().copied()), || Question::Pods {
            namespace: namespace.into(),
            selector: selector.clone(),
        });
        found
    }

    /// Where the Pods behind the slices of a Service, or else its Endpoints, are found.
    pub(super) fn pods_of_service(&self, namespace: &str, service: &str) -> &Pods<'a> {
        let answer = self.answer_of_service_pods(namespace, service);
        self.note(answer, || Question::PodsOfService { namespace: namespace.into(), service: service.into() });
        &self.pods
    }

    fn answer_of_service_pods(&self, namespace: &str, service: &str) -> Answer {
        let slices = self.slices.get(namespace).and_then(|services| services.get(service));
        let in_slices = slices.into_iter().flatten().flat_map(|slice| &slice.spec.endpoints).flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter();
            addresses.filter_map(|address| self.pods.find(endpoint.target_ref.as_ref(), namespace, address))
        });
        let object = self.endpoints.get(&(namespace, service)).filter(|_| slices.is_none());
        let subsets = object.into_iter().flat_map(|object| &object.spec.subsets);
        let in_object = subsets
            .flat_map(|subset| &subset.addresses)
            .filter_map(|address| self.pods.find(address.target_ref.as_ref(), namespace, &address.ip));
        answer_of_pods(in_slices.chain(in_object))
    }

    /// What workloads of a namespace say of mutual TLS.
    pub(super) fn peer_policies(&self, namespace: &str) -> &PeerPolicies<'a> {
        let found = Answer::of(self.peer_policies.of(namespace));
        self.note(found, || Question::PeerPolicies { namespace: namespace.into() });
        &self.peer_policies
    }

    /// Look-ups from here on belong to a result in the making.
    pub(super) fn begin_trail(&self) {
        self.trails.borrow_mut().begin();
    }

    /// The look-ups of the innermost result in the making.
    pub(super) fn end_trail(&self) -> Arc<Trail> {
        self.trails.borrow_mut().end()
    }

    pub(super) fn note(&self, answer: Answer, question: impl FnOnce() -> Question) {
        self.trails.borrow_mut().note(answer, question);
    }

    /// What a look-up gives in this generation; `None` for clusters, which are no objects.
    pub(super) fn answer(&self, question: &Question) -> Option<Answer> {
        Some(match question {
            Question::Services { host } => answer_of_services(self.services(host)),
            Question::Rule { host, namespace } => answer_of_rule(self.rules.find(host, namespace).as_ref()),
            Question::Slices { namespace, service } => {
                Answer::of(self.slices(namespace, service).into_iter().flatten().copied())
            }
            Question::Endpoints { namespace, service } => Answer::of(self.endpoints(namespace, service).into_iter()),
            Question::Workloads { namespace, selector } => Answer::of(self.workloads(namespace, selector).into_iter()),
            Question::Pods { namespace, selector } => answer_of_pods(self.ready_pods(namespace, selector).into_iter()),
            Question::PodsOfService { namespace, service } => self.answer_of_service_pods(namespace, service),
            Question::PeerPolicies { namespace } => Answer::of(self.peer_policies.of(namespace)),
            Question::Secret { name } => Answer::of(self.secret(name).map(|object| &**object).into_iter()),
            Question::VirtualService { namespace, name } => {
                Answer::of(self.virtual_service(namespace, name).map(|object| &**object).into_iter())
            }
            Question::Cluster { .. } => return None,
        })
    }

    /// A short name completed by the namespace of the object that holds it.
    pub(super) fn qualify(&self, name: &str, namespace: &str) -> String {
        host::fully_qualified(name, namespace, &self.settings.gateway.cluster_domain)
    }
}

/// An object's `exportTo`, or the mesh's if it has none.
pub(super) fn or_default<'w>(written: &'w [String], default: &'w [String]) -> &'w [String] {
    if written.is_empty() { default } else { written }
}

/// Whether `labels` holds all of `wanted`.
pub(super) fn is_subset(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The key of a gateway as VirtualServices name it: `mesh`, `name`, `namespace/name`, or the old `name.namespace`.
pub(super) fn gateway_key(name: &str, namespace: &str) -> String {
    match (name.split_once('/'), name.split_once('.')) {
        _ if name == "mesh" => name.to_owned(),
        (Some((".", name)), _) => format!("{namespace}/{name}"),
        (Some(_), _) => name.to_owned(),
        (None, Some((name, rest))) => format!("{}/{name}", rest.split('.').next().unwrap_or_default()),
        (None, None) => format!("{namespace}/{name}"),
    }
}

fn answer_of_services(views: &[ServiceView<'_>]) -> Answer {
    Answer::of_addresses(views.iter().flat_map(ServiceView::addresses))
}

fn answer_of_pods<'a>(pods: impl Iterator<Item = PodView<'a>>) -> Answer {
    Answer::of_addresses(pods.flat_map(|view| {
        [std::ptr::from_ref(view.pod).addr(), view.node.map_or(0, |node| std::ptr::from_ref(node).addr())]
    }))
}

fn answer_of_rule(rule: Option<&MergedRule<'_>>) -> Answer {
    Answer::of(rule.into_iter().flat_map(MergedRule::objects))
}

/// Oldest first.
pub(super) fn sorted<T>(objects: &[Arc<Object<T>>]) -> Vec<&Object<T>> {
    let mut sorted: Vec<&Object<T>> = objects.iter().map(|object| &**object).collect();
    sorted.sort_by(|a, b| Object::by_age(a, b));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_named_in_several_ways() {
        for (name, expected) in [
            ("gw", "app/gw"),
            ("ns/gw", "ns/gw"),
            ("./gw", "app/gw"),
            ("gw.ns.svc.cluster.local", "ns/gw"),
            ("mesh", "mesh"),
        ] {
            assert_eq!(gateway_key(name, "app"), expected);
        }
    }
}
