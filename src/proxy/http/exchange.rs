//! How does a request that was sent go on? Its body to the endpoint, the answer to the client, both at once.
//!
//! One task moves both directions. Every poll drives what is queued, then reads only what the other side has room
//! for; so at most one chunk and one queue per direction is held, neither side can block the other, and a read that
//! is given up between two polls has lost nothing.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};

use crate::snapshot::headers::is_known_in_response;
use crate::upstream::Pick;

use super::body::Piece;
use super::client::{Broken, Client, now};
use super::clock::Clock;
use super::context::Journal;
use super::fail::Failure;
use super::forward::Way;
use super::headers;
use super::mirror::Taps;
use super::origin::{MoveFailure, Origin, OriginHead, Step};
use super::outgoing::Outgoing;
use super::replay::Replay;
use super::reply::size_of_head;

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Heads of status 1xx that an endpoint may send before its answer; they are not subject to the client's window.
const MAX_INFORMATIONAL: u32 = 100;
/// What is read of an answer that nobody gets, to use its connection again.
const MOST_DISCARDED: usize = 64 * 1024;

/// The head of an answer, and what follows it.
pub(super) struct Answer {
    pub head: response::Parts,
    pub grpc_status: Option<u16>,
    /// Nothing follows the head.
    pub ends: bool,
}

/// A request whose head was sent, and its answer.
pub(super) struct Exchange<'a> {
    pub way: &'a Way<'a>,
    pub outgoing: &'a Outgoing<'a>,
    pub client: &'a mut Client,
    pub origin: Origin,
    pub journal: &'a mut Journal,
    pub clock: &'a mut Clock,
    pub body: &'a mut Replay,
    pub taps: &'a mut Taps,
    /// Whether there is more of the request to come.
    pub uploading: bool,
    /// How many heads of status 1xx have come.
    pub informed: u32,
}

impl Exchange<'_> {
    /// Ready with the final head of the answer; the request goes on meanwhile.
    pub(super) fn poll_ask(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Failure>> {
        self.poll_upload(cx)?;
        loop {
            let mut waits_for_origin = false;
            while !waits_for_origin && self.client.has_room() {
                match self.origin.poll_head(cx) {
                    Poll::Pending => waits_for_origin = true,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Ready(Ok(OriginHead::Final { head, ends })) => {
                        let grpc_status = grpc_status(&head.headers);
                        return Poll::Ready(Ok(Answer { head, grpc_status, ends }));
                    }
                    Poll::Ready(Ok(OriginHead::Informational(_))) if self.informed == MAX_INFORMATIONAL => {
                        return Poll::Ready(Err(Failure::Protocol));
                    }
                    Poll::Ready(Ok(OriginHead::Informational(head))) => {
                        self.informed += 1;
                        // The client has seen something of this try.
                        self.body.seal();
                        self.client.inform(head).map_err(|_| Failure::ClientGone)?;
                    }
                }
            }
            if let Poll::Ready(Err(_)) = self.client.poll_drive(cx) {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            if waits_for_origin || !self.client.has_room() {
                break;
            }
        }
        if let Poll::Ready(failure) = self.poll_end_of_patience(cx) {
            return Poll::Ready(Err(failure));
        }
        self.clock.poll_try(cx, self.client.is_uploaded()).map(|()| Err(Failure::TryTimeout))
    }

    /// Moves what the client sends to the endpoint. An endpoint that takes no more may still answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let stuck = match self.origin.poll_drive(cx) {
                Poll::Ready(Err(_)) => {
                    self.uploading = false;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => false,
                Poll::Pending => !self.origin.has_room(),
            };
            if stuck || !self.uploading || !self.origin.has_room() {
                return Ok(());
            }
            let piece = match self.poll_piece(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(piece) => piece?,
            };
            let sent = match piece {
                Piece::Data(data) => {
                    self.origin.push(cx, data).and_then(|()| match self.client.is_uploaded() && self.body.is_given() {
                        true => self.end_upload(self.body.end()),
                        false => Ok(()),
                    })
                }
                end => self.end_upload(end),
            };
            self.uploading &= sent.is_ok();
            if self.taps.are_behind() {
                // Those who copy the request have their turn; then it goes on.
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// The next piece of the request: what an earlier try has read, then what the client sends.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        if let Some(data) = self.body.next() {
            return Poll::Ready(Ok(Piece::Data(data)));
        }
        if self.client.is_uploaded() {
            return Poll::Ready(Ok(self.body.end()));
        }
        let piece = ready!(self.client.poll_piece(cx)).map_err(|broken| match broken {
            Broken::Gone => Failure::ClientGone,
            Broken::Malformed => Failure::ClientMalformed,
        })?;
        if let Piece::Data(data) = &piece {
            self.journal.received += data.len() as u64;
        }
        self.body.note(&piece);
        self.taps.feed(&piece, self.client.is_uploaded());
        Poll::Ready(Ok(piece))
    }

    fn end_upload(&mut self, end: Piece) -> Result<(), Failure> {
        self.uploading = false;
        if self.way.proxy.access_logs.needs().moments() {
            self.journal.request_end = Some(Instant::now());
        }
        self.origin.finish(match end {
            Piece::Trailers(trailers) => Some(trailers),
            Piece::Data(_) | Piece::End => None,
        })
    }

    /// Ready when waiting has no more sense: the client has gone, or the time is over.
    fn poll_end_of_patience(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let uploaded = self.client.is_uploaded();
        if uploaded && self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Failure::ClientGone);
        }
        self.clock.poll(cx, uploaded).map(|()| Failure::Timeout)
    }

    /// Lets an answer go that is not the last. Its connection carries other requests only if both messages are
    /// complete.
    pub(super) async fn give_up(mut self, pick: &Pick, ends: bool) {
        if self.uploading || !self.client.is_uploaded() {
            return self.origin.cancel();
        }
        let mut left = MOST_DISCARDED;
        let discarded = ends
            || now(poll_fn(|cx| {
                loop {
                    match ready!(self.origin.poll_discard(cx)) {
                        Ok(Some(size)) if size <= left => left -= size,
                        Ok(Some(_)) | Err(_) => return Poll::Ready(false),
                        Ok(None) => return Poll::Ready(true),
                    }
                }
            }))
            .unwrap_or(false);
        if !discarded {
            self.origin.cancel();
        } else if let Some(stream) = self.origin.into_idle().await {
            pick.give_back(stream);
        }
    }

    /// Sends the answer. What fails from here on, the client sees as a cut answer.
    pub(super) async fn answer(mut self, pick: &Pick, answer: Answer) {
        let Answer { mut head, grpc_status, ends } = answer;
        self.body.seal();
        // A plain 200 is no answer to an upgrade: Envoy passes on nothing but its status.
        let refused_upgrade = self.way.request.upgrade && head.status == StatusCode::OK;
        if refused_upgrade {
            head.headers.clear();
        }
        self.journal.details = "via_upstream".into();
        self.journal.status = head.status.as_u16();
        self.journal.grpc_status = grpc_status.filter(|_| !refused_upgrade);
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.finish_head(&mut head);
        self.journal.head_sent = size_of_head(&head.headers);
        let early = self.uploading && !head.status.is_success() && !tunnel;
        if early || self.way.visit.drain.is_draining() {
            self.client.announce_close();
        }
        let mut outcome = self.client.respond(head, ends || refused_upgrade).map_err(|_| Failure::ClientGone);
        if tunnel {
            self.origin.upgrade();
            self.uploading = true;
        }
        if outcome.is_ok() {
            outcome = match ends || refused_upgrade {
                true => self.client.finish(None).map_err(|_| Failure::ClientGone),
                false => Ok(()),
            };
        }
        if outcome.is_ok() {
            let mut moved = ends || refused_upgrade;
            outcome = poll_fn(|cx| self.poll_answer(cx, &mut moved)).await;
        }
        if tunnel && outcome.is_ok() && !self.uploading {
            // The client ended it, and the endpoint after it.
            self.journal.left();
        }
        let complete = outcome.is_ok();
        if let Err(failure) = outcome {
            self.journal.cut(&failure);
            self.client.abort();
            self.origin.cancel();
        }
        if complete && !self.uploading && !tunnel && !refused_upgrade && self.client.is_uploaded() {
            if let Some(stream) = self.origin.into_idle().await {
                pick.give_back(stream);
            }
        } else if self.uploading {
            self.origin.cancel();
        }
    }

    /// Makes the endpoint's head ours.
    fn finish_head(&mut self, head: &mut response::Parts) {
        headers::sanitize_response(&mut head.headers);
        headers::join_lines(&mut head.headers, is_known_in_response, false);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            head.headers.insert(header::CONNECTION, UPGRADE);
            head.headers.insert(header::UPGRADE, WEBSOCKET);
        }
        if !self.way.request.upgrade {
            let milliseconds = self.clock.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
            self.journal.service_time = Some(milliseconds);
            if self.way.proxy.own_headers.debug {
                head.headers.insert(SERVICE_TIME, milliseconds.into());
            }
        }
        if self.way.proxy.access_logs.needs().moments() {
            self.journal.response_begin = Some(Instant::now());
        }
        for cookie in std::mem::take(&mut self.journal.cookies) {
            head.headers.append(header::SET_COOKIE, cookie);
        }
        let code = head.status.as_u16();
        self.outgoing.change_response(self.journal, code, &mut head.headers);
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            head.headers.remove(header::UPGRADE);
        }
        if let Some(server) = &self.way.proxy.own_headers.server {
            head.headers.insert(header::SERVER, server.clone());
        }
        if let Some(kept) = self.way.proxy.access_logs.needs().of_response(&head.headers) {
            self.journal.keep().response = Some(kept);
        }
    }

    /// Moves the answer; `done` once all of it is queued. Ready when it is sent.
    fn poll_answer(&mut self, cx: &mut Context<'_>, done: &mut bool) -> Poll<Result<(), Failure>> {
        loop {
            if !*done {
                self.poll_upload(cx)?;
            }
            let mut waits_for_origin = false;
            while !*done && self.client.has_room() {
                match self.origin.poll_move(cx, self.client) {
                    Poll::Pending => {
                        waits_for_origin = true;
                        break;
                    }
                    Poll::Ready(Err(MoveFailure::Client)) => return Poll::Ready(Err(Failure::ClientGone)),
                    Poll::Ready(Err(MoveFailure::Origin(failure))) => return Poll::Ready(Err(failure)),
                    Poll::Ready(Ok(step)) => *done = self.moved(step)?,
                }
            }
            match self.client.poll_drive(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                Poll::Ready(Ok(())) if *done => return Poll::Ready(Ok(())),
                _ if !*done && !waits_for_origin && self.client.has_room() => {}
                _ => return self.poll_end_of_patience(cx).map(Err),
            }
        }
    }

    /// Takes note of a step; true if it was the last.
    fn moved(&mut self, step: Step) -> Result<bool, Failure> {
        self.journal.sent += step.moved as u64;
        if let Some(trailers) = &step.trailers {
            self.journal.grpc_status = grpc_status(trailers).or(self.journal.grpc_status);
            if let Some(kept) = self.way.proxy.access_logs.needs().of_trailers(trailers) {
                self.journal.keep().trailers = Some(kept);
            }
        }
        if step.done {
            self.client.finish(step.trailers).map_err(|_| Failure::ClientGone)?;
        }
        Ok(step.done)
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
