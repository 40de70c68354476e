//! Does a VirtualService keep the rules of its kind, apart from its HTTP routes? (Istio ValidateVirtualService)

use super::faults::{At, Faults};
use super::http_route::{self, Place};
use super::names::{
    check_export_to, check_fqdn, check_gateway_domain, check_labels_of, check_port, check_subnet,
    check_wildcard_domain, is_address, is_dns_label,
};
use crate::base::host;
use crate::resource::meta::Labels;
use crate::resource::networking::{Destination, RouteDestination, TcpRoute, TlsRoute, VirtualService};

/// Checks the whole object.
pub(super) fn check(namespace: &str, service: &VirtualService, faults: &mut Faults) {
    let spec = At::root("spec");
    let is_delegate = service.hosts.is_empty();
    if is_delegate {
        check_delegate(service, spec, faults);
    } else {
        check_root(service, spec, faults);
    }
    let place = Place { is_delegate, on_mesh: on_mesh(&service.gateways), on_gateway: on_gateway(&service.gateways) };
    for (index, route) in service.http.iter().enumerate() {
        http_route::check(route, place, spec.item("http", index), faults);
    }
    for (index, route) in service.tls.iter().enumerate() {
        check_tls_route(route, &service.hosts, spec.item("tls", index), faults);
    }
    for (index, route) in service.tcp.iter().enumerate() {
        check_tcp_route(route, spec.item("tcp", index), faults);
    }
    faults.check(spec.field("exportTo"), check_export_to(&service.export_to, namespace, false));
}

fn on_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
}

fn on_gateway(gateways: &[String]) -> bool {
    gateways.iter().any(|name| name != "mesh")
}

/// A delegate has HTTP routes and nothing that binds it.
fn check_delegate(service: &VirtualService, spec: At<'_>, faults: &mut Faults) {
    let message = "a VirtualService without hosts is a delegate; it cannot have this";
    faults.require(service.gateways.is_empty(), spec.field("gateways"), message);
    faults.require(service.tls.is_empty(), spec.field("tls"), message);
    faults.require(service.tcp.is_empty(), spec.field("tcp"), message);
    faults.require(!service.http.is_empty(), spec.field("http"), "http routes have to be given");
}

fn check_root(service: &VirtualService, spec: At<'_>, faults: &mut Faults) {
    for (index, name) in service.gateways.iter().enumerate() {
        check_gateway_name(name, spec.item("gateways", index), faults);
    }
    let mesh = on_mesh(&service.gateways);
    for (index, name) in service.hosts.iter().enumerate() {
        let at = spec.item("hosts", index);
        if name == "*" && mesh {
            faults.error(at, "the host * is for gateways only");
        } else if !is_address(name) {
            faults.check(at, if mesh { check_wildcard_domain(name) } else { check_gateway_domain(name) });
        }
        if let Some(first) = service.hosts.iter().take(index).find(|first| host::matches(first, name)) {
            faults.error(at, format!("`{name}` and `{first}` stand for the same hosts"));
        }
    }
    let routes = service.http.len() + service.tls.len() + service.tcp.len();
    faults.require(routes > 0, spec, "http, tls or tcp routes have to be given");
}

/// `name`, `namespace/name`, or the old `name.namespace…`.
pub(super) fn check_gateway_name(name: &str, at: At<'_>, faults: &mut Faults) {
    match name.split_once('/') {
        None => {
            if name.contains('.') {
                faults.warn(at, "write namespace/name; names with dots are an old form");
            }
            faults.check(at, check_fqdn(name));
        }
        Some((namespace, name)) => {
            faults.require(is_dns_label(namespace), at, &format!("`{namespace}` is no namespace"));
            faults.require(is_dns_label(name), at, &format!("`{name}` is no name of a Gateway"));
        }
    }
}

/// Host, subset and port of a destination.
pub(super) fn check_destination(destination: &Destination, at: At<'_>, faults: &mut Faults) {
    if destination.host == "*" {
        faults.error(at.field("host"), "the host * is no destination");
    } else {
        faults.check(at.field("host"), check_wildcard_domain(&destination.host));
    }
    if !destination.subset.is_empty() && !is_dns_label(&destination.subset) {
        faults.error(at.field("subset"), format!("`{}` is no name of a subset", destination.subset));
    }
    if let Some(port) = destination.port {
        faults.check(at.field("port").field("number"), check_port(port.number));
    }
}

/// Weights are not negative; of several one at least is above 0.
pub(super) fn check_weights(weights: &[i32], at: At<'_>, faults: &mut Faults) {
    for (index, weight) in weights.iter().enumerate() {
        faults.require(*weight >= 0, at.item("route", index).field("weight"), "a weight cannot be negative");
    }
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    faults.require(weights.len() < 2 || total > 0, at.field("route"), "the weights of all destinations are 0");
}

/// The predicates that TLS and TCP routes share.
fn check_layer4(subnets: &[String], port: u32, labels: &Labels, gateways: &[String], at: At<'_>, faults: &mut Faults) {
    for (index, subnet) in subnets.iter().enumerate() {
        faults.check(at.item("destinationSubnets", index), check_subnet(subnet));
    }
    if port != 0 {
        faults.check(at.field("port"), check_port(port));
    }
    faults.check(at.field("sourceLabels"), check_labels_of(labels));
    for (index, name) in gateways.iter().enumerate() {
        check_gateway_name(name, at.item("gateways", index), faults);
    }
}

fn check_tls_route(route: &TlsRoute, hosts: &[String], at: At<'_>, faults: &mut Faults) {
    faults.require(!route.matches.is_empty(), at.field("match"), "a tls route needs a match");
    for (index, entry) in route.matches.iter().enumerate() {
        let at = at.item("match", index);
        faults.require(!entry.sni_hosts.is_empty(), at.field("sniHosts"), "a tls match needs sniHosts");
        for (index, sni) in entry.sni_hosts.iter().enumerate() {
            check_sni(sni, hosts, at.item("sniHosts", index), faults);
        }
        check_layer4(&entry.destination_subnets, entry.port, &entry.source_labels, &entry.gateways, at, faults);
    }
    check_l4_destinations(&route.route, at, faults);
}

fn check_sni(sni: &str, hosts: &[String], at: At<'_>, faults: &mut Faults) {
    if is_address(sni) {
        return faults.warn(at, format!("`{sni}`: clients send no SNI for an address"));
    }
    faults.check(at, check_gateway_domain(sni));
    let covered = hosts.iter().any(|host| host::is_subset_of(sni, host));
    faults.require(covered, at, &format!("`{sni}` is not among the hosts of the VirtualService"));
}

fn check_tcp_route(route: &TcpRoute, at: At<'_>, faults: &mut Faults) {
    for (index, entry) in route.matches.iter().enumerate() {
        let at = at.item("match", index);
        if !entry.source_subnet.is_empty() {
            faults.check(at.field("sourceSubnet"), check_subnet(&entry.source_subnet));
        }
        check_layer4(&entry.destination_subnets, entry.port, &entry.source_labels, &entry.gateways, at, faults);
    }
    check_l4_destinations(&route.route, at, faults);
}

fn check_l4_destinations(routes: &[RouteDestination], at: At<'_>, faults: &mut Faults) {
    faults.require(!routes.is_empty(), at.field("route"), "a route needs a destination");
    for (index, route) in routes.iter().enumerate() {
        let at = at.item("route", index);
        match &route.destination {
            None => faults.error(at, "a destination has to be named"),
            Some(destination) => check_destination(destination, at.field("destination"), faults),
        }
    }
    let weights: Vec<i32> = routes.iter().map(|route| route.weight).collect();
    check_weights(&weights, at, faults);
}
