//! Which listeners and filter chains do the merged servers make?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::gateways::{BoundServer, ServerKind};
use super::routes;
use super::tls_server;
use super::work::Work;
use crate::resource::codes;
use crate::snapshot::listener::{FilterChain, Listener, ServerNames};
use crate::snapshot::route::RouteTable;

impl ServerKind {
    pub(super) fn is_tls(self) -> bool {
        self == ServerKind::Tls
    }
}

/// One listener for each address, in their order.
pub(super) fn build<'a>(work: &mut Work<'a>, servers: Vec<BoundServer<'a>>) -> Vec<Arc<Listener>> {
    let mut by_address: BTreeMap<SocketAddr, Vec<BoundServer<'a>>> = BTreeMap::new();
    for server in servers {
        by_address.entry(server.address).or_default().push(server);
    }
    by_address.into_iter().map(|(address, servers)| Arc::new(listener(work, address, servers))).collect()
}

fn listener<'a>(work: &mut Work<'a>, address: SocketAddr, servers: Vec<BoundServer<'a>>) -> Listener {
    let (tls, plain): (Vec<_>, Vec<_>) = servers.into_iter().partition(|server| server.kind.is_tls());
    let plaintext = plain.first().map(|first| {
        let routes = Arc::new(routes::table(work, &first.route_name, &plain));
        Arc::new(FilterChain { name: first.route_name.clone(), tls: None, routes })
    });
    let mut names = ServerNames::default();
    for server in &tls {
        let chain = Arc::new(tls_chain(work, server));
        for host in &server.hosts {
            if !insert(&mut names, host, &chain) {
                let message = format!("an earlier server of the port has the host {host}; the first is in force");
                let path = format!("spec.servers[{}].hosts", server.number);
                work.problems.report(server.gateway, &codes::DUPLICATE_HOST, &path, message);
            }
        }
    }
    names.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    Listener { address, proxy_protocol: work.index.settings.listen.proxy_protocol, plaintext, tls: names }
}

fn tls_chain<'a>(work: &mut Work<'a>, server: &BoundServer<'a>) -> FilterChain {
    let path = format!("spec.servers[{}]", server.number);
    let is_http = !server.route_name.is_empty();
    let tls = server.server.tls.as_ref().map(|settings| match is_http {
        true => tls_server::build(work, settings, server.gateway, &path),
        false => tls_server::no_routes(work, server.gateway, &path),
    });
    let routes = match is_http {
        true => routes::table(work, &server.route_name, std::slice::from_ref(server)),
        false => RouteTable::default(),
    };
    let name = match is_http {
        true => server.route_name.clone(),
        false => format!("{}.{}", server.server.port.protocol.to_ascii_lowercase(), server.gateway.key()),
    };
    FilterChain { name, tls, routes: Arc::new(routes) }
}

/// False if the name is taken.
fn insert(names: &mut ServerNames, host: &str, chain: &Arc<FilterChain>) -> bool {
    let name = host.split_once('/').map_or(host, |(_, name)| name).to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some("") if names.any.is_some() => false,
        Some("") => {
            names.any = Some(chain.clone());
            true
        }
        Some(suffix) if names.suffixes.iter().any(|(known, _)| **known == *suffix) => false,
        Some(suffix) => {
            names.suffixes.push((suffix.into(), chain.clone()));
            true
        }
        None if names.exact.contains_key(name.as_str()) => false,
        None => names.exact.insert(name.into(), chain.clone()).is_none(),
    }
}
