//! What can be written to and read from the endpoint, whatever it speaks? The other half of `client`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, StatusCode, request, response};
use pingora_core::ErrorType;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;

use crate::net::link::Link;
use crate::upstream::StreamPermit;

use super::body::{Piece, Receiver, Sender};
use super::client::{Client, now};
use super::fail::Failure;
use super::headers::has_clear_framing;

/// What an endpoint's head may be (Envoy: 60 KiB and 100 fields).
const MAX_HEAD_BYTES: usize = 60 * 1024;
const MAX_HEADERS: usize = 100;

/// A head from the endpoint.
#[derive(Debug)]
pub(super) enum OriginHead {
    /// 1xx: another head follows.
    Informational(response::Parts),
    Final {
        head: response::Parts,
        /// Nothing follows the head.
        ends: bool,
    },
}

/// What one step of the answer did.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub moved: usize,
    /// The answer is complete.
    pub done: bool,
    pub trailers: Option<HeaderMap>,
}

/// One exchange with an endpoint: a request whose head was sent.
pub(super) enum Origin {
    Http1(Box<Http1Origin>),
    Http2(Box<Http2Origin>),
}

/// An HTTP/1 session.
pub(super) struct Http1Origin {
    session: HttpSession,
    received_before: u64,
    upgrade: bool,
}

/// An HTTP/2 stream.
pub(super) struct Http2Origin {
    response: ResponseFuture,
    informed: bool,
    upload: Sender,
    download: Option<Receiver>,
    /// Counts the stream against its connection's limit.
    _permit: StreamPermit,
}

impl Origin {
    /// Queues the head on an HTTP/1 connection whose link is lazy.
    pub(super) fn http1(stream: Stream, head: request::Parts, upgrade: bool) -> Result<Self, Failure> {
        let received_before = Link::of(&stream).map_or(0, Link::received);
        let mut session = HttpSession::new(stream);
        let written = now(session.write_request_header(Box::new(RequestHeader::from(head))));
        match written {
            Some(Ok(_)) => Ok(Origin::Http1(Box::new(Http1Origin { session, received_before, upgrade }))),
            Some(Err(failure)) if failure.etype == ErrorType::InvalidHTTPHeader => Err(Failure::BadRequest),
            _ => Err(Failure::Terminated { unseen: true }),
        }
    }

    /// Opens a stream; waits while the connection has as many as it may.
    pub(super) async fn http2(
        sender: SendRequest<Bytes>,
        permit: StreamPermit,
        head: request::Parts,
        ends: bool,
    ) -> Result<Self, Failure> {
        let mut sender = sender.ready().await.map_err(|failure| of_h2(&failure))?;
        let request = Request::from_parts(head, ());
        let (response, stream) = sender.send_request(request, ends).map_err(|failure| of_h2(&failure))?;
        let upload = Sender::new(stream, ends);
        Ok(Origin::Http2(Box::new(Http2Origin { response, informed: false, upload, download: None, _permit: permit })))
    }

    /// The next head. Losing the future between two calls loses nothing.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<OriginHead, Failure>> {
        match self {
            Origin::Http1(origin) => origin.poll_head(cx),
            Origin::Http2(origin) => origin.poll_head(cx),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Origin::Http1(origin) => Link::of(origin.session.stream()).is_some_and(Link::has_room),
            Origin::Http2(origin) => origin.upload.has_room(),
        }
    }

    /// Queues a piece of the request. An error does not end the exchange: the answer may be on its way.
    pub(super) fn push(&mut self, cx: &mut Context<'_>, data: Bytes) -> Result<(), Failure> {
        match self {
            // An empty chunk would be the end of the request, and what follows another request.
            Origin::Http1(_) if data.is_empty() => Ok(()),
            Origin::Http1(origin) => match pin!(origin.session.write_body(&data)).poll(cx) {
                Poll::Ready(Ok(_)) => Ok(()),
                Poll::Ready(Err(_)) | Poll::Pending => Err(Failure::Terminated { unseen: false }),
            },
            Origin::Http2(origin) => {
                origin.upload.push(data);
                Ok(())
            }
        }
    }

    /// Ends the request. HTTP/1 drops trailers.
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        match self {
            Origin::Http1(origin) => match now(origin.session.finish_body()) {
                Some(Ok(_)) => Ok(()),
                _ => Err(Failure::Terminated { unseen: false }),
            },
            Origin::Http2(origin) => {
                origin.upload.finish(trailers);
                Ok(())
            }
        }
    }

    /// Sends what is queued; ready when nothing is left.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Origin::Http1(origin) => match Link::of(origin.session.stream()) {
                Some(link) => link.poll_drive(cx).map_err(|_| Failure::Terminated { unseen: false }),
                None => Poll::Ready(Ok(())),
            },
            Origin::Http2(origin) => origin.upload.poll_drive(cx).map_err(|failure| of_h2(&failure)),
        }
    }

    /// Moves one piece of the answer to the client, which has room.
    pub(super) fn poll_move(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Poll<Result<Step, MoveFailure>> {
        match self {
            Origin::Http1(origin) => origin.poll_move(cx, client),
            Origin::Http2(origin) => origin.poll_move(cx, client),
        }
    }

    /// Whether the head of the answer was read.
    pub(super) fn has_answered(&self) -> bool {
        match self {
            Origin::Http1(origin) => origin.session.resp_header().is_some_and(|head| !head.status.is_informational()),
            Origin::Http2(origin) => origin.download.is_some(),
        }
    }

    /// Reads and drops a piece of the answer; ready with its size, or `None` at the end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, Failure>> {
        match self {
            Origin::Http1(origin) => match ready!(pin!(origin.session.read_body_ref()).poll(cx)) {
                Ok(read) => Poll::Ready(Ok(read.map(<[u8]>::len))),
                Err(_) => Poll::Ready(Err(Failure::Terminated { unseen: false })),
            },
            Origin::Http2(origin) => {
                let Some(download) = &mut origin.download else { return Poll::Ready(Ok(None)) };
                let piece = ready!(download.poll_piece(cx)).map_err(|failure| of_h2(&failure))?;
                Poll::Ready(Ok(match piece {
                    Piece::Data(data) => Some(data.len()),
                    Piece::Trailers(_) | Piece::End => None,
                }))
            }
        }
    }

    /// From here on bytes pass as they are (101).
    pub(super) fn upgrade(&mut self) {
        if let Origin::Http1(origin) = self {
            origin.session.maybe_upgrade_body_writer();
        }
    }

    /// The connection for the next request, if it can carry one: both messages are complete.
    pub(super) async fn into_idle(self) -> Option<Stream> {
        match self {
            Origin::Http1(mut origin) => {
                // An endpoint that answered before it took all of the request may never take it: nobody waits for that.
                let sent = Link::of(origin.session.stream()).and_then(|link| now(poll_fn(|cx| link.poll_drive(cx))));
                if !matches!(sent, Some(Ok(()))) {
                    return None;
                }
                origin.session.respect_keepalive();
                origin.session.reuse().await
            }
            Origin::Http2(_) => None,
        }
    }

    /// Tells an HTTP/2 endpoint that nobody waits any more. An HTTP/1 connection is closed by dropping it.
    pub(super) fn cancel(&mut self) {
        if let Origin::Http2(origin) = self {
            origin.upload.reset(Reason::CANCEL);
        }
    }
}

/// Which side failed while the answer was moved.
#[derive(Debug)]
pub(super) enum MoveFailure {
    Client,
    Origin(Failure),
}

impl Http1Origin {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<OriginHead, Failure>> {
        let read = ready!(pin!(self.session.read_response()).poll(cx));
        if let Err(failure) = read {
            // An end in good order comes from an endpoint that has read all that reached it.
            let ended = failure.etype == ErrorType::ConnectionClosed;
            let unseen = Link::of(self.session.stream())
                .is_none_or(|link| link.received() == self.received_before && !(ended && link.is_confirmed()));
            return Poll::Ready(Err(match failure.etype {
                ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
                    Failure::Terminated { unseen }
                }
                _ => Failure::Protocol,
            }));
        }
        let too_long = self.session.get_headers_raw_bytes().len() > MAX_HEAD_BYTES;
        let Some(head) = self.session.resp_header() else {
            return Poll::Ready(Err(Failure::Protocol));
        };
        let unasked = head.status == StatusCode::SWITCHING_PROTOCOLS && !self.upgrade;
        if too_long || head.headers.len() > MAX_HEADERS || unasked || !has_clear_framing(&head.headers) {
            return Poll::Ready(Err(Failure::Protocol));
        }
        let head = head.as_owned_parts();
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Ok(OriginHead::Informational(head)));
        }
        let ends = self.session.is_body_done();
        Poll::Ready(Ok(OriginHead::Final { head, ends }))
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Poll<Result<Step, MoveFailure>> {
        let moved = match ready!(pin!(self.session.read_body_ref()).poll(cx)) {
            Ok(None) => return Poll::Ready(Ok(Step { done: true, ..Step::default() })),
            Ok(Some(data)) => client.push_slice(cx, data).map(|()| data.len()).map_err(|_| MoveFailure::Client)?,
            Err(failure) => {
                let framing = !matches!(failure.etype, ErrorType::ConnectionClosed | ErrorType::ReadError);
                let failure = if framing { Failure::Protocol } else { Failure::Terminated { unseen: false } };
                return Poll::Ready(Err(MoveFailure::Origin(failure)));
            }
        };
        Poll::Ready(Ok(Step { moved, done: self.session.is_body_done(), trailers: None }))
    }
}

impl Http2Origin {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<OriginHead, Failure>> {
        if !self.informed {
            match self.response.poll_informational(cx) {
                // HTTP/2 knows no 101, and an HTTP/1 client would take it at its word.
                Poll::Ready(Some(Ok(head))) if head.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(Failure::Protocol));
                }
                Poll::Ready(Some(Ok(head))) => {
                    return Poll::Ready(Ok(OriginHead::Informational(head.into_parts().0)));
                }
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Err(of_h2(&failure))),
                Poll::Ready(None) => self.informed = true,
                Poll::Pending => {}
            }
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx)).map_err(|failure| of_h2(&failure))?;
        let (head, body) = response.into_parts();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.headers.len() > MAX_HEADERS || switches || !has_clear_framing(&head.headers) {
            return Poll::Ready(Err(Failure::Protocol));
        }
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let ends = bodiless || body.is_end_stream();
        self.download = Some(Receiver::new(body));
        Poll::Ready(Ok(OriginHead::Final { head, ends }))
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, client: &mut Client) -> Poll<Result<Step, MoveFailure>> {
        let mut step = Step { done: true, ..Step::default() };
        let Some(download) = &mut self.download else {
            return Poll::Ready(Ok(step));
        };
        match ready!(download.poll_piece(cx)).map_err(|failure| MoveFailure::Origin(of_h2(&failure)))? {
            Piece::Data(data) => {
                step.moved = data.len();
                step.done = download.is_done();
                client.push(cx, data).map_err(|_| MoveFailure::Client)?;
            }
            Piece::Trailers(trailers) => step.trailers = Some(trailers),
            Piece::End => {}
        }
        Poll::Ready(Ok(step))
    }
}

fn of_h2(failure: &h2::Error) -> Failure {
    match failure.reason() {
        Some(Reason::REFUSED_STREAM) => Failure::Refused,
        // The endpoint leaves, and says that it has not looked at this stream (RFC 9113 6.8).
        _ if failure.is_go_away() && failure.is_remote() => Failure::Refused,
        _ if failure.is_io() || failure.is_go_away() => Failure::Terminated { unseen: false },
        _ if failure.is_reset() && failure.is_remote() => Failure::Reset,
        _ => Failure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_an_endpoint_that_answers_and_does_not_read() {
        const BODY: usize = 60_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        SockRef::from(&near).set_send_buffer_size(4096).unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut link = Link::client_plain(near);
        link.set_lazy();
        let head = Request::post("/").header("host", "a").header("content-length", BODY).body(()).unwrap();
        let mut origin = Origin::http1(Box::new(link), head.into_parts().0, false).unwrap();
        poll_fn(|cx| Poll::Ready(origin.push(cx, vec![b'u'; BODY].into()))).await.unwrap();
        origin.finish(None).unwrap();
        far.write_all(b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let answer = poll_fn(|cx| origin.poll_head(cx)).await.unwrap();
        assert!(matches!(answer, OriginHead::Final { ends: true, .. }), "{answer:?}");
        assert!(poll_fn(|cx| Poll::Ready(origin.poll_drive(cx).is_pending())).await, "some of the request is left");
        let given_back = tokio::time::timeout(Duration::from_secs(2), origin.into_idle()).await;
        assert!(given_back.expect("at once").is_none());
    }
}
