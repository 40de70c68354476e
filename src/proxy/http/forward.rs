//! How does a request get to an endpoint that answers it? One try after the other, as the route's policy says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::snapshot::ProxyPolicy;
use crate::snapshot::cluster::Cluster;
use crate::snapshot::cors::Permit;
use crate::snapshot::hash_policy::{self, HashFacts, HashPolicy};
use crate::snapshot::route::{ClusterReference, Destination, Forward, RouteRule};
use crate::upstream::{Overflow, Place};

use super::attempt::{Attempt, Missed};
use super::client::Client;
use super::clock::Clock;
use super::context::{Journal, Request};
use super::fail::Failure;
use super::mirror::Taps;
use super::outgoing::{Outgoing, asked_grpc_timeout};
use super::replay::Replay;
use super::retry::{self, Outcome, Repetition, Verdict};
use super::visit::Visit;

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
    let policy = way.forward.retry.as_deref();
    let outgoing = Outgoing::new(way);
    let key = way.forward.hash.as_deref().and_then(|policies| key(way, policies, &outgoing, journal));
    let mut clock = Clock::new(limit(way, journal), policy.and_then(|policy| policy.per_try_timeout), way.since);
    let mut body = Replay::new(way.request.has_body && policy.is_some_and(|policy| policy.conditions.need_body()));
    let mut taps = Taps::default();
    // Counts this request as tried again.
    let mut retrying = None;
    let mut tried: Vec<SocketAddr> = Vec::new();
    loop {
        journal.attempts += 1;
        let tries = journal.attempts;
        let mut attempt = Attempt {
            way,
            outgoing: &outgoing,
            cluster,
            client: &mut *client,
            journal: &mut *journal,
            clock: &mut clock,
            body: &mut body,
            taps: &mut taps,
            key,
        };
        let (verdict, at) = match attempt.ask(&tried).await {
            Ok((exchange, pick, answer)) => {
                let status = answer.head.status;
                let outcome =
                    Outcome::Answered { status, grpc_status: answer.grpc_status, headers: &answer.head.headers };
                let verdict = retry::decide(policy, &outcome, tries, repetition(way, exchange.body));
                let verdict = admit(way, cluster, verdict, &mut retrying);
                if !verdict.repeats() {
                    verdict.flag().into_iter().for_each(|flag| exchange.journal.flags.set(flag));
                    exchange.answer(&pick, answer).await;
                    return Ok(());
                }
                exchange.give_up(&pick, answer.ends).await;
                (verdict, Some(pick.address()))
            }
            Err(Missed { failure, at }) => {
                let verdict = retry::decide(policy, &Outcome::Failed(&failure), tries, repetition(way, attempt.body));
                let verdict = admit(way, cluster, verdict, &mut retrying);
                if !verdict.repeats() {
                    verdict.flag().into_iter().for_each(|flag| attempt.journal.flags.set(flag));
                    return Err(failure);
                }
                (verdict, at)
            }
        };
        if let (Verdict::Retry, Some(policy)) = (verdict, policy) {
            if let Some(at) = at.filter(|_| policy.host_picks.is_some()) {
                tried.retain(|known| *known != at);
                tried.push(at);
            }
            let pause = retry::pause(policy, tries, fastrand::u64(..));
            attempt.patiently(tokio::time::sleep(pause)).await?;
        }
        body.rewind();
        clock.next_try();
    }
}

/// What becomes of a verdict where the cluster limits how many requests are tried again at once.
fn admit(way: &Way<'_>, cluster: &Arc<Cluster>, verdict: Verdict, retrying: &mut Option<Place>) -> Verdict {
    *retrying = None;
    if verdict != Verdict::Retry {
        return verdict;
    }
    match way.visit.worker.upstreams.begin_retry(cluster) {
        Ok(place) => {
            *retrying = place;
            verdict
        }
        Err(Overflow) => Verdict::Overflow,
    }
}

/// The number that decides the endpoint; the answer sets the cookies that it was made of.
fn key(way: &Way<'_>, policies: &[HashPolicy], outgoing: &Outgoing<'_>, journal: &mut Journal) -> Option<u64> {
    let connection = &way.visit.connection;
    let changed = outgoing.rewritten_headers(journal);
    let hashed = hash_policy::key(
        policies,
        &HashFacts {
            headers: changed.as_ref().unwrap_or(&way.request.headers),
            authority: outgoing.authority(),
            query: way.request.facts().query,
            client: journal.client.ip(),
            peer: connection.peer,
            local: connection.local,
        },
    );
    journal.cookies = hashed.cookies;
    hashed.key
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

fn repetition(way: &Way<'_>, body: &Replay) -> Repetition {
    Repetition { possible: body.is_whole(), harmless: way.request.method.is_idempotent() }
}
