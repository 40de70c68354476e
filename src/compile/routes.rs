//! Which virtual hosts does a group of servers have, and which rules in which order? (Istio's gateway route tables.)

use std::collections::HashMap;
use std::sync::Arc;

use super::gateways::BoundServer;
use super::virtual_service::{self, ServerPlace};
use super::work::Work;
use crate::base::host;
use crate::snapshot::route::{RouteRule, RouteTable, VirtualHost};

/// The table of servers that share one route name, in the order of merging.
pub(super) fn table<'a>(work: &mut Work<'a>, name: &str, servers: &[BoundServer<'a>]) -> RouteTable {
    let mut hosts = Hosts::default();
    // A VirtualService on two servers of one Gateway is built once, with the first server's port.
    let mut built: HashMap<(String, String), Vec<Arc<RouteRule>>> = HashMap::new();
    for server in servers {
        let gateway = server.gateway.key();
        let place = ServerPlace { gateway: &gateway, port: port_number(server), tls: server.kind.is_tls() };
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
            let key = (gateway.clone(), object.key());
            let rules = built.entry(key).or_insert_with(|| virtual_service::rules(work, object, place));
            if rules.is_empty() {
                continue;
            }
            for name in common {
                hosts.add(name, rules, redirects(server));
            }
        }
        if redirects(server) {
            // Hosts with a namespace make no host of their own: no request names one.
            for name in &server.hosts {
                let name = name.strip_prefix("*/").unwrap_or(name);
                if !name.contains('/') {
                    hosts.add(name, &[], true);
                }
            }
        }
    }
    let mut table = RouteTable {
        name: name.to_owned(),
        port: servers.first().map(port_number).unwrap_or_default(),
        ..RouteTable::default()
    };
    for host in hosts.finish() {
        table.insert(Arc::new(host));
    }
    table
}

fn port_number(server: &BoundServer<'_>) -> u16 {
    u16::try_from(server.server.port.number).unwrap_or_default()
}

fn redirects(server: &BoundServer<'_>) -> bool {
    server.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
}

/// The hosts that a server offers to VirtualServices of a namespace.
fn for_namespace<'a>(server: &'a BoundServer<'_>, namespace: &str) -> Vec<&'a str> {
    let offered = |host: &'a str| match host.split_once('/') {
        None => Some(host),
        Some((wanted, name)) if wanted == "*" || wanted == namespace => Some(name),
        Some(_) => None,
    };
    server.hosts.iter().filter_map(|host| offered(host)).collect()
}

/// Virtual hosts in the making, by lower-case name, in the order of first sight.
#[derive(Default)]
struct Hosts {
    order: Vec<(String, bool, Vec<Arc<RouteRule>>)>,
    places: HashMap<String, usize>,
}

impl Hosts {
    fn add(&mut self, name: &str, rules: &[Arc<RouteRule>], require_tls: bool) {
        let name = name.to_ascii_lowercase();
        let place = *self.places.entry(name.clone()).or_insert(self.order.len());
        if place == self.order.len() {
            self.order.push((name, false, Vec::new()));
        }
        if let Some((_, tls, all)) = self.order.get_mut(place) {
            *tls |= require_tls;
            all.extend(rules.iter().cloned());
        }
    }

    /// Catch-alls go last, otherwise the order stays.
    fn finish(self) -> impl Iterator<Item = VirtualHost> {
        self.order.into_iter().map(|(name, require_tls, mut rules)| {
            rules.sort_by_key(|rule| rule.matches.is_catch_all());
            VirtualHost::new(&name, require_tls, rules)
        })
    }
}
