//! What do the headers of a message become on their way through? Pure functions.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::snapshot::ForwardClientCert;

const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Why the Connection field of a request is refused (RFC 9110 7.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadConnection {
    /// It names Host: 400 without a body.
    Host,
    /// It names a header that the proxy owns, or far too many: 400 `Bad Request`.
    Owned,
}

/// What the hop-by-hop fields of a request said before they were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// The protocol asked for by `Upgrade` together with `Connection: upgrade`.
    pub upgrade: Option<HeaderValue>,
    /// `te: trailers`
    pub trailers: bool,
}

/// More names than this in one Connection field are an attack.
const MAX_CONNECTION_OPTIONS: usize = 64;

/// What is done to a request header that the proxy does not simply pass.
enum Care {
    Connection,
    Upgrade,
    Te,
    /// Removed: hop-by-hop, or the proxy's own word that a client must not say.
    Remove,
}

fn care(name: &HeaderName) -> Option<Care> {
    let text = name.as_str();
    // Most names begin otherwise: one byte decides.
    match text.as_bytes().first() {
        Some(b'c') if text == "connection" => Some(Care::Connection),
        Some(b'u') if text == "upgrade" => Some(Care::Upgrade),
        Some(b't') if text == "te" => Some(Care::Te),
        Some(b't') if text == "transfer-encoding" => Some(Care::Remove),
        Some(b'k') if text == "keep-alive" => Some(Care::Remove),
        Some(b'p') if text == "proxy-connection" => Some(Care::Remove),
        Some(b'h') if text == "http2-settings" => Some(Care::Remove),
        Some(b'x') if is_own_word(text) => Some(Care::Remove),
        _ => None,
    }
}

/// Headers by which Envoy is steered or tells about itself; clients must not say them.
fn is_own_word(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-envoy-") else { return false };
    matches!(
        rest,
        "decorator-operation"
            | "downstream-service-cluster"
            | "downstream-service-node"
            | "original-host"
            | "original-path"
            | "retry-on"
            | "retry-grpc-on"
            | "max-retries"
            | "retriable-status-codes"
            | "retriable-header-names"
            | "upstream-alt-stat-name"
            | "upstream-rq-timeout-ms"
            | "upstream-rq-per-try-timeout-ms"
            | "upstream-rq-timeout-alt-response"
            | "upstream-stream-duration-ms"
            | "expected-rq-timeout-ms"
            | "force-trace"
            | "ip-tags"
            | "hedge-on-per-try-timeout"
            | "internal"
            | "peer-metadata"
            | "peer-metadata-id"
    )
}

/// Removes what concerns only this connection and what clients must not say. One pass when there is nothing to do.
pub(super) fn sanitize_request(headers: &mut HeaderMap) -> Result<Hop, BadConnection> {
    let mut hop = Hop::default();
    let mut gone: Vec<HeaderName> = Vec::new();
    let mut upgrade_asked = false;
    for name in headers.keys() {
        let Some(care) = care(name) else { continue };
        match care {
            Care::Remove => {}
            Care::Upgrade => hop.upgrade = headers.get(name).cloned(),
            Care::Te => hop.trailers = tokens(headers, name).any(|token| token.eq_ignore_ascii_case("trailers")),
            Care::Connection => {
                if tokens(headers, name).count() > MAX_CONNECTION_OPTIONS {
                    return Err(BadConnection::Owned);
                }
                for token in tokens(headers, name) {
                    upgrade_asked |= token.eq_ignore_ascii_case("upgrade");
                    gone.extend(nominated(token)?);
                }
            }
        }
        gone.push(name.clone());
    }
    for name in gone {
        headers.remove(name);
    }
    if !upgrade_asked {
        hop.upgrade = None;
    }
    Ok(hop)
}

/// The header that a Connection option names, if it names one that may be removed.
fn nominated(option: &str) -> Result<Option<HeaderName>, BadConnection> {
    if ["close", "keep-alive", "upgrade", "te", "http2-settings"].iter().any(|own| option.eq_ignore_ascii_case(own)) {
        return Ok(None);
    }
    let Ok(name) = HeaderName::from_bytes(option.as_bytes()) else {
        return Ok(None);
    };
    if name == header::HOST {
        return Err(BadConnection::Host);
    }
    let text = name.as_str();
    let owned = text.starts_with("x-forwarded-") || text.starts_with("x-envoy-") || text == "x-request-id";
    if owned || name == header::CONTENT_LENGTH || name == header::AUTHORIZATION || text.starts_with(':') {
        return Err(BadConnection::Owned);
    }
    Ok(Some(name))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Joins what came in several lines: known headers with `,`, cookies of HTTP/2 with `; ` (RFC 9113 8.2.3).
pub(super) fn join_lines(headers: &mut HeaderMap, is_known: fn(&HeaderName) -> bool, cookies: bool) {
    if headers.len() == headers.keys_len() {
        return;
    }
    let repeated: Vec<HeaderName> =
        headers.keys().filter(|name| headers.get_all(*name).iter().nth(1).is_some()).cloned().collect();
    for name in repeated {
        let separator: &[u8] = match name == header::COOKIE {
            true if cookies => b"; ",
            false if is_known(&name) => b",",
            _ => continue,
        };
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&lines.join(separator)) {
            headers.insert(name, joined);
        }
    }
}

/// Whether nobody can see another end of this message than we do: one plain length at most, and no coding but chunked
/// (RFC 9112 6.3).
pub(super) fn has_clear_framing(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next().is_none_or(|length| {
        !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) && lengths.next().is_none()
    });
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next().is_none_or(|coding| {
        coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
    });
    length && coding
}

/// Removes from trailers what would change the message's framing, routing or origin for one who adds them to its
/// headers (RFC 9110 6.5.1).
pub(super) fn sanitize_trailers(trailers: &mut HeaderMap) {
    let forbidden = |name: &HeaderName| {
        let text = name.as_str();
        text.starts_with("x-envoy-")
            || text.starts_with("x-forwarded-")
            || matches!(text, "content-length" | "transfer-encoding" | "connection" | "host" | "te" | "trailer")
            || matches!(text, "upgrade" | "keep-alive" | "proxy-connection" | "x-request-id")
    };
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| forbidden(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Removes what concerns only the connection to the endpoint, and what its own proxy told us. What the Connection
/// field names stays, as with Envoy.
pub(super) fn sanitize_response(headers: &mut HeaderMap) {
    let mut gone: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let text = name.as_str();
        let hop = match text.as_bytes().first() {
            Some(b'c') => text == "connection",
            Some(b'k') => text == "keep-alive",
            Some(b'p') => text == "proxy-connection",
            Some(b'u') => text == "upgrade",
            Some(b't') => text == "transfer-encoding",
            Some(b'x') => {
                matches!(text, "x-envoy-decorator-operation" | "x-envoy-peer-metadata" | "x-envoy-peer-metadata-id")
            }
            _ => false,
        };
        if hop {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Makes `x-forwarded-client-cert` ours; `element` tells of the client's certificate, if it showed one. Lines are joined
/// already.
pub(super) fn forward_client_cert(headers: &mut HeaderMap, policy: ForwardClientCert, element: Option<&HeaderValue>) {
    match (policy, element) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::Sanitize, _) | (_, None) => drop(headers.remove(CLIENT_CERT)),
        (ForwardClientCert::SanitizeSet, Some(element)) => drop(headers.insert(CLIENT_CERT, element.clone())),
        (ForwardClientCert::AppendForward, Some(element)) => {
            let earlier = headers.get(CLIENT_CERT).filter(|earlier| !earlier.is_empty());
            let joined = earlier.map(|earlier| [earlier.as_bytes(), b",", element.as_bytes()].concat());
            let joined = joined.and_then(|joined| HeaderValue::from_bytes(&joined).ok());
            headers.insert(CLIENT_CERT, joined.unwrap_or_else(|| element.clone()));
        }
    }
}

/// The N-th address from the right of the received x-forwarded-for; `None` unless it is a bare address.
pub(super) fn trusted_client(forwarded_for: Option<&HeaderValue>, hops: u32) -> Option<IpAddr> {
    let nth = usize::try_from(hops).ok()?.checked_sub(1)?;
    let entry = forwarded_for?.to_str().ok()?.rsplit(',').nth(nth)?;
    entry.trim().parse().ok()
}

/// The first address from the right that no trusted proxy has; `None` if one on the way is no bare address.
pub(super) fn untrusted_client(
    forwarded_for: Option<&HeaderValue>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let entries = forwarded_for?.to_str().ok()?.rsplit(',');
    let mut last = None;
    for entry in entries {
        let address: IpAddr = entry.trim().parse().ok()?;
        if !is_trusted(address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

/// `old,peer`: what x-forwarded-for becomes. `peer` is the text of the address.
pub(super) fn forwarded_for(old: Option<&HeaderValue>, peer: &HeaderValue) -> HeaderValue {
    let Some(old) = old.filter(|old| !old.is_empty()) else {
        return peer.clone();
    };
    HeaderValue::from_bytes(&[old.as_bytes(), b",", peer.as_bytes()].concat()).unwrap_or_else(|_| peer.clone())
}

/// Whether the request is gRPC as Envoy counts it: `application/grpc` or `application/grpc+…`.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    matches!(value.strip_prefix(b"application/grpc"), Some([] | [b'+', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::headers::is_known_in_request;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<String> {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_own_words_go() {
        let mut request = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-original-host", "x"),
            ("x-envoy-peer-metadata-id", "x"),
            ("trailer", "x"),
            ("x-envoy-own", "stays"),
        ]);
        let hop = sanitize_request(&mut request).unwrap();
        assert_eq!(hop, Hop { upgrade: None, trailers: true });
        assert_eq!(names(&request), ["trailer", "x-envoy-own"]);
        let mut upgrade = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(sanitize_request(&mut upgrade).unwrap().upgrade.is_some());
        for (option, expected) in [
            ("host", BadConnection::Host),
            ("x-forwarded-for", BadConnection::Owned),
            ("content-length", BadConnection::Owned),
            ("authorization", BadConnection::Owned),
        ] {
            assert_eq!(sanitize_request(&mut headers(&[("connection", option)])), Err(expected), "{option}");
        }
        let many = vec!["a"; 65].join(",");
        assert!(sanitize_request(&mut headers(&[("connection", &many)])).is_err());
    }

    #[test]
    fn what_a_responses_connection_names_stays() {
        let mut response =
            headers(&[("connection", "x-a"), ("x-a", "1"), ("upgrade", "h2c"), ("trailer", "x"), ("keep-alive", "1")]);
        sanitize_response(&mut response);
        assert_eq!(names(&response), ["trailer", "x-a"]);
    }

    #[test]
    fn framing_is_clear_or_refused() {
        for (fields, expected) in [
            (&[("content-length", "5")][..], true),
            (&[("transfer-encoding", " Chunked")], true),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
        ] {
            assert_eq!(has_clear_framing(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn trailers_cannot_pass_for_headers() {
        let mut trailers =
            headers(&[("content-length", "9"), ("host", "a"), ("x-forwarded-for", "6.6.6.6"), ("grpc-status", "0")]);
        sanitize_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status"]);
    }

    #[test]
    fn only_a_shown_certificate_is_forwarded() {
        use ForwardClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
        let own = HeaderValue::from_static("Hash=1");
        for (policy, shown, expected) in [
            (Sanitize, true, None),
            (ForwardOnly, true, Some("By=x")),
            (ForwardOnly, false, None),
            (AppendForward, true, Some("By=x,Hash=1")),
            (AppendForward, false, None),
            (SanitizeSet, true, Some("Hash=1")),
            (SanitizeSet, false, None),
            (AlwaysForwardOnly, true, Some("By=x")),
            (AlwaysForwardOnly, false, Some("By=x")),
        ] {
            let mut request = headers(&[("x-forwarded-client-cert", "By=x")]);
            forward_client_cert(&mut request, policy, shown.then_some(&own));
            let value = request.get(CLIENT_CERT).map(|value| value.to_str().unwrap());
            assert_eq!(value, expected, "{policy:?} {shown}");
        }
        let mut empty = headers(&[("x-forwarded-client-cert", "")]);
        forward_client_cert(&mut empty, AppendForward, Some(&own));
        assert_eq!(empty[CLIENT_CERT], "Hash=1");
    }

    #[test]
    fn only_known_names_are_joined() {
        let mut request =
            headers(&[("accept", "a"), ("accept", "b"), ("cookie", "a=1"), ("cookie", "b=2"), ("x", "1"), ("x", "2")]);
        let mut crumbs = request.clone();
        join_lines(&mut request, is_known_in_request, false);
        assert_eq!(request["accept"], "a,b");
        assert_eq!((request.get_all("cookie").iter().count(), request.get_all("x").iter().count()), (2, 2));
        join_lines(&mut crumbs, is_known_in_request, true);
        assert_eq!(crumbs["cookie"], "a=1; b=2");
    }

    #[test]
    fn the_client_is_found_from_the_right() {
        let value = |text: &str| Some(HeaderValue::from_str(text).unwrap());
        let trusted = |text: &str, hops| trusted_client(value(text).as_ref(), hops).map(|ip| ip.to_string());
        assert_eq!(trusted("1.1.1.1, 2.2.2.2", 1).as_deref(), Some("2.2.2.2"));
        assert_eq!(trusted("1.1.1.1,2.2.2.2", 2).as_deref(), Some("1.1.1.1"));
        assert_eq!(trusted("1.1.1.1", 2), None);
        assert_eq!(trusted("1.1.1.1:99", 1), None);
        assert_eq!(trusted("1.1.1.1", 0), None);
        let ten: crate::base::cidr::Cidr = "10.0.0.0/8".parse().unwrap();
        let inside =
            |text: &str| untrusted_client(value(text).as_ref(), |ip| ten.contains(ip)).map(|ip| ip.to_string());
        assert_eq!(inside("1.1.1.1, 10.0.0.2").as_deref(), Some("1.1.1.1"));
        assert_eq!(inside("10.0.0.3,10.0.0.2").as_deref(), Some("10.0.0.3"));
        assert_eq!(inside("1.1.1.1,junk"), None);
        let peer = HeaderValue::from_static("9.9.9.9");
        assert_eq!(forwarded_for(value("1.1.1.1, 2.2.2.2").as_ref(), &peer), "1.1.1.1, 2.2.2.2,9.9.9.9");
        assert_eq!(forwarded_for(None, &peer), "9.9.9.9");
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x", false),
            ("application/grpc-web", false),
            ("application/GRPC", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", value)])), expected, "{value}");
        }
    }
}
