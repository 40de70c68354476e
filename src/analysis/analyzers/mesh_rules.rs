//! Do rules of the mesh seem to rule the requests of a gateway? (Istio's virtualservice.DestinationHostAnalyzer:
//! IST0140.)

use std::collections::HashMap;

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let ruled = ruled_hosts(world);
    if ruled.is_empty() {
        return;
    }
    for service in world.resources.virtual_services.iter().filter(|service| !service.spec.gateways.is_empty()) {
        check(service, &ruled, report);
    }
}

/// VirtualServices that choose a subset for their own host, by that host; once for each such destination.
fn ruled_hosts<'a>(world: &World<'a>) -> HashMap<&'a str, Vec<&'a Object<VirtualService>>> {
    let mut ruled: HashMap<&str, Vec<&Object<VirtualService>>> = HashMap::new();
    for service in &world.resources.virtual_services {
        let routed = service.spec.http.iter().flat_map(|route| &route.route).filter_map(|to| to.destination.as_ref());
        for destination in routed.filter(|to| !to.subset.is_empty()) {
            for _ in service.spec.hosts.iter().filter(|name| **name == destination.host) {
                ruled.entry(&destination.host).or_default().push(service);
            }
        }
    }
    ruled
}

/// The rules of another VirtualService for the destination's host are for sidecars; a gateway does not obey them.
fn check(
    service: &Object<VirtualService>,
    ruled: &HashMap<&str, Vec<&Object<VirtualService>>>,
    report: &mut Report<'_>,
) {
    for (rule, route) in service.spec.http.iter().enumerate() {
        for (at, weighted) in route.route.iter().enumerate() {
            let Some(destination) = weighted.destination.as_ref().filter(|to| to.subset.is_empty()) else { continue };
            for other in ruled.get(destination.host.as_str()).into_iter().flatten() {
                let path = format!("spec.http[{rule}].route[{at}].destination");
                let message = format!(
                    "the VirtualService {} chooses among subsets of `{}`; requests of this rule are not ruled by it",
                    other.key(),
                    destination.host
                );
                let hint = "name the subset here, too, or delegate to that VirtualService";
                report.tell_with_hint(service, &codes::MESH_RULES_NOT_OBEYED, &path, message, hint);
            }
        }
    }
}
