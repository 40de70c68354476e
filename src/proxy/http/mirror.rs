//! Who else gets this request? A copy goes to each mirror beside the request; what comes of it changes nothing.
//!
//! The body is tapped as it passes: a mirror holds up to a limit of it, and one that is slower is cut.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::base::task;
use crate::net::drain::Drain;
use crate::net::proxy_protocol::Addresses;
use crate::proxy::worker::Worker;
use crate::snapshot::cluster::{Cluster, EndpointSource};
use crate::upstream::connect::Want;
use crate::upstream::{Lease, NoEndpoint, Pick, Wish};

use super::attempt::wanted;
use super::body::Piece;
use super::context::Journal;
use super::fail::Failure;
use super::forward::Way;
use super::headers;
use super::origin::{Origin, OriginHead};
use super::outgoing::Outgoing;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// What a mirror may be behind; one that is farther behind is cut.
const MOST_BEHIND: usize = 1024 * 1024;
/// What all mirrors of one thread may be behind together; one that would be more is cut.
const MOST_TOGETHER: usize = 64 * 1024 * 1024;
/// How many copies of one thread may be on their way: a mirror that does not answer must not take all connections. Beyond
/// it requests are not copied.
const MOST_COPIES: usize = 1024;
/// What a piece counts at least, since holding it costs something too.
const LEAST_PIECE: usize = 256;
/// From here on the request lets its mirrors have a turn after each piece.
const BEHIND: usize = 128 * 1024;
/// For the answer, and for every wait on a mirror that takes nothing, where the route has no timeout.
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static TOGETHER: Cell<usize> = const { Cell::new(0) };
    static COPIES: Cell<usize> = const { Cell::new(0) };
}

/// The ends at which the request's body is handed to its mirrors.
#[derive(Default)]
pub(super) struct Taps(Vec<Tap>);

/// Dropped before the body's end, it cuts the copy.
struct Tap {
    body: UnboundedSender<Piece>,
    behind: Arc<Backlog>,
    copying: AbortHandle,
    ended: bool,
}

/// Sends the copies; the request's body is to follow through the taps.
pub(super) fn start(
    way: &Way<'_>,
    outgoing: &Outgoing<'_>,
    journal: &Journal,
    left: Option<Duration>,
    key: Option<u64>,
) -> Taps {
    let mut taps = Taps::default();
    for mirror in way.forward.mirrors.iter().filter(|mirror| mirror.share.takes(fastrand::u32(..))) {
        let want = wanted(&mirror.cluster, way.request.http2);
        // Upgrades are HTTP/1's, and where no endpoint is, nothing is sent.
        let client = Some(way.visit.connection.addresses());
        let choice = match mirror.cluster.endpoints {
            EndpointSource::Requested => {
                Choice::Later(Arc::clone(&mirror.cluster), Arc::clone(&way.visit.worker), client)
            }
            _ => match way.visit.worker.upstreams.pick(&mirror.cluster, Wish { key, client, ..Wish::default() }) {
                Ok(pick) => Choice::Made(pick),
                Err(NoEndpoint) => continue,
            },
        };
        if want == Want::Http2 && way.request.upgrade {
            continue;
        }
        let head = match want {
            Want::Http1 => outgoing.http1(journal, left),
            Want::Http2 => outgoing.http2(journal, left),
        };
        let Ok(mut head) = head else { continue };
        let Some(place) = Place::take() else { break };
        introduce(&mut head, way.visit.connection.local.ip());
        let mut copy = Copy {
            choice,
            want,
            head,
            authority: outgoing.authority().to_owned(),
            upgrade: way.request.upgrade,
            body: None,
            limit: way.forward.timeout.unwrap_or(LIMIT),
            drain: way.visit.drain.clone(),
            place,
        };
        if way.request.has_body {
            let (body, receiver) = unbounded_channel();
            let behind = Arc::new(Backlog::default());
            copy.body = Some(Feed { receiver, behind: Arc::clone(&behind) });
            let copying = task::spawn_request(copy.send()).abort_handle();
            taps.0.push(Tap { body, behind, copying, ended: false });
        } else {
            drop(task::spawn_request(copy.send()));
        }
    }
    taps
}

/// Envoy's copies come from inside of the mesh: from the gateway itself.
fn introduce(head: &mut request::Parts, own: IpAddr) {
    head.headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if let Ok(own) = HeaderValue::try_from(own.to_string()) {
        let path = headers::forwarded_for(head.headers.get(&FORWARDED_FOR), &own);
        head.headers.insert(FORWARDED_FOR, path);
    }
}

impl Taps {
    /// Hands on a piece of the body; `last`: nothing follows it.
    pub(super) fn feed(&mut self, piece: &Piece, last: bool) {
        if self.0.is_empty() {
            return;
        }
        self.0.retain_mut(|tap| tap.feed(piece));
        if last && matches!(piece, Piece::Data(_)) {
            self.0.retain_mut(|tap| tap.feed(&Piece::End));
        }
    }

    /// Whether a mirror should have a turn now.
    pub(super) fn are_behind(&self) -> bool {
        self.0.iter().any(|tap| !tap.ended && tap.behind.0.load(Ordering::Relaxed) > BEHIND)
    }
}

impl Tap {
    /// False if the mirror is cut, or has left.
    fn feed(&mut self, piece: &Piece) -> bool {
        if let Piece::Data(data) = piece
            && !self.behind.grow(weight(data))
        {
            return false;
        }
        self.ended = !matches!(piece, Piece::Data(_));
        self.body.send(piece.clone()).is_ok()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if !self.ended {
            self.copying.abort();
        }
    }
}

fn weight(data: &Bytes) -> usize {
    data.len().max(LEAST_PIECE)
}

/// One copy on its way.
struct Copy {
    choice: Choice,
    want: Want,
    head: request::Parts,
    authority: String,
    upgrade: bool,
    body: Option<Feed>,
    limit: Duration,
    drain: Drain,
    place: Place,
}

enum Choice {
    Made(Pick),
    /// The authority names the endpoint, and may have to be resolved first.
    Later(Arc<Cluster>, Arc<Worker>, Option<Addresses>),
}

impl Choice {
    async fn made(self, authority: &str) -> Result<Pick, NoEndpoint> {
        match self {
            Choice::Made(pick) => Ok(pick),
            Choice::Later(cluster, worker, client) => {
                let wish = Wish { client, ..Wish::default() };
                worker.upstreams.pick_requested(&cluster, authority, wish).await
            }
        }
    }
}

struct Feed {
    receiver: UnboundedReceiver<Piece>,
    behind: Arc<Backlog>,
}

/// The weight of what was handed to a mirror and not taken yet, counted with that of the thread's other mirrors.
#[derive(Default)]
struct Backlog(AtomicUsize);

impl Backlog {
    /// False if it is too much.
    fn grow(&self, weight: usize) -> bool {
        let own = self.0.fetch_add(weight, Ordering::Relaxed) + weight;
        let all = TOGETHER.get() + weight;
        TOGETHER.set(all);
        own <= MOST_BEHIND && all <= MOST_TOGETHER
    }

    fn shrink(&self, weight: usize) {
        self.0.fetch_sub(weight, Ordering::Relaxed);
        TOGETHER.set(TOGETHER.get().saturating_sub(weight));
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        TOGETHER.set(TOGETHER.get().saturating_sub(*self.0.get_mut()));
    }
}

/// One of the copies that may be on their way.
struct Place(());

impl Place {
    fn take() -> Option<Place> {
        let taken = COPIES.get();
        (taken < MOST_COPIES).then(|| {
            COPIES.set(taken + 1);
            Place(())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COPIES.set(COPIES.get().saturating_sub(1));
    }
}

impl Copy {
    /// Nobody waits for it, and nobody is told how it ends.
    async fn send(self) {
        let Copy { choice, want, head, authority, upgrade, body, limit, drain, place: _place } = self;
        let opened = tokio::time::timeout(limit, async {
            let pick = choice.made(&authority).await.map_err(|_| Failure::NoEndpoint)?;
            let origin = match pick.connect(&authority, want).await.map_err(Failure::Connect)? {
                Lease::Http1 { stream, .. } => Origin::http1(stream, head, upgrade),
                Lease::Http2 { sender, permit, .. } => Origin::http2(sender, permit, head, body.is_none()).await,
            };
            Ok::<_, Failure>((pick, origin?))
        });
        let Ok(Ok((pick, mut origin))) = opened.await else { return };
        if let Some(mut feed) = body
            && upload(&mut origin, &mut feed, limit).await.is_err()
        {
            return origin.cancel();
        }
        let answered = tokio::time::timeout(limit, poll_fn(|cx| poll_answer(&mut origin, cx)));
        let whole = tokio::select! {
            answered = answered => matches!(answered, Ok(Ok(true))),
            // The answer is of no use.
            () = drain.wait() => false,
        };
        if !whole {
            origin.cancel();
        } else if let Some(stream) = origin.into_idle().await {
            pick.give_back(stream);
        }
    }
}

/// Sends the body as it comes. A mirror that takes nothing for `limit` is given up.
async fn upload(origin: &mut Origin, feed: &mut Feed, limit: Duration) -> Result<(), Failure> {
    loop {
        let room = poll_fn(|cx| match origin.poll_drive(cx) {
            Poll::Ready(driven) => Poll::Ready(driven),
            Poll::Pending if origin.has_room() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        });
        tokio::time::timeout(limit, room).await.unwrap_or(Err(Failure::Timeout))?;
        // What is queued goes on while nothing comes.
        let piece = poll_fn(|cx| {
            let piece = feed.receiver.poll_recv(cx);
            if piece.is_pending() {
                _ = origin.poll_drive(cx);
            }
            piece
        });
        match piece.await {
            Some(Piece::Data(data)) => {
                feed.behind.shrink(weight(&data));
                poll_fn(|cx| Poll::Ready(origin.push(cx, data.clone()))).await?;
            }
            Some(Piece::Trailers(trailers)) => return origin.finish(Some(trailers)),
            Some(Piece::End) => return origin.finish(None),
            None => return Err(Failure::ClientGone),
        }
    }
}

/// Reads and drops the answer. Ready with true if its connection may carry another request.
fn poll_answer(origin: &mut Origin, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
    if let Poll::Ready(Err(failure)) = origin.poll_drive(cx) {
        return Poll::Ready(Err(failure));
    }
    if !origin.has_answered() {
        loop {
            match ready!(origin.poll_head(cx))? {
                OriginHead::Informational(_) => {}
                OriginHead::Final { head, .. } if head.status.is_informational() => return Poll::Ready(Ok(false)),
                OriginHead::Final { ends: true, .. } => return Poll::Ready(Ok(true)),
                OriginHead::Final { .. } => break,
            }
        }
    }
    while ready!(origin.poll_discard(cx))?.is_some() {}
    Poll::Ready(Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mirrors_take_is_limited_and_given_back() {
        let mut slow: Vec<_> = std::iter::repeat_with(Backlog::default).take(64).collect();
        assert!(slow.iter().all(|one| one.grow(MOST_BEHIND)));
        assert!(!Backlog::default().grow(1), "all of them together hold too much");
        slow[0].shrink(MOST_BEHIND);
        assert!(slow[0].grow(MOST_BEHIND) && !slow[0].grow(1));
        slow.clear();
        assert_eq!(TOGETHER.get(), 0);
        let places: Vec<_> = std::iter::from_fn(Place::take).collect();
        assert_eq!(places.len(), MOST_COPIES);
        drop(places);
        assert!(Place::take().is_some() && COPIES.get() == 0);
    }
}
