//! What do the requests of one workload meet on their way out? Istio's outbound listeners and routes of a sidecar.

mod connections;
mod domains;
mod listeners;
mod routes;
mod rules;
mod scope;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::index::Index;
use super::issuance::Plan;
use super::memory::Memory;
use super::problems::Problems;
use super::services::{PortView, ServiceSource, ServiceView};
use super::work::Work;
use crate::resource::ResourceSet;
use crate::resource::finding::Finding;
use crate::resource::meta::Labels;
use crate::resource::settings::Settings;
use crate::snapshot::outbound::{OUTBOUND_PORT, Outbound};

/// Who asks: Sidecars, sourceLabels, sourceNamespace and exportTo look at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Workload {
    pub namespace: String,
    pub labels: Labels,
}

/// Makes what the workload's requests obey. `memory` is the workload's own: it keeps what its last generation was
/// made of.
pub(crate) fn compile(
    resources: &ResourceSet,
    settings: &Settings,
    workload: &Workload,
    now: i64,
    memory: &mut Memory,
) -> (Outbound, Vec<Finding>) {
    let mut settings = settings.clone();
    settings.gateway.namespace.clone_from(&workload.namespace);
    settings.gateway.labels.clone_from(&workload.labels);
    memory.follow(&settings);
    let mut index = Index::new(resources, &settings);
    index.prefer_own_namespace();
    let scope = scope::of_workload(&index, resources);
    let issued = Plan::default();
    let mut work = Work {
        index: &index,
        memory,
        problems: Problems::default(),
        issued: &issued,
        clusters: HashMap::new(),
        sessions: None,
        lone_certificates: BTreeMap::new(),
        now,
    };
    let cluster = rules::cluster_for_strangers(&mut work, scope.strangers);
    let strangers = Arc::new(connections::to_cluster(cluster, "outboundTrafficPolicy", 0, None));
    let black_hole = rules::black_hole(&mut work);
    let outbound = Outbound {
        listeners: listeners::build(&mut work, &scope.listeners, scope.strangers, &strangers),
        strangers,
        loops: Arc::new(connections::to_cluster(black_hole, "connections to the proxy itself", OUTBOUND_PORT, None)),
        addresses: routes::addresses(&work, &scope.listeners),
        proxy: Arc::new(super::policy(&settings)),
    };
    let findings = work.problems.into_findings();
    memory.finish(resources);
    (outbound, findings)
}

/// The addresses that clients ask for a service under: of its own, or ranges.
fn addresses(view: &ServiceView<'_>) -> Vec<String> {
    match &view.source {
        ServiceSource::Kubernetes(service) => {
            let own = Some(service.spec.cluster_ip.clone());
            own.filter(|address| !address.is_empty() && address != "None").into_iter().collect()
        }
        ServiceSource::Entries(entries) => entries.iter().flat_map(|entry| entry.spec.addresses.clone()).collect(),
        ServiceSource::Named(_) => Vec::new(),
    }
}

/// The same, of the ServiceEntries alone that have the port.
fn addresses_of_port(view: &ServiceView<'_>, port: PortView<'_>) -> Vec<String> {
    match &view.source {
        ServiceSource::Entries(entries) => {
            let has_port = |number: u32| number == u32::from(port.number);
            let with_port = entries.iter().filter(|entry| entry.spec.ports.iter().any(|port| has_port(port.number)));
            with_port.flat_map(|entry| entry.spec.addresses.clone()).collect()
        }
        _ => addresses(view),
    }
}

/// All names of a service for a workload whose own names end with `home`.
#[cfg(test)]
pub(super) fn names_of_service(host: &str, aliases: &[String], each_pod: bool, home: &str) -> Vec<String> {
    domains::of_service(host, aliases, each_pod, home).into_iter().map(|domain| domain.name).collect()
}

#[cfg(test)]
mod tests;
