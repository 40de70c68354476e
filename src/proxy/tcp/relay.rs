//! How do bytes go both ways? Each direction at its own pace, with little kept between, until both have ended.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::link::Link;

use super::journal::Journal;

/// What one read takes at most. What cannot be written at once is all that a direction keeps.
const READ_SIZE: usize = 64 * 1024;
/// How often the numbers of a busy connection are told (Istio: tcpReportingDuration).
const TELLING: Duration = Duration::from_secs(5);
/// A timer for a connection without any limit.
const FAR: Duration = Duration::from_secs(86_400);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have said all, or one of them is gone.
    Over,
    Idle,
    TooLong,
}

/// Two connected links.
pub(super) struct Relay {
    client: Link,
    endpoint: Link,
    up: Direction,
    down: Direction,
    idle: Option<Duration>,
    /// When the connection has lasted long enough.
    most: Option<Instant>,
    active: Instant,
    /// When the metrics are to be told of bytes that they do not know.
    telling: Option<Instant>,
}

/// One way.
#[derive(Default)]
struct Direction {
    pending: BytesMut,
    /// Whether the receiver's TLS may hold bytes that only a flush sends.
    unflushed: bool,
    ended: bool,
    over: bool,
    /// Bytes that were written and are not in the journal yet.
    moved: u64,
}

impl Relay {
    pub(super) fn new(client: Link, endpoint: Link, idle: Option<Duration>, most: Option<Instant>) -> Self {
        let (up, down, active) = (Direction::default(), Direction::default(), Instant::now());
        Relay { client, endpoint, up, down, idle, most, active, telling: None }
    }

    /// Moves bytes until the connection ends. A side that says it is done is told on; a reset is passed on as one.
    pub(super) async fn run(&mut self, journal: &mut Journal<'_>) -> End {
        let mut timer = pin!(sleep_until(self.next(Instant::now())));
        poll_fn(|cx| {
            let both = self.poll_both(cx);
            let moved = (std::mem::take(&mut self.up.moved), std::mem::take(&mut self.down.moved));
            if moved != (0, 0) {
                journal.moved(moved.0, moved.1);
                self.active = Instant::now();
                self.telling.get_or_insert(self.active + TELLING);
            }
            match both {
                Poll::Ready(Err(broken)) => self.pass_on(&broken),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return self.poll_time(cx, timer.as_mut(), journal),
            }
            Poll::Ready(End::Over)
        })
        .await
    }

    /// A failure of one way is told when the other way has had its turn: who takes no more may have said something
    /// before.
    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = self.up.poll_pump(cx, &mut self.client, &mut self.endpoint);
        let down = self.down.poll_pump(cx, &mut self.endpoint, &mut self.client);
        let (up, down) = (up?, down?);
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>, journal: &mut Journal<'_>) -> Poll<End> {
        if self.telling.is_some_and(|telling| telling < timer.deadline()) {
            timer.as_mut().reset(self.next(self.active));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.most.is_some_and(|most| most <= now) {
                return Poll::Ready(End::TooLong);
            }
            if self.idle.is_some_and(|idle| self.active + idle <= now) {
                return Poll::Ready(End::Idle);
            }
            if self.telling.is_some_and(|telling| telling <= now) {
                self.telling = None;
                journal.tell();
            }
            timer.as_mut().reset(self.next(now));
        }
        Poll::Pending
    }

    /// When there is something to do though no byte moves.
    fn next(&self, now: Instant) -> Instant {
        let idle = self.idle.map(|idle| self.active + idle);
        [idle, self.most, self.telling].into_iter().flatten().min().unwrap_or(now + FAR)
    }

    /// What was cut off must not look whole to the other side.
    fn pass_on(&self, broken: &io::Error) {
        if broken.kind() == io::ErrorKind::ConnectionReset {
            self.client.abort_on_drop();
            self.endpoint.abort_on_drop();
        }
    }
}

impl Direction {
    /// Ready when the sender has said all, and the receiver has been told so.
    fn poll_pump(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_send(cx, to))?;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.over = true;
                return Poll::Ready(Ok(()));
            }
            match self.poll_move(cx, from, to)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if self.unflushed {
                        self.unflushed = Pin::new(&mut *to).poll_flush(cx)?.is_pending();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes what the receiver had no room for.
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut Link) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
            self.wrote(written)?;
            self.pending.advance(written);
        }
        if self.pending.capacity() > 0 {
            self.pending = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// One read, written as far as the receiver takes it.
    fn poll_move(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let mut unwritten = buffer.filled();
            self.ended = unwritten.is_empty();
            while !unwritten.is_empty() {
                let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, unwritten)? else { break };
                self.wrote(written)?;
                unwritten = unwritten.get(written..).unwrap_or_default();
            }
            self.pending.extend_from_slice(unwritten);
            Poll::Ready(Ok(()))
        })
    }

    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.moved += bytes as u64;
        self.unflushed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_an_endpoint_says_before_it_breaks_off_reaches_the_client() {
        let ((mut client, near), (far, mut endpoint)) = (pair().await, pair().await);
        let (near, far) = (Link::server_plain(near, Bytes::new()), Link::client_plain(far));
        let mut relay = Relay::new(near, far, None, None);
        client.write_all(b"never read").await.unwrap();
        poll_fn(|cx| {
            assert!(relay.poll_both(cx).is_pending());
            if relay.up.moved > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        endpoint.readable().await.unwrap();
        endpoint.write_all(b"go away").await.unwrap();
        drop(endpoint);
        client.write_all(b"more").await.unwrap();
        let broken = poll_fn(|cx| relay.poll_both(cx)).await.unwrap_err();
        relay.pass_on(&broken);
        drop(relay);
        let mut got = [0; 7];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"go away");
    }
}
