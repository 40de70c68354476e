//! What becomes of the files? Gather, analyze and compile in one go, away from the runtime's thread.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identity::{self, IdentityStatus};
use crate::analysis::{self, Look, judge};
use crate::base::clock;
use crate::certs::identity::Held;
use crate::compile::{self, compile};
use crate::resource::ResourceSet;
use crate::resource::core::Secret;
use crate::resource::finding::Finding;
use crate::resource::meta::Object;
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::source::{self, gather};

/// What one run leaves to the next.
#[derive(Default)]
pub(crate) struct Kept {
    source: source::Cache,
    analysis: analysis::Memory,
    compile: compile::Memory,
    /// What stands for our identity, if a source gave it.
    identity: Option<Arc<Object<Secret>>>,
    /// What was read and said the last time; `None` before the first good run.
    last: Option<Last>,
}

struct Last {
    settings: Arc<Settings>,
    resources: ResourceSet,
    /// What there is to say, in the order in which it is found.
    gathered: Vec<Finding>,
    decided: Vec<Finding>,
    surveyed: Vec<Finding>,
    /// When it was built, in seconds since 1970.
    now: i64,
}

/// What a configuration became.
pub(crate) enum Built {
    /// To be put in force, and then surveyed. `watched` is what has to be watched from now on.
    Changed {
        snapshot: Snapshot,
        settings: Arc<Settings>,
        watched: BTreeSet<PathBuf>,
        identity: Option<IdentityStatus>,
    },
    /// The same content as before.
    Unchanged { watched: BTreeSet<PathBuf>, findings: Vec<Finding>, identity: Option<IdentityStatus> },
    /// No settings could be read at all.
    Failed { findings: Vec<Finding> },
}

/// Reads the configuration and makes the snapshot of `generation` of it, unless `same_would_do` and it is what is in
/// force already. `held` is what a source says of our identity.
pub(crate) fn build(path: &Path, kept: &mut Kept, generation: u64, same_would_do: bool, held: &Held) -> Built {
    let mut gathered = match gather(path, &mut kept.source) {
        Ok(gathered) => gathered,
        Err(findings) => return Built::Failed { findings },
    };
    let now = clock::now();
    identity::overlay(held, &gathered.settings, &mut kept.identity, &mut gathered.resources);
    let identity = identity::status(held, &gathered.settings, &gathered.resources);
    gathered.findings.extend(identity.iter().flat_map(|status| identity::findings(status, now)));
    let watched: BTreeSet<PathBuf> = gathered.watched.into_iter().collect();
    let now = clock::now();
    if let Some(last) = &mut kept.last
        && same_would_do
        && *last.settings == gathered.settings
        && same_objects(&last.resources, &gathered.resources)
        && kept.compile.next_date().is_none_or(|date| now < date)
    {
        last.gathered = gathered.findings;
        return Built::Unchanged { watched, findings: last.findings(), identity };
    }
    let settings = Arc::new(gathered.settings);
    let (accepted, mut decided) = judge(&gathered.resources, &mut kept.analysis);
    let (snapshot, findings) = compile(&accepted, &settings, generation, now, &mut kept.compile);
    decided.extend(findings);
    kept.last = Some(Last {
        settings: Arc::clone(&settings),
        resources: gathered.resources,
        gathered: gathered.findings,
        decided,
        surveyed: Vec::new(),
        now,
    });
    Built::Changed { snapshot, settings, watched, identity }
}

/// Looks at the objects of the last build together, and gives all there is to say about it.
pub(crate) fn survey(kept: &mut Kept) -> Vec<Finding> {
    let Some(last) = &mut kept.last else { return Vec::new() };
    let look = Look { now: last.now, ..Look::default() };
    last.surveyed = analysis::survey(&last.settings, look, &mut kept.analysis);
    last.findings()
}

impl Last {
    fn findings(&self) -> Vec<Finding> {
        self.gathered.iter().chain(&self.decided).chain(&self.surveyed).cloned().collect()
    }
}

/// Whether two reads gave the very same objects: the source hands unchanged ones out again.
fn same_objects(a: &ResourceSet, b: &ResourceSet) -> bool {
    fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    }
    // Named one by one, so that a new kind cannot be forgotten.
    let ResourceSet {
        gateways,
        virtual_services,
        destination_rules,
        service_entries,
        workload_entries,
        workload_groups,
        sidecars,
        proxy_configs,
        envoy_filters,
        peer_authentications,
        request_authentications,
        authorization_policies,
        telemetries,
        wasm_plugins,
        traffic_extensions,
        services,
        endpoint_slices,
        endpoints,
        secrets,
        namespaces,
        pods,
        deployments,
        config_maps,
        nodes,
        definitions,
        kubernetes_gateways,
        http_routes,
        grpc_routes,
    } = a;
    same(gateways, &b.gateways)
        && same(virtual_services, &b.virtual_services)
        && same(destination_rules, &b.destination_rules)
        && same(service_entries, &b.service_entries)
        && same(workload_entries, &b.workload_entries)
        && same(workload_groups, &b.workload_groups)
        && same(sidecars, &b.sidecars)
        && same(proxy_configs, &b.proxy_configs)
        && same(envoy_filters, &b.envoy_filters)
        && same(peer_authentications, &b.peer_authentications)
        && same(request_authentications, &b.request_authentications)
        && same(authorization_policies, &b.authorization_policies)
        && same(telemetries, &b.telemetries)
        && same(wasm_plugins, &b.wasm_plugins)
        && same(traffic_extensions, &b.traffic_extensions)
        && same(services, &b.services)
        && same(endpoint_slices, &b.endpoint_slices)
        && same(endpoints, &b.endpoints)
        && same(secrets, &b.secrets)
        && same(namespaces, &b.namespaces)
        && same(pods, &b.pods)
        && same(deployments, &b.deployments)
        && same(config_maps, &b.config_maps)
        && same(nodes, &b.nodes)
        && same(definitions, &b.definitions)
        && same(kubernetes_gateways, &b.kubernetes_gateways)
        && same(http_routes, &b.http_routes)
        && same(grpc_routes, &b.grpc_routes)
}
