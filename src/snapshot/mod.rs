//! What the proxy obeys: one immutable value, made by `compile`, read by everything that carries traffic.
//!
//! It speaks Envoy's words. A request pins one `Arc<Snapshot>` and reads nothing else that configuration decides.

pub(crate) mod cluster;
pub(crate) mod dump;
pub(crate) mod headers;
pub(crate) mod listener;
pub(crate) mod matcher;
pub(crate) mod path;
pub(crate) mod path_index;
pub(crate) mod pattern;
pub(crate) mod redirect;
pub(crate) mod route;
pub(crate) mod store;
pub(crate) mod template;
pub(crate) mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::cidr::Cidr;

use self::cluster::Cluster;
use self::listener::Listener;

/// One generation of the configuration.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counts from 1; 0 is the empty snapshot before the first configuration.
    pub generation: u64,
    /// One for each bound address, in the order of addresses.
    pub listeners: Vec<Arc<Listener>>,
    /// By Istio's cluster name (`outbound|80||web.default.svc.cluster.local`); routes hold their own `Arc`s.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
    pub proxy: Arc<ProxyPolicy>,
}

/// What holds for every request, whatever its route. Units and defaults stand in `resource::settings::HttpSettings`.
#[derive(Clone, Debug)]
pub(crate) struct ProxyPolicy {
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub head_timeout: Duration,
    pub handshake_timeout: Duration,
    pub idle_timeout: Duration,
    pub trusted_proxies: Vec<Cidr>,
    pub num_trusted_proxies: u32,
    pub path_normalization: PathNormalization,
    pub max_concurrent_streams: u32,
}

/// How the path of a request is made canonical before it is matched and forwarded (MeshConfig pathNormalization).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

impl Snapshot {
    /// Generation 0: nothing is bound.
    pub(crate) fn empty() -> Snapshot {
        let proxy = Arc::new(ProxyPolicy::default());
        Snapshot { generation: 0, listeners: Vec::new(), clusters: HashMap::new(), proxy }
    }

    /// What is bound to an address.
    pub(crate) fn listener(&self, address: std::net::SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.address == address)
    }
}

impl Default for ProxyPolicy {
    fn default() -> Self {
        ProxyPolicy {
            max_head_bytes: 60 * 1024,
            max_headers: 100,
            head_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(3600),
            trusted_proxies: Vec::new(),
            num_trusted_proxies: 0,
            path_normalization: PathNormalization::Base,
            max_concurrent_streams: 1024,
        }
    }
}
