//! Which virtual hosts does a group of servers have, and which rules in which order? (Istio's gateway route tables.)

use std::collections::HashMap;
use std::sync::Arc;

use super::clusters;
use super::gateways::{BoundServer, ServerKind};
use super::memory::{Memory, Rules};
use super::virtual_service::{self, ServerPlace};
use super::work::Work;
use crate::base::host;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;
use crate::snapshot::route::{RouteRule, RouteTable, VirtualHost};

/// The table of servers that share one route name, in the order of merging.
pub(super) fn table<'a>(work: &mut Work<'a>, name: &str, servers: &[&BoundServer<'a>]) -> RouteTable {
    let mut hosts = Hosts::default();
    // A VirtualService on two servers of one Gateway is built once, with the first server's port.
    let mut built: HashMap<(&str, &str, *const Object<VirtualService>), Rules> = HashMap::new();
    for server in servers {
        let gateway = server.gateway.key();
        let place = ServerPlace { gateway: &gateway, port: port_number(server), tls: server.kind == ServerKind::Https };
        let place_key = work.memory.fingerprint(&place);
        let index = work.index;
        for object in index.bound_to(&gateway) {
            let served = for_namespace(server, &object.meta.namespace);
            // Istio completes short names of every VirtualService (`details` is a Service of its namespace).
            let own: Vec<String> =
                object.spec.hosts.iter().map(|name| index.qualify(name, &object.meta.namespace)).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let common = host::intersection(&served, &own);
            if common.is_empty() {
                continue;
            }
            let key = (server.gateway.meta.name.as_str(), server.gateway.meta.namespace.as_str(), Arc::as_ptr(object));
            let rules = built.entry(key).or_insert_with(|| rules_of(work, object, (place, place_key)));
            if rules.is_empty() {
                continue;
            }
            for name in common {
                hosts.add(name, Some(rules), redirects(server));
            }
        }
        if redirects(server) {
            // Hosts with a namespace make no host of their own: no request names one.
            for name in &server.hosts {
                let name = name.strip_prefix("*/").unwrap_or(name);
                if !name.contains('/') {
                    hosts.add(name, None, true);
                }
            }
        }
    }
    let mut table = RouteTable {
        name: name.to_owned(),
        port: servers.first().map(|first| port_number(first)).unwrap_or_default(),
        ..RouteTable::default()
    };
    for host in hosts.order {
        table.insert(virtual_host(work.memory, name, host));
    }
    table
}

/// The rules of a VirtualService on a server, those of the last generation if nothing that they depend on has changed.
fn rules_of<'a>(
    work: &mut Work<'a>,
    object: &'a Arc<Object<VirtualService>>,
    (place, place_key): (ServerPlace<'_>, u128),
) -> Rules {
    let key = (place_key, Arc::as_ptr(object).addr());
    match work.memory.rules.get(&key) {
        Some(made) if clusters::still_hold(work, &made) => work.again(made).value,
        _ => {
            let made = work.make(|work| virtual_service::rules(work, object, place).into());
            work.memory.rules.insert(key, made).value
        }
    }
}

/// A virtual host, that of the last generation if it has the same rules. Catch-alls go last, otherwise the order stays.
fn virtual_host(memory: &mut Memory, table: &str, host: Host) -> Arc<VirtualHost> {
    let key = (table.into(), host.name.as_str().into());
    if let Some((parts, known)) = memory.hosts.get(&key)
        && known.require_tls == host.require_tls
        && parts.len() == host.parts.len()
        && parts.iter().zip(&host.parts).all(|(a, b)| Arc::ptr_eq(a, b))
    {
        return known;
    }
    let mut rules: Vec<Arc<RouteRule>> = host.parts.iter().flat_map(|part| part.iter().cloned()).collect();
    rules.sort_by_key(|rule| rule.matches.is_catch_all());
    let made = Arc::new(VirtualHost::new(&host.name, host.require_tls, rules));
    memory.hosts.insert(key, (host.parts, made)).1
}

pub(super) fn port_number(server: &BoundServer<'_>) -> u16 {
    u16::try_from(server.server.port.number).unwrap_or_default()
}

fn redirects(server: &BoundServer<'_>) -> bool {
    server.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
}

/// The hosts that a server offers to VirtualServices of a namespace.
pub(super) fn for_namespace<'a>(server: &'a BoundServer<'_>, namespace: &str) -> Vec<&'a str> {
    offered_to(server.hosts.iter().map(|host| &**host), namespace).collect()
}

/// Of hosts as `namespace/name` or `name` those that are for a namespace.
pub(super) fn offered_to<'a>(hosts: impl Iterator<Item = &'a str>, namespace: &str) -> impl Iterator<Item = &'a str> {
    hosts.filter_map(move |host| match host.split_once('/') {
        None => Some(host),
        Some((wanted, name)) if wanted == "*" || wanted == namespace => Some(name),
        Some(_) => None,
    })
}

/// Virtual hosts in the making, by lower-case name, in the order of first sight.
#[derive(Default)]
struct Hosts {
    order: Vec<Host>,
    places: HashMap<String, usize>,
}

struct Host {
    name: String,
    require_tls: bool,
    /// One for each VirtualService, in the order of joining.
    parts: Vec<Rules>,
}

impl Hosts {
    fn add(&mut self, name: &str, rules: Option<&Rules>, require_tls: bool) {
        let name = name.to_ascii_lowercase();
        let place = *self.places.entry(name.clone()).or_insert(self.order.len());
        if place == self.order.len() {
            self.order.push(Host { name, require_tls: false, parts: Vec::new() });
        }
        if let Some(host) = self.order.get_mut(place) {
            host.require_tls |= require_tls;
            host.parts.extend(rules.cloned());
        }
    }
}
