//! Does the engine keep the protocols over real sockets? A hand-made snapshot, a scripted backend, and raw clients.

mod crossing;
mod deadlock;
mod framing;
mod lifetime;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::certs::on_demand::door;
use crate::net::drain::DrainSignal;
use crate::net::link::Link;
use crate::proxy::connection::{ClientProtocol, Connection};
use crate::proxy::worker::{Issuing, Worker};
use crate::snapshot::cluster::{
    Balancing, Cluster, Encryption, Endpoint, EndpointSource, ServiceFacts, UpstreamProtocol,
};
use crate::snapshot::headers::HeaderOperations;
use crate::snapshot::listener::{ChainMatch, ChainTable, FilterChain, Listener, Service};
use crate::snapshot::matcher::{PathMatch, RequestMatch};
use crate::snapshot::retry::{RetryCondition, RetryPolicy};
use crate::snapshot::route::{Action, ClusterReference, Destination, Forward, RouteRule, RouteTable, VirtualHost};
use crate::snapshot::store::Store;
use crate::snapshot::{PathNormalization, ProxyPolicy, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::dns::Resolver;

/// How the one route of a test gateway is made.
struct Setup {
    backend: SocketAddr,
    protocol: UpstreamProtocol,
    timeout: Option<Duration>,
    idle_timeout: Duration,
}

impl Setup {
    fn new(backend: SocketAddr) -> Self {
        let idle_timeout = Duration::from_secs(60);
        Setup { backend, protocol: UpstreamProtocol::Http1, timeout: None, idle_timeout }
    }

    fn snapshot(&self, address: SocketAddr) -> Snapshot {
        let endpoint =
            Endpoint { address: self.backend, weight: 1, encryption: Encryption::default(), workload: Arc::default() };
        let cluster = Arc::new(Cluster {
            name: "outbound|80||web.test".into(),
            service: ServiceFacts::default(),
            protocol: self.protocol,
            endpoints: EndpointSource::Static(vec![endpoint]),
            balancing: Balancing::RoundRobin,
            warmup: None,
            tls: None,
            proxy_header: None,
            tunnel: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            max_requests_per_connection: 0,
            limits: Default::default(),
            outlier: None,
            places: None,
            identity: 1,
        });
        let destination = Destination {
            cluster: ClusterReference::Known(Arc::clone(&cluster)),
            weight: 1,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
            authority_rewrite: None,
        };
        let rule = RouteRule {
            name: "".into(),
            origin: "".into(),
            matches: RequestMatch { path: PathMatch::Any, conditions: Vec::new() },
            action: Action::Forward(Forward {
                destinations: vec![destination],
                total_weight: 1,
                timeout: self.timeout,
                retry: Some(Arc::new(RetryPolicy {
                    attempts: 2,
                    per_try_timeout: None,
                    conditions: [RetryCondition::ConnectFailure, RetryCondition::RefusedStream].into_iter().collect(),
                    status_codes: Box::default(),
                    backoff: Duration::from_millis(25),
                    host_picks: Some(5),
                    remote_localities: false,
                })),
                hash: None,
                mirrors: Vec::new(),
                path_rewrite: None,
                authority_rewrite: None,
                decorator: HeaderValue::from_static("web.test:80/*"),
            }),
            cors: None,
            fault: None,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
        };
        let mut routes = RouteTable { name: "http.80".into(), port: 80, ..RouteTable::default() };
        routes.insert(Arc::new(VirtualHost::new("*", false, vec![Arc::new(rule)])));
        let chain = FilterChain { name: "test".into(), tls: None, service: Service::Http(Arc::new(routes)) };
        let mut chains = ChainTable::default();
        chains.insert(ChainMatch::default(), Arc::new(chain));
        let listener = Listener { address, proxy_protocol: false, chains };
        Snapshot {
            generation: 1,
            listeners: vec![Arc::new(listener)],
            clusters: HashMap::from([(Arc::clone(&cluster.name), cluster)]),
            issuance: Arc::default(),
            identity: None,
            proxy: Arc::new(ProxyPolicy {
                max_head_bytes: 60 * 1024,
                max_headers: 100,
                head_timeout: Duration::from_secs(5),
                handshake_timeout: Duration::from_secs(5),
                idle_timeout: self.idle_timeout,
                trusted_proxies: Vec::new(),
                num_trusted_proxies: 0,
                path_normalization: PathNormalization::Base,
                forward_client_cert: Default::default(),
                max_concurrent_streams: 100,
                access_logs: Default::default(),
                rejects_underscores: false,
                own_headers: crate::snapshot::OwnHeaders::default(),
            }),
        }
    }
}

/// A gateway in this process.
struct Gateway {
    address: SocketAddr,
    drain: Arc<DrainSignal>,
    worker: Arc<Worker>,
}

impl Gateway {
    async fn start(setup: Setup, protocol: ClientProtocol) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Store::new(Arc::new(setup.snapshot(address))));
        let telemetry = Arc::new(Telemetry::new(Default::default()).unwrap());
        let issuing = Issuing { challenges: Arc::default(), on_demand: door().0 };
        let worker =
            Arc::new(Worker::new(store, telemetry, Resolver::new(Handle::current()), Default::default(), issuing));
        let drain = Arc::new(DrainSignal::new());
        let gateway = Gateway { address, drain: Arc::clone(&drain), worker: Arc::clone(&worker) };
        tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let connection = Connection { listener: address, local: address, peer, socket_peer: peer, tls: None };
                let link = Link::server_plain(stream, Bytes::new());
                tokio::spawn(super::serve(link, protocol, Arc::new(connection), Arc::clone(&worker), drain.drain()));
            }
        });
        gateway
    }

    async fn http1(backend: SocketAddr) -> Gateway {
        Gateway::start(Setup::new(backend), ClientProtocol::Http1).await
    }

    async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.unwrap())
    }
}

/// One raw connection.
struct Wire(TcpStream);

impl Wire {
    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
    }

    /// Reads until what came ends with `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let read = async {
            while !got.ends_with(end.as_bytes()) {
                let mut byte = [0];
                assert_ne!(self.0.read(&mut byte).await.unwrap(), 0, "closed early");
                got.push(byte[0]);
            }
        };
        if tokio::time::timeout(PATIENCE, read).await.is_err() {
            panic!("waited for {end:?}, got {:?}", String::from_utf8_lossy(&got));
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_ascii_lowercase()
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut got = vec![0; length];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut got)).await.expect("in time").unwrap();
        got
    }

    /// All that comes, and whether it ended well.
    async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        let end = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut got)).await.expect("an end");
        (got, end.is_ok())
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that runs `script` on each connection; counts them.
async fn backend<F, Fut>(script: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(Wire, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(script(Wire(stream), counter.fetch_add(1, Ordering::SeqCst)));
        }
    });
    (address, count)
}

/// A backend that answers each request without body by the request's own head.
async fn echo_heads() -> (SocketAddr, Arc<AtomicUsize>) {
    backend(|mut wire, _| async move {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if wire.0.read(&mut byte).await.unwrap_or(0) == 0 {
                    return;
                }
                head.push(byte[0]);
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
            wire.send([answer.as_bytes(), &head].concat()).await;
        }
    })
    .await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}
