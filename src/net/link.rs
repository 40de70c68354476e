//! How do bytes reach the other side without anyone waiting? One stream type for clients and endpoints.
//!
//! A link is *direct* at first: it passes everything on at once, as HTTP/2 wants it. After [`Link::set_lazy`] a write
//! only queues: bytes go out with the next read, with [`Link::poll_drive`], or when much has gathered. So a writer
//! never waits inside a session that must also read, and a head and its body leave in one system call. Whoever writes
//! asks [`Link::has_room`] first.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::l4::ext::get_tcp_info;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::prefixed::Prefixed;

/// Queued bytes above which [`Link::has_room`] says no.
const ROOM: usize = 64 * 1024;
/// Queued bytes above which a write also tries to send.
const GATHER: usize = 16 * 1024;
/// How long the end of a connection may take to be sent.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// What one read takes at most.
const READ_SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// One TCP or TLS connection.
pub(crate) struct Link {
    /// Sessions own the link and lend `&Link`; the lock is never contended.
    state: Mutex<State>,
}

struct State {
    transport: Transport,
    /// Bytes that were read before someone asked for them.
    stash: Bytes,
    queue: BytesMut,
    lazy: bool,
    /// Whether the transport holds bytes that only a flush sends (TLS records).
    unflushed: bool,
    ended: bool,
    aborted: bool,
    write_failure: Option<io::ErrorKind>,
    received: u64,
    /// Asked for once.
    local: Option<SocketAddr>,
}

enum Transport {
    Plain(TcpStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<Prefixed>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Link {
    /// A client's plaintext connection; `prefix` was read from it already.
    pub(crate) fn server_plain(stream: TcpStream, prefix: Bytes) -> Self {
        Link::new(Transport::Plain(stream), prefix)
    }

    /// A client's TLS connection after the handshake.
    pub(crate) fn server_tls(stream: tokio_rustls::server::TlsStream<Prefixed>) -> Self {
        Link::new(Transport::ServerTls(Box::new(stream)), Bytes::new())
    }

    /// A plaintext connection to an endpoint.
    pub(crate) fn client_plain(stream: TcpStream) -> Self {
        Link::new(Transport::Plain(stream), Bytes::new())
    }

    /// A TLS connection to an endpoint after the handshake.
    pub(crate) fn client_tls(stream: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Link::new(Transport::ClientTls(Box::new(stream)), Bytes::new())
    }

    fn new(transport: Transport, stash: Bytes) -> Self {
        let state = State {
            transport,
            stash,
            queue: BytesMut::new(),
            lazy: false,
            unflushed: false,
            ended: false,
            aborted: false,
            write_failure: None,
            received: 0,
            local: None,
        };
        Link { state: Mutex::new(state) }
    }

    /// The next read begins with these bytes.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).stash = bytes;
    }

    /// The link inside of a session's stream; `None` if the stream is something else.
    pub(crate) fn of(stream: &Stream) -> Option<&Link> {
        (**stream).as_any().downcast_ref::<Link>()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writes are queued and never wait.
    pub(crate) fn set_lazy(&mut self) {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).lazy = true;
    }

    /// Whether little enough is queued for more to be written.
    pub(crate) fn has_room(&self) -> bool {
        self.state().queue.len() < ROOM
    }

    /// Sends what is queued; ready when nothing is left.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_drive(cx)
    }

    /// Ready when the peer has closed or broken the connection. Bytes that arrive meanwhile are kept for the next read.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state().poll_closed(cx)
    }

    /// Appends to `buffer` what the next read gives; 0 is the end. Nothing is allocated while it waits.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.state().poll_fill(cx, buffer)
    }

    /// Bytes received since the link was made.
    pub(crate) fn received(&self) -> u64 {
        self.state().received
    }

    /// The connection ends with a reset when the link is dropped, so that the peer cannot take what it got for whole.
    pub(crate) fn abort_on_drop(&self) {
        let mut state = self.state();
        state.aborted = true;
        // Without it the peer sees an ordinary end: worse, but there is nothing else to try.
        let _ = socket2::SockRef::from(state.transport.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Whether the peer's system has confirmed all bytes that were sent, so that the peer may have read them. False also
    /// where the system does not tell.
    pub(crate) fn is_confirmed(&self) -> bool {
        let state = self.state();
        let told = get_tcp_info(state.transport.socket().as_raw_fd());
        // The confirmed bytes count the beginning of the connection as one.
        state.queue.is_empty()
            && told
                .is_ok_and(|told| told.tcpi_bytes_acked > told.tcpi_bytes_sent.saturating_sub(told.tcpi_bytes_retrans))
    }

    /// Our own address of the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        let state = &mut *self.state();
        if state.local.is_none() {
            state.local = state.transport.socket().local_addr().ok();
        }
        state.local
    }
}

impl State {
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.write_failure {
            return Poll::Ready(Err(kind.into()));
        }
        let outcome = ready!(self.poll_send(cx));
        if let Err(failure) = &outcome {
            self.write_failure = Some(failure.kind());
            self.queue = BytesMut::new();
        }
        Poll::Ready(outcome)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            let sent = ready!(self.transport.poll_write(cx, &self.queue))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.queue.advance(sent);
            self.unflushed = true;
        }
        if self.queue.capacity() > 0 {
            self.queue = BytesMut::new();
        }
        if self.unflushed {
            ready!(self.transport.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues all of `bytes`; when much has gathered it is sent as far as the socket takes it.
    fn queue(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(kind) = self.write_failure {
            return Err(kind.into());
        }
        while self.queue.len() + bytes.len() > GATHER {
            let slices = [IoSlice::new(&self.queue), IoSlice::new(bytes)];
            let slices = if self.queue.is_empty() { &slices[1..] } else { &slices[..] };
            match self.transport.poll_write_vectored(cx, slices) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(self.fail(io::ErrorKind::WriteZero)),
                Poll::Ready(Ok(sent)) => {
                    self.unflushed = true;
                    let from_queue = sent.min(self.queue.len());
                    self.queue.advance(from_queue);
                    bytes = bytes.get(sent - from_queue..).unwrap_or_default();
                }
                Poll::Ready(Err(failure)) => return Err(self.fail(failure.kind())),
            }
        }
        if self.queue.capacity() == 0 {
            self.queue.reserve(bytes.len().max(1024));
        }
        self.queue.extend_from_slice(bytes);
        Ok(())
    }

    fn fail(&mut self, kind: io::ErrorKind) -> io::Error {
        self.write_failure = Some(kind);
        self.queue = BytesMut::new();
        kind.into()
    }

    /// A failed write shows at the next write: the peer may have answered before it stopped reading.
    fn drive_before_reading(&mut self, cx: &mut Context<'_>) {
        if self.lazy && (!self.queue.is_empty() || self.unflushed) {
            let _ = self.poll_drive(cx);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.drive_before_reading(cx);
        if !self.stash.is_empty() {
            let taken = self.stash.len().min(buffer.remaining());
            buffer.put_slice(&self.stash.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.transport.poll_read(cx, buffer))?;
        self.received += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        SCRATCH.with(|scratch| {
            let Ok(mut scratch) = scratch.try_borrow_mut() else {
                return Poll::Ready(Err(io::ErrorKind::Other.into()));
            };
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(self.poll_read(cx, &mut buffer))?;
            into.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drive_before_reading(cx);
        if self.ended || self.write_failure.is_some() {
            return Poll::Ready(());
        }
        if !self.stash.is_empty() {
            return Poll::Pending;
        }
        let mut space = [0; 2048];
        let mut buffer = ReadBuf::new(&mut space);
        match self.transport.poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.received += buffer.filled().len() as u64;
                self.stash = Bytes::copy_from_slice(buffer.filled());
                Poll::Pending
            }
            Poll::Ready(_) => {
                self.ended = true;
                Poll::Ready(())
            }
        }
    }
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::ServerTls(stream) => stream.get_ref().0.socket(),
            Transport::ClientTls(stream) => stream.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::ServerTls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::ClientTls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::ServerTls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::ClientTls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::ServerTls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::ClientTls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::ServerTls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::ClientTls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::ServerTls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::ClientTls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = self.get_mut().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let state = self.get_mut().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.lazy {
            return Poll::Ready(state.queue(cx, bytes).map(|()| bytes.len()));
        }
        state.transport.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = self.get_mut().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !state.lazy {
            return state.transport.poll_write_vectored(cx, slices);
        }
        let mut written = 0;
        for slice in slices {
            state.queue(cx, slice)?;
            written += slice.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.get_mut().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.lazy {
            return Poll::Ready(state.write_failure.map_or(Ok(()), |kind| Err(kind.into())));
        }
        state.transport.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.get_mut().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.aborted {
            return Poll::Ready(Ok(()));
        }
        ready!(state.poll_drive(cx))?;
        state.transport.poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Link {
    async fn shutdown(&mut self) {
        // The connection ends either way.
        let _ = tokio::time::timeout(SHUTDOWN_LIMIT, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Link {
    fn id(&self) -> UniqueIDType {
        self.state().transport.socket().as_raw_fd()
    }
}

impl Ssl for Link {}
impl Peek for Link {}

impl GetTimingDigest for Link {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Link {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Link {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("fd", &self.id()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut link = Link::server_plain(listener.accept().await.unwrap().0, Bytes::new());
        link.set_lazy();
        (link, client)
    }

    #[tokio::test]
    async fn a_lazy_write_never_waits_and_is_sent_by_drive() {
        let (mut link, mut client) = pair().await;
        let body = vec![b'x'; 32 * 1024 * 1024];
        link.write_all(&body).await.unwrap();
        assert!(!link.has_room(), "nobody reads, so it must be queued");
        let reader = tokio::spawn(async move {
            let mut got = vec![0; 32 * 1024 * 1024];
            client.read_exact(&mut got).await.unwrap();
            got
        });
        poll_fn(|cx| link.poll_drive(cx)).await.unwrap();
        assert!(link.has_room());
        assert!(reader.await.unwrap() == body);
    }

    #[tokio::test]
    async fn a_read_sends_what_is_queued() {
        let (mut link, mut client) = pair().await;
        link.write_all(b"question").await.unwrap();
        let peer = tokio::spawn(async move {
            let mut got = [0; 8];
            client.read_exact(&mut got).await.unwrap();
            client.write_all(b"answer").await.unwrap();
        });
        let mut answer = [0; 6];
        link.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn watching_for_the_end_loses_no_bytes() {
        let (mut link, mut client) = pair().await;
        client.write_all(b"early").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        while got.len() < 5 {
            let _ = poll_fn(|cx| Poll::Ready(link.poll_closed(cx))).await;
            let mut buffer = BytesMut::new();
            poll_fn(|cx| link.poll_fill(cx, &mut buffer)).await.unwrap();
            got.extend_from_slice(&buffer);
        }
        assert_eq!(got, b"early");
        poll_fn(|cx| link.poll_closed(cx)).await;
        assert_eq!(link.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_aborted_link_ends_with_a_reset() {
        let (mut link, mut client) = pair().await;
        link.write_all(b"half").await.unwrap();
        poll_fn(|cx| link.poll_drive(cx)).await.unwrap();
        link.abort_on_drop();
        AsyncWriteExt::shutdown(&mut link).await.unwrap();
        drop(link);
        let failure = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::ConnectionReset);
    }
}
