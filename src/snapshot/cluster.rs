//! Where can a request be sent, and how?

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::tls::TlsClient;

/// A group of endpoints that a route names: one port of one service, or one subset of it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Istio's name: `outbound|<port>|<subset>|<host>`.
    pub name: Arc<str>,
    /// What metrics say of the destination.
    pub service: ServiceFacts,
    pub protocol: UpstreamProtocol,
    pub endpoints: EndpointSource,
    pub balancing: Balancing,
    /// `None`: new endpoints get their whole share at once. For round robin and least request.
    pub warmup: Option<Box<Warmup>>,
    /// `None` is plaintext. Endpoints of [`Encryption::None`] are spoken to without it.
    pub tls: Option<TlsClient>,
    /// Each connection begins with whom it is for; connections of different clients are never shared then.
    pub proxy_header: Option<ProxyHeader>,
    /// The endpoints are proxies; for connections that are not HTTP.
    pub tunnel: Option<Box<Tunnel>>,
    pub connect_timeout: Duration,
    /// Idle connections are closed after this time; `None` keeps them.
    pub idle_timeout: Option<Duration>,
    /// Requests that one connection may carry; 0 is no limit (Istio maxRequestsPerConnection).
    pub max_requests_per_connection: u32,
    pub limits: Limits,
    /// `None`: endpoints that fail stay in use.
    pub outlier: Option<Box<OutlierPolicy>>,
    /// `None`: the places of endpoints do not matter.
    pub places: Option<Box<Places>>,
    /// Changes whenever a connection opened for the old value must not carry requests of the new one: TLS, protocol.
    pub identity: u64,
}

/// Istio connectionPool and retryBudget; `None` is no limit, or nothing of the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending: Option<u32>,
    /// Requests under way, on connections of either version.
    pub max_requests: Option<u32>,
    /// Requests that are tried again at the same time.
    pub max_retries: Option<u32>,
    /// In place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Streams of one HTTP/2 connection.
    pub max_streams: Option<u32>,
    /// No request begins on a connection older than this.
    pub max_age: Option<Duration>,
    pub keepalive: Option<Keepalive>,
    pub pings: Option<Pings>,
}

/// Istio trafficPolicy.retryBudget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RetryBudget {
    /// Of the requests under way.
    pub percent: f64,
    /// So many are always allowed.
    pub least: u32,
}

/// Istio connectionPool.tcp.tcpKeepalive; what is `None` is the system's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// Istio connectionPool.http.http2KeepAlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pings {
    pub interval: Duration,
    /// A connection without an answer for so long is closed.
    pub timeout: Duration,
}

/// Istio outlierDetection; a number of 0 is no limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutlierPolicy {
    /// Answers 5xx in a row.
    pub server: u32,
    /// Answers 502, 503 and 504 in a row.
    pub gateway: u32,
    /// Failures to reach the endpoint in a row, if they are counted apart.
    pub local: u32,
    pub split: bool,
    pub interval: Duration,
    /// How long an endpoint is out the first time.
    pub base: Duration,
    pub longest: Duration,
    /// So many of the endpoints may be out.
    pub max_percent: u32,
    /// With fewer healthy ones all are used.
    pub min_health_percent: u32,
    /// The answers that count as errors; empty: 5xx.
    pub codes: Box<[u16]>,
}

/// Istio loadBalancer.warmup: a new endpoint's weight grows from `least` to all of it (Envoy's slow start).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Warmup {
    pub window: Duration,
    /// The share of its weight that an endpoint begins with, 0 to 1.
    pub least: f64,
    /// 1 is a straight line; more is steeper at the beginning.
    pub aggression: f64,
}

impl Warmup {
    /// The share of its weight that an endpoint of this age has; 1 once the window is over.
    pub(crate) fn share(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let passed = age.as_secs_f64().max(1.0) / self.window.as_secs_f64();
        passed.powf(1.0 / self.aggression).clamp(self.least, 1.0)
    }
}

/// Istio localityLbSetting, as it comes out for each endpoint or name in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub spots: Vec<Spot>,
    /// The weights of places; empty if all are alike.
    pub shares: Vec<u64>,
}

/// Where one endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// How far it is; others take over when nearer ones are ill.
    pub level: u32,
    /// An index of [`Places::shares`].
    pub place: usize,
}

impl Limits {
    /// Whether something is counted across workers.
    pub(crate) fn are_counted(&self) -> bool {
        self.max_pending.is_some() || self.max_requests.is_some() || self.limit_retries()
    }

    pub(crate) fn limit_retries(&self) -> bool {
        self.max_retries.is_some() || self.retry_budget.is_some()
    }
}

/// Istio trafficPolicy.tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tunnel {
    pub method: TunnelMethod,
    /// Host and port of the target.
    pub authority: Box<str>,
}

/// How a proxy is asked for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TunnelMethod {
    Connect,
    Post,
}

/// Istio proxyProtocol: the header in front of everything, TLS included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProxyHeader {
    V1,
    V2,
}

impl fmt::Display for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyHeader::V1 => "V1",
            ProxyHeader::V2 => "V2",
        })
    }
}

/// The labels `destination_*` of Istio's metrics that follow from the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    /// `web.shop.svc.cluster.local`, or a ServiceEntry's host.
    pub host: String,
    /// `web`; the whole host of a ServiceEntry.
    pub name: String,
    pub namespace: String,
    pub port: u16,
}

/// What is spoken to endpoints (Istio: the port's protocol; h2UpgradePolicy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamProtocol {
    Http1,
    Http2,
    /// As the client asked (useClientProtocol).
    AsClient,
}

impl fmt::Display for UpstreamProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UpstreamProtocol::Http1 => "HTTP/1.1",
            UpstreamProtocol::Http2 => "HTTP/2",
            UpstreamProtocol::AsClient => "as the client speaks",
        })
    }
}

/// Istio loadBalancer.simple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balancing {
    /// Power of two choices by active requests.
    LeastRequest,
    RoundRobin,
    Random,
    /// By a number of the request (consistentHash) on a ring of this size at least.
    Ring {
        minimum: u64,
    },
    /// By a number of the request in a table of this size.
    Maglev {
        size: u64,
    },
}

impl Balancing {
    /// Whether a number of the request decides.
    pub(crate) fn hashes(self) -> bool {
        matches!(self, Balancing::Ring { .. } | Balancing::Maglev { .. })
    }
}

impl fmt::Display for Balancing {
    /// As Istio writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balancing::LeastRequest => "LEAST_REQUEST",
            Balancing::RoundRobin => "ROUND_ROBIN",
            Balancing::Random => "RANDOM",
            Balancing::Ring { .. } => "RING_HASH",
            Balancing::Maglev { .. } => "MAGLEV",
        })
    }
}

/// Where the addresses come from.
#[derive(Debug)]
pub(crate) enum EndpointSource {
    Static(Vec<Endpoint>),
    /// Resolved again and again; every address of every name is an endpoint (strict), or only the first (logical).
    Dns {
        names: Vec<DnsName>,
        logical: bool,
    },
    /// The address that the client itself asked for; a gateway's clients ask for none but the gateway's own.
    Original,
    /// The name and port of each request's own authority, resolved when it is first asked for.
    Requested,
}

/// One address that serves a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub address: SocketAddr,
    /// 1 or more.
    pub weight: u32,
    pub encryption: Encryption,
    pub workload: Arc<WorkloadFacts>,
}

/// What connections to one endpoint of a cluster are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Encryption {
    /// As [`Cluster::tls`] says.
    #[default]
    OfCluster,
    /// Automatic mutual TLS is for other endpoints of the cluster.
    None,
}

/// One name to resolve; its addresses get these properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsName {
    pub name: String,
    pub port: u16,
    pub weight: u32,
    pub encryption: Encryption,
    pub workload: Arc<WorkloadFacts>,
}

/// The labels `destination_workload` and the like of Istio's metrics; empty texts become `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct WorkloadFacts {
    pub name: String,
    pub namespace: String,
    pub app: String,
    pub version: String,
    pub canonical_service: String,
    pub canonical_revision: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_endpoint_warms_up() {
        let share = |aggression, age| {
            let warmup = Warmup { window: Duration::from_secs(100), least: 0.1, aggression };
            (warmup.share(Duration::from_secs(age)) * 1000.0).round()
        };
        let straight: Vec<f64> = [0, 5, 20, 99, 100, 500].into_iter().map(|age| share(1.0, age)).collect();
        assert_eq!(straight, [100.0, 100.0, 200.0, 990.0, 1000.0, 1000.0]);
        assert_eq!(share(2.0, 25), 500.0, "a quarter of the window, and its root");
    }
}
