//! Do the hosts and ports exist that a VirtualService routes to? (Istio's virtualservice.DestinationHostAnalyzer:
//! IST0101, IST0112.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{Destination, VirtualService};

pub(super) fn analyze(world: &World<'_>, service: &Object<VirtualService>, report: &mut Report<'_>) {
    for (place, destination) in destinations(&service.spec) {
        check_destination(world, service, &place, destination, report);
    }
}

/// Every destination with its place: of routes, then of mirrors.
pub(super) fn destinations(spec: &VirtualService) -> Vec<(Place, &Destination)> {
    let mut found = Vec::new();
    for (rule, route) in spec.tcp.iter().enumerate() {
        let routes = route.route.iter().enumerate();
        found.extend(routes.map(|(at, to)| (Place::Route("tcp", rule, at), or_none(&to.destination))));
    }
    for (rule, route) in spec.tls.iter().enumerate() {
        let routes = route.route.iter().enumerate();
        found.extend(routes.map(|(at, to)| (Place::Route("tls", rule, at), or_none(&to.destination))));
    }
    for (rule, route) in spec.http.iter().enumerate() {
        let routes = route.route.iter().enumerate();
        found.extend(routes.map(|(at, to)| (Place::Route("http", rule, at), or_none(&to.destination))));
    }
    for (rule, route) in spec.http.iter().enumerate() {
        found.extend(route.mirror.as_deref().map(|mirror| (Place::Mirror(rule), mirror)));
        let mirrors = route.mirrors.iter().enumerate();
        found.extend(mirrors.map(|(at, to)| (Place::Mirrors(rule, at), or_none(&to.destination))));
    }
    found
}

/// A destination that is left out is one without a host.
fn or_none(destination: &Option<Destination>) -> &Destination {
    static NONE: Destination = Destination { host: String::new(), subset: String::new(), port: None };
    destination.as_ref().unwrap_or(&NONE)
}

/// Where a destination stands; written out only for what is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Route(&'static str, usize, usize),
    Mirror(usize),
    Mirrors(usize, usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Route(kind, rule, at) => write!(f, "spec.{kind}[{rule}].route[{at}].destination"),
            Place::Mirror(rule) => write!(f, "spec.http[{rule}].mirror"),
            Place::Mirrors(rule, at) => write!(f, "spec.http[{rule}].mirrors[{at}].destination"),
        }
    }
}

fn check_destination(
    world: &World<'_>,
    service: &Object<VirtualService>,
    place: &Place,
    destination: &Destination,
    report: &mut Report<'_>,
) {
    let name = &destination.host;
    let Some(known) = world.hosts().find(name, &service.meta.namespace, &service.spec.export_to) else {
        let full = world.qualify(name, &service.meta.namespace);
        let message = format!("there is no Service or ServiceEntry for the host `{full}`; requests to it get 503");
        let hint = "add it to the manifests, or name its addresses in [hosts]";
        return report.tell_with_hint(service, &codes::REFERENCE_MISSING, &format!("{place}.host"), message, hint);
    };
    let Some(ports) = known.ports.numbers() else { return };
    match destination.port {
        None if ports.len() > 1 => {
            let message = format!("`{name}` has several ports ({}) and none is named", show_ports(&ports));
            let hint = "write port: {number: ...}; without it the port of the Gateway is used";
            report.tell_with_hint(service, &codes::SERVICE_PORT_NEEDED, &place.to_string(), message, hint);
        }
        Some(port) if !ports.contains(&port.number) => {
            let message = format!("`{name}` has no port {}; it has {}", port.number, show_ports(&ports));
            report.tell(service, &codes::REFERENCE_MISSING, &format!("{place}.port.number"), message);
        }
        _ => {}
    }
}

fn show_ports(ports: &[u32]) -> String {
    match ports {
        [] => "none".to_owned(),
        ports => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
