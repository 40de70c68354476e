//! Which requests ended lately, and what did their rules look at? Enough to ask again, by request id.
//!
//! Every thread has a ring of its own, so that nobody waits for another; a slot keeps its memory for the next request.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::cell;
use super::flags::ResponseFlags;

const RINGS: usize = 64;
/// Bytes of text that one slot may keep; a longer question is not kept, its end is.
const MOST_BYTES: usize = 4096;
/// Longer request ids are not ours.
const LONGEST_ID: usize = 128;

/// The requests that ended lately. Keeps nothing until it is told how many.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Slots of one ring; 0 keeps nothing.
    slots: AtomicUsize,
    rings: Vec<Mutex<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    facts: Facts,
    has_question: bool,
    /// Pieces, each behind its length.
    text: Vec<u8>,
}

/// What has one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// When the request began.
    pub start: SystemTime,
    pub duration: Duration,
    /// Of the configuration that it obeyed.
    pub generation: u64,
    pub status: u16,
    pub flags: ResponseFlags,
    /// The address that is bound.
    pub listener: SocketAddr,
    pub is_tls: bool,
    /// The client, as far as it is trusted.
    pub from: IpAddr,
    pub endpoint: Option<SocketAddr>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub request_id: &'a [u8],
    pub rule: &'a str,
    pub cluster: &'a str,
    pub details: &'a str,
}

/// What was asked; enough to choose chain, host and rule again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub method: &'a [u8],
    pub scheme: &'a str,
    pub authority: &'a [u8],
    /// Normalised, with the query.
    pub path: &'a [u8],
    pub server_name: Option<&'a str>,
}

/// A request that was found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub facts: Facts,
    pub rule: String,
    pub cluster: String,
    pub details: String,
    /// `None` if it was too long to be kept.
    pub asked: Option<Asked>,
}

/// The question of a request that was found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub method: String,
    pub scheme: String,
    pub authority: String,
    pub path: String,
    pub server_name: Option<String>,
    /// Those that rules of the host look at; bytes that are no text are replaced.
    pub headers: Vec<(String, String)>,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { slots: AtomicUsize::new(0), rings: std::iter::repeat_with(Mutex::default).take(RINGS).collect() }
    }
}

impl Recent {
    /// Keeps about `most` requests from now on, shared out among so many threads.
    pub(crate) fn keep(&self, most: usize, threads: usize) {
        self.slots.store(most.div_ceil(threads.max(1)), Ordering::Relaxed);
    }

    /// Whether requests are kept: callers may save themselves the work.
    pub(crate) fn is_on(&self) -> bool {
        self.slots.load(Ordering::Relaxed) > 0
    }

    /// Keeps a request in place of the oldest one of this thread.
    pub(crate) fn record<'a>(
        &self,
        facts: Facts,
        end: End<'_>,
        question: Question<'_>,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        let most = self.slots.load(Ordering::Relaxed);
        let Some(ring) = self.rings.get(cell::of_this_thread() % RINGS) else { return };
        if most == 0 || end.request_id.is_empty() || end.request_id.len() > LONGEST_ID {
            return;
        }
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ring.next;
        ring.next = (place + 1) % most;
        if place >= ring.slots.len() {
            ring.slots.push(Slot { facts, has_question: false, text: Vec::new() });
        }
        if let Some(slot) = ring.slots.get_mut(place) {
            slot.facts = facts;
            slot.write(end, question, headers);
        }
    }

    /// The request with this id, the latest if there are several.
    pub(crate) fn find(&self, request_id: &str) -> Option<Found> {
        let mut found: Option<Found> = None;
        for ring in &self.rings {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in ring.slots.iter().filter(|slot| slot.is(request_id.as_bytes())) {
                if found.as_ref().is_none_or(|other| other.facts.start < slot.facts.start) {
                    found = slot.read();
                }
            }
        }
        found
    }
}

impl Slot {
    fn write<'a>(&mut self, end: End<'_>, question: Question<'_>, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        self.text.clear();
        for piece in [end.request_id, end.rule.as_bytes(), end.cluster.as_bytes(), end.details.as_bytes()] {
            self.put(piece);
        }
        let whole_end = self.text.len();
        let Question { method, scheme, authority, path, server_name } = question;
        for piece in [method, scheme.as_bytes(), authority, path, server_name.unwrap_or_default().as_bytes()] {
            self.put(piece);
        }
        for (name, value) in headers {
            self.put(name);
            self.put(value);
        }
        self.has_question = self.text.len() <= MOST_BYTES;
        if !self.has_question {
            self.text.truncate(whole_end);
            self.text.shrink_to(MOST_BYTES);
        }
    }

    fn put(&mut self, piece: &[u8]) {
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.text.extend_from_slice(&length.to_le_bytes());
        self.text.extend_from_slice(piece);
    }

    fn is(&self, request_id: &[u8]) -> bool {
        Pieces(&self.text).next() == Some(request_id)
    }

    fn read(&self) -> Option<Found> {
        let mut pieces = Pieces(&self.text).map(|piece| String::from_utf8_lossy(piece).into_owned()).skip(1);
        let (rule, cluster, details) = (pieces.next()?, pieces.next()?, pieces.next()?);
        let asked = if self.has_question { Asked::read(pieces) } else { None };
        Some(Found { facts: self.facts, rule, cluster, details, asked })
    }
}

impl Asked {
    fn read(mut pieces: impl Iterator<Item = String>) -> Option<Self> {
        let (method, scheme, authority) = (pieces.next()?, pieces.next()?, pieces.next()?);
        let (path, server_name) = (pieces.next()?, pieces.next()?);
        let server_name = Some(server_name).filter(|name| !name.is_empty());
        let headers = std::iter::from_fn(|| Some((pieces.next()?, pieces.next()?))).collect();
        Some(Asked { method, scheme, authority, path, server_name, headers })
    }
}

/// The pieces of a slot's text.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (piece, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(recent: &Recent, id: &str, path: &str, headers: &[(&str, &str)]) {
        let facts = Facts {
            start: SystemTime::now(),
            duration: Duration::from_millis(3),
            generation: 7,
            status: 200,
            flags: ResponseFlags::default(),
            listener: ([127, 0, 0, 1], 80).into(),
            is_tls: false,
            from: [10, 0, 0, 1].into(),
            endpoint: None,
        };
        let end = End { request_id: id.as_bytes(), rule: "r", cluster: "c", details: "d" };
        let question =
            Question { method: b"GET", scheme: "http", authority: b"a.com", path: path.as_bytes(), server_name: None };
        recent.record(facts, end, question, headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    }

    #[test]
    fn the_latest_are_kept_with_their_question() {
        let recent = Recent::default();
        record(&recent, "off", "/", &[]);
        recent.keep(2, 1);
        record(&recent, "one", "/1", &[]);
        record(&recent, "two", "/2", &[("x-a", "1"), ("x-a", "2")]);
        record(&recent, "three", &"/long".repeat(2000), &[]);
        assert!(recent.find("off").is_none() && recent.find("one").is_none());
        let two = recent.find("two").unwrap();
        assert_eq!((two.rule.as_str(), two.cluster.as_str(), two.facts.generation), ("r", "c", 7));
        let asked = two.asked.unwrap();
        assert_eq!((asked.path.as_str(), asked.server_name), ("/2", None));
        assert_eq!(asked.headers, [("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())]);
        let three = recent.find("three").unwrap();
        assert_eq!((three.asked, three.details.as_str()), (None, "d"), "its end is known, the question was too long");
    }
}
