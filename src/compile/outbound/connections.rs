//! Where do a workload's connections go that are not HTTP? By tls and tcp routes of mesh VirtualServices, else to the
//! service that is asked for.

use std::sync::Arc;

use super::super::clusters;
use super::super::index::{gateway_key, is_subset};
use super::super::layer4;
use super::super::protocol::Protocol;
use super::super::services::PortView;
use super::super::work::Work;
use super::scope::{Egress, Imported};
use crate::base::cidr::Cidr;
use crate::base::host;
use crate::resource::meta::{Labels, Object};
use crate::resource::networking::{L4MatchAttributes, TcpPool, TlsMatchAttributes, VirtualService};
use crate::snapshot::listener::{ChainMatch, FilterChain, Service};
use crate::snapshot::outbound::OutboundListener;
use crate::snapshot::route::ClusterReference;
use crate::snapshot::tcp::{TcpDestination, TcpProxy};

/// Adds the chains of one port of a service to the listener that it is asked for on; `range` if that is not its own.
pub(super) fn add<'a>(
    work: &mut Work<'a>,
    egress: &Egress<'a>,
    (service, port): (&Imported<'a>, PortView<'a>),
    range: Option<Cidr>,
    listener: &mut OutboundListener,
) {
    let index = work.index;
    let concerned = |object: &&'a Object<VirtualService>| {
        let mut names = object.spec.hosts.iter().map(|name| index.qualify(name, &object.meta.namespace));
        names.any(|name| host::matches(&name, service.host()))
    };
    let objects: Vec<&'a Object<VirtualService>> = egress.virtual_services.iter().copied().filter(concerned).collect();
    let is_steered = match port.protocol {
        Protocol::Https | Protocol::Tls => by_server_name(work, &objects, port, range, listener),
        _ => by_port(work, &objects, port, range, listener),
    };
    if !is_steered {
        let mut conditions = within(range);
        // The server name tells services apart where the address does not.
        if matches!(port.protocol, Protocol::Https | Protocol::Tls) && listener.address.is_none() {
            conditions.server_names.push(service.host().to_owned());
        }
        listener.chains.insert(conditions, Arc::new(to_service(work, service, port)));
    }
}

/// The chain to the service itself.
pub(super) fn to_service(work: &mut Work<'_>, service: &Imported<'_>, port: PortView<'_>) -> FilterChain {
    let cluster = clusters::named(work, format!("outbound|{}||{}", port.number, service.host()).into());
    let pool = layer4::tcp_pool(work, service.host());
    to_cluster(cluster, service.host(), port.number, pool)
}

/// A chain with one destination, named after it.
pub(super) fn to_cluster(cluster: ClusterReference, origin: &str, port: u16, pool: Option<&TcpPool>) -> FilterChain {
    let name = cluster.name().to_string();
    let proxy = layer4::finish(port, origin.into(), vec![TcpDestination { cluster, weight: 1 }], pool);
    chain(name, proxy)
}

fn chain(name: String, proxy: TcpProxy) -> FilterChain {
    FilterChain { name, tls: None, service: Service::Tcp(Arc::new(proxy)) }
}

/// True if a tls route has a match for the port: then the service's own way in is gone.
fn by_server_name<'a>(
    work: &mut Work<'a>,
    objects: &[&'a Object<VirtualService>],
    port: PortView<'_>,
    range: Option<Cidr>,
    listener: &mut OutboundListener,
) -> bool {
    let mut is_steered = false;
    for object in objects {
        for (number, route) in object.spec.tls.iter().enumerate() {
            for (position, entry) in route.matches.iter().enumerate() {
                if !applies(work, object, &Match::of_tls(entry), port.number) {
                    continue;
                }
                let origin = format!("tls[{number}].match[{position}]");
                let Some(proxy) = layer4::proxy(work, port.number, object, &origin, &route.route) else { continue };
                let any = entry.sni_hosts.iter().any(|name| name == "*");
                let conditions = ChainMatch {
                    server_names: if any { Vec::new() } else { entry.sni_hosts.clone() },
                    ..within_subnets(&entry.destination_subnets, range)
                };
                listener.chains.insert(conditions, Arc::new(chain(format!("{} {origin}", object.key()), proxy)));
                is_steered = true;
            }
        }
    }
    is_steered
}

/// True if a tcp route takes all connections of the port.
fn by_port<'a>(
    work: &mut Work<'a>,
    objects: &[&'a Object<VirtualService>],
    port: PortView<'_>,
    range: Option<Cidr>,
    listener: &mut OutboundListener,
) -> bool {
    for object in objects {
        for (number, route) in object.spec.tcp.iter().enumerate() {
            let ours: Vec<&L4MatchAttributes> = route
                .matches
                .iter()
                .filter(|entry| applies(work, object, &Match::of_tcp(entry), port.number))
                .collect();
            if ours.is_empty() && !route.matches.is_empty() {
                continue;
            }
            let origin = format!("tcp[{number}]");
            let Some(proxy) = layer4::proxy(work, port.number, object, &origin, &route.route) else { continue };
            let takes_all = ours.is_empty() || ours.iter().any(|entry| entry.destination_subnets.is_empty());
            let subnets: Vec<String> =
                ours.iter().filter(|_| !takes_all).flat_map(|entry| entry.destination_subnets.clone()).collect();
            let chain = Arc::new(chain(format!("{} {origin}", object.key()), proxy));
            listener.chains.insert(within_subnets(&subnets, range), chain);
            if takes_all {
                return true;
            }
        }
    }
    false
}

/// What decides now whether a match of either kind is for the workload.
struct Match<'m> {
    port: u32,
    gateways: &'m [String],
    source_labels: &'m Labels,
    source_namespace: &'m str,
}

impl<'m> Match<'m> {
    fn of_tls(entry: &'m TlsMatchAttributes) -> Match<'m> {
        Match {
            port: entry.port,
            gateways: &entry.gateways,
            source_labels: &entry.source_labels,
            source_namespace: &entry.source_namespace,
        }
    }

    fn of_tcp(entry: &'m L4MatchAttributes) -> Match<'m> {
        Match {
            port: entry.port,
            gateways: &entry.gateways,
            source_labels: &entry.source_labels,
            source_namespace: &entry.source_namespace,
        }
    }
}

fn applies(work: &Work<'_>, object: &Object<VirtualService>, entry: &Match<'_>, port: u16) -> bool {
    let ours = &work.index.settings.gateway;
    if entry.port != 0 && entry.port != u32::from(port) {
        return false;
    }
    if !entry.gateways.is_empty() {
        return entry.gateways.iter().any(|name| gateway_key(name, &object.meta.namespace) == "mesh");
    }
    is_subset(entry.source_labels, &ours.labels)
        && (entry.source_namespace.is_empty() || entry.source_namespace == ours.namespace)
}

fn within(range: Option<Cidr>) -> ChainMatch {
    ChainMatch { destinations: range.into_iter().collect(), ..ChainMatch::default() }
}

/// The route's own ranges come before the service's.
fn within_subnets(written: &[String], range: Option<Cidr>) -> ChainMatch {
    let own: Vec<Cidr> = written.iter().filter_map(|text| text.parse().ok()).collect();
    if own.is_empty() { within(range) } else { ChainMatch { destinations: own, ..ChainMatch::default() } }
}
