//! How are the admin ports served? HTTP/1.1 by hyper, with few connections and short patience.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::answer::Answer;
use crate::base::task;

/// Open connections of one port; further ones wait in the backlog.
const MOST_CONNECTIONS: usize = 256;
/// From the opening of a connection, or its last answer, to the end of the next request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Largest request body in bytes, and how long it may take.
const MAX_BODY: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// After a failed accept: no descriptors may be left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections for ever and has `answer` answer every request.
pub(super) async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Parts, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "an admin connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        task::spawn("admin connection", async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let answer = match read(body).await {
                        Some(body) => answer(head, body).await,
                        None => Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or too slow"),
                    };
                    Ok::<Response<Full<Bytes>>, Infallible>(answer.into())
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
            // A client that breaks off, or speaks no HTTP, has had its answer from hyper.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(slot);
        });
    }
}

/// The whole body; `None` if it is too large, too slow or broken off.
async fn read(body: Incoming) -> Option<Bytes> {
    let gathered = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    Some(gathered.ok()?.ok()?.to_bytes())
}
