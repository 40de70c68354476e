//! How does an HTTP/2 connection go on? Streams are accepted and served side by side until it is told to leave.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderValue};
use http::{Method, Request as HttpRequest};

use crate::base::task;
use crate::net::link::Link;
use crate::snapshot::ProxyPolicy;

use super::body::Receiver;
use super::client::Client;
use super::context::{Journal, Request};
use super::guard;
use super::headers;
use super::reply::size_of_head;
use super::serve::serve;
use super::visit::Visit;

/// What one stream and one connection may have in flight towards us.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What may wait for the client's window on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that were reset before we saw them (rapid reset), and by our own doing (MadeYouReset).
const MAX_UNSEEN_RESETS: usize = 20;
const MAX_OWN_RESETS: usize = 1024;
/// How long a client that was told to leave may take once nothing is going on.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the connection until it ends.
pub(super) async fn connection(link: Link, visit: Arc<Visit>) {
    let policy = Arc::clone(&visit.worker.store.load().proxy);
    let Ok(Ok(mut connection)) = tokio::time::timeout(policy.head_timeout, builder(&policy).handshake(link)).await
    else {
        return;
    };
    let active = Arc::new(AtomicUsize::new(0));
    let mut leave = pin!(visit.drain.wait());
    let mut leaving = false;
    let mut quiet = Quiet::default();
    let mut alarm = pin!(tokio::time::sleep(policy.idle_timeout));
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                quiet.disturb();
                let active = Active::new(&active);
                let (visit, max_headers) = (Arc::clone(&visit), policy.max_headers);
                drop(task::spawn_request(async move {
                    stream(&visit, request, respond, max_headers).await;
                    drop(active);
                }));
            }
            () = &mut leave, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = visit.told_to_leave(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = &mut alarm => {
                if quiet.is_over(active.load(Ordering::Relaxed)) {
                    if leaving {
                        return;
                    }
                    leaving = true;
                    connection.graceful_shutdown();
                    alarm.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
                } else {
                    alarm.as_mut().reset(tokio::time::Instant::now() + policy.idle_timeout);
                }
            }
        }
    }
}

fn builder(policy: &ProxyPolicy) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(policy.max_concurrent_streams)
        .max_header_list_size(u32::try_from(policy.max_head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_OWN_RESETS));
    builder
}

/// Whether nothing happened between two alarms.
#[derive(Default)]
struct Quiet {
    disturbed: bool,
}

impl Quiet {
    fn disturb(&mut self) {
        self.disturbed = true;
    }

    fn is_over(&mut self, active: usize) -> bool {
        active == 0 && !std::mem::take(&mut self.disturbed)
    }
}

/// Counts one stream.
struct Active(Arc<AtomicUsize>);

impl Active {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(count))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn stream(visit: &Visit, request: HttpRequest<RecvStream>, mut respond: SendResponse<Bytes>, max_headers: usize) {
    let mut journal = Journal::new(visit.connection.peer);
    let (request, upload) = match take(request, max_headers, visit.is_tls()) {
        Some(taken) => taken,
        None => return respond.send_reset(Reason::PROTOCOL_ERROR),
    };
    journal.head_received = size_of_head(&request.headers);
    let mut client = Client::http2(respond, upload);
    serve(visit, request, journal, &mut client).await;
}

/// The request, unless it is malformed (RFC 9113 8.1.1, 8.3.1; Envoy resets such streams too).
fn take(request: HttpRequest<RecvStream>, max_headers: usize, tls: bool) -> Option<(Request, Option<Receiver>)> {
    let (head, body) = request.into_parts();
    let mut headers = head.headers;
    let host = headers.remove(header::HOST);
    let authority = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok()?,
        None => host?,
    };
    let is_origin_form = head.uri.path().starts_with('/');
    let is_good_host = !authority.is_empty() && guard::is_host(authority.as_bytes());
    if head.method == Method::CONNECT || !is_origin_form || !is_good_host || headers.len() > max_headers {
        return None;
    }
    if !headers::has_clear_framing(&headers) {
        return None;
    }
    let scheme = match head.uri.scheme_str() {
        Some("http") => Cow::Borrowed("http"),
        Some("https") => Cow::Borrowed("https"),
        Some(other) => Cow::Owned(other.to_ascii_lowercase()),
        // The h2 crate keeps no scheme without an authority.
        None if tls => Cow::Borrowed("https"),
        None => Cow::Borrowed("http"),
    };
    let upload = (!body.is_end_stream()).then(|| Receiver::new(body));
    let request = Request {
        method: head.method,
        uri: head.uri,
        normalized: None,
        headers,
        scheme,
        authority,
        has_body: upload.is_some(),
        upgrade: false,
        trailers: false,
        http2: true,
        http10: false,
    };
    Some((request, upload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_quiet_when_nothing_happened_for_a_whole_period() {
        let mut quiet = Quiet::default();
        quiet.disturb();
        assert!(!quiet.is_over(0), "a request came in this period");
        assert!(!quiet.is_over(1), "a stream is open");
        assert!(quiet.is_over(0));
    }
}
