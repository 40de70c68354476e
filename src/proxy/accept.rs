//! What becomes of an accepted connection? PROXY header, first bytes, chain and TLS; then HTTP takes over.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{ClientProtocol, Connection, TlsFacts};
use super::tls::{self, Secured};
use super::worker::Worker;
use crate::net::drain::Drain;
use crate::net::hello::{Hello, Opening, is_tls};
use crate::net::link::Link;
use crate::net::proxy_protocol::{self, Addresses, Header};
use crate::snapshot::listener::Listener;
use crate::snapshot::tls::TlsServer;

/// A socket that a listener accepted.
pub(super) struct Accepted {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// The bound address.
    pub listener: SocketAddr,
}

/// Why a connection is closed before HTTP. The client is told nothing, except alerts for a broken handshake.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("too slow")]
    Slow,
    #[error("the listener is leaving")]
    Leaving,
    #[error("the listener is gone")]
    NoListener,
    #[error("not a PROXY protocol header")]
    ProxyHeader,
    #[error("no server for this name")]
    UnknownName,
    #[error("no plaintext server")]
    Plaintext,
    #[error("the certificate is not available: {0}")]
    Unavailable(String),
}

impl Refusal {
    /// The word in the metric of handshakes; `None`: not a TLS matter.
    fn handshake_result(&self) -> Option<&'static str> {
        match self {
            Refusal::Io(_) => Some("failed"),
            Refusal::Slow => Some("timeout"),
            Refusal::UnknownName => Some("unknown_name"),
            Refusal::Unavailable(_) => Some("no_certificate"),
            Refusal::Leaving | Refusal::NoListener | Refusal::ProxyHeader | Refusal::Plaintext => None,
        }
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(accepted: Accepted, worker: Arc<Worker>, drain: Drain) {
    let Accepted { peer, listener, .. } = accepted;
    // Boxed, because its state is large and not needed while the connection is served.
    match Box::pin(establish(accepted, &worker, &drain)).await {
        Ok((link, connection)) => http(link, Arc::new(connection), worker, drain).await,
        Err(refusal) => tracing::debug!(%peer, %listener, reason = %refusal, "connection closed before HTTP"),
    }
}

/// What comes out of the first bytes.
enum Introduced {
    Ready(Link, Connection),
    /// A TLS client that did not say by ALPN what it speaks.
    Unsaid(Box<Secured>, Connection),
}

async fn establish(accepted: Accepted, worker: &Worker, drain: &Drain) -> Result<(Link, Connection), Refusal> {
    let began = Instant::now();
    let Accepted { socket, peer, listener: address } = accepted;
    socket.set_nodelay(true)?;
    let local = canonical(socket.local_addr()?);
    let opening = Opening::new(socket);

    // The snapshot is not held while nothing comes.
    let (speaks_at_once, handshake_timeout, idle_timeout) = {
        let snapshot = worker.store.load();
        let listener = snapshot.listener(address).ok_or(Refusal::NoListener)?;
        let speaks_at_once = listener.proxy_protocol || !listener.tls.is_empty();
        (speaks_at_once, snapshot.proxy.handshake_timeout, snapshot.proxy.idle_timeout)
    };
    let patience = if speaks_at_once { handshake_timeout } else { idle_timeout };
    while_wanted(patience, drain, opening.readable()).await?;

    let snapshot = worker.store.load();
    let listener = snapshot.listener(address).ok_or(Refusal::NoListener)?;
    let deadline = if speaks_at_once { began } else { Instant::now() } + handshake_timeout;
    let ends = Addresses { client: canonical(peer), destination: local };
    let introduced = timeout_at(deadline, introduce(opening, ends, listener, worker)).await;
    let introduced = introduced.unwrap_or(Err(Refusal::Slow))?;
    drop(snapshot);
    match introduced {
        Introduced::Ready(link, connection) => Ok((link, connection)),
        Introduced::Unsaid(mut stream, mut connection) => {
            connection.protocol = while_wanted(idle_timeout, drain, tls::spoken_protocol(&mut stream)).await?;
            Ok((Link::server_tls(*stream), connection))
        }
    }
}

/// Waits for the client, but not forever, and not when the listener is closed.
async fn while_wanted<T>(
    patience: Duration,
    drain: &Drain,
    client: impl Future<Output = io::Result<T>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        result = timeout(patience, client) => Ok(result.map_err(|_| Refusal::Slow)??),
        () = drain.wait() => Err(Refusal::Leaving),
    }
}

async fn introduce(
    mut opening: Opening,
    mut ends: Addresses,
    listener: &Listener,
    worker: &Worker,
) -> Result<Introduced, Refusal> {
    if listener.proxy_protocol
        && let Some(told) = proxy_header(&mut opening).await?
    {
        ends = Addresses { client: canonical(told.client), destination: canonical(told.destination) };
    }
    let connection = |tls, protocol| Connection {
        listener: listener.address,
        local: ends.destination,
        peer: ends.client,
        tls,
        protocol,
    };
    if is_tls(opening.first().await?) && !listener.tls.is_empty() {
        let hello = counted(opening.hello().await.map_err(Refusal::Io), worker)?;
        let server_name: Option<Box<str>> = hello.accepted.client_hello().server_name().map(Into::into);
        if let Some(chain) = listener.tls.find(server_name.as_deref()) {
            let secured = counted(secure(opening, hello, chain.tls.as_ref()).await, worker)?;
            let version = tls::version(&secured);
            worker.telemetry.metrics.tls_handshake(tls::version_name(version), "success");
            let facts = Some(TlsFacts { server_name, version });
            return Ok(match tls::settled_protocol(&secured) {
                Some(protocol) => Introduced::Ready(Link::server_tls(secured), connection(facts, protocol)),
                None => Introduced::Unsaid(Box::new(secured), connection(facts, ClientProtocol::Http1)),
            });
        }
        if listener.plaintext.is_none() {
            return counted(Err(Refusal::UnknownName), worker);
        }
        // A plaintext chain beside the TLS ones takes unknown names, as in Envoy: the client reads a plain 400.
    }
    if listener.plaintext.is_none() {
        return Err(Refusal::Plaintext);
    }
    let protocol = match opening.begins_with_preface().await? {
        true => ClientProtocol::Http2,
        false => ClientProtocol::Http1,
    };
    let (socket, read) = opening.into_parts();
    Ok(Introduced::Ready(Link::server_plain(socket, read), connection(None, protocol)))
}

/// Reads the PROXY header; `None`: the connection speaks for itself.
async fn proxy_header(opening: &mut Opening) -> Result<Option<Addresses>, Refusal> {
    loop {
        match proxy_protocol::parse(opening.bytes()) {
            Header::Complete { length, addresses } => {
                opening.consume(length);
                return Ok(addresses);
            }
            Header::Incomplete => opening.more().await?,
            Header::Malformed => return Err(Refusal::ProxyHeader),
        }
    }
}

async fn secure(opening: Opening, hello: Hello, tls: Option<&TlsServer>) -> Result<Secured, Refusal> {
    match tls {
        Some(TlsServer::Ready { config, .. }) => Ok(tls::shake_hands(opening, hello, Arc::clone(config)).await?),
        Some(TlsServer::Unavailable { reason }) => Err(Refusal::Unavailable(reason.clone())),
        None => Err(Refusal::UnknownName),
    }
}

/// Counts a handshake that failed.
fn counted<T>(result: Result<T, Refusal>, worker: &Worker) -> Result<T, Refusal> {
    result.inspect_err(|refusal| {
        if let Some(word) = refusal.handshake_result() {
            worker.telemetry.metrics.tls_handshake("", word);
        }
    })
}

/// IPv4-mapped addresses as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Hands a connection to HTTP.
async fn http(link: Link, connection: Arc<Connection>, worker: Arc<Worker>, drain: Drain) {
    super::http::serve(link, connection, worker, drain).await;
}
