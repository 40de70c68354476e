//! How is an answer of our own written? Plain text, or gRPC's trailers-only form for gRPC requests.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, response};

use super::client::{Broken, Client};
use super::context::Journal;
use super::fail::Reply;
use crate::telemetry::flags::Flag;

const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Queues the answer; `server` is what it says of itself. `change` applies the rule's own operations to its headers.
pub(super) fn write(
    client: &mut Client,
    method: &Method,
    journal: &mut Journal,
    reply: &Reply,
    server: Option<&HeaderValue>,
    change: impl FnOnce(&Journal, &mut HeaderMap),
) -> Result<(), Broken> {
    let mut head = head_of(reply, journal.is_grpc);
    if let Some(server) = server {
        head.headers.insert(header::SERVER, server.clone());
    }
    journal.replied(reply);
    change(journal, &mut head.headers);
    let body = if journal.is_grpc || *method == Method::HEAD { b"" } else { &reply.body[..] };
    journal.status = head.status.as_u16();
    journal.head_sent = size_of_head(&head.headers);
    journal.sent = body.len() as u64;
    client.respond(head, body.is_empty())?;
    if !body.is_empty() {
        let body = reply.body.clone();
        super::client::now(std::future::poll_fn(|cx| std::task::Poll::Ready(client.push(cx, body.clone()))))
            .unwrap_or(Err(Broken::Gone))?;
    }
    client.finish(None)
}

fn head_of(reply: &Reply, is_grpc: bool) -> response::Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = reply.status;
    let headers = &mut head.headers;
    if is_grpc {
        head.status = StatusCode::OK;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, reply.grpc_status.map_or_else(|| grpc_status(reply.status), u16::from).into());
        if let Ok(message) = HeaderValue::from_bytes(&grpc_message(&reply.body))
            && !message.is_empty()
        {
            headers.insert(GRPC_MESSAGE, message);
        }
    } else if !reply.body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, reply.body.len().into());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if reply.flags.contains(Flag::UpstreamOverflow) {
        headers.insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    if let Some(location) = &reply.location {
        headers.insert(header::LOCATION, location.clone());
    }
    head
}

/// gRPC's number for an HTTP status (Envoy's table).
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Percent-encoded as gRPC asks.
fn grpc_message(body: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut message = Vec::with_capacity(body.len());
    for &byte in body {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            message.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            message.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    message
}

/// About what the fields take on the wire.
pub(super) fn size_of_head(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64 + 19
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_requests_get_a_grpc_status() {
        let reply = Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream 100%\u{e9}", "x");
        let head = head_of(&reply, true);
        assert_eq!((head.status.as_u16(), &head.headers["grpc-status"]), (200, &HeaderValue::from_static("14")));
        assert_eq!(head.headers["grpc-message"], "no healthy upstream 100%25%C3%A9");
        assert!(head_of(&Reply::not_found(), true).headers.get("grpc-message").is_none());
    }

    #[test]
    fn plain_replies_are_text() {
        let head = head_of(&Reply::new(StatusCode::BAD_REQUEST, "Bad Request", "x"), false);
        assert_eq!(head.headers["content-type"], "text/plain");
        assert_eq!(head.headers["content-length"], "11");
        assert!(head_of(&Reply::not_found(), false).headers.get("content-type").is_none());
    }
}
