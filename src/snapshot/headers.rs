//! What do header operations make of a list of headers? (Istio Headers.HeaderOperations, Envoy's `%OPERATOR%`s.)

use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// One list: all removes, then every set, then every add. Values are computed from the headers as they were before.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderOperations {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, ValueTemplate)>,
    pub add: Vec<(HeaderName, ValueTemplate)>,
}

/// A value with `%OPERATOR%`s, parsed once.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueTemplate {
    pub parts: Vec<TemplatePart>,
}

/// A piece of a value.
#[derive(Clone, Debug)]
pub(crate) enum TemplatePart {
    Text(Box<str>),
    /// `%REQ(name)%`: the first value of the request header; `:path`, `:authority`, `:method`, `:scheme` too.
    Request(Box<str>),
    /// `%RESP(name)%`
    Response(HeaderName),
    /// `%PATH(NQ)%` and the like: whether the query is included.
    Path {
        query: bool,
    },
    QueryParameter(Box<str>),
    Protocol,
    ResponseCode,
    StartTime,
    Hostname,
    UpstreamHost,
    UpstreamCluster,
    DownstreamRemoteAddress {
        port: bool,
    },
    DownstreamLocalAddress {
        port: bool,
    },
    RequestedServerName,
    RouteName,
}

/// What operators can tell; borrowed from the request for one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TemplateFacts<'a> {
    /// The request's headers and pseudo headers as they are at this point.
    pub request: &'a HeaderMap,
    pub method: &'a str,
    pub scheme: &'a str,
    pub authority: &'a str,
    /// With the query.
    pub path: &'a str,
    pub response: Option<&'a HeaderMap>,
    /// 0 in requests and on the proxy's own answers.
    pub response_code: u16,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    pub start: SystemTime,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub server_name: Option<&'a str>,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_cluster: Option<&'a str>,
    pub route_name: &'a str,
}
