//! How does a request get to its endpoint, and the answer back?
//!
//! One task moves both directions. Every poll drives what is queued, then reads only what the other side has room
//! for; so at most one chunk and one queue per direction is held, neither side can block the other, and a read that
//! is given up between two polls has lost nothing.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use tokio::time::Sleep;

use crate::net::link::Link;
use crate::snapshot::ProxyPolicy;
use crate::snapshot::cluster::{Cluster, UpstreamProtocol};
use crate::snapshot::cors::Permit;
use crate::snapshot::headers::is_known_in_response;
use crate::snapshot::route::{ClusterReference, Destination, Forward, RouteRule};
use crate::upstream::connect::Want;
use crate::upstream::{Lease, Pick};

use super::body::Piece;
use super::client::{Broken, Client};
use super::context::{Journal, Request};
use super::fail::Failure;
use super::headers;
use super::origin::{MoveFailure, Origin, OriginHead, Step};
use super::outgoing::{Outgoing, asked_grpc_timeout};
use super::reply::size_of_head;
use super::visit::Visit;

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Heads of status 1xx that an endpoint may send before its answer; they are not subject to the client's window.
const MAX_INFORMATIONAL: u32 = 100;

/// A request and where its rule sends it.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub visit: &'a Visit,
    pub proxy: &'a ProxyPolicy,
    pub request: &'a Request,
    pub rule: &'a RouteRule,
    pub forward: &'a Forward,
    pub destination: &'a Destination,
    /// From when its time counts: an injected delay lies before.
    pub since: Instant,
    /// What its answer tells the origin that asked.
    pub permit: Option<Permit<'a>>,
}

/// Sends the request to an endpoint and its answer to the client. An error means that no answer has begun.
pub(super) async fn forward(way: &Way<'_>, client: &mut Client, journal: &mut Journal) -> Result<(), Failure> {
    let cluster = match &way.destination.cluster {
        ClusterReference::Known(cluster) => cluster,
        ClusterReference::Missing(_) => return Err(Failure::NoCluster),
    };
    journal.cluster = Some(Arc::clone(cluster));
    let mut clock = Clock { limit: limit(way, journal), since: way.since, alarm: None };
    let outgoing = Outgoing::new(way);
    let mut not = None;
    loop {
        journal.attempts += 1;
        let mut attempt = Attempt {
            way,
            outgoing: &outgoing,
            cluster,
            client: &mut *client,
            journal: &mut *journal,
            clock: &mut clock,
        };
        match attempt.ask(not).await {
            Ok((exchange, pick, head, ends)) => {
                exchange.answer(pick, head, ends).await;
                return Ok(());
            }
            Err((failure, at)) => {
                let spent = journal.attempts > way.forward.retry.as_ref().map_or(0, |policy| policy.attempts);
                if spent || !may_repeat(&failure, way.request, client, journal.received) {
                    return Err(failure);
                }
                // Another endpoint after a failure; the same one after a stale connection.
                not = at.filter(|_| failure.is_retriable());
                if failure.is_retriable() {
                    pause(journal.attempts).await;
                }
            }
        }
    }
}

/// The route's timeout, or a gRPC client's own if that is shorter.
fn limit(way: &Way<'_>, journal: &Journal) -> Option<Duration> {
    let route = way.forward.timeout;
    let asked = if journal.is_grpc { asked_grpc_timeout(&way.request.headers) } else { None };
    match (route, asked) {
        (Some(route), Some(asked)) => Some(route.min(asked)),
        (route, asked) => route.or(asked),
    }
}

/// Whether the request may be sent again: it never was, or cannot have been seen, or does no harm twice
/// (RFC 9110 9.2.2).
fn may_repeat(failure: &Failure, request: &Request, client: &Client, received: u64) -> bool {
    let untouched = !request.has_body || (received == 0 && !client.is_uploaded());
    match failure {
        _ if !untouched => false,
        Failure::Terminated { unanswered: true } => request.method.is_idempotent(),
        failure => failure.is_retriable(),
    }
}

/// Envoy's back-off: 25 ms, growing, with full jitter.
async fn pause(attempts: u32) {
    let most = 25u64.saturating_mul((1 << attempts.min(4)) - 1);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=most))).await;
}

/// The route's timeout: it counts from the end of the request.
struct Clock {
    limit: Option<Duration>,
    since: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// Ready when the time is over.
    fn poll(&mut self, cx: &mut Context<'_>, uploaded: bool) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if !uploaded {
            self.since = Instant::now();
            return Poll::Pending;
        }
        let end = self.since + limit;
        self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.into()))).as_mut().poll(cx)
    }

    /// What is left of it for a try.
    fn left(&self, attempts: u32) -> Option<Duration> {
        let spent = if attempts > 1 { self.since.elapsed() } else { Duration::ZERO };
        self.limit.map(|limit| limit.saturating_sub(spent))
    }
}

/// One try.
struct Attempt<'a> {
    way: &'a Way<'a>,
    outgoing: &'a Outgoing<'a>,
    cluster: &'a Arc<Cluster>,
    client: &'a mut Client,
    journal: &'a mut Journal,
    clock: &'a mut Clock,
}

/// A failed try, and which endpoint it was.
type Missed = (Failure, Option<SocketAddr>);

impl Attempt<'_> {
    /// Chooses, connects, sends, and waits for the head of the answer.
    async fn ask(&mut self, not: Option<SocketAddr>) -> Result<(Exchange<'_>, Pick, response::Parts, bool), Missed> {
        let pick = self.way.visit.worker.upstreams.pick(self.cluster, not).map_err(|_| (Failure::NoEndpoint, None))?;
        let address = pick.address();
        self.journal.upstream_host = Some(address);
        self.journal.workload = Some(Arc::clone(pick.workload()));
        let want = match self.cluster.protocol {
            UpstreamProtocol::Http1 => Want::Http1,
            UpstreamProtocol::Http2 => Want::Http2,
            UpstreamProtocol::AsClient if self.way.request.http2 => Want::Http2,
            UpstreamProtocol::AsClient => Want::Http1,
        };
        if want == Want::Http2 && self.way.request.upgrade {
            return Err((Failure::Protocol, None));
        }
        let lease = self.patiently(pick.connect(self.outgoing.authority(), want)).await;
        let lease = lease.map_err(|failure| (failure, Some(address)))?;
        let lease = lease.map_err(|failure| (Failure::Connect(failure), Some(address)))?;
        let (origin, reused) = self.send(lease).await.map_err(|failure| (failure, Some(address)))?;
        let uploading = self.way.request.has_body;
        let Attempt { way, outgoing, client, journal, clock, .. } = self;
        let mut exchange = Exchange { way, outgoing, client, origin, journal, clock, uploading, informed: 0 };
        match poll_fn(|cx| exchange.poll_ask(cx)).await {
            Ok((head, ends)) => Ok((exchange, pick, head, ends)),
            Err(Failure::Terminated { unanswered }) => {
                Err((Failure::Terminated { unanswered: unanswered && reused }, Some(address)))
            }
            Err(failure) => {
                exchange.origin.cancel();
                Err((failure, Some(address)))
            }
        }
    }

    async fn send(&mut self, lease: Lease) -> Result<(Origin, bool), Failure> {
        let left = self.clock.left(self.journal.attempts);
        match lease {
            Lease::Http1 { stream, reused } => {
                if self.way.visit.worker.telemetry.access_log.is_on() {
                    self.journal.upstream_local = Link::of(&stream).and_then(Link::local_address);
                }
                let head = self.outgoing.http1(self.journal, left)?;
                Ok((Origin::http1(stream, head, self.way.request.upgrade)?, reused))
            }
            Lease::Http2 { sender, permit, reused } => {
                let head = self.outgoing.http2(self.journal, left)?;
                let opened = Origin::http2(sender, permit, head, !self.way.request.has_body);
                Ok((self.patiently(opened).await??, reused))
            }
        }
    }

    /// Waits for something on the endpoint's side, as long as the client is there and the time is not over.
    async fn patiently<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let uploaded = self.client.is_uploaded();
            if uploaded && self.client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            self.clock.poll(cx, uploaded).map(|()| Err(Failure::Timeout))
        })
        .await
    }
}

/// A request whose head was sent, and its answer.
struct Exchange<'a> {
    way: &'a Way<'a>,
    outgoing: &'a Outgoing<'a>,
    client: &'a mut Client,
    origin: Origin,
    journal: &'a mut Journal,
    clock: &'a mut Clock,
    /// Whether there is more of the request to come.
    uploading: bool,
    /// How many heads of status 1xx have come.
    informed: u32,
}

impl Exchange<'_> {
    /// Ready with the final head of the answer and whether it is all; the request goes on meanwhile.
    fn poll_ask(&mut self, cx: &mut Context<'_>) -> Poll<Result<(response::Parts, bool), Failure>> {
        self.poll_upload(cx)?;
        loop {
            let mut waits_for_origin = false;
            while !waits_for_origin && self.client.has_room() {
                match self.origin.poll_head(cx) {
                    Poll::Pending => waits_for_origin = true,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Ready(Ok(OriginHead::Final { head, ends })) => return Poll::Ready(Ok((head, ends))),
                    Poll::Ready(Ok(OriginHead::Informational(_))) if self.informed == MAX_INFORMATIONAL => {
                        return Poll::Ready(Err(Failure::Protocol));
                    }
                    Poll::Ready(Ok(OriginHead::Informational(head))) => {
                        self.informed += 1;
                        self.client.inform(head).map_err(|_| Failure::ClientGone)?;
                    }
                }
            }
            if let Poll::Ready(Err(_)) = self.client.poll_drive(cx) {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            if waits_for_origin || !self.client.has_room() {
                break;
            }
        }
        self.poll_end_of_patience(cx).map(Err)
    }

    /// Moves what the client sends to the endpoint. An endpoint that takes no more may still answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let stuck = match self.origin.poll_drive(cx) {
                Poll::Ready(Err(_)) => {
                    self.uploading = false;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => false,
                Poll::Pending => !self.origin.has_room(),
            };
            if stuck || !self.uploading || !self.origin.has_room() {
                return Ok(());
            }
            let piece = match self.client.poll_piece(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(Broken::Gone)) => return Err(Failure::ClientGone),
                Poll::Ready(Err(Broken::Malformed)) => return Err(Failure::ClientMalformed),
                Poll::Ready(Ok(piece)) => piece,
            };
            let sent = match piece {
                Piece::Data(data) => {
                    self.journal.received += data.len() as u64;
                    self.origin.push(cx, data).and_then(|()| match self.client.is_uploaded() {
                        true => self.end_upload(None),
                        false => Ok(()),
                    })
                }
                Piece::Trailers(trailers) => self.end_upload(Some(trailers)),
                Piece::End => self.end_upload(None),
            };
            self.uploading &= sent.is_ok();
        }
    }

    fn end_upload(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        self.uploading = false;
        self.origin.finish(trailers)
    }

    /// Ready when waiting has no more sense: the client has gone, or the time is over.
    fn poll_end_of_patience(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let uploaded = self.client.is_uploaded();
        if uploaded && self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Failure::ClientGone);
        }
        self.clock.poll(cx, uploaded).map(|()| Failure::Timeout)
    }

    /// Sends the answer. What fails from here on, the client sees as a cut answer.
    async fn answer(mut self, pick: Pick, mut head: response::Parts, ends: bool) {
        // A plain 200 is no answer to an upgrade: Envoy passes on nothing but its status.
        let refused_upgrade = self.way.request.upgrade && head.status == StatusCode::OK;
        if refused_upgrade {
            head.headers.clear();
        }
        self.journal.details = "via_upstream".into();
        self.journal.status = head.status.as_u16();
        self.journal.grpc_status = grpc_status(&head.headers);
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.finish_head(&mut head);
        self.journal.head_sent = size_of_head(&head.headers);
        let early = self.uploading && !head.status.is_success() && !tunnel;
        if early || self.way.visit.drain.is_draining() {
            self.client.announce_close();
        }
        let mut outcome = self.client.respond(head, ends || refused_upgrade).map_err(|_| Failure::ClientGone);
        if tunnel {
            self.origin.upgrade();
            self.uploading = true;
        }
        if outcome.is_ok() {
            outcome = match ends || refused_upgrade {
                true => self.client.finish(None).map_err(|_| Failure::ClientGone),
                false => Ok(()),
            };
        }
        if outcome.is_ok() {
            let mut moved = ends || refused_upgrade;
            outcome = poll_fn(|cx| self.poll_answer(cx, &mut moved)).await;
        }
        let complete = outcome.is_ok();
        if let Err(failure) = outcome {
            self.journal.cut(&failure);
            self.client.abort();
            self.origin.cancel();
        }
        if complete && !self.uploading && !tunnel && !refused_upgrade && self.client.is_uploaded() {
            if let Some(stream) = self.origin.into_idle().await {
                pick.give_back(stream);
            }
        } else if self.uploading {
            self.origin.cancel();
        }
    }

    /// Makes the endpoint's head ours.
    fn finish_head(&mut self, head: &mut response::Parts) {
        headers::sanitize_response(&mut head.headers);
        headers::join_lines(&mut head.headers, is_known_in_response, false);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            head.headers.insert(header::CONNECTION, UPGRADE);
            head.headers.insert(header::UPGRADE, WEBSOCKET);
        }
        if !self.way.request.upgrade {
            let milliseconds = self.clock.since.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
            self.journal.service_time = Some(milliseconds);
            if self.way.proxy.own_headers.debug {
                head.headers.insert(SERVICE_TIME, milliseconds.into());
            }
        }
        let code = head.status.as_u16();
        self.outgoing.change_response(self.journal, code, &mut head.headers);
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            head.headers.remove(header::UPGRADE);
        }
        if let Some(server) = &self.way.proxy.own_headers.server {
            head.headers.insert(header::SERVER, server.clone());
        }
    }

    /// Moves the answer; `done` once all of it is queued. Ready when it is sent.
    fn poll_answer(&mut self, cx: &mut Context<'_>, done: &mut bool) -> Poll<Result<(), Failure>> {
        loop {
            if !*done {
                self.poll_upload(cx)?;
            }
            let mut waits_for_origin = false;
            while !*done && self.client.has_room() {
                match self.origin.poll_move(cx, self.client) {
                    Poll::Pending => {
                        waits_for_origin = true;
                        break;
                    }
                    Poll::Ready(Err(MoveFailure::Client)) => return Poll::Ready(Err(Failure::ClientGone)),
                    Poll::Ready(Err(MoveFailure::Origin(failure))) => return Poll::Ready(Err(failure)),
                    Poll::Ready(Ok(step)) => *done = self.moved(step)?,
                }
            }
            match self.client.poll_drive(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                Poll::Ready(Ok(())) if *done => return Poll::Ready(Ok(())),
                _ if !*done && !waits_for_origin && self.client.has_room() => {}
                _ => return self.poll_end_of_patience(cx).map(Err),
            }
        }
    }

    /// Takes note of a step; true if it was the last.
    fn moved(&mut self, step: Step) -> Result<bool, Failure> {
        self.journal.sent += step.moved as u64;
        if let Some(trailers) = &step.trailers {
            self.journal.grpc_status = grpc_status(trailers).or(self.journal.grpc_status);
        }
        if step.done {
            self.client.finish(step.trailers).map_err(|_| Failure::ClientGone)?;
        }
        Ok(step.done)
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
