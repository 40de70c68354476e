//! Is there one VirtualService for a host of the mesh? (Istio's virtualservice.ConflictingMeshGatewayHostsAnalyzer:
//! IST0109.)

use std::collections::{BTreeMap, HashSet};

use super::virtual_service_gateways::MESH;
use crate::analysis::hosts::{EVERYWHERE, export_scopes};
use crate::analysis::report::Report;
use crate::analysis::world::{World, identity, show_names};
use crate::base::host;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;

/// VirtualServices with the place of a host, by where it is seen and the host.
type Ruled<'a> = BTreeMap<&'a str, BTreeMap<String, Vec<(&'a Object<VirtualService>, usize)>>>;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let ruled = ruled(world);
    let none = BTreeMap::new();
    let public = ruled.get(EVERYWHERE).unwrap_or(&none);
    let mut told = HashSet::new();
    for (scope, hosts) in &ruled {
        for (name, own) in hosts {
            let mut services = own.clone();
            if *scope != EVERYWHERE {
                services.extend(meeting(public, name).into_iter().flatten());
            }
            if services.len() < 2 {
                continue;
            }
            let names = show_names(services.iter().map(|(service, _)| &service.meta));
            for (service, index) in services.into_iter().filter(|(service, _)| told.insert(identity(service))) {
                let message = format!("several VirtualServices rule the host `{name}` in the mesh: {names}");
                let hint = "sidecars obey one of them; put the rules into one VirtualService";
                let path = format!("spec.hosts[{index}]");
                report.tell_with_hint(service, &codes::MESH_HOST_CONFLICT, &path, message, hint);
            }
        }
    }
}

fn ruled<'a>(world: &World<'a>) -> Ruled<'a> {
    let mut ruled = Ruled::new();
    for service in world.resources.virtual_services.iter().filter(|service| is_of_the_mesh(&service.spec)) {
        for scope in export_scopes(&service.spec.export_to, &service.meta.namespace) {
            for (index, name) in service.spec.hosts.iter().enumerate() {
                let name = world.qualify(name, &service.meta.namespace);
                ruled.entry(scope).or_default().entry(name).or_default().push((service, index));
            }
        }
    }
    ruled
}

/// The entries whose host meets `name`.
fn meeting<'m, T>(hosts: &'m BTreeMap<String, T>, name: &str) -> Vec<&'m T> {
    // A wildcard is compared with every host; there are few whose export is limited.
    if host::is_wildcard(name) {
        return hosts.iter().filter(|(known, _)| host::matches(known, name)).map(|(_, value)| value).collect();
    }
    let tails = name.char_indices().filter_map(|(at, _)| name.get(at..)).chain([""]);
    let wildcards = tails.filter_map(|tail| hosts.get(&format!("*{tail}")));
    hosts.get(name).into_iter().chain(wildcards).collect()
}

fn is_of_the_mesh(spec: &VirtualService) -> bool {
    spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == MESH)
}
