//! Does a CA look here whether a name is ours? http-01 is answered before any redirect or rule (RFC 8555 section 8.3).

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::snapshot::issuance::CHALLENGE_PATH;

use super::context::Request;
use super::fail::Reply;
use super::visit::Visit;

/// The answer to a CA. `None` for all other requests, and for tokens that nobody here knows: those may be for somebody
/// behind us, such as cert-manager's solver.
pub(super) async fn answer(visit: &Visit, request: &Request) -> Option<Reply> {
    let token = token(request)?;
    let challenges = &visit.worker.issuing.challenges;
    let body = match challenges.http(token) {
        Some(body) => body,
        None => challenges.http_shared(token).await?,
    };
    visit.worker.telemetry.metrics.challenge_answered("http-01");
    tracing::info!(authority = request.authority(), peer = %visit.connection.peer, "http-01 answered");
    let body = Bytes::copy_from_slice(body.as_bytes());
    Some(Reply { body, ..Reply::new(StatusCode::OK, "", "acme_challenge") })
}

fn token(request: &Request) -> Option<&str> {
    let rest = request.path().strip_prefix(CHALLENGE_PATH)?;
    let is_read = matches!(request.method, Method::GET | Method::HEAD);
    rest.split('?').next().filter(|token| is_read && !token.is_empty())
}
