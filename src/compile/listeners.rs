//! Which listeners and filter chains do the merged servers make?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::gateways::{BoundServer, ServerKind};
use super::layer4;
use super::routes;
use super::tls_server::{self, Inside};
use super::work::Work;
use crate::resource::codes;
use crate::resource::settings::Settings;
use crate::snapshot::listener::{ChainMatch, ChainTable, FilterChain, Listener, Service, Transport};
use crate::snapshot::route::RouteTable;
use crate::snapshot::tcp::TcpProxy;

/// One listener for each address, in their order. An address without any usable route is not bound.
pub(super) fn build<'a>(work: &mut Work<'a>, servers: Vec<BoundServer<'a>>) -> Vec<Arc<Listener>> {
    let mut by_address: BTreeMap<SocketAddr, Vec<BoundServer<'a>>> = BTreeMap::new();
    for server in servers {
        by_address.entry(server.address).or_default().push(server);
    }
    by_address.into_iter().filter_map(|(address, servers)| listener(work, address, &servers)).map(Arc::new).collect()
}

/// Opens a port on which nothing but challenges of ACME is answered.
pub(super) fn open_for_challenges(listeners: &mut Vec<Arc<Listener>>, address: SocketAddr, settings: &Settings) {
    let place = listeners.partition_point(|listener| listener.address < address);
    if listeners.get(place).is_some_and(|listener| listener.address == address) {
        return;
    }
    let name = format!("acme.{}", address.port());
    let routes = RouteTable { name: name.clone(), port: 80, ..RouteTable::default() };
    let mut chains = ChainTable::default();
    chains.insert(
        ChainMatch::default(),
        Arc::new(FilterChain { name, tls: None, service: Service::Http(Arc::new(routes)) }),
    );
    let proxy_protocol = settings.listen.proxy_protocol;
    listeners.insert(place, Arc::new(Listener { address, proxy_protocol, chains }));
}

fn listener<'a>(work: &mut Work<'a>, address: SocketAddr, servers: &[BoundServer<'a>]) -> Option<Listener> {
    let mut chains = ChainTable::default();
    let mut known = layer4::KnownNames::default();
    for server in servers {
        match server.kind {
            ServerKind::Http | ServerKind::Nothing => {}
            ServerKind::Https => add(work, &mut chains, server, names_of(server), https_chain),
            ServerKind::Tcp => {
                if let Some(proxy) = layer4::tcp_proxy(work, server) {
                    chains.insert(plain_match(&chains), tcp_chain(server, proxy));
                }
            }
            ServerKind::TlsTcp => {
                if let Some(proxy) = layer4::tcp_proxy(work, server) {
                    add(work, &mut chains, server, names_of(server), |work, server| tls_tcp_chain(work, server, proxy));
                }
            }
            ServerKind::Passthrough => layer4::passthrough(work, server, &mut known, &mut chains),
            ServerKind::AutoPassthrough => layer4::auto_passthrough(work, server, &mut chains),
        }
    }
    let plain: Vec<_> = servers.iter().filter(|server| server.kind == ServerKind::Http).collect();
    if let Some(first) = plain.first() {
        let routes = Arc::new(routes::table(work, &first.route_name, &plain));
        let chain = FilterChain { name: first.route_name.clone(), tls: None, service: Service::Http(routes) };
        chains.insert(plain_match(&chains), Arc::new(chain));
    }
    if servers.iter().any(|server| server.kind.is_tls()) {
        chains.inspect();
    }
    let proxy_protocol = work.index.settings.listen.proxy_protocol;
    (!chains.all().is_empty()).then_some(Listener { address, proxy_protocol, chains })
}

/// A plaintext chain takes whatever no other chain takes; beside a TLS chain for any name it takes plaintext alone.
fn plain_match(chains: &ChainTable) -> ChainMatch {
    let any_is_taken = chains.all().iter().any(|(conditions, _)| *conditions == ChainMatch::default());
    ChainMatch { transport: any_is_taken.then_some(Transport::Plain), ..ChainMatch::default() }
}

/// What the hosts of a server ask of the server name; nothing if `*` is among them.
fn names_of(server: &BoundServer<'_>) -> ChainMatch {
    let names = server.hosts.iter().map(|host| host.split_once('/').map_or(&**host, |(_, name)| name));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let any = names.iter().any(|name| name == "*");
    ChainMatch { server_names: if any { Vec::new() } else { names }, ..ChainMatch::default() }
}

/// Adds the chain of a server; names that an earlier server has already are told.
fn add<'a>(
    work: &mut Work<'a>,
    chains: &mut ChainTable,
    server: &BoundServer<'a>,
    conditions: ChainMatch,
    make: impl FnOnce(&mut Work<'a>, &BoundServer<'a>) -> FilterChain,
) {
    let chain = Arc::new(make(work, server));
    for host in chains.insert(conditions, chain) {
        let message = format!("an earlier server of the port has the host {host}; the first is in force");
        let path = format!("spec.servers[{}].hosts", server.number);
        work.problems.report(server.gateway, &codes::DUPLICATE_HOST, &path, message);
    }
}

fn https_chain<'a>(work: &mut Work<'a>, server: &BoundServer<'a>) -> FilterChain {
    let tls = server.server.tls.as_ref();
    let tls = tls.map(|settings| tls_server::build(work, settings, server, Inside::Http));
    let routes = routes::table(work, &server.route_name, &[server]);
    FilterChain { name: server.route_name.clone(), tls, service: Service::Http(Arc::new(routes)) }
}

fn tls_tcp_chain<'a>(work: &mut Work<'a>, server: &BoundServer<'a>, proxy: TcpProxy) -> FilterChain {
    let tls = server.server.tls.as_ref();
    let tls = tls.map(|settings| tls_server::build(work, settings, server, Inside::Tcp));
    FilterChain { name: layer4::chain_name(server), tls, service: Service::Tcp(Arc::new(proxy)) }
}

fn tcp_chain(server: &BoundServer<'_>, proxy: TcpProxy) -> Arc<FilterChain> {
    Arc::new(FilterChain { name: layer4::chain_name(server), tls: None, service: Service::Tcp(Arc::new(proxy)) })
}
