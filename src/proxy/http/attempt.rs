//! What is one try? An endpoint is chosen and connected to, the request sent, and the head of its answer awaited.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::net::link::Link;
use crate::snapshot::cluster::{Cluster, EndpointSource, UpstreamProtocol};
use crate::upstream::connect::Want;
use crate::upstream::{ConnectError, Lease, Pick, Report, Wish};

use super::client::Client;
use super::clock::Clock;
use super::context::Journal;
use super::exchange::{Answer, Exchange};
use super::fail::Failure;
use super::forward::Way;
use super::mirror::{self, Taps};
use super::origin::Origin;
use super::outgoing::Outgoing;
use super::replay::Replay;

/// One try.
pub(super) struct Attempt<'a> {
    pub way: &'a Way<'a>,
    pub outgoing: &'a Outgoing<'a>,
    pub cluster: &'a Arc<Cluster>,
    pub client: &'a mut Client,
    pub journal: &'a mut Journal,
    pub clock: &'a mut Clock,
    pub body: &'a mut Replay,
    pub taps: &'a mut Taps,
    /// Decides the endpoint, where the cluster hashes.
    pub key: Option<u64>,
}

/// A failed try, and which endpoint it was.
pub(super) struct Missed {
    pub failure: Failure,
    pub at: Option<SocketAddr>,
}

/// What is spoken to the endpoints of a cluster for a client that speaks HTTP/2 or not.
pub(super) fn wanted(cluster: &Cluster, http2: bool) -> Want {
    match cluster.protocol {
        UpstreamProtocol::Http1 => Want::Http1,
        UpstreamProtocol::Http2 => Want::Http2,
        UpstreamProtocol::AsClient if http2 => Want::Http2,
        UpstreamProtocol::AsClient => Want::Http1,
    }
}

/// The status of an answer, or what gRPC's own word would be as one.
fn status_of(answer: &Answer) -> u16 {
    match answer.grpc_status {
        None => answer.head.status.as_u16(),
        Some(0) => 200,
        Some(4) => 504,
        Some(12) => 501,
        Some(14) => 503,
        Some(2 | 13 | 15) => 500,
        Some(_) => 400,
    }
}

impl Attempt<'_> {
    /// Chooses, connects, sends, and waits for the head of the answer. Endpoints that were `tried` are avoided.
    pub(super) async fn ask(&mut self, tried: &[SocketAddr]) -> Result<(Exchange<'_>, Pick, Answer), Missed> {
        let pick = self.choose(tried).await.map_err(|failure| Missed { failure, at: None })?;
        let address = pick.address();
        let missed = |failure| Missed { failure, at: Some(address) };
        self.journal.upstream_host = Some(address);
        (self.journal.upstream_local, self.journal.upstream_protocol) = (None, "");
        self.journal.upstream_peer = None;
        self.journal.workload = Some(Arc::clone(pick.workload()));
        if self.journal.attempts == 1 && !self.way.forward.mirrors.is_empty() {
            *self.taps = mirror::start(self.way, self.outgoing, self.journal, self.clock.left(1), self.key);
        }
        let want = wanted(self.cluster, self.way.request.http2);
        if want == Want::Http2 && self.way.request.upgrade {
            return Err(missed(Failure::Protocol));
        }
        let lease = self.patiently(pick.connect(self.outgoing.authority(), want)).await.map_err(missed)?;
        let lease = lease.map_err(|failure| {
            if !matches!(failure, ConnectError::Overflow { .. }) {
                pick.report(Report::Failed);
            }
            if failure == (ConnectError::Overflow { waiting: true }) {
                self.journal.upstream_host = None;
            }
            missed(Failure::Connect(failure))
        })?;
        self.journal.upstream_peer = pick.peer(&lease);
        let (origin, reused) = self.send(lease).await.map_err(missed)?;
        let uploading = self.way.request.has_body;
        let Attempt { way, outgoing, client, journal, clock, body, taps, .. } = self;
        let mut exchange =
            Exchange { way, outgoing, client, origin, journal, clock, body, taps, uploading, informed: 0 };
        match poll_fn(|cx| exchange.poll_ask(cx)).await {
            Ok(answer) => {
                pick.report(Report::Status(status_of(&answer)));
                Ok((exchange, pick, answer))
            }
            Err(Failure::Terminated { unseen }) => {
                pick.report(Report::Failed);
                Err(missed(Failure::Terminated { unseen: unseen && reused }))
            }
            Err(failure) => {
                failure.report().into_iter().for_each(|report| pick.report(report));
                exchange.origin.cancel();
                Err(missed(failure))
            }
        }
    }

    async fn choose(&mut self, tried: &[SocketAddr]) -> Result<Pick, Failure> {
        let upstreams = &self.way.visit.worker.upstreams;
        let picks = self.way.forward.retry.as_ref().and_then(|policy| policy.host_picks).unwrap_or(1);
        let client = Some(self.way.visit.connection.addresses());
        let wish = Wish { tried, picks, key: self.key, client };
        let chosen = if matches!(self.cluster.endpoints, EndpointSource::Requested) {
            let asked = upstreams.pick_requested(self.cluster, self.outgoing.authority(), wish);
            self.patiently(Box::pin(asked)).await?
        } else {
            upstreams.pick(self.cluster, wish)
        };
        chosen.map_err(|_| Failure::NoEndpoint)
    }

    async fn send(&mut self, lease: Lease) -> Result<(Origin, bool), Failure> {
        let left = self.clock.left(self.journal.attempts);
        match lease {
            Lease::Http1 { stream, reused } => {
                if self.way.proxy.access_logs.is_on() {
                    self.journal.upstream_local = Link::of(&stream).and_then(Link::local_address);
                }
                let head = self.outgoing.http1(self.journal, left)?;
                self.journal.upstream_protocol = "HTTP/1.1";
                self.outgoing.keep(self.journal, &head);
                Ok((Origin::http1(stream, head, self.way.request.upgrade)?, reused))
            }
            Lease::Http2 { sender, permit, reused } => {
                let head = self.outgoing.http2(self.journal, left)?;
                self.journal.upstream_protocol = "HTTP/2";
                self.outgoing.keep(self.journal, &head);
                let opened = Origin::http2(sender, permit, head, !self.way.request.has_body);
                Ok((self.patiently(opened).await??, reused))
            }
        }
    }

    /// Waits for something on the endpoint's side, as long as the client is there and the time is not over.
    pub(super) async fn patiently<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
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
