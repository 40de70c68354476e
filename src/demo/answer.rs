//! What does an embedded service answer with? The few forms that all of them share.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body_util::Full;

/// A whole answer in memory.
pub(super) type Answer = Response<Full<Bytes>>;

/// An HTML page.
pub(super) fn html(page: String) -> Answer {
    with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// A style sheet.
pub(super) fn css(sheet: &'static str) -> Answer {
    with_type(StatusCode::OK, "text/css; charset=utf-8", sheet)
}

/// A JSON document.
pub(super) fn json(status: StatusCode, document: &serde_json::Value) -> Answer {
    with_type(status, "application/json", document.to_string())
}

/// A line of text, for errors.
pub(super) fn text(status: StatusCode, line: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", line)
}

/// 302 to a path of the same service.
pub(super) fn see(path: &'static str) -> Answer {
    with_header(with_type(StatusCode::FOUND, "text/plain", ""), LOCATION, HeaderValue::from_static(path))
}

/// 404.
pub(super) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "not found\n")
}

/// The same answer with one more header.
pub(super) fn with_header(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().append(name, value);
    answer
}

/// `text` as it may stand in HTML, in content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
