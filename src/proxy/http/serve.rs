//! What happens to one request, from admission to its end?

use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap};

use crate::snapshot::ProxyPolicy;
use crate::snapshot::cors::CorsVerdict;
use crate::snapshot::fault::Abort;
use crate::snapshot::route::{Action, ClusterReference, DirectResponse, RouteRule};

use super::admit;
use super::challenge;
use super::client::Client;
use super::context::{Journal, Request};
use super::fail::{Failure, Reply};
use super::finish;
use super::forward::{self, Way};
use super::inject::inject;
use super::outgoing::Outgoing;
use super::reply;
use super::visit::Visit;

/// Answers the request; afterwards the client's half of it is over, or aborted.
pub(super) async fn serve(visit: &Visit, mut request: Request, mut journal: Journal, client: &mut Client) {
    let snapshot = visit.worker.store.load();
    let generation = snapshot.generation;
    let admitted = admit::admit(visit, &snapshot, &mut request, &mut journal);
    // Rule and policy are all that is needed from here on: a long answer must not keep a replaced configuration alive.
    let proxy = Arc::clone(&snapshot.proxy);
    drop(snapshot);
    if visit.leaves() {
        client.announce_close();
    }
    let admitted = match challenge::answer(visit, &request).await {
        Some(proof) => Err(proof),
        None => admitted,
    };
    match admitted {
        Ok(rule) => {
            journal.rule = Some(rule.clone());
            act(visit, &proxy, &request, &rule, client, &mut journal).await;
        }
        Err(refused) => {
            answer(visit, &proxy, &request, client, &mut journal, &refused, |_, _| {}).await;
        }
    }
    finish::finish(visit, &proxy, generation, Some(&request), &journal);
}

async fn act(
    visit: &Visit,
    proxy: &ProxyPolicy,
    request: &Request,
    rule: &RouteRule,
    client: &mut Client,
    journal: &mut Journal,
) {
    let own = |journal: &Journal, headers: &mut HeaderMap| {
        if rule.response_headers.is_empty() {
            return;
        }
        let rewritten = match &rule.action {
            Action::Redirect(redirect) => redirect.seen_path(&request.facts()),
            _ => None,
        };
        let mut facts = journal.template_facts(&visit.connection, request, Some(&request.headers), None);
        facts.path = rewritten.as_deref().unwrap_or(facts.path);
        rule.response_headers.apply(headers, &facts);
    };
    let forward = match &rule.action {
        Action::Redirect(redirect) => {
            let reply = Reply::redirect(redirect.code, redirect.location(&request.facts()));
            return answer(visit, proxy, request, client, journal, &reply, own).await;
        }
        Action::Respond(response) => {
            return answer(visit, proxy, request, client, journal, &respond(request, response), own).await;
        }
        Action::Invalid(_) => {
            return answer(visit, proxy, request, client, journal, &Reply::invalid_rule(), |_, _| {}).await;
        }
        Action::Forward(forward) => forward,
    };
    let Some(destination) = forward.choose(fastrand::u32(..)) else {
        return answer(visit, proxy, request, client, journal, &Failure::NoCluster.reply(0), own).await;
    };
    let since = journal.start;
    let mut way = Way { visit, proxy, request, rule, forward, destination, since, permit: None };
    let reply = match treat(&mut way, client, journal).await {
        Ok(Treatment::Done) => return,
        Ok(Treatment::Preflight(told)) => {
            let tell = |_: &Journal, headers: &mut HeaderMap| headers.extend(told);
            return answer(visit, proxy, request, client, journal, &Reply::preflight(), tell).await;
        }
        Ok(Treatment::Aborted(abort)) => Reply::aborted(abort),
        Err(Failure::ClientGone) => {
            journal.left();
            return client.abort();
        }
        Err(failure) => {
            Outgoing::new(&way).keep_unsent(journal);
            failure.reply(journal.attempts)
        }
    };
    let change = |journal: &Journal, headers: &mut HeaderMap| Outgoing::new(&way).change_response(journal, 0, headers);
    answer(visit, proxy, request, client, journal, &reply, change).await;
}

/// What became of a request that its rule forwards.
enum Treatment {
    /// Its endpoint answered.
    Done,
    /// A fault was injected.
    Aborted(Abort),
    /// It was a preflight, and these headers answer it.
    Preflight(HeaderMap),
}

/// Fault, then CORS, then the endpoint, as the filters of Istio stand.
async fn treat<'a>(way: &mut Way<'a>, client: &mut Client, journal: &mut Journal) -> Result<Treatment, Failure> {
    if way.rule.fault.is_some() || way.rule.cors.is_some() {
        // The answer may come before an endpoint is asked; the log names the cluster all the same.
        if let ClusterReference::Known(cluster) = &way.destination.cluster {
            journal.cluster = Some(Arc::clone(cluster));
        }
    }
    if let Some(fault) = &way.rule.fault {
        if let Some(abort) = inject(fault, way.visit, client, journal).await? {
            return Ok(Treatment::Aborted(abort));
        }
        way.since = Instant::now();
    }
    if let Some(cors) = &way.rule.cors {
        match cors.judge(&way.request.facts()) {
            CorsVerdict::Nothing => {}
            CorsVerdict::Answer(headers) => return Ok(Treatment::Preflight(headers)),
            CorsVerdict::Permit(permit) => way.permit = Some(permit),
        }
    }
    forward::forward(way, client, journal).await.map(|()| Treatment::Done)
}

fn respond(request: &Request, response: &DirectResponse) -> Reply {
    let mut reply = Reply::new(response.status, "", "direct_response");
    reply.body = response.body.clone();
    if response.status.as_u16() == 201 || response.status.is_redirection() {
        let location = format!("{}://{}{}", request.scheme, request.authority(), request.path());
        reply.location = http::HeaderValue::try_from(location).ok();
    }
    reply
}

async fn answer(
    visit: &Visit,
    proxy: &ProxyPolicy,
    request: &Request,
    client: &mut Client,
    journal: &mut Journal,
    reply: &Reply,
    change: impl FnOnce(&Journal, &mut HeaderMap),
) {
    if visit.drain.is_draining() || !client.is_uploaded() {
        client.announce_close();
    }
    let mut kept_headers = None;
    let written =
        reply::write(client, &request.method, journal, reply, proxy.own_headers.server.as_ref(), |journal, headers| {
            let kept = headers.get(header::CONTENT_TYPE).cloned();
            change(journal, headers);
            // Removing it has no effect on an answer of our own.
            if let Some(kept) = kept {
                headers.entry(header::CONTENT_TYPE).or_insert(kept);
            }
            kept_headers = proxy.access_logs.needs().of_response(headers);
        });
    if kept_headers.is_some() {
        journal.keep().response = kept_headers;
    }
    let sent = match written {
        Ok(()) => std::future::poll_fn(|cx| client.poll_drive(cx)).await,
        Err(broken) => Err(broken),
    };
    if sent.is_err() {
        journal.left();
        client.abort();
    }
}
