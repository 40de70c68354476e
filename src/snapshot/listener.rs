//! Which filter chain takes a connection?

use std::net::SocketAddr;
use std::sync::Arc;

use super::route::RouteTable;
use super::tls::TlsServer;

/// Everything that is bound to one address.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What is bound.
    pub address: SocketAddr,
    /// Whether connections begin with a PROXY protocol header (v1 or v2).
    pub proxy_protocol: bool,
    /// The chain for connections that do not begin with a TLS ClientHello.
    pub plaintext: Option<Arc<FilterChain>>,
    /// The chains for TLS, by SNI.
    pub tls: ServerNames,
}

/// TLS chains by server name: exact names first, then the longest suffix, then the chain without names.
/// Compile fills the three; names are lower-case.
#[derive(Debug, Default)]
pub(crate) struct ServerNames {
    pub exact: std::collections::HashMap<Box<str>, Arc<FilterChain>>,
    /// `.example.com` for `*.example.com`, longest first.
    pub suffixes: Vec<(Box<str>, Arc<FilterChain>)>,
    pub any: Option<Arc<FilterChain>>,
}

impl ServerNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.any.is_none()
    }

    /// The chain for a client's SNI (`None`: the client sent none). SNI is compared in any case; a trailing dot is
    /// part of the name and so never matches (Istio Gateway.servers.hosts).
    pub(crate) fn find(&self, sni: Option<&str>) -> Option<&Arc<FilterChain>> {
        let by_name = sni.map(str::to_ascii_lowercase).and_then(|name| {
            self.exact.get(name.as_str()).or_else(|| {
                let holds = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
                self.suffixes.iter().find(|(suffix, _)| holds(suffix)).map(|(_, chain)| chain)
            })
        });
        by_name.or(self.any.as_ref())
    }
}

/// How one group of server names on one listener is served.
#[derive(Debug)]
pub(crate) struct FilterChain {
    /// Shown by explain, status and logs, such as `https.443.https.gateway.default`.
    pub name: String,
    /// `None` for plaintext.
    pub tls: Option<TlsServer>,
    pub routes: Arc<RouteTable>,
}
