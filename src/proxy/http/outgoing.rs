//! What is sent to the endpoint: the request after the rule's changes, written for the protocol that is spoken there.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request as HttpRequest, Version, request};

use crate::snapshot::path::split_query;
use crate::snapshot::route::RewriteSource;

use super::context::Journal;
use super::fail::Failure;
use super::forward::Way;

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// What all tries have in common.
pub(super) struct Outgoing<'a> {
    way: &'a Way<'a>,
    authority: &'a HeaderValue,
    /// Where it is another than the request's.
    path: Option<String>,
    authority_source: Option<RewriteSource>,
}

impl<'a> Outgoing<'a> {
    /// Works out the rewrites.
    pub(super) fn new(way: &'a Way<'a>) -> Self {
        let path = way.forward.path_rewrite.as_ref().map(|rewrite| {
            let (path, query) = split_query(way.request.path());
            let mut new = rewrite.apply(path);
            if let Some(query) = query {
                new.push('?');
                new.push_str(query);
            }
            new
        });
        let rewrite = way.forward.authority_rewrite.as_ref().or(way.destination.authority_rewrite.as_ref());
        Outgoing {
            way,
            authority: rewrite.map_or(&way.request.authority, |rewrite| &rewrite.value),
            path,
            authority_source: rewrite.map(|rewrite| rewrite.source),
        }
    }

    /// Names the server where the cluster does not.
    pub(super) fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    /// Applies the rule's operations to the headers of a response; `code` is 0 for an answer of our own. They see path
    /// and authority as rewritten. What CORS says comes last.
    pub(super) fn change_response(&self, journal: &Journal, code: u16, headers: &mut HeaderMap) {
        self.operate_on_response(journal, code, headers);
        if let Some(permit) = self.way.permit {
            permit.apply(headers);
        }
    }

    fn operate_on_response(&self, journal: &Journal, code: u16, headers: &mut HeaderMap) {
        let way = self.way;
        let (first, second) = (&way.destination.response_headers, &way.rule.response_headers);
        if first.is_empty() && second.is_empty() {
            return;
        }
        let name = Some(&**way.destination.cluster.name());
        let changed;
        let sent = match way.destination.request_headers.is_empty() && way.rule.request_headers.is_empty() {
            true => &way.request.headers,
            false => {
                changed = self.changed_headers(journal, None);
                &changed
            }
        };
        let mut facts = journal.template_facts(&way.visit.connection, way.request, Some(sent), name);
        facts.response_code = code;
        facts.path = self.path.as_deref().unwrap_or(facts.path);
        facts.authority = self.authority.to_str().unwrap_or(facts.authority);
        first.apply(headers, &facts);
        second.apply(headers, &facts);
    }

    /// The request's headers as the rule changes them; `None` if it does not.
    pub(super) fn rewritten_headers(&self, journal: &Journal) -> Option<HeaderMap> {
        let unchanged = self.way.destination.request_headers.is_empty() && self.way.rule.request_headers.is_empty();
        (!unchanged).then(|| self.changed_headers(journal, None))
    }

    /// The head for HTTP/1.1: Host, one framing, the upgrade rebuilt by us.
    pub(super) fn http1(&self, journal: &Journal, left: Option<Duration>) -> Result<request::Parts, Failure> {
        let request = self.way.request;
        let mut head = self.head(journal, left);
        head.version = Version::HTTP_11;
        head.uri = match self.new_path() {
            Some(path) => Uri::from(path_and_query(path)?),
            None => request.uri.clone(),
        };
        head.headers.insert(header::HOST, self.authority.clone());
        if request.has_body && !head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if request.upgrade {
            head.headers.insert(header::CONNECTION, UPGRADE);
            head.headers.insert(header::UPGRADE, WEBSOCKET);
        }
        Ok(head)
    }

    /// The head for HTTP/2: pseudo headers, no Host.
    pub(super) fn http2(&self, journal: &Journal, left: Option<Duration>) -> Result<request::Parts, Failure> {
        let request = self.way.request;
        let mut head = self.head(journal, left);
        head.version = Version::HTTP_2;
        let path = match self.new_path() {
            Some(path) => path_and_query(path)?,
            None => request.uri.path_and_query().cloned().ok_or(Failure::BadRequest)?,
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if request.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(Authority::try_from(self.authority.as_bytes()).map_err(|_| Failure::BadRequest)?);
        uri.path_and_query = Some(path);
        head.uri = Uri::from_parts(uri).map_err(|_| Failure::BadRequest)?;
        Ok(head)
    }

    /// Keeps of the head what the access logs tell of it.
    pub(super) fn keep(&self, journal: &mut Journal, head: &request::Parts) {
        let logs = &self.way.proxy.access_logs;
        if !logs.is_on() {
            return;
        }
        if self.path.is_some() {
            journal.keep().path = head.uri.path_and_query().cloned();
        }
        if self.authority_source.is_some() {
            journal.keep().authority = Some(self.authority.clone());
        }
        let changed = !self.way.destination.request_headers.is_empty() || !self.way.rule.request_headers.is_empty();
        if let Some(kept) = logs.needs().of_request(&head.headers, changed) {
            journal.keep().request = Some(kept);
        }
    }

    /// As `keep`, of the head of a request that never got to an endpoint.
    pub(super) fn keep_unsent(&self, journal: &mut Journal) {
        if journal.upstream_protocol.is_empty()
            && self.way.proxy.access_logs.is_on()
            && let Ok(head) = self.http1(journal, None)
        {
            self.keep(journal, &head);
        }
    }

    fn new_path(&self) -> Option<&str> {
        self.path.as_deref().or(self.way.request.normalized.as_deref())
    }

    fn head(&self, journal: &Journal, left: Option<Duration>) -> request::Parts {
        let (mut head, ()) = HttpRequest::new(()).into_parts();
        head.method = self.way.request.method.clone();
        head.headers = self.changed_headers(journal, left);
        let own = &self.way.proxy.own_headers;
        if journal.attempts > 1 && own.attempt_count {
            head.headers.insert(ATTEMPT_COUNT, journal.attempts.into());
        }
        self.tell_originals(&mut head.headers);
        head
    }

    /// The router's own headers, then the header operations, which may change those too.
    fn changed_headers(&self, journal: &Journal, left: Option<Duration>) -> HeaderMap {
        let Way { visit, proxy, request, rule, forward, destination, .. } = *self.way;
        let mut headers = request.headers.clone();
        headers.insert(DECORATOR, forward.decorator.clone());
        if proxy.own_headers.attempt_count {
            headers.insert(ATTEMPT_COUNT, journal.attempts.max(1).into());
        }
        if request.trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(left) = left {
            if proxy.own_headers.debug {
                headers.insert(EXPECTED_TIMEOUT, u64::try_from(left.as_millis()).unwrap_or(u64::MAX).into());
            }
            if journal.is_grpc {
                limit_grpc_timeout(&mut headers, left);
            }
        }
        if !destination.request_headers.is_empty() || !rule.request_headers.is_empty() {
            let name = Some(&**destination.cluster.name());
            let mut facts = journal.template_facts(&visit.connection, request, None, name);
            // They are changed before an endpoint is chosen.
            facts.upstream_host = None;
            destination.request_headers.apply(&mut headers, &facts);
            rule.request_headers.apply(&mut headers, &facts);
        }
        headers
    }

    /// Tells what the rewrites replaced.
    fn tell_originals(&self, headers: &mut HeaderMap) {
        let Way { proxy, request, .. } = *self.way;
        if self.path.is_some()
            && proxy.own_headers.debug
            && let Ok(original) = HeaderValue::from_str(request.path())
        {
            headers.insert(ORIGINAL_PATH, original);
        }
        if matches!(self.authority_source, Some(RewriteSource::Rewrite | RewriteSource::Operation)) {
            headers.insert(ORIGINAL_HOST, request.authority.clone());
        }
        if self.authority_source == Some(RewriteSource::Rewrite) && proxy.own_headers.forwarded_host {
            let mut hosts = headers.get(&FORWARDED_HOST).map_or_else(Vec::new, |old| [old.as_bytes(), b","].concat());
            hosts.extend_from_slice(request.authority.as_bytes());
            if let Ok(hosts) = HeaderValue::from_bytes(&hosts) {
                headers.insert(FORWARDED_HOST, hosts);
            }
        }
    }
}

fn path_and_query(path: &str) -> Result<PathAndQuery, Failure> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    PathAndQuery::try_from(path).map_err(|_| Failure::BadRequest)
}

/// `grpc-timeout` is set, or lowered, to what is left of the route's timeout.
fn limit_grpc_timeout(headers: &mut HeaderMap, left: Duration) {
    if asked_grpc_timeout(headers).is_some_and(|asked| asked <= left) {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(format!("{}m", left.as_millis())) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// What a gRPC client allows the request to take.
pub(super) fn asked_grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    grpc_timeout(headers.get(&GRPC_TIMEOUT)?.to_str().ok()?)
}

/// `100m` is 100 ms: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_lowered_never_raised() {
        for (asked, expected) in [(None, "500m"), (Some("1S"), "500m"), (Some("100m"), "100m"), (Some("junk"), "500m")]
        {
            let mut headers = HeaderMap::new();
            if let Some(asked) = asked {
                headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(asked));
            }
            limit_grpc_timeout(&mut headers, Duration::from_millis(500));
            assert_eq!(headers[GRPC_TIMEOUT], expected);
        }
    }
}
