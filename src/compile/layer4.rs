//! Where does a server that is not HTTP send its connections? (Istio VirtualService.tcp and tls, AUTO_PASSTHROUGH.)

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::clusters::{self, Place};
use super::gateways::BoundServer;
use super::hashing;
use super::index::gateway_key;
use super::protocol::Protocol;
use super::routes::{for_namespace, port_number};
use super::work::Work;
use crate::base::host;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{RouteDestination, TcpPool, TlsMatchAttributes, VirtualService};
use crate::snapshot::listener::{ChainMatch, ChainTable, FilterChain, Service};
use crate::snapshot::tcp::{TcpDestination, TcpProxy};

/// One of these is what a client of the mesh offers.
const MESH_ALPN: [&str; 5] = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Connections without bytes end after this time unless a rule says otherwise (Envoy's default).
const IDLE: Duration = Duration::from_secs(3600);

/// Shown by explain, status and logs, such as `tcp.9000.tcp-9000.gateway.default`.
pub(super) fn chain_name(server: &BoundServer<'_>) -> String {
    let (port, meta) = (&server.server.port, &server.gateway.meta);
    format!("{}.{}.{}.{}.{}", port.protocol.to_ascii_lowercase(), port.number, port.name, meta.name, meta.namespace)
}

/// The first tcp route of all VirtualServices of the server that is for its port and gateway; `None` if there is none.
pub(super) fn tcp_proxy<'a>(work: &mut Work<'a>, server: &BoundServer<'a>) -> Option<TcpProxy> {
    for object in meeting(work, server) {
        for (number, route) in object.spec.tcp.iter().enumerate() {
            let for_us = |entry| applies(server, object, entry);
            if route.matches.is_empty() || route.matches.iter().any(|entry| for_us((entry.port, &entry.gateways))) {
                return proxy(work, port_number(server), object, &format!("tcp[{number}]"), &route.route);
            }
        }
    }
    let message = "no VirtualService has a tcp route for this server; it takes no connections";
    work.problems.report(server.gateway, &codes::SERVER_WITHOUT_ROUTE, &place(server), message);
    None
}

/// The server names of tls routes that a port has already, by `bind`.
pub(super) type KnownNames<'a> = HashSet<(&'a str, &'a str)>;

/// A chain for each match of the tls routes. A match of which one name is taken is left out with all its names.
pub(super) fn passthrough<'a>(
    work: &mut Work<'a>,
    server: &BoundServer<'a>,
    known: &mut KnownNames<'a>,
    chains: &mut ChainTable,
) {
    let bind = server.server.bind.as_str();
    let before = chains.all().len();
    for object in meeting(work, server) {
        for (number, route) in object.spec.tls.iter().enumerate() {
            for (position, entry) in route.matches.iter().enumerate() {
                if !applies(server, object, (entry.port, &entry.gateways)) {
                    continue;
                }
                let origin = format!("tls[{number}].match[{position}]");
                if let Some(name) = entry.sni_hosts.iter().find(|name| known.contains(&(bind, name.as_str()))) {
                    report_taken(work, object, &origin, name);
                    continue;
                }
                known.extend(entry.sni_hosts.iter().map(|name| (bind, name.as_str())));
                if let Some(proxy) = proxy(work, port_number(server), object, &origin, &route.route) {
                    let chain = FilterChain { name: chain_name(server), tls: None, service: tcp(proxy) };
                    for name in chains.insert(names_of(entry), Arc::new(chain)) {
                        report_taken(work, object, &origin, &name);
                    }
                }
            }
        }
    }
    if chains.all().len() == before {
        let message = "no VirtualService has a tls route for this server; it takes no connections";
        work.problems.report(server.gateway, &codes::SERVER_WITHOUT_ROUTE, &place(server), message);
    }
}

/// A chain for each port and subset of the services of the mesh: the client names the cluster and ends TLS there.
pub(super) fn auto_passthrough<'a>(work: &mut Work<'a>, server: &BoundServer<'a>, chains: &mut ChainTable) {
    let offered: Vec<&str> =
        server.hosts.iter().map(|name| name.split_once('/').map_or(&**name, |(_, name)| name)).collect();
    let index = work.index;
    for view in index.mesh_services() {
        if !offered.iter().any(|name| host::is_subset_of(&view.host, name)) {
            continue;
        }
        let rule = index.rule(&view.host, view.namespace);
        let subsets = rule.iter().flat_map(|rule| rule.subset_names());
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in view.ports().filter(|port| port.protocol != Protocol::Udp) {
            for subset in &subsets {
                let cluster = clusters::mesh_reference(work, &view.host, port.number, subset);
                let conditions = ChainMatch {
                    server_names: vec![cluster.name().to_string()],
                    alpn: MESH_ALPN.map(str::to_owned).to_vec(),
                    ..ChainMatch::default()
                };
                let destinations = vec![TcpDestination { cluster, weight: 1 }];
                let pool = rule.as_ref().and_then(|rule| rule.tcp_pool());
                let proxy = finish(port_number(server), "AUTO_PASSTHROUGH".into(), destinations, pool);
                chains.insert(
                    conditions,
                    Arc::new(FilterChain { name: chain_name(server), tls: None, service: tcp(proxy) }),
                );
            }
        }
    }
}

fn tcp(proxy: TcpProxy) -> Service {
    Service::Tcp(Arc::new(proxy))
}

fn place(server: &BoundServer<'_>) -> String {
    format!("spec.servers[{}]", server.number)
}

/// The VirtualServices bound to the server's gateway of which a host meets one of the server's, narrower or wider.
fn meeting<'a>(work: &Work<'a>, server: &BoundServer<'a>) -> Vec<&'a Object<VirtualService>> {
    let index = work.index;
    let meets = |object: &&'a Object<VirtualService>| {
        let served = for_namespace(server, &object.meta.namespace);
        let own = object.spec.hosts.iter().map(|name| index.qualify(name, &object.meta.namespace));
        own.into_iter().any(|own| served.iter().any(|name| host::matches(name, &own)))
    };
    index.bound_to(&server.gateway.key()).iter().map(|object| &***object).filter(meets).collect()
}

/// Port and gateways are all that counts on a gateway.
fn applies(server: &BoundServer<'_>, object: &Object<VirtualService>, (port, gateways): (u32, &Vec<String>)) -> bool {
    let here = server.gateway.key();
    (port == 0 || port == server.server.port.number)
        && (gateways.is_empty() || gateways.iter().any(|name| gateway_key(name, &object.meta.namespace) == here))
}

/// `*` among the names asks nothing.
fn names_of(entry: &TlsMatchAttributes) -> ChainMatch {
    let any = entry.sni_hosts.iter().any(|name| name == "*");
    let server_names = if any { Vec::new() } else { entry.sni_hosts.clone() };
    ChainMatch { server_names, ..ChainMatch::default() }
}

fn report_taken(work: &mut Work<'_>, object: &Object<VirtualService>, origin: &str, name: &str) {
    let message = format!("another route of the port has the server name {name} already; this match is left out");
    work.problems.report(object, &codes::DUPLICATE_HOST, &format!("spec.{origin}"), message);
}

/// A single destination needs no weight; of several those without weight get nothing.
pub(super) fn proxy(
    work: &mut Work<'_>,
    port: u16,
    object: &Object<VirtualService>,
    origin: &str,
    route: &[RouteDestination],
) -> Option<TcpProxy> {
    let place = Place { namespace: &object.meta.namespace, server_port: port };
    let mut destinations = Vec::with_capacity(route.len());
    for one in route {
        let weight = if route.len() == 1 { 1 } else { u32::try_from(one.weight).unwrap_or_default() };
        if let (Some(written), 1..) = (&one.destination, weight) {
            destinations.push(TcpDestination { cluster: clusters::reference(work, written, place), weight });
        }
    }
    if destinations.is_empty() {
        let message = "the route has no destination with a weight";
        work.problems.report(object, &codes::RULE_SPOILED, &format!("spec.{origin}"), message);
        return None;
    }
    // The rule of the first destination's service counts, whatever its port, subset and weight.
    let first = route.first().and_then(|first| first.destination.as_ref());
    let host = first.map(|first| work.index.qualify(&first.host, &object.meta.namespace)).unwrap_or_default();
    let pool = tcp_pool(work, &host);
    let by_source = first.is_some_and(|first| hashing::of_connections(work, first, place));
    let proxy = finish(port, format!("VirtualService {} {origin}", object.key()), destinations, pool);
    Some(TcpProxy { by_source, ..proxy })
}

/// What the rule of a service says of how long connections may last.
pub(super) fn tcp_pool<'a>(work: &Work<'a>, host: &str) -> Option<&'a TcpPool> {
    let view = work.index.services(host).first()?;
    work.index.rule(&view.host, view.namespace)?.tcp_pool()
}

/// `pool` settles how long connections may last.
pub(super) fn finish(port: u16, origin: String, destinations: Vec<TcpDestination>, pool: Option<&TcpPool>) -> TcpProxy {
    let idle = pool.and_then(|pool| pool.idle_timeout).map_or(IDLE, |idle| idle.0);
    TcpProxy {
        origin: origin.into(),
        port,
        total_weight: destinations.iter().fold(0, |sum: u32, one| sum.saturating_add(one.weight)),
        destinations,
        by_source: false,
        idle_timeout: Some(idle).filter(|idle| !idle.is_zero()),
        max_duration: pool.and_then(|pool| pool.max_connection_duration).map(|most| most.0),
    }
}
