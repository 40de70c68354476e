//! Which idle HTTP/1 connection is used again? The one that was used last, if the endpoint still keeps it open.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};

use super::endpoint::Open;
use super::peer::Peer;
use crate::telemetry::metrics::Active;

/// No endpoint needs more idle connections of one worker than this.
const MOST_IDLE: usize = 1024;

/// What goes with a connection while it lives, idle or not.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Requests that it carried.
    pub served: u32,
    /// The name that TLS verified, where that depends on the request.
    pub server_name: Option<Box<str>>,
    /// Whom TLS proved the endpoint to be.
    pub peer: Option<Arc<Peer>>,
    /// Counts it as open.
    pub _open: Option<Open>,
    /// When it was opened.
    pub since: Option<Instant>,
}

/// The idle connections of one endpoint; the last in is the first out.
#[derive(Debug)]
pub(super) struct Pool<S>(Vec<Idle<S>>);

#[derive(Debug)]
struct Idle<S> {
    stream: S,
    held: Held,
    /// `None`: never.
    expires: Option<Instant>,
    _resting: Active,
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Pool(Vec::new())
    }
}

impl<S: AsyncRead + Unpin> Pool<S> {
    /// Takes a connection for a request; dead ones that come first are dropped.
    pub(super) fn take(&mut self, server_name: Option<&str>, now: Instant) -> Option<(S, Held)> {
        loop {
            let place = self.0.iter().rposition(|idle| idle.held.server_name.as_deref() == server_name)?;
            let mut idle = self.0.remove(place);
            if idle.is_usable(now) {
                return Some((idle.stream, idle.held));
            }
        }
    }

    /// Keeps a connection until `expires`; `resting` counts it as idle.
    pub(super) fn put(&mut self, stream: S, held: Held, expires: Option<Instant>, resting: Active) {
        if self.0.len() < MOST_IDLE {
            self.0.push(Idle { stream, held, expires, _resting: resting });
        }
    }

    /// Drops the one that waits longest.
    pub(super) fn evict(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }

    /// Drops what is too old or was closed by the endpoint.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain_mut(|idle| idle.is_usable(now));
        if self.0.is_empty() {
            self.0 = Vec::new(); // gives the memory back
        }
    }
}

impl<S: AsyncRead + Unpin> Idle<S> {
    fn is_usable(&mut self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires) && is_quiet(&mut self.stream)
    }
}

/// Whether nothing has come on an idle connection: neither its end nor bytes that no request asked for.
/// Costs no system call unless something has come.
fn is_quiet<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    matches!(Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer), Poll::Pending)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::requests::SourceLabels;

    fn named(name: Option<&str>, served: u32) -> Held {
        Held { served, server_name: name.map(Into::into), ..Held::default() }
    }

    #[tokio::test]
    async fn the_last_living_connection_of_the_name_is_used_again() {
        let now = Instant::now();
        let metrics = Metrics::new(SourceLabels::default()).cluster("a");
        let mut pool = Pool::<DuplexStream>::default();
        let mut far_ends = Vec::new();
        let later = Some(now + Duration::from_secs(60));
        for (name, served, expires) in
            [(None, 1, later), (Some("a"), 2, later), (None, 3, later), (None, 4, Some(now)), (None, 5, None)]
        {
            let (near, far) = duplex(16);
            far_ends.push(far);
            pool.put(near, named(name, served), expires, metrics.rest());
        }
        far_ends[4].write_all(b"unasked").await.unwrap();
        let served = |taken: Option<(DuplexStream, Held)>| taken.map(|(_, held)| held.served);
        assert_eq!(served(pool.take(None, now)), Some(3), "5 spoke unasked, 4 is too old");
        assert_eq!(served(pool.take(Some("b"), now)), None);
        assert_eq!(served(pool.take(Some("a"), now)), Some(2));
        far_ends.clear();
        pool.sweep(now);
        assert!(pool.0.is_empty(), "the far end closed");
    }
}
