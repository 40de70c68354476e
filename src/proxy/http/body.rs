//! How does one direction of an HTTP/2 stream move? At most one chunk is held, whatever the window of the peer.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::headers::sanitize_trailers;

/// What a body gives next.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Never empty.
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    End,
}

/// The receiving half of a stream.
pub(super) struct Receiver {
    stream: RecvStream,
    data_ended: bool,
}

impl Receiver {
    pub(super) fn new(stream: RecvStream) -> Self {
        Receiver { stream, data_ended: false }
    }

    /// Whether nothing follows, trailers neither.
    pub(super) fn is_done(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, h2::Error>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(chunk) => {
                    let chunk = chunk?;
                    // The chunk is held until it is sent on, and no other is read before: the window may open now.
                    self.stream.flow_control().release_capacity(chunk.len())?;
                    if !chunk.is_empty() {
                        return Poll::Ready(Ok(Piece::Data(chunk)));
                    }
                }
                None => self.data_ended = true,
            }
        }
        Poll::Ready(Ok(match ready!(self.stream.poll_trailers(cx))? {
            Some(mut trailers) => {
                sanitize_trailers(&mut trailers);
                Piece::Trailers(trailers)
            }
            None => Piece::End,
        }))
    }
}

/// How a stream is to end once its data has gone.
enum Ending {
    Plain,
    Trailers(HeaderMap),
}

/// The sending half of a stream.
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    pending: Bytes,
    ending: Option<Ending>,
    done: bool,
}

impl Sender {
    /// `done`: the head has already ended the stream.
    pub(super) fn new(stream: SendStream<Bytes>, done: bool) -> Self {
        Sender { stream, pending: Bytes::new(), ending: None, done }
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending.is_empty() && self.ending.is_none()
    }

    /// Only when there is room.
    pub(super) fn push(&mut self, data: Bytes) {
        debug_assert!(self.pending.is_empty(), "the chunk before is still held");
        self.pending = data;
    }

    /// Ends the stream behind what was pushed.
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) {
        if !self.done {
            self.ending = Some(trailers.map_or(Ending::Plain, Ending::Trailers));
        }
    }

    /// Sends as the peer's window allows; ready when nothing is held.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.pending.is_empty() {
            self.stream.reserve_capacity(self.pending.len());
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(capacity) => _ = capacity?,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                }
            }
            let chunk = self.pending.split_to(self.stream.capacity().min(self.pending.len()));
            let ends = self.pending.is_empty() && matches!(self.ending, Some(Ending::Plain));
            self.stream.send_data(chunk, ends)?;
            if ends {
                self.ending = None;
                self.done = true;
            }
        }
        match self.ending.take() {
            None => {}
            Some(Ending::Plain) => self.stream.send_data(Bytes::new(), true)?,
            Some(Ending::Trailers(trailers)) => self.stream.send_trailers(trailers)?,
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer wants no more of this stream, or is gone.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
