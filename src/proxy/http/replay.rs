//! What of a request's body can be sent again? What was read is kept while another try is possible, up to a limit.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::body::Piece;

/// Larger bodies are not sent again (Envoy's buffer limit).
const MOST: usize = 1024 * 1024;
/// What all requests of one thread may keep together: clients that send much of many bodies and no end must not take all
/// memory. Beyond it bodies pass, and are not sent again.
const MOST_TOGETHER: usize = 64 * 1024 * 1024;
/// Pieces smaller than this are copied together, so that many of them do not cost more than they hold.
const SMALL: usize = 1024;
const TOGETHER: usize = 16 * 1024;

/// The part of a body that was read, shared with what was sent of it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    kept: Vec<Bytes>,
    /// Small pieces behind `kept`.
    tail: BytesMut,
    size: Held,
    trailers: Option<Box<HeaderMap>>,
    /// The next piece of `kept` for the endpoint; behind the last one the client is asked.
    next: usize,
    keeps: bool,
    /// Something was read that is not kept, or an answer has begun.
    spent: bool,
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that one request keeps, counted with those of the others of its thread.
#[derive(Debug, Default)]
struct Held(usize);

impl Held {
    /// Whether as much more may be kept; counts it then.
    fn add(&mut self, bytes: usize) -> bool {
        let (own, all) = (self.0 + bytes, HELD.get() + bytes);
        let fits = own <= MOST && all <= MOST_TOGETHER;
        if fits {
            self.0 = own;
            HELD.set(all);
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0));
    }
}

impl Replay {
    /// `keeps`: whether any try after the body's beginning is possible.
    pub(super) fn new(keeps: bool) -> Self {
        Replay { keeps, ..Replay::default() }
    }

    /// The next piece that an earlier try has read.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.kept.get_mut(self.next)?;
        self.next += 1;
        Some(if self.spent { std::mem::take(piece) } else { piece.clone() })
    }

    /// Whether all that was read before has been given out.
    pub(super) fn is_given(&self) -> bool {
        self.next == self.kept.len()
    }

    /// How the body ended, once it is read and given.
    pub(super) fn end(&self) -> Piece {
        self.trailers.as_ref().map_or(Piece::End, |trailers| Piece::Trailers((**trailers).clone()))
    }

    /// Takes note of what the client sent.
    pub(super) fn note(&mut self, piece: &Piece) {
        if self.spent {
            return;
        }
        match piece {
            Piece::Data(data) if self.keeps && self.size.add(data.len()) => self.keep(data),
            Piece::Data(_) => self.seal(),
            Piece::Trailers(trailers) if self.keeps => self.trailers = Some(Box::new(trailers.clone())),
            Piece::Trailers(_) => self.seal(),
            Piece::End => {}
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if data.len() < SMALL {
            self.tail.extend_from_slice(data);
            if self.tail.len() >= TOGETHER {
                self.gather();
            }
        } else {
            self.gather();
            self.kept.push(data.clone());
        }
        self.next = self.kept.len();
    }

    fn gather(&mut self) {
        if !self.tail.is_empty() {
            self.kept.push(self.tail.split().freeze());
        }
    }

    /// Another try begins at the front.
    pub(super) fn rewind(&mut self) {
        self.gather();
        self.next = 0;
    }

    /// No other try follows: what was sent is let go, what was not follows as it is sent.
    pub(super) fn seal(&mut self) {
        self.spent = true;
        self.size = Held::default();
        self.tail = BytesMut::new();
        match self.is_given() {
            true => (self.kept, self.next) = (Vec::new(), 0),
            false => self.kept.iter_mut().take(self.next).for_each(|piece| drop(std::mem::take(piece))),
        }
    }

    /// Whether the request can be sent again from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        !self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(size: usize) -> Piece {
        Piece::Data(vec![b'x'; size].into())
    }

    fn replayed(replay: &mut Replay) -> Vec<usize> {
        std::iter::from_fn(|| replay.next()).map(|piece| piece.len()).collect()
    }

    #[test]
    fn what_was_read_is_given_again_in_order() {
        let mut replay = Replay::new(true);
        for size in [5, 7, 2000, 3] {
            replay.note(&data(size));
            assert!(replay.is_given(), "it has just been sent");
        }
        replay.rewind();
        assert_eq!(replayed(&mut replay), [12, 2000, 3], "small pieces go together");
        replay.note(&data(4));
        replay.note(&Piece::Trailers(HeaderMap::from_iter([(http::header::ETAG, "a".parse().unwrap())])));
        replay.rewind();
        assert_eq!(replayed(&mut replay), [12, 2000, 3, 4]);
        assert!(matches!(replay.end(), Piece::Trailers(trailers) if trailers.len() == 1));
        assert!(replay.is_whole());
    }

    #[test]
    fn a_body_is_kept_up_to_its_limit_and_not_at_all_where_nothing_is_retried() {
        let mut replay = Replay::new(true);
        replay.note(&data(MOST));
        assert!(replay.is_whole());
        replay.note(&data(1));
        assert!(!replay.is_whole() && replay.kept.is_empty());
        let mut replay = Replay::new(false);
        assert!(replay.is_whole(), "nothing was read yet");
        replay.note(&data(1));
        assert!(!replay.is_whole() && replay.size.0 == 0);
    }

    #[test]
    fn what_all_requests_keep_together_is_limited_too() {
        let mut replays: Vec<_> = std::iter::repeat_with(|| Replay::new(true)).take(80).collect();
        replays.iter_mut().for_each(|replay| replay.note(&data(MOST)));
        assert_eq!(replays.iter().filter(|replay| replay.is_whole()).count(), 64);
        replays.truncate(63);
        for expected in [true, false] {
            let mut replay = Replay::new(true);
            replay.note(&data(MOST));
            assert_eq!(replay.is_whole(), expected);
            replays.push(replay);
        }
        replays.clear();
        assert_eq!(HELD.get(), 0);
    }

    #[test]
    fn a_sealed_body_goes_on_where_it_was() {
        let mut replay = Replay::new(true);
        for size in [2000, 3000, 4000] {
            replay.note(&data(size));
        }
        replay.rewind();
        assert_eq!(replay.next().map(|piece| piece.len()), Some(2000));
        replay.seal();
        assert_eq!(replayed(&mut replay), [3000, 4000]);
        assert!(replay.is_given() && replay.kept.iter().all(Bytes::is_empty));
        replay.note(&data(5));
        assert!(replay.next().is_none());
    }
}
