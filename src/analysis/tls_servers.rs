//! Which TLS servers of this gateway share an address?

use std::collections::BTreeMap;

use super::world::World;
use crate::resource::meta::Object;
use crate::resource::networking::{Gateway, Server, ServerTls, ServerTlsMode};

/// A server with TLS settings.
#[derive(Clone, Copy)]
pub(super) struct TlsServer<'a> {
    pub gateway: &'a Object<Gateway>,
    pub index: usize,
    pub server: &'a Server,
    pub tls: &'a ServerTls,
}

impl<'a> TlsServer<'a> {
    /// Its hosts without their namespaces, with their places.
    pub(super) fn hosts(self) -> impl Iterator<Item = (usize, &'a str)> {
        let hosts = self.server.hosts.iter().enumerate();
        hosts.map(|(at, written)| (at, written.split_once('/').map_or(written.as_str(), |(_, name)| name)))
    }

    /// Whether the bytes of TLS are passed through.
    pub(super) fn passes_through(self) -> bool {
        matches!(self.tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
    }

    /// The place of one of its hosts.
    pub(super) fn place(self, host: usize) -> String {
        format!("spec.servers[{}].hosts[{host}]", self.index)
    }
}

/// The TLS servers of the Gateways that select us, by address and port; in Istio's order of Gateways.
pub(super) fn by_address<'a>(world: &World<'a>) -> BTreeMap<(&'a str, u32), Vec<TlsServer<'a>>> {
    let mut gateways: Vec<&Object<Gateway>> = world.resources.gateways.iter().map(|gateway| &**gateway).collect();
    gateways.retain(|gateway| world.is_ours(&gateway.spec.selector));
    gateways.sort_by(|a, b| Object::by_age(a, b));
    let mut servers: BTreeMap<(&str, u32), Vec<TlsServer<'_>>> = BTreeMap::new();
    for gateway in gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = server.tls.as_ref() else { continue };
            // A server of plain HTTP has such settings for its redirect.
            if server.port.protocol.eq_ignore_ascii_case("HTTP") {
                continue;
            }
            let list = servers.entry((&server.bind, server.port.number)).or_default();
            list.push(TlsServer { gateway, index, server, tls });
        }
    }
    servers
}
