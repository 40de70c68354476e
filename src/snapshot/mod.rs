//! What the proxy obeys: one immutable value, made by `compile`, read by everything that carries traffic.
//!
//! It speaks Envoy's words. A request pins one `Arc<Snapshot>` and reads nothing else that configuration decides.

pub(crate) mod certificate;
pub(crate) mod claims;
pub(crate) mod cluster;
pub(crate) mod cors;
pub(crate) mod dump;
mod example;
pub(crate) mod fault;
pub(crate) mod hash_policy;
pub(crate) mod headers;
pub(crate) mod identity;
pub(crate) mod issuance;
pub(crate) mod listener;
pub(crate) mod matcher;
pub(crate) mod miss;
pub(crate) mod offer;
pub(crate) mod outbound;
pub(crate) mod path;
pub(crate) mod path_index;
pub(crate) mod pattern;
pub(crate) mod redirect;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod share;
pub(crate) mod store;
pub(crate) mod tcp;
pub(crate) mod template;
pub(crate) mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::base::cidr::Cidr;
use crate::telemetry::logs::AccessLogs;

use self::cluster::Cluster;
use self::identity::IdentitySource;
use self::issuance::Issuance;
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
    pub issuance: Arc<Issuance>,
    /// `None`: it comes from files, or there is none.
    pub identity: Option<Arc<IdentitySource>>,
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
    pub forward_client_cert: ForwardClientCert,
    pub max_concurrent_streams: u32,
    pub rejects_underscores: bool,
    pub own_headers: OwnHeaders,
    pub access_logs: AccessLogs,
}

/// Which headers the proxy adds by itself (MeshConfig defaultConfig.proxyHeaders).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnHeaders {
    /// `server` of every answer; `None` leaves what the endpoint says.
    pub server: Option<HeaderValue>,
    pub request_id: bool,
    pub attempt_count: bool,
    /// `x-envoy-upstream-service-time`, `x-envoy-original-path` and `x-envoy-expected-rq-timeout-ms`.
    pub debug: bool,
    /// `x-forwarded-host`, where a rule rewrites the authority.
    pub forwarded_host: bool,
    /// `x-forwarded-port`
    pub forwarded_port: bool,
}

/// What becomes of `x-forwarded-client-cert` (MeshConfig gatewayTopology.forwardClientCertDetails). Where the client
/// showed no certificate all but the last remove it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForwardClientCert {
    /// It is removed.
    Sanitize,
    /// It stays as it came.
    ForwardOnly,
    /// Our element is appended.
    AppendForward,
    /// Our element replaces it.
    #[default]
    SanitizeSet,
    /// It stays as it came, whoever says it.
    AlwaysForwardOnly,
}

/// How the path of a request is made canonical before it is matched and forwarded (MeshConfig pathNormalization).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
    /// MERGE_SLASHES, and who writes an escaped slash is redirected to the decoded path (profile EDGE).
    RedirectEscapedSlashes,
}

impl Snapshot {
    /// Generation 0: nothing is bound.
    pub(crate) fn empty() -> Snapshot {
        let proxy = Arc::new(ProxyPolicy::default());
        Snapshot {
            generation: 0,
            listeners: Vec::new(),
            clusters: HashMap::new(),
            proxy,
            issuance: Arc::default(),
            identity: None,
        }
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
            forward_client_cert: ForwardClientCert::default(),
            max_concurrent_streams: 1024,
            rejects_underscores: false,
            own_headers: OwnHeaders::default(),
            access_logs: AccessLogs::default(),
        }
    }
}

impl Default for OwnHeaders {
    fn default() -> Self {
        OwnHeaders {
            server: Some(HeaderValue::from_static("istio-envoy")),
            request_id: true,
            attempt_count: true,
            debug: true,
            forwarded_host: false,
            forwarded_port: false,
        }
    }
}
