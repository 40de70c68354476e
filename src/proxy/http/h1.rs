//! How does an HTTP/1 connection go on? Wait, read a head, serve the request, wait again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request as HttpRequest, Uri, request};
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_http::RequestHeader;
use tokio::time::Sleep;

use crate::net::link::Link;
use crate::snapshot::ProxyPolicy;

use super::client::{Client, Http1Client};
use super::context::{Journal, Request};
use super::fail::Reply;
use super::finish;
use super::guard::{Judged, Refusal};
use super::head::{self, NoHead};
use super::reply;
use super::serve::serve;
use super::visit::Visit;

/// Serves the connection until it ends. While it waits it holds neither session nor buffers.
pub(super) async fn connection(link: Link, visit: &Visit) {
    let mut link = Box::new(link);
    link.set_lazy();
    let mut buffer = BytesMut::new();
    let mut leave = pin!(visit.drain.wait());
    let mut alarm = pin!(tokio::time::sleep(visit.worker.store.load().proxy.idle_timeout));
    loop {
        // Only the policy is kept: a long exchange must not keep a replaced configuration alive.
        let policy = Arc::clone(&visit.worker.store.load().proxy);
        if !begins(&link, &mut buffer, leave.as_mut(), alarm.as_mut(), policy.idle_timeout).await {
            return;
        }
        match Box::pin(exchange(link, buffer, visit, &policy)).await {
            Some(next) => (link, buffer) = next,
            None => return,
        }
    }
}

/// Waits for the next request; false if the connection is to end.
async fn begins(
    link: &Link,
    buffer: &mut BytesMut,
    mut leave: Pin<&mut impl Future<Output = ()>>,
    mut alarm: Pin<&mut Sleep>,
    limit: Duration,
) -> bool {
    let since = Instant::now();
    loop {
        tokio::select! {
            biased;
            began = head::begin(link, buffer) => return began,
            () = &mut leave => return false,
            // The alarm is set only when it rings: most requests never touch it.
            () = &mut alarm => {
                if since.elapsed() >= limit {
                    return false;
                }
                alarm.as_mut().reset((since + limit).into());
            }
        }
    }
}

/// One request and its answer; gives the connection back if it can carry another.
async fn exchange(
    link: Box<Link>,
    mut buffer: BytesMut,
    visit: &Visit,
    policy: &ProxyPolicy,
) -> Option<(Box<Link>, BytesMut)> {
    let mut journal = Journal::new(visit.connection.peer);
    let judged = match head::read(&link, &mut buffer, policy, visit.is_tls()).await {
        Ok(judged) => judged,
        Err(NoHead::Gone) => return None,
        Err(NoHead::Refused(refusal)) => {
            let request = if refusal == Refusal::MissingHost { nameless(&buffer) } else { None };
            return refuse(link, refusal, request, journal, visit).await;
        }
    };
    journal.head_received = judged.length as u64;
    let mut session = HttpSession::new(link);
    session.set_read_timeout(None);
    session.set_pipelining_enabled(true);
    session.set_pipelined_prefix(buffer);
    if !matches!(session.read_request().await, Ok(Some(_))) {
        let link = session.into_inner().into_any().downcast().ok()?;
        return refuse(link, Refusal::Malformed, None, journal, visit).await;
    }
    // Whether an answer comes before the request's end is seen when it comes.
    session.set_close_on_response_before_downstream_finish(false);
    let request = take(&mut session, &judged);
    let mut client = Client::http1(session, request.method.clone(), judged.http10, request.has_body);
    serve(visit, request, journal, &mut client).await;
    match client {
        Client::Http1(client) => client.next().await,
        Client::Http2(_) => None,
    }
}

/// Moves the head out of the session, which keeps what it needs for framing.
fn take(session: &mut HttpSession, judged: &Judged) -> Request {
    let has_body = !session.is_body_done();
    let (mut rest, ()) = HttpRequest::new(()).into_parts();
    rest.method = session.req_header().method.clone();
    rest.version = session.req_header().version;
    if let Some(upgrade) = session.req_header().headers.get(header::UPGRADE) {
        rest.headers.insert(header::UPGRADE, upgrade.clone());
    }
    let head: request::Parts = std::mem::replace(session.req_header_mut(), RequestHeader::from(rest)).into();
    let request::Parts { method, uri, mut headers, .. } = head;
    let authority = headers.remove(header::HOST).unwrap_or(HeaderValue::from_static(""));
    Request {
        method,
        uri,
        normalized: None,
        headers,
        scheme: "http".into(),
        authority,
        has_body,
        upgrade: false,
        trailers: false,
        http2: false,
        http10: judged.http10,
    }
}

/// The request line of a well-formed head without Host, for its record.
fn nameless(head: &[u8]) -> Option<Request> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    Some(Request {
        method: Method::from_bytes(method).ok()?,
        uri: Uri::try_from(target).ok()?,
        normalized: None,
        headers: HeaderMap::new(),
        scheme: "".into(),
        authority: HeaderValue::from_static(""),
        has_body: false,
        upgrade: false,
        trailers: false,
        http2: false,
        http10: false,
    })
}

/// Answers a head that was not understood, and closes.
async fn refuse(
    link: Box<Link>,
    refusal: Refusal,
    request: Option<Request>,
    mut journal: Journal,
    visit: &Visit,
) -> Option<(Box<Link>, BytesMut)> {
    let reply = Reply::from(refusal);
    let mut client = Client::http1(HttpSession::new(link), Method::GET, false, true);
    let snapshot = visit.worker.store.load();
    let (proxy, generation) = (Arc::clone(&snapshot.proxy), snapshot.generation);
    drop(snapshot);
    let written =
        reply::write(&mut client, &Method::GET, &mut journal, &reply, proxy.own_headers.server.as_ref(), |_, _| {});
    if !reply.flags.is_empty() {
        visit.worker.telemetry.metrics.protocol_error(&reply.details);
    }
    finish::finish(visit, &proxy, generation, request.as_ref(), &journal);
    if let (Ok(()), Client::Http1(client)) = (written, client) {
        Http1Client::close(*client).await;
    }
    None
}
