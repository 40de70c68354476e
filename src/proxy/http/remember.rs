//! What is remembered of a request that has ended, so that it can be explained?

use std::time::Duration;

use http::HeaderValue;

use crate::telemetry::recent::{End, Facts, Question};

use super::context::{Journal, Request};
use super::visit::Visit;

/// Keeps what rules looked at and how the request ended.
pub(super) fn remember(visit: &Visit, generation: u64, request: &Request, journal: &Journal, duration: Duration) {
    let connection = &visit.connection;
    let facts = Facts {
        start: journal.time,
        duration,
        generation,
        status: journal.status,
        flags: journal.flags,
        listener: connection.listener,
        is_tls: visit.is_tls(),
        from: journal.client.ip(),
        endpoint: journal.upstream_host,
    };
    let request_id = request.headers.get("x-request-id").map_or(&b""[..], HeaderValue::as_bytes);
    let end = End {
        request_id,
        rule: journal.rule.as_ref().map_or("", |rule| &rule.origin),
        cluster: journal.cluster.as_ref().map_or("", |cluster| &cluster.name),
        details: &journal.details,
    };
    let question = Question {
        method: request.method.as_str().as_bytes(),
        scheme: &request.scheme,
        authority: request.authority.as_bytes(),
        path: request.path().as_bytes(),
        server_name: connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
    };
    let names = journal.looks_at.iter().flat_map(|names| names.iter());
    let lines = names.flat_map(|name| {
        request.headers.get_all(name).iter().map(move |value| (name.as_str().as_bytes(), value.as_bytes()))
    });
    visit.worker.telemetry.recent.record(facts, end, question, lines);
}
