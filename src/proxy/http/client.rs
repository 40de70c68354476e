//! What can be read from and written to the client, whatever it speaks?
//!
//! Nothing here waits: reads are polled, writes queue. Whoever writes asks `has_room` first and drives afterwards.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::SendResponse;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version, response};
use pingora_core::ErrorType;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::link::Link;

use super::body::{Piece, Receiver, Sender};

/// Why nothing more can be had from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Closed or reset.
    Gone,
    /// Its framing is wrong.
    Malformed,
}

/// One request's half of a client connection.
pub(super) enum Client {
    Http1(Box<Http1Client>),
    Http2(Box<Http2Client>),
}

/// An HTTP/1 session between its head and the end of its answer.
pub(super) struct Http1Client {
    session: HttpSession,
    method: Method,
    http10: bool,
    uploaded: bool,
    /// Whether the answer ends with the connection, so that only a reset shows that it is cut.
    close_delimited: bool,
}

/// An HTTP/2 stream.
pub(super) struct Http2Client {
    respond: SendResponse<Bytes>,
    upload: Option<Receiver>,
    download: Option<Sender>,
}

impl Client {
    /// `session` has read a head.
    pub(super) fn http1(session: HttpSession, method: Method, http10: bool, has_body: bool) -> Self {
        Client::Http1(Box::new(Http1Client { session, method, http10, uploaded: !has_body, close_delimited: false }))
    }

    /// `upload` is `None` if the head ended the request.
    pub(super) fn http2(respond: SendResponse<Bytes>, upload: Option<Receiver>) -> Self {
        Client::Http2(Box::new(Http2Client { respond, upload, download: None }))
    }

    /// Whether the whole request was read.
    pub(super) fn is_uploaded(&self) -> bool {
        match self {
            Client::Http1(client) => client.uploaded,
            Client::Http2(client) => client.upload.is_none(),
        }
    }

    /// The next piece of the request's body. Losing the future between two calls loses nothing.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        match self {
            Client::Http1(client) => client.poll_piece(cx),
            Client::Http2(client) => {
                let Some(upload) = &mut client.upload else {
                    return Poll::Ready(Ok(Piece::End));
                };
                let piece = ready!(upload.poll_piece(cx)).map_err(|_| Broken::Gone);
                if upload.is_done() || !matches!(piece, Ok(Piece::Data(_))) {
                    client.upload = None;
                }
                Poll::Ready(piece)
            }
        }
    }

    /// Ready when the client has gone. Only when the request is read, and the answer not ended.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Client::Http1(client) => match Link::of(client.session.stream()) {
                Some(link) => link.poll_closed(cx),
                None => Poll::Pending,
            },
            Client::Http2(client) => match &mut client.download {
                Some(download) => download.poll_reset(cx),
                None => client.respond.poll_reset(cx).map(drop),
            },
        }
    }

    /// Sends the head of the answer; `ends`: nothing follows it.
    pub(super) fn respond(&mut self, head: response::Parts, ends: bool) -> Result<(), Broken> {
        match self {
            Client::Http1(client) => client.respond(head, ends),
            Client::Http2(client) => client.respond(head, ends),
        }
    }

    /// Sends an informational head (RFC 9110 15.2); HTTP/1.0 clients get none.
    pub(super) fn inform(&mut self, head: response::Parts) -> Result<(), Broken> {
        match self {
            Client::Http1(client) if client.http10 => Ok(()),
            Client::Http1(client) => client.write_head(head),
            Client::Http2(client) => {
                client.respond.send_informational(Response::from_parts(head, ())).map_err(|_| Broken::Gone)
            }
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Client::Http1(client) => Link::of(client.session.stream()).is_some_and(Link::has_room),
            Client::Http2(client) => client.download.as_ref().is_none_or(Sender::has_room),
        }
    }

    /// Queues a piece of the answer. Empty pieces are dropped: to HTTP/1 they would be its end.
    pub(super) fn push(&mut self, cx: &mut Context<'_>, data: Bytes) -> Result<(), Broken> {
        match self {
            Client::Http1(client) => client.write(cx, &data),
            Client::Http2(client) => {
                if let Some(download) = client.download.as_mut().filter(|_| !data.is_empty()) {
                    download.push(data);
                }
                Ok(())
            }
        }
    }

    /// The same for borrowed bytes; HTTP/1 copies them only into the queue.
    pub(super) fn push_slice(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), Broken> {
        match self {
            Client::Http1(client) => client.write(cx, data),
            Client::Http2(_) => self.push(cx, Bytes::copy_from_slice(data)),
        }
    }

    /// Ends the answer. HTTP/1 drops trailers (RFC 9112 7.1.2 allows it).
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        match self {
            Client::Http1(client) => now(client.session.finish_body())
                .map_or(Err(Broken::Gone), |end| end.map(drop).map_err(|_| Broken::Gone)),
            Client::Http2(client) => {
                if let Some(download) = &mut client.download {
                    download.finish(trailers);
                }
                Ok(())
            }
        }
    }

    /// Sends what is queued; ready when nothing is left.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Client::Http1(client) => match Link::of(client.session.stream()) {
                Some(link) => link.poll_drive(cx).map_err(|_| Broken::Gone),
                None => Poll::Ready(Err(Broken::Gone)),
            },
            Client::Http2(client) => match &mut client.download {
                Some(download) => download.poll_drive(cx).map_err(|_| Broken::Gone),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// The answer cannot be completed: the client must see that it is cut.
    pub(super) fn abort(&mut self) {
        match self {
            Client::Http1(client) => {
                client.session.set_server_keepalive(None);
                if client.close_delimited
                    && let Some(link) = Link::of(client.session.stream())
                {
                    link.abort_on_drop();
                }
            }
            Client::Http2(client) => match &mut client.download {
                Some(download) => download.reset(Reason::INTERNAL_ERROR),
                None => client.respond.send_reset(Reason::INTERNAL_ERROR),
            },
        }
    }

    /// Says `connection: close` in the answer (HTTP/1).
    pub(super) fn announce_close(&mut self) {
        if let Client::Http1(client) = self {
            client.session.set_server_keepalive(None);
        }
    }
}

impl Http1Client {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        loop {
            let read = ready!(pin!(self.session.read_body_bytes()).poll(cx));
            match read {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(data)) => {
                    self.uploaded = self.session.is_body_done();
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Ok(None) => {
                    self.uploaded = true;
                    return Poll::Ready(Ok(Piece::End));
                }
                Err(failure) => {
                    let gone = matches!(failure.etype, ErrorType::ConnectionClosed | ErrorType::ReadError);
                    return Poll::Ready(Err(if gone { Broken::Gone } else { Broken::Malformed }));
                }
            }
        }
    }

    fn respond(&mut self, mut head: response::Parts, ends: bool) -> Result<(), Broken> {
        let status = head.status;
        let bodiless = self.method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        if status != StatusCode::SWITCHING_PROTOCOLS && !bodiless {
            if ends {
                head.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
            } else if !head.headers.contains_key(header::CONTENT_LENGTH) {
                if self.http10 {
                    self.close_delimited = true;
                } else {
                    head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
        }
        if status == StatusCode::NO_CONTENT {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.uploaded = false;
            self.close_delimited = true;
        }
        self.write_head(head)
    }

    fn write_head(&mut self, mut head: response::Parts) -> Result<(), Broken> {
        head.version = Version::HTTP_11;
        let write = self.session.write_response_header(Box::new(ResponseHeader::from(head)));
        now(write).unwrap_or(Ok(())).map_err(|_| Broken::Gone)
    }

    fn write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        match pin!(self.session.write_body(data)).poll(cx) {
            Poll::Ready(Ok(_)) => Ok(()),
            Poll::Ready(Err(_)) | Poll::Pending => Err(Broken::Gone),
        }
    }

    /// The connection for the next request, with what was already read of it; `None` if it has ended.
    pub(super) async fn next(self) -> Option<(Box<Link>, BytesMut)> {
        if !self.uploaded && !self.session.was_upgraded() {
            self.close().await;
            return None;
        }
        let (stream, rest) = self.session.reuse().await.ok()??.into_parts();
        Some((stream.into_any().downcast().ok()?, rest.unwrap_or_default()))
    }

    /// Closes behind the answer. A reset would take the answer away from a client that is still sending: what it
    /// sends is read and dropped for a while, and the answer is given time to arrive.
    pub(super) async fn close(self) {
        const LIMIT: Duration = Duration::from_secs(1);
        const MOST: usize = 16 * 1024 * 1024;
        let mut stream = self.session.into_inner();
        let ended = tokio::time::timeout(LIMIT, async {
            stream.shutdown().await?;
            let mut buffer = BytesMut::with_capacity(16 * 1024);
            let mut read = 0;
            while read < MOST {
                match stream.read_buf(&mut buffer).await? {
                    0 => return Ok(true),
                    more => read += more,
                }
                buffer.clear();
            }
            Ok::<bool, std::io::Error>(false)
        });
        let is_over = matches!(ended.await, Ok(Ok(true) | Err(_)));
        if let Some(link) = Link::of(&stream).filter(|_| !is_over) {
            arrives(link).await;
        }
    }
}

/// Returns when the client's system has all that was sent, or after a while.
async fn arrives(link: &Link) {
    const LIMIT: Duration = Duration::from_secs(10);
    const LOOK: Duration = Duration::from_millis(50);
    let began = Instant::now();
    while !link.is_confirmed() && began.elapsed() < LIMIT {
        tokio::time::sleep(LOOK).await;
    }
}

impl Http2Client {
    fn respond(&mut self, mut head: response::Parts, ends: bool) -> Result<(), Broken> {
        head.version = Version::HTTP_2;
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        head.headers.entry(header::DATE).or_insert_with(get_cached_date);
        let stream = self.respond.send_response(Response::from_parts(head, ()), ends).map_err(|_| Broken::Gone)?;
        self.download = Some(Sender::new(stream, ends));
        Ok(())
    }
}

/// The result of a future that does not wait, as writes to a lazy link.
pub(super) fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
