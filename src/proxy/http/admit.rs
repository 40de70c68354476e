//! May this request in, and which rule answers it? Headers are made ours, the path canonical, then the route is found.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use crate::base::cidr::Cidr;
use crate::base::uuid;
use crate::proxy::connection::Standing;
use crate::snapshot::headers::is_known_in_request;
use crate::snapshot::listener::{ConnectionFacts, FilterChain};
use crate::snapshot::path;
use crate::snapshot::redirect::{host_of, https_location};
use crate::snapshot::route::RouteRule;
use crate::snapshot::{ProxyPolicy, Snapshot};

use super::context::{Journal, Request};
use super::fail::Reply;
use super::guard::Refusal;
use super::headers;
use super::visit::Visit;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// Makes the request ours and finds its rule; else the answer that it gets.
pub(super) fn admit(
    visit: &Visit,
    snapshot: &Snapshot,
    request: &mut Request,
    journal: &mut Journal,
) -> Result<Arc<RouteRule>, Reply> {
    if request.method.as_str() == "QUERY" {
        return Err(Reply::bad_method());
    }
    if snapshot.proxy.rejects_underscores && request.headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(Reply::from(Refusal::Underscore));
    }
    let hop = headers::sanitize_request(&mut request.headers)?;
    request.trailers = hop.trailers;
    request.upgrade = is_websocket(hop.upgrade.as_ref(), request)?;
    headers::join_lines(&mut request.headers, is_known_in_request, request.http2);
    let element = visit.connection.client().map(|client| &client.element);
    headers::forward_client_cert(&mut request.headers, snapshot.proxy.forward_client_cert, element);
    journal.is_grpc = headers::is_grpc(&request.headers);
    normalize(request, &snapshot.proxy, journal.is_grpc)?;
    let https = introduce(visit, &snapshot.proxy, request, journal);
    let chain = visit.chain(snapshot).map_err(|standing| match standing {
        // On another connection the client can show who it is.
        Standing::Unproven => Reply::misdirected(),
        Standing::Welcome | Standing::Outdated => Reply::not_found(),
    })?;
    find(visit, snapshot, &chain, request, journal, https)
}

fn find(
    visit: &Visit,
    snapshot: &Snapshot,
    chain: &Arc<FilterChain>,
    request: &Request,
    journal: &mut Journal,
    https: bool,
) -> Result<Arc<RouteRule>, Reply> {
    let host = chain.routes().and_then(|routes| routes.find(request.authority()));
    let Some(host) = host else {
        let elsewhere = request.http2 && visit.is_tls() && is_served_elsewhere(visit, snapshot, chain, request);
        return Err(if elsewhere { Reply::misdirected() } else { Reply::not_found() });
    };
    journal.looks_at.clone_from(&host.looks_at);
    let facts = request.facts();
    if !https && host.wants_https(&facts) {
        return Err(Reply::redirect(http::StatusCode::MOVED_PERMANENTLY, https_location(&facts)));
    }
    host.find(&facts).cloned().ok_or_else(Reply::not_found)
}

/// Browsers reuse an HTTP/2 connection for other names of its certificate; a new one finds the right server.
fn is_served_elsewhere(visit: &Visit, snapshot: &Snapshot, chain: &Arc<FilterChain>, request: &Request) -> bool {
    let address = visit.connection.listener;
    let listener = snapshot.listeners.iter().find(|listener| listener.address == address);
    let facts = ConnectionFacts::tls(visit.connection.local.ip(), Some(host_of(request.authority())));
    let other = listener.and_then(|listener| listener.chains.find(&facts));
    let other = other.filter(|other| !Arc::ptr_eq(other, chain) && other.tls.is_some());
    other.and_then(|other| other.routes()?.find(request.authority())).is_some()
}

/// `h2c` is ignored; what is neither that nor exactly `websocket` is refused.
fn is_websocket(upgrade: Option<&HeaderValue>, request: &Request) -> Result<bool, Reply> {
    let Some(upgrade) = upgrade.filter(|_| !request.http2 && !request.http10) else {
        return Ok(false);
    };
    let protocol = upgrade.as_bytes().trim_ascii();
    if protocol.eq_ignore_ascii_case(b"h2c") {
        return Ok(false);
    }
    if !protocol.eq_ignore_ascii_case(b"websocket") {
        return Err(Reply::upgrade_refused());
    }
    // An upgrade with a body has two meanings for the bytes that follow.
    if request.has_body { Err(Reply::upgrade_refused()) } else { Ok(true) }
}

fn normalize(request: &mut Request, policy: &ProxyPolicy, is_grpc: bool) -> Result<(), Reply> {
    let as_sent = request.path();
    let redirected = path::is_redirected(as_sent, policy.path_normalization);
    let changed = match path::normalize(as_sent, policy.path_normalization) {
        Err(path::BadPath) => return Err(Reply::bad_path()),
        // A gRPC client follows no redirect.
        Ok(_) if redirected && is_grpc => return Err(Reply::bad_path()),
        Ok(path) if redirected => return Err(Reply::canonical_path(path.into_owned())),
        Ok(Cow::Owned(changed)) => Some(changed),
        Ok(Cow::Borrowed(same)) if same.len() == as_sent.len() => None,
        Ok(Cow::Borrowed(cut)) => Some(cut.to_owned()),
    };
    if changed.is_some() {
        request.normalized = changed;
    }
    Ok(())
}

/// Sets the headers that tell where the request came from; says whether it counts as https.
fn introduce(visit: &Visit, policy: &ProxyPolicy, request: &mut Request, journal: &mut Journal) -> bool {
    let peer = visit.connection.peer;
    let trust = Trust::of(policy, peer.ip());
    let client = trust.client(request.headers.get(&FORWARDED_FOR));
    let external = match client {
        Some(address) => {
            journal.client = SocketAddr::new(address, 0);
            HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| visit.peer.clone())
        }
        None => visit.peer.clone(),
    };
    let forwarded = headers::forwarded_for(request.headers.get(&FORWARDED_FOR), &visit.peer);
    request.headers.insert(FORWARDED_FOR, forwarded);
    request.headers.insert(EXTERNAL_ADDRESS, external);
    let random = (u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..));
    if policy.own_headers.request_id
        && let Ok(id) = HeaderValue::from_bytes(&uuid::version_4(random))
    {
        request.headers.insert(REQUEST_ID, id);
    }
    if policy.own_headers.forwarded_port {
        request.headers.insert(FORWARDED_PORT, visit.connection.local.port().into());
    }
    forwarded_proto(visit.is_tls(), &trust, request)
}

fn forwarded_proto(tls: bool, trust: &Trust<'_>, request: &mut Request) -> bool {
    let own = if tls { "https" } else { "http" };
    let told = request.headers.get(&FORWARDED_PROTO).filter(|_| trust.is_given()).cloned();
    let https = match &told {
        Some(told) => told == "https",
        None => tls,
    };
    if !request.http2 {
        let told = told.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let known = ["http", "https"].into_iter().find(|scheme| told.eq_ignore_ascii_case(scheme.as_bytes()));
        request.scheme = Cow::Borrowed(known.unwrap_or(own));
    }
    request.headers.insert(FORWARDED_PROTO, told.unwrap_or(HeaderValue::from_static(own)));
    https
}

/// Whose word on the client counts.
enum Trust<'a> {
    Nobody,
    /// So many proxies stand before us, and the peer may be one of them.
    Hops(u32),
    /// The proxies with these addresses, and the peer is one of them.
    Ranges(&'a [Cidr]),
}

impl<'a> Trust<'a> {
    fn of(policy: &'a ProxyPolicy, peer: IpAddr) -> Self {
        let ranges = &policy.trusted_proxies;
        let stranger = !ranges.is_empty() && !ranges.iter().any(|range| range.contains(peer));
        match policy.num_trusted_proxies {
            _ if stranger => Trust::Nobody,
            0 if ranges.is_empty() => Trust::Nobody,
            0 => Trust::Ranges(ranges),
            hops => Trust::Hops(hops),
        }
    }

    fn is_given(&self) -> bool {
        !matches!(self, Trust::Nobody)
    }

    fn client(&self, forwarded_for: Option<&HeaderValue>) -> Option<IpAddr> {
        match self {
            Trust::Nobody => None,
            Trust::Hops(hops) => headers::trusted_client(forwarded_for, *hops),
            Trust::Ranges(ranges) => {
                headers::untrusted_client(forwarded_for, |address| ranges.iter().any(|range| range.contains(address)))
            }
        }
    }
}
