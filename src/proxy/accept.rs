//! What becomes of an accepted connection? PROXY header, first bytes, chain and TLS; then HTTP or TCP takes over.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{ClientProtocol, Connection};
use super::tcp::Visitor;
use super::tcp::journal::Arrival;
use super::tls::{self, Secured};
use super::worker::Worker;
use crate::certs::challenges::ACME_TLS;
use crate::certs::on_demand;
use crate::net::drain::Drain;
use crate::net::hello::{Hello, NoHello, Opening, is_tls};
use crate::net::link::Link;
use crate::net::proxy_protocol::{self, Addresses, Header};
use crate::snapshot::listener::{ConnectionFacts, FilterChain, Listener, Service};
use crate::snapshot::tls::{Readiness, TlsServer, version_name};

/// A socket that a listener accepted.
pub(super) struct Accepted {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// The bound address.
    pub listener: SocketAddr,
}

/// Why a connection is closed before it is served. The client is told nothing, except alerts for a broken handshake.
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
    #[error("no filter chain takes it")]
    NoChain(Box<Stray>),
    #[error("plaintext where TLS is ended")]
    Plaintext,
    #[error("the certificate is not available: {0}")]
    Unavailable(String),
    #[error("the certificate of {0} is being issued")]
    Awaited(Box<str>),
    #[error("no certificate for {0} on demand: {1}")]
    NotOnDemand(Box<str>, on_demand::Refusal),
    #[error("a CA was shown that the name is ours")]
    Proven,
}

/// A connection that no chain takes.
#[derive(Debug)]
struct Stray {
    connection: Connection,
    is_tls: bool,
    server_name: Option<Box<str>>,
}

impl Refusal {
    /// The word in the metric of handshakes; `None`: not a TLS matter.
    fn handshake_result(&self) -> Option<&'static str> {
        match self {
            Refusal::Io(_) => Some("failed"),
            Refusal::Slow => Some("timeout"),
            Refusal::NoChain(stray) if stray.is_tls => Some("unknown_name"),
            Refusal::Unavailable(_) | Refusal::Awaited(_) | Refusal::NotOnDemand(..) => Some("no_certificate"),
            Refusal::Leaving
            | Refusal::NoListener
            | Refusal::ProxyHeader
            | Refusal::Plaintext
            | Refusal::Proven
            | Refusal::NoChain(_) => None,
        }
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(accepted: Accepted, worker: Arc<Worker>, drain: Drain) {
    let Accepted { peer, listener, .. } = accepted;
    let arrival = Arrival::now();
    // Boxed, because its state is large; a statement of its own, because it is freed before the connection is served.
    let established = Box::pin(establish(accepted, &worker, &drain)).await;
    match established {
        Ok(Established::Http(link, protocol, connection)) => {
            super::http::serve(link, protocol, Arc::new(connection), worker, drain).await;
        }
        Ok(Established::Tcp(visitor)) => super::tcp::serve(visitor, arrival, &worker).await,
        Err(refusal) => {
            if let Refusal::NoChain(stray) = &refusal {
                super::tcp::journal::log_stray(&worker, &stray.connection, stray.server_name.as_deref(), arrival);
            }
            tracing::debug!(%peer, %listener, reason = %refusal, "connection closed before it was served");
        }
    }
}

/// What a connection is served as.
enum Established {
    Http(Link, ClientProtocol, Connection),
    Tcp(Visitor),
}

/// What comes out of the first bytes.
enum Introduced {
    Ready(Established),
    /// A TLS client that did not say by ALPN what it speaks.
    Unsaid(Box<Secured>, Connection),
    /// A TLS client whose certificate is to be ordered now.
    Demanding(Box<Greeted>),
}

/// A TLS client that was not answered yet.
struct Greeted {
    opening: Opening,
    hello: Hello,
    connection: Connection,
    server_name: Option<Box<str>>,
}

async fn establish(accepted: Accepted, worker: &Worker, drain: &Drain) -> Result<Established, Refusal> {
    let began = Instant::now();
    let Accepted { socket, peer, listener: address } = accepted;
    socket.set_nodelay(true)?;
    let ends = Addresses { client: canonical(peer), destination: canonical(socket.local_addr()?) };
    let opening = Opening::new(socket);

    // The snapshot is not held while nothing comes.
    let (first, handshake_timeout, idle_timeout) = {
        let snapshot = worker.store.load();
        let listener = snapshot.listener(address).ok_or(Refusal::NoListener)?;
        let first = first_word(listener, ends.destination.ip());
        (first, snapshot.proxy.handshake_timeout, snapshot.proxy.idle_timeout)
    };
    match first {
        FirstWord::AtOnce => while_wanted(handshake_timeout, drain, opening.stirs()).await?,
        FirstWord::AtLeisure => while_wanted(idle_timeout, drain, opening.stirs()).await?,
        FirstWord::Nobody => {}
    }

    let snapshot = worker.store.load();
    let listener = snapshot.listener(address).ok_or(Refusal::NoListener)?;
    let deadline = if first == FirstWord::AtOnce { began } else { Instant::now() } + handshake_timeout;
    let introduced = timeout_at(deadline, introduce(opening, ends, listener, worker)).await;
    let mut introduced = match introduced {
        Ok(introduced) => introduced?,
        Err(_) if listener.chains.inspects() => return counted(Err(Refusal::Slow), worker),
        Err(_) => return Err(Refusal::Slow),
    };
    drop(snapshot);
    if let Introduced::Demanding(greeted) = introduced {
        introduced = demand(*greeted, address, worker, drain).await?;
    }
    match introduced {
        Introduced::Demanding(_) => Err(Refusal::Leaving),
        Introduced::Ready(established) => Ok(established),
        Introduced::Unsaid(mut stream, connection) => {
            let protocol = while_wanted(idle_timeout, drain, tls::spoken_protocol(&mut stream)).await?;
            Ok(Established::Http(Link::server_tls(*stream), protocol, connection))
        }
    }
}

/// How soon a client has to say something before it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstWord {
    /// A PROXY header or a ClientHello comes first.
    AtOnce,
    /// A request comes when the client wants.
    AtLeisure,
    /// The endpoint may be the one that speaks first.
    Nobody,
}

fn first_word(listener: &Listener, destination: IpAddr) -> FirstWord {
    if listener.proxy_protocol || listener.chains.inspects() {
        return FirstWord::AtOnce;
    }
    match listener.chains.find(&ConnectionFacts::plain(destination)).map(|chain| &chain.service) {
        Some(Service::Http(_)) => FirstWord::AtLeisure,
        Some(Service::Tcp(_)) | None => FirstWord::Nobody,
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
    let socket_peer = ends.client;
    if listener.proxy_protocol
        && let Some(told) = proxy_header(&mut opening).await?
    {
        ends = Addresses { client: canonical(told.client), destination: canonical(told.destination) };
    }
    let connection =
        Connection { socket_peer, listener: listener.address, local: ends.destination, peer: ends.client, tls: None };
    let hello = match listener.chains.inspects() && is_tls(opening.first().await?) {
        true => counted(inspect(&mut opening, listener, &connection).await, worker)?,
        false => None,
    };
    let server_name = hello.as_ref().and_then(Hello::server_name);
    let hello = match hello {
        Some(hello) if hello.offers_only(ACME_TLS) => match proof(worker, server_name.as_deref()).await {
            Some(key) => return prove(opening, hello, key, worker, &connection).await,
            // Somebody behind us may know it.
            None => Some(hello),
        },
        hello => hello,
    };
    let Some(chain) = find(listener, &connection, hello.as_ref(), server_name.as_deref()) else {
        let stray = Stray { connection, is_tls: hello.is_some(), server_name };
        return counted(Err(Refusal::NoChain(Box::new(stray))), worker);
    };
    let Some(tls) = &chain.tls else { return open(opening, connection, chain, server_name).await };
    let Some(hello) = hello else { return Err(Refusal::Plaintext) };
    let greeted = Greeted { opening, hello, connection, server_name };
    let readiness = match tls {
        TlsServer::Ready(terms) => terms.readiness(greeted.server_name.as_deref()),
        TlsServer::Unavailable { .. } => Readiness::Ready,
    };
    match readiness {
        Readiness::OnDemand => Ok(Introduced::Demanding(Box::new(greeted))),
        Readiness::Ready => secured(greeted, chain, None, worker).await,
        Readiness::Awaited => {
            let refusal = Refusal::Awaited(greeted.server_name.clone().unwrap_or_default());
            refused(greeted, tls, refusal, worker).await
        }
    }
}

/// Waits for a certificate that is ordered now. The configuration may change meanwhile, and is not held.
async fn demand(greeted: Greeted, address: SocketAddr, worker: &Worker, drain: &Drain) -> Result<Introduced, Refusal> {
    let name = greeted.server_name.clone().unwrap_or_default();
    let key = tokio::select! {
        biased;
        key = worker.issuing.on_demand.certificate(&name) => key,
        () = drain.wait() => return Err(Refusal::Leaving),
    };
    let snapshot = worker.store.load();
    let listener = snapshot.listener(address).ok_or(Refusal::NoListener)?;
    let chain = find(listener, &greeted.connection, Some(&greeted.hello), greeted.server_name.as_deref());
    let chain = chain.filter(|chain| chain.tls.is_some()).ok_or(Refusal::NoListener)?;
    let shaking = async {
        match (key, &chain.tls) {
            (Ok(key), _) => secured(greeted, chain, Some(key), worker).await,
            (Err(refusal), Some(tls)) => refused(greeted, tls, Refusal::NotOnDemand(name, refusal), worker).await,
            (Err(_), None) => Err(Refusal::NoListener),
        }
    };
    let shaken = timeout(snapshot.proxy.handshake_timeout, shaking).await;
    shaken.unwrap_or_else(|_| counted(Err(Refusal::Slow), worker))
}

/// Tells a client by an alert that there is no certificate for it.
async fn refused(greeted: Greeted, tls: &TlsServer, refusal: Refusal, worker: &Worker) -> Result<Introduced, Refusal> {
    if let TlsServer::Ready(terms) = tls {
        tls::refuse(greeted.opening, greeted.hello, terms).await;
    }
    counted(Err(refusal), worker)
}

/// Shakes hands, with `key` or what the chain has.
async fn secured(
    greeted: Greeted,
    chain: &FilterChain,
    key: Option<Arc<CertifiedKey>>,
    worker: &Worker,
) -> Result<Introduced, Refusal> {
    let Greeted { opening, hello, connection, server_name } = greeted;
    let (secured, facts) = match &chain.tls {
        Some(TlsServer::Ready(terms)) => {
            let shaken = tls::shake_hands(opening, hello, terms, key).await;
            counted(shaken.map_err(Refusal::Io), worker)?
        }
        Some(TlsServer::Unavailable { reason }) => return counted(Err(Refusal::Unavailable(reason.clone())), worker),
        None => return Err(Refusal::NoListener),
    };
    worker.telemetry.metrics.tls_handshake(version_name(facts.version), "success");
    let connection = Connection { tls: Some(facts), ..connection };
    Ok(match (&chain.service, tls::settled_protocol(&secured)) {
        (Service::Tcp(proxy), _) => {
            let (proxy, link) = (Arc::clone(proxy), Link::server_tls(secured));
            Introduced::Ready(Established::Tcp(Visitor { link, connection, server_name, proxy }))
        }
        (Service::Http(_), Some(protocol)) => {
            Introduced::Ready(Established::Http(Link::server_tls(secured), protocol, connection))
        }
        (Service::Http(_), None) => Introduced::Unsaid(Box::new(secured), connection),
    })
}

/// The certificate that shows a CA that a name is ours (tls-alpn-01, RFC 8737).
async fn proof(worker: &Worker, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
    let name = server_name?;
    match worker.issuing.challenges.tls(name) {
        Some(key) => Some(key),
        None => worker.issuing.challenges.tls_shared(name).await,
    }
}

/// Shakes hands with a CA, which is all that it wants.
async fn prove(
    opening: Opening,
    hello: Hello,
    key: Arc<CertifiedKey>,
    worker: &Worker,
    connection: &Connection,
) -> Result<Introduced, Refusal> {
    let name = hello.server_name().unwrap_or_default();
    tls::prove(opening, hello, key).await?;
    worker.telemetry.metrics.challenge_answered("tls-alpn-01");
    tracing::info!(server_name = &*name, peer = %connection.peer, "tls-alpn-01 answered");
    Err(Refusal::Proven)
}

/// The ClientHello. One that cannot be read is no TLS for a chain that takes plaintext (Envoy's TLS inspector); else
/// the client gets an alert.
async fn inspect(
    opening: &mut Opening,
    listener: &Listener,
    connection: &Connection,
) -> Result<Option<Hello>, Refusal> {
    match opening.hello().await {
        Ok(hello) => Ok(Some(hello)),
        Err(NoHello::Io(error)) => Err(Refusal::Io(error)),
        Err(NoHello::Unreadable { error, alert }) => {
            if find(listener, connection, None, None).is_some_and(|chain| chain.tls.is_none()) {
                return Ok(None);
            }
            opening.alert(&alert).await?;
            Err(Refusal::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
        }
    }
}

fn find<'a>(
    listener: &'a Listener,
    connection: &Connection,
    hello: Option<&Hello>,
    server_name: Option<&str>,
) -> Option<&'a Arc<FilterChain>> {
    let destination = connection.local.ip();
    let Some(hello) = hello else { return listener.chains.find(&ConnectionFacts::plain(destination)) };
    let alpn = hello.alpn();
    listener.chains.find(&ConnectionFacts { alpn: &alpn, ..ConnectionFacts::tls(destination, server_name) })
}

/// What becomes of a connection whose bytes are taken as they come. A plaintext HTTP chain that takes unknown server
/// names does what Envoy's does: the client reads a plain 400.
async fn open(
    mut opening: Opening,
    connection: Connection,
    chain: &FilterChain,
    server_name: Option<Box<str>>,
) -> Result<Introduced, Refusal> {
    let established = match &chain.service {
        Service::Tcp(proxy) => {
            let proxy = Arc::clone(proxy);
            let (socket, read) = opening.into_parts();
            let link = Link::server_plain(socket, read);
            Established::Tcp(Visitor { link, connection, server_name, proxy })
        }
        Service::Http(_) => {
            let protocol = match opening.begins_with_preface().await? {
                true => ClientProtocol::Http2,
                false => ClientProtocol::Http1,
            };
            let (socket, read) = opening.into_parts();
            Established::Http(Link::server_plain(socket, read), protocol, connection)
        }
    };
    Ok(Introduced::Ready(established))
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::Handle;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net::drain::{DrainSignal, Phase};
    use crate::proxy::worker::Issuing;
    use crate::snapshot::Snapshot;
    use crate::snapshot::listener::{ChainMatch, ChainTable};
    use crate::snapshot::store::Store;
    use crate::snapshot::tls::ServerTerms;
    use crate::telemetry::Telemetry;
    use crate::telemetry::requests::SourceLabels;
    use crate::upstream::dns::Resolver;

    const NAME: &str = "a.example.com";

    /// A listener and a client that trusts its certificate.
    struct House {
        socket: TcpListener,
        address: SocketAddr,
        worker: Worker,
        signal: DrainSignal,
        client: ClientConfig,
    }

    fn chain(tls: Option<TlsServer>) -> Arc<FilterChain> {
        Arc::new(FilterChain { name: "test".into(), tls, service: Service::Http(Arc::default()) })
    }

    impl House {
        async fn new(proxy_protocol: bool, plaintext: bool, tls: bool) -> House {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
            let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut roots = RootCertStore::empty();
            roots.add(issued.cert.der().clone()).unwrap();
            let client = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut server = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![issued.cert.der().clone()],
                    PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap(),
                )
                .unwrap();
            server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let mut chains = ChainTable::default();
            let named = |name: &str| ChainMatch { server_names: vec![name.to_owned()], ..ChainMatch::default() };
            if tls {
                let config = Arc::new(server);
                let terms = ServerTerms {
                    config,
                    has_default_ciphers: true,
                    certificates: Default::default(),
                    awaited: None,
                    clients: Default::default(),
                    verifier: None,
                };
                let ready = TlsServer::Ready(Arc::new(terms));
                chains.insert(named(NAME), chain(Some(ready)));
                let missing = TlsServer::Unavailable { reason: "no secret".into() };
                chains.insert(named("missing.example.com"), chain(Some(missing)));
            }
            if plaintext {
                chains.insert(ChainMatch::default(), chain(None));
            }
            let listener = Arc::new(Listener { address, proxy_protocol, chains });
            let snapshot = Snapshot { listeners: vec![listener], ..Snapshot::empty() };
            let telemetry = Arc::new(Telemetry::new(SourceLabels::default()).unwrap());
            let store = Arc::new(Store::new(Arc::new(snapshot)));
            let issuing = Issuing { challenges: Arc::default(), on_demand: on_demand::door().0 };
            let worker = Worker::new(store, telemetry, Resolver::new(Handle::current()), Default::default(), issuing);
            House { socket, address, worker, signal: DrainSignal::new(), client }
        }

        async fn accept(&self) -> Result<(Link, ClientProtocol, Connection), Refusal> {
            let (socket, peer) = self.socket.accept().await.unwrap();
            let accepted = Accepted { socket, peer, listener: self.address };
            match establish(accepted, &self.worker, &self.signal.drain()).await? {
                Established::Http(link, protocol, connection) => Ok((link, protocol, connection)),
                Established::Tcp(_) => panic!("no chain here is TCP"),
            }
        }

        /// What the listener makes of a client that begins with `bytes`, and what the client then reads.
        async fn meet(&self, bytes: &[u8]) -> (Result<(Link, ClientProtocol, Connection), Refusal>, TcpStream) {
            let mut client = TcpStream::connect(self.address).await.unwrap();
            client.write_all(bytes).await.unwrap();
            (self.accept().await, client)
        }

        /// What the listener makes of a TLS client that sends `greeting` before and `first` after the handshake.
        async fn shake(
            &self,
            server_name: &str,
            alpn: &[&str],
            greeting: &[u8],
            first: &[u8],
        ) -> (Result<(Link, ClientProtocol, Connection), Refusal>, io::Result<()>) {
            let mut config = self.client.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            let client = async {
                let mut socket = TcpStream::connect(self.address).await?;
                socket.write_all(greeting).await?;
                let name = ServerName::try_from(server_name.to_owned()).unwrap();
                let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
                stream.write_all(first).await?;
                stream.flush().await
            };
            tokio::join!(self.accept(), client)
        }
    }

    #[tokio::test]
    async fn plaintext_is_told_apart_by_its_first_bytes() {
        let house = House::new(false, true, false).await;
        for (bytes, protocol) in [
            (b"GET / HTTP/1.1\r\n".as_slice(), ClientProtocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ClientProtocol::Http2),
            (b"\x16\x03\x01 not for us", ClientProtocol::Http1),
        ] {
            let (established, client) = house.meet(bytes).await;
            let (mut link, spoken, connection) = established.unwrap();
            assert_eq!((spoken, connection.tls.as_ref()), (protocol, None));
            assert_eq!(connection.peer, client.local_addr().unwrap());
            assert!(connection.chain(&house.worker.store.load()).is_some());
            let mut read = vec![0; bytes.len()];
            link.read_exact(&mut read).await.unwrap();
            assert_eq!(read, bytes, "nothing is lost");
        }
    }

    #[tokio::test]
    async fn the_chain_follows_the_server_name() {
        let house = House::new(false, false, true).await;
        let (established, shaken) = house.shake(NAME, &["h2"], b"", b"").await;
        shaken.unwrap();
        let (_, protocol, connection) = established.unwrap();
        assert_eq!(protocol, ClientProtocol::Http2);
        assert_eq!(connection.tls.as_ref().unwrap().server_name.as_deref(), Some(NAME));
        assert!(connection.chain(&house.worker.store.load()).is_some());
        assert!(connection.chain(&Snapshot::empty()).is_none());

        let (established, _) = house.shake(NAME, &[], b"", b"GET / HTTP/1.1\r\n").await;
        assert_eq!(established.unwrap().1, ClientProtocol::Http1);
        let (established, _) = house.shake(NAME, &[], b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(established.unwrap().1, ClientProtocol::Http2);
    }

    #[tokio::test]
    async fn who_is_not_served_is_closed_without_an_alert() {
        let house = House::new(false, false, true).await;
        for (name, expected) in
            [("other.example.com", "no filter chain takes it"), ("missing.example.com", "no secret")]
        {
            let (established, shaken) = house.shake(name, &["h2"], b"", b"").await;
            let refusal = established.unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
            assert!(!shaken.unwrap_err().to_string().to_lowercase().contains("alert"));
        }
        let (established, mut client) = house.meet(b"GET / HTTP/1.1\r\n").await;
        assert!(matches!(established, Err(Refusal::NoChain(_))));
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn a_broken_hello_gets_an_alert() {
        let house = House::new(false, false, true).await;
        let (established, mut client) = house.meet(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
        assert!(matches!(established, Err(Refusal::Io(_))));
        let mut alert = [0; 2];
        client.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert[0], 21, "an alert record");
    }

    #[tokio::test]
    async fn a_plaintext_chain_takes_unknown_names() {
        let house = House::new(false, true, true).await;
        let (established, _) = tokio::join!(house.accept(), async {
            let config = Arc::new(house.client.clone());
            let socket = TcpStream::connect(house.address).await.unwrap();
            let name = ServerName::try_from("other.example.com").unwrap();
            let shaking = TlsConnector::from(config).connect(name, socket);
            timeout(Duration::from_millis(200), shaking).await.is_ok()
        });
        let (mut link, _, connection) = established.unwrap();
        assert_eq!(connection.tls, None);
        assert_eq!(link.read_u8().await.unwrap(), 0x16, "HTTP reads the hello and answers 400");
    }

    #[tokio::test]
    async fn the_proxy_protocol_names_the_client() {
        let house = House::new(true, true, true).await;
        let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n";
        let (established, shaken) = house.shake(NAME, &["http/1.1"], header, b"").await;
        shaken.unwrap();
        let (.., connection) = established.unwrap();
        assert_eq!(
            (connection.peer, connection.local),
            (([192, 0, 2, 1], 1000).into(), ([198, 51, 100, 2], 443).into())
        );

        let (established, client) = house.meet(b"PROXY UNKNOWN\r\nGET /").await;
        assert_eq!(established.unwrap().2.peer, client.local_addr().unwrap());
        let (established, _client) = house.meet(b"GET / HTTP/1.1\r\n").await;
        assert!(matches!(established, Err(Refusal::ProxyHeader)));
    }

    #[tokio::test]
    async fn a_silent_client_goes_with_its_listener() {
        let house = House::new(false, true, false).await;
        let _client = TcpStream::connect(house.address).await.unwrap();
        let (established, ()) = tokio::join!(house.accept(), async { house.signal.enter(Phase::Closed) });
        assert!(matches!(established, Err(Refusal::Leaving)));
    }
}
