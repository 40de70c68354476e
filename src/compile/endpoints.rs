//! Which addresses serve one port of a service?

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::index::is_subset;
use super::locality::{self, Placed, Wanted};
use super::pods::{PodView, Pods};
use super::services::{PortView, ServiceSource, ServiceView};
use super::spiffe;
use super::work::Work;
use crate::base::host::is_wildcard;
use crate::resource::codes;
use crate::resource::core::{EndpointPort, EndpointSlice, Endpoints, ObjectReference, Service, SliceEndpoint};
use crate::resource::meta::{Kind, Labels, Object};
use crate::resource::networking::{Resolution, ServiceEntry, WorkloadEntry};
use crate::resource::settings::{HostAddress, Settings};
use crate::snapshot::cluster::{DnsName, Encryption, Endpoint, EndpointSource, Places, WorkloadFacts};

/// All endpoints of one port, not yet chosen by a subset's labels.
#[derive(Default)]
pub(super) struct Found {
    candidates: Vec<Candidate>,
    /// Whether names are looked up; then a subset without endpoints has no cluster.
    pub dns: bool,
    /// Only the first address of a name is used.
    logical: bool,
    /// Each request names its own endpoint.
    requested: bool,
}

/// One address or name that serves.
pub(super) struct Candidate {
    address: String,
    pub port: u16,
    weight: u32,
    pub labels: Labels,
    pub namespace: String,
    workload: String,
    /// `region/zone/subzone`; empty if nobody says.
    locality: String,
    pub encryption: Encryption,
    /// Whether it takes nothing else than mutual TLS (PeerAuthentication STRICT).
    pub demands_tls: bool,
}

impl Found {
    /// The endpoints with all of `labels`.
    pub(super) fn select(&self, labels: &Labels) -> EndpointSource {
        if self.requested {
            return EndpointSource::Requested;
        }
        let chosen = self.chosen(labels);
        let addresses: Option<Vec<Endpoint>> = chosen.iter().map(|candidate| candidate.endpoint()).collect();
        match addresses {
            Some(endpoints) => EndpointSource::Static(endpoints),
            None => EndpointSource::Dns {
                names: chosen.into_iter().map(Candidate::dns_name).collect(),
                logical: self.logical,
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn all(&mut self) -> &mut [Candidate] {
        &mut self.candidates
    }

    /// Whether one of those with all of `labels` is spoken to as the cluster says.
    pub(super) fn has_encrypted(&self, labels: &Labels) -> bool {
        self.chosen(labels).iter().any(|candidate| candidate.encryption == Encryption::OfCluster)
    }

    /// Whether one of those with all of `labels` takes no plaintext.
    pub(super) fn demands_tls(&self, labels: &Labels) -> bool {
        self.chosen(labels).iter().any(|candidate| candidate.demands_tls)
    }

    /// Where the endpoints with all of `labels` are, if that matters.
    pub(super) fn places(&self, labels: &Labels, settings: &Settings, wanted: Wanted<'_>) -> Option<Places> {
        let chosen = self.chosen(labels);
        let placed = chosen.iter().map(|candidate| Placed {
            locality: &candidate.locality,
            labels: &candidate.labels,
            weight: candidate.weight,
        });
        locality::places(settings, wanted, &placed.collect::<Vec<_>>())
    }

    /// One address and port counts once, with the first weight; it may stand there again with the labels of another
    /// subset.
    fn chosen(&self, labels: &Labels) -> Vec<&Candidate> {
        let mut known = HashSet::new();
        let chosen = self.candidates.iter().filter(|candidate| is_subset(labels, &candidate.labels));
        chosen.filter(|candidate| known.insert((&candidate.address, candidate.port))).collect()
    }

    fn add(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
    }
}

impl Candidate {
    fn endpoint(&self) -> Option<Endpoint> {
        let address: IpAddr = self.address.parse().ok()?;
        Some(Endpoint {
            address: SocketAddr::new(address, self.port),
            weight: self.weight,
            encryption: self.encryption,
            workload: self.facts(),
        })
    }

    fn dns_name(&self) -> DnsName {
        DnsName {
            name: self.address.clone(),
            port: self.port,
            weight: self.weight,
            encryption: self.encryption,
            workload: self.facts(),
        }
    }

    fn facts(&self) -> Arc<WorkloadFacts> {
        let label = |names: &[&str], or_else: &str| {
            let found = names.iter().find_map(|name| self.labels.get(*name));
            found.map_or_else(|| or_else.to_owned(), Clone::clone)
        };
        let known = !self.workload.is_empty() || !self.labels.is_empty();
        Arc::new(WorkloadFacts {
            name: self.workload.clone(),
            namespace: if known { self.namespace.clone() } else { String::new() },
            app: label(&["app", "app.kubernetes.io/name"], ""),
            version: label(&["version", "app.kubernetes.io/version"], ""),
            canonical_service: label(
                &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"],
                &self.workload,
            ),
            canonical_revision: label(
                &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"],
                if known { "latest" } else { "" },
            ),
        })
    }
}

/// The endpoints of a service's port, of all subsets.
pub(super) fn find(work: &mut Work<'_>, view: &ServiceView<'_>, port: PortView<'_>) -> Found {
    let mut found = Found::default();
    match &view.source {
        ServiceSource::Kubernetes(service) => of_service(work, view, service, port, &mut found),
        ServiceSource::Entries(entries) => {
            for entry in entries {
                of_entry(work, view, entry, port, &mut found);
            }
        }
        ServiceSource::Named(addresses) => of_hosts(addresses, view.namespace, port.target, &Labels::new(), &mut found),
    }
    found
}

/// Slices, else Endpoints, and selected WorkloadEntries; a Service with none of them is looked up by its name.
fn of_service(
    work: &mut Work<'_>,
    view: &ServiceView<'_>,
    service: &Object<Service>,
    port: PortView<'_>,
    found: &mut Found,
) {
    let (namespace, name) = (&service.meta.namespace, &service.meta.name);
    let slices = work.index.slices(namespace, name);
    let object = work.index.endpoints(namespace, name).filter(|_| slices.is_none());
    let pods = work.index.pods_of_service(namespace, name);
    slices.unwrap_or_default().iter().for_each(|slice| of_slice(service, slice, pods, port, found));
    object.iter().for_each(|object| of_endpoints(service, object, pods, port, found));
    let workloads = work.index.workloads(namespace, &service.spec.selector);
    for object in &workloads {
        let labels = joined(&object.meta.labels, &object.spec.labels);
        add_workload(work, *object, "spec.address", &object.spec, &labels, &object.meta.name, port, found);
    }
    if slices.is_some() || object.is_some() || !workloads.is_empty() {
        return;
    }
    let headless = service.spec.cluster_ip == "None";
    let number = if headless { port.target } else { port.number };
    match work.index.fixed_addresses(&view.host) {
        Some(addresses) => of_hosts(addresses, namespace, port.target, &service.spec.selector, found),
        None => {
            let mut name = candidate(&view.host, number, &service.spec.selector, namespace, "");
            name.address = view.host.to_string();
            found.add(name);
        }
    }
}

/// The addresses of a slice that are ready. A Pod that is not known has the labels that its Service asks for.
fn of_slice(
    service: &Object<Service>,
    slice: &Object<EndpointSlice>,
    pods: &Pods<'_>,
    port: PortView<'_>,
    found: &mut Found,
) {
    let Some(number) = port_of(&slice.spec.ports, port) else { return };
    let labels = joined(&service.spec.selector, &slice.meta.labels);
    for endpoint in slice.spec.endpoints.iter().filter(|endpoint| serves(endpoint)) {
        let target = endpoint.target_ref.as_ref();
        for address in &endpoint.addresses {
            match pods.find(target, &slice.meta.namespace, address) {
                Some(pod) => found.add(of_pod(pod, address, number)),
                None => {
                    found.add(candidate(address, number, &labels, &service.meta.namespace, workload_of(target)));
                }
            }
        }
    }
}

fn serves(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.ready.unwrap_or(true) && !endpoint.conditions.terminating.unwrap_or(false)
}

fn of_endpoints(
    service: &Object<Service>,
    object: &Object<Endpoints>,
    pods: &Pods<'_>,
    port: PortView<'_>,
    found: &mut Found,
) {
    for subset in &object.spec.subsets {
        let Some(number) = port_of(&subset.ports, port) else { continue };
        for address in &subset.addresses {
            let target = address.target_ref.as_ref();
            match pods.find(target, &object.meta.namespace, &address.ip) {
                Some(pod) => found.add(of_pod(pod, &address.ip, number)),
                None => {
                    let (labels, namespace) = (&service.spec.selector, &service.meta.namespace);
                    found.add(candidate(&address.ip, number, labels, namespace, workload_of(target)));
                }
            }
        }
    }
}

fn of_pod(view: PodView<'_>, address: &str, port: u16) -> Candidate {
    let meta = &view.pod.meta;
    let found = candidate(address, port, &meta.labels, &meta.namespace, workload_of_pod(&meta.name));
    Candidate { locality: view.locality(), ..found }
}

/// ServiceEntry: STATIC takes addresses, DNS also names; without endpoints the host itself is looked up.
fn of_entry(
    work: &mut Work<'_>,
    view: &ServiceView<'_>,
    entry: &Object<ServiceEntry>,
    port: PortView<'_>,
    found: &mut Found,
) {
    let Some(own_port) = entry.spec.ports.iter().find(|own| own.name == port.name) else { return };
    let target = [own_port.target_port, own_port.number].into_iter().find(|number| *number > 0);
    let target = target.and_then(|number| u16::try_from(number).ok()).unwrap_or(port.number);
    let port = PortView { target, ..port };
    match entry.spec.resolution {
        Resolution::Static => {}
        Resolution::Dns => found.dns = true,
        Resolution::DnsRoundRobin => (found.dns, found.logical) = (true, true),
        Resolution::DynamicDns => return found.requested = true,
        // There is no original destination on a gateway.
        Resolution::None => {
            let message = "a gateway knows no address for resolution NONE: requests get 503";
            return work.problems.report(entry, &codes::NO_ORIGINAL_DESTINATION, "spec.resolution", message);
        }
    }
    for (number, endpoint) in entry.spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{number}].address");
        add_workload(work, entry, &path, endpoint, &endpoint.labels, "", port, found);
    }
    if let Some(selector) = &entry.spec.workload_selector {
        let workloads = work.index.workloads(&entry.meta.namespace, &selector.labels);
        for object in workloads {
            let labels = joined(&object.meta.labels, &object.spec.labels);
            add_workload(work, object, "spec.address", &object.spec, &labels, &object.meta.name, port, found);
        }
        for view in work.index.ready_pods(&entry.meta.namespace, &selector.labels) {
            let number = view.pod.port(port.name).and_then(|number| u16::try_from(number).ok()).unwrap_or(target);
            let address = view.pod.address().unwrap_or_default();
            found.add(of_pod(view, address, number));
        }
    } else if found.dns && entry.spec.endpoints.is_empty() && !is_wildcard(&view.host) {
        let labels = Labels::new();
        match work.index.fixed_addresses(&view.host) {
            Some(addresses) => of_hosts(addresses, view.namespace, target, &labels, found),
            None => found.add(candidate(&view.host, target, &labels, view.namespace, "")),
        }
    }
}

#[allow(clippy::too_many_arguments)] // one endpoint is told by all of them
fn add_workload<T: Kind>(
    work: &mut Work<'_>,
    object: &Object<T>,
    path: &str,
    entry: &WorkloadEntry,
    labels: &Labels,
    workload: &str,
    port: PortView<'_>,
    found: &mut Found,
) {
    let number = entry.ports.get(port.name).and_then(|number| u16::try_from(*number).ok()).unwrap_or(port.target);
    let is_address = entry.address.parse::<IpAddr>().is_ok();
    let fixed = work.index.fixed_addresses(&entry.address).filter(|_| !is_address);
    if let Some(addresses) = fixed {
        return of_hosts(addresses, &object.meta.namespace, number, labels, found);
    }
    if entry.address.is_empty() || entry.address.starts_with("unix:") || !(is_address || found.dns) {
        let message = format!("`{}` is no address that can be connected to", entry.address);
        return work.problems.report(object, &codes::ENDPOINT_ADDRESS, path, message);
    }
    let mut candidate = candidate(&entry.address, number, labels, &object.meta.namespace, workload);
    candidate.weight = entry.weight.max(1);
    candidate.locality.clone_from(&entry.locality);
    found.add(candidate);
}

/// `[hosts]` of the settings.
fn of_hosts(addresses: &[HostAddress], namespace: &str, port: u16, labels: &Labels, found: &mut Found) {
    for fixed in addresses {
        let labels = joined(labels, &fixed.labels);
        found.add(candidate(&fixed.address.to_string(), fixed.port.unwrap_or(port), &labels, namespace, ""));
    }
}

fn candidate(address: &str, port: u16, labels: &Labels, namespace: &str, workload: &str) -> Candidate {
    Candidate {
        address: address.to_owned(),
        port,
        weight: 1,
        labels: labels.clone(),
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        locality: String::new(),
        encryption: Encryption::default(),
        demands_tls: false,
    }
}

/// The identities of all that serve, whatever the port: any of them may answer (Istio's secure naming). With those that
/// the service itself names, each in every trust domain of the mesh.
pub(super) fn accounts(work: &Work<'_>, view: &ServiceView<'_>) -> Vec<String> {
    let index = work.index;
    let mut accounts = BTreeSet::new();
    let domain = index.settings.trust_domain();
    match &view.source {
        ServiceSource::Kubernetes(service) => {
            let (namespace, name) = (&service.meta.namespace, &service.meta.name);
            let annotation = |name: &str| {
                let words = service.meta.annotations.get(name).map(String::as_str).unwrap_or_default();
                words.split(',').filter(|word| !word.is_empty())
            };
            accounts.extend(annotation("alpha.istio.io/canonical-serviceaccounts").map(str::to_owned));
            let of_namespace = annotation("alpha.istio.io/kubernetes-serviceaccounts");
            accounts.extend(of_namespace.filter_map(|account| spiffe::of(domain, namespace, account)));
            let slices = index.slices(namespace, name);
            let object = index.endpoints(namespace, name).filter(|_| slices.is_none());
            let pods = index.pods_of_service(namespace, name);
            let endpoints = slices.unwrap_or_default().iter().flat_map(|slice| &slice.spec.endpoints);
            for endpoint in endpoints.filter(|endpoint| serves(endpoint)) {
                let found = |address: &String| pods.find(endpoint.target_ref.as_ref(), namespace, address);
                accounts.extend(endpoint.addresses.iter().filter_map(found).filter_map(|pod| pod.account(domain)));
            }
            let addresses = object.into_iter().flat_map(|object| &object.spec.subsets).flat_map(|one| &one.addresses);
            let found = addresses.filter_map(|one| pods.find(one.target_ref.as_ref(), namespace, &one.ip));
            accounts.extend(found.filter_map(|pod| pod.account(domain)));
            let workloads = index.workloads(namespace, &service.spec.selector);
            accounts
                .extend(workloads.iter().filter_map(|own| spiffe::of(domain, namespace, &own.spec.service_account)));
        }
        ServiceSource::Entries(entries) => {
            for entry in entries {
                let namespace = &entry.meta.namespace;
                accounts.extend(entry.spec.subject_alt_names.iter().cloned());
                let selector = entry.spec.workload_selector.as_ref().map(|selector| &selector.labels);
                let selected = selector.map(|labels| index.workloads(namespace, labels)).unwrap_or_default();
                let workloads = entry.spec.endpoints.iter().chain(selected.iter().map(|object| &object.spec));
                accounts.extend(workloads.filter_map(|own| spiffe::of(domain, namespace, &own.service_account)));
                let pods = selector.map(|labels| index.ready_pods(namespace, labels)).unwrap_or_default();
                accounts.extend(pods.into_iter().filter_map(|pod| pod.account(domain)));
            }
        }
        ServiceSource::Named(_) => {}
    }
    spiffe::in_all_domains(accounts, &index.settings.mesh.trust.aliases)
}

/// The port of a slice that has the service port's name.
fn port_of(ports: &[EndpointPort], wanted: PortView<'_>) -> Option<u16> {
    let named = ports.iter().find(|port| port.name == wanted.name);
    u16::try_from(named?.port).ok().filter(|number| *number > 0)
}

fn joined(a: &Labels, b: &Labels) -> Labels {
    a.iter().chain(b).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn workload_of(target: Option<&ObjectReference>) -> &str {
    target.filter(|target| target.kind == "Pod").map(|pod| workload_of_pod(&pod.name)).unwrap_or_default()
}

/// `reviews-v1` of the pod `reviews-v1-6dbf8c5b5d-x2x7q`: the hash and the random letters are cut.
fn workload_of_pod(pod: &str) -> &str {
    let is_hash = |text: &str| text.len() >= 8 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    match pod.rsplit_once('-') {
        Some((rest, random)) if random.len() == 5 => match rest.rsplit_once('-') {
            Some((name, hash)) if is_hash(hash) => name,
            _ => rest,
        },
        _ => pod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once_for_each_choice_of_labels() {
        let labels = |version: &str| Labels::from([("version".to_owned(), version.to_owned())]);
        let mut found = Found::default();
        for (address, version) in [("10.0.0.7", "v1"), ("10.0.0.7", "v2"), ("10.0.0.8", "v2"), ("10.0.0.7", "v2")] {
            found.add(candidate(address, 80, &labels(version), "default", ""));
        }
        for (wanted, expected) in [
            (Labels::new(), vec!["10.0.0.7:80", "10.0.0.8:80"]),
            (labels("v1"), vec!["10.0.0.7:80"]),
            (labels("v2"), vec!["10.0.0.7:80", "10.0.0.8:80"]),
        ] {
            let EndpointSource::Static(endpoints) = found.select(&wanted) else { panic!("a name") };
            let addresses: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            assert_eq!(addresses, expected);
        }
    }

    #[test]
    fn the_workload_is_read_from_the_pod() {
        for (pod, workload) in
            [("reviews-v1-6dbf8c5b5d-x2x7q", "reviews-v1"), ("db-0", "db-0"), ("agent-x2x7q", "agent"), ("a", "a")]
        {
            assert_eq!(workload_of_pod(pod), workload);
        }
    }
}
