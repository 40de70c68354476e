//! Which rule answers a request, and what does it do? First the virtual host by name alone, then its rules in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use regex::Regex;

use super::cluster::Cluster;
use super::headers::HeaderOperations;
use super::matcher::{PathIndex, RequestMatch};

/// The facts of a request that routing looks at: sanitised headers, normalised path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFacts<'a> {
    pub method: &'a str,
    /// HTTP/1: of the connection (or of a trusted proxy); HTTP/2: the client's own word. Lower-case.
    pub scheme: &'a str,
    /// Host or `:authority` as sent, with its port.
    pub authority: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    /// Behind the first `?`, without it; `None` if there is no `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// The virtual hosts of one chain (Istio: `http.80`, `https.443.https.gw.ns`).
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub name: String,
    /// The Gateway server's port number: redirects and decorators show it.
    pub port: u16,
    pub exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `.example.com` for `*.example.com`, `-bar.com` for `*-bar.com`; by suffix.
    pub suffixes: HashMap<Box<str>, Arc<VirtualHost>>,
    /// The lengths of `suffixes`, longest first.
    pub suffix_lengths: Vec<usize>,
    pub any: Option<Arc<VirtualHost>>,
}

/// The rules of one host name.
#[derive(Debug)]
pub(crate) struct VirtualHost {
    /// Lower-case, `*` and `*.suffix` for wildcards.
    pub name: Box<str>,
    /// httpsRedirect: every plaintext request is answered 301 to https.
    pub require_tls: bool,
    /// In the order of precedence: the first that matches answers.
    pub rules: Vec<RouteRule>,
    pub index: PathIndex,
}

/// One condition and what follows from it.
#[derive(Debug)]
pub(crate) struct RouteRule {
    /// `%ROUTE_NAME%`: `route.match`, `.match`, or empty (logged as `-`).
    pub name: Box<str>,
    /// For explain: `VirtualService default/bookinfo http[0].match[2]`.
    pub origin: Box<str>,
    pub matches: RequestMatch,
    pub action: Action,
    /// Beside the destination's own lists; compile has already joined the two where Istio makes them one.
    pub request_headers: HeaderOperations,
    pub response_headers: HeaderOperations,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(DirectResponse),
}

/// Istio HTTPRoute.route.
#[derive(Debug)]
pub(crate) struct Forward {
    /// At least one; those of weight 0 are left out unless there is only one.
    pub destinations: Vec<Destination>,
    /// The sum of their weights, more than 0.
    pub total_weight: u32,
    /// `None`: disabled. Counts from the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    pub path_rewrite: Option<PathRewrite>,
    pub authority_rewrite: Option<AuthorityRewrite>,
    /// `x-envoy-decorator-operation`, sent upstream.
    pub decorator: HeaderValue,
}

/// Istio HTTPRouteDestination.
#[derive(Debug)]
pub(crate) struct Destination {
    pub cluster: ClusterReference,
    pub weight: u32,
    /// Applied before the rule's own lists.
    pub request_headers: HeaderOperations,
    pub response_headers: HeaderOperations,
    /// `Host` in the header operations of one of several destinations; the rule's own rewrite wins.
    pub authority_rewrite: Option<AuthorityRewrite>,
}

/// A cluster, or the name of one that does not exist (503 NC).
#[derive(Debug)]
pub(crate) enum ClusterReference {
    Known(Arc<Cluster>),
    Missing(Arc<str>),
}

/// Istio HTTPRewrite.uri and uriRegexRewrite.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// Replaces the first `matched` bytes of the path.
    Prefix {
        matched: usize,
        with: Box<str>,
    },
    Full(Box<str>),
    /// Every match is replaced; `with` is in Istio's form (`\1`).
    Regex {
        pattern: Arc<Regex>,
        with: Box<str>,
    },
}

/// Istio HTTPRewrite.authority, or `Host` in header operations: taken literally.
#[derive(Debug)]
pub(crate) struct AuthorityRewrite {
    pub value: HeaderValue,
    /// Whether `x-envoy-original-host` tells the old one.
    pub tell_original: bool,
}

/// Istio HTTPRedirect.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub code: StatusCode,
    pub scheme: Option<Box<str>>,
    pub authority: Option<Box<str>>,
    /// A configured port that counts (80 for http and 443 for https do not), FROM_REQUEST_PORT already filled in.
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
}

/// Istio HTTPDirectResponse.
#[derive(Debug)]
pub(crate) struct DirectResponse {
    pub status: StatusCode,
    pub body: Bytes,
}
