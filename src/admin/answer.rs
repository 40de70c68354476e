//! What does an answer look like? A status, a type and a text.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    extra: Option<(HeaderName, &'static str)>,
}

impl Answer {
    /// A line of text; a line feed is added.
    pub(super) fn text(status: StatusCode, line: impl Into<String>) -> Self {
        let mut line = line.into();
        line.push('\n');
        Answer::new(status, "text/plain; charset=utf-8", line)
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Answer::new(status, "text/plain; charset=utf-8", Bytes::new())
    }

    pub(super) fn html(page: String) -> Self {
        Answer::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    /// Prometheus' text format 0.0.4.
    pub(super) fn metrics(exposition: impl Into<Bytes>) -> Self {
        Answer::new(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposition)
    }

    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(mut text) => {
                text.push(b'\n');
                Answer::new(status, "application/json", text)
            }
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be shown: {error}")),
        }
    }

    /// 405 with the method that would do.
    pub(super) fn wrong_method(allowed: &'static str) -> Self {
        let answer = Answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
        Answer { extra: Some((ALLOW, allowed)), ..answer }
    }

    pub(super) fn not_found() -> Self {
        Answer::text(StatusCode::NOT_FOUND, "not found")
    }

    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Answer { status, content_type, body: body.into(), extra: None }
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if let Some((name, value)) = answer.extra {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
