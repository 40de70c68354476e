//! A server behind the gateway that tells what it got, and misbehaves on demand.
//!
//! | path | answer |
//! |---|---|
//! | `/status/N` | status N |
//! | `/bytes/N` | N bytes, in pieces, without Content-Length |
//! | `/echo` | the request's body, piece by piece |
//! | `/gate` | a first piece at once, the rest when the test opens the gate |
//! | `/hang` | never |
//! | `/close` | the connection is closed before an answer |
//! | `/cut` | fewer bytes than Content-Length promises |
//! | `/early` | an answer before the request's body is read |
//! | `/flaky/KEY/N` | 503 to the first N requests of that key, then as anything else; the body is read either way |
//! | `/headers` | hop-by-hop and proxy headers in the answer |
//! | anything else | JSON: backend, method, path, version, headers, number and checksum of body bytes |

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::address;
use super::certificate::{Authority, Identity};

const PIECE: usize = 64 * 1024;

type Body = BoxBody<Bytes, std::io::Error>;

/// A running backend; its thread ends with the process.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// Certificates that clients showed, in DER.
pub type Shown = Arc<Mutex<Vec<Vec<u8>>>>;

struct Shared {
    name: String,
    requests: AtomicUsize,
    connections: AtomicUsize,
    gate: watch::Sender<bool>,
    /// How often a key of `/flaky` was asked for.
    asked: Mutex<HashMap<String, usize>>,
    /// What was told of requests whose body was read.
    told: Mutex<Vec<Value>>,
}

impl Backend {
    /// HTTP/1.1.
    pub fn http1(name: &str) -> Self {
        Self::start(name, |listener, shared| async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                // An error is what some tests are about.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        })
    }

    /// HTTP/1.1 that hands each body of JSON to the test, and answers with the status that it returns.
    pub fn posted(name: &str, take: impl Fn(Value) -> u16 + Clone + Send + Sync + 'static) -> Self {
        Self::heard(name, move |_, body| take(serde_json::from_slice(body).unwrap_or_default()))
    }

    /// HTTP/1.1 that hands each target and body to the test, and answers with the status that it returns.
    pub fn heard(name: &str, take: impl Fn(&str, &[u8]) -> u16 + Clone + Send + Sync + 'static) -> Self {
        Self::start(name, |listener, _| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let take = take.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let take = take.clone();
                    async move {
                        let target = request.uri().to_string();
                        let body = request.into_body().collect().await?.to_bytes();
                        let status = take(&target, &body);
                        let answer = Response::builder().status(status).body(Full::<Bytes>::default());
                        Ok::<_, hyper::Error>(answer.expect("the test's status is good"))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        })
    }

    /// HTTP/1.1 over TLS.
    pub fn tls(name: &str, identity: &Identity) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server()));
        Self::start(name, |listener, shared| async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    // A client that does not trust us ends here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        })
    }

    /// HTTP/1.1 over TLS, for clients that `authority` vouches for; the certificates that they show are kept.
    pub fn mutual(name: &str, identity: &Identity, authority: &Authority) -> (Self, Shown) {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.mutual_server(authority)));
        let shown = Shown::default();
        let kept = Arc::clone(&shown);
        let backend = Self::start(name, |listener, shared| async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, acceptor, kept) = (Arc::clone(&shared), acceptor.clone(), Arc::clone(&kept));
                tokio::spawn(async move {
                    // A client without a good certificate ends here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    kept.lock().expect("no test panics with it").extend(leaf.map(|leaf| leaf.to_vec()));
                    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (backend, shown)
    }

    /// Says back what it hears; after the client's end it says `end of NAME`.
    pub fn echo(name: &str) -> Self {
        Self::start(name, |listener, shared| async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let end = format!("end of {}", shared.name);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    // A client that goes early is its own affair.
                    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                        let _ = writer.write_all(end.as_bytes()).await;
                    }
                });
            }
        })
    }

    /// Speaks first, `220 NAME`, and closes.
    pub fn greeting(name: &str) -> Self {
        Self::start(name, |listener, shared| async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(format!("220 {}", shared.name).as_bytes()).await;
            }
        })
    }

    /// HTTP/2 without TLS.
    pub fn h2c(name: &str) -> Self {
        Self::start(name, |listener, shared| async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve_h2(stream, Arc::clone(&shared)));
            }
        })
    }

    fn start<F, S>(name: &str, serve: F) -> Self
    where
        F: FnOnce(TcpListener, Arc<Shared>) -> S + Send + 'static,
        S: Future<Output = ()>,
    {
        let listener = std::net::TcpListener::bind((address::fresh(), 0)).expect("an address of our own");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            gate: watch::Sender::new(false),
            asked: Mutex::default(),
            told: Mutex::default(),
        });
        let inside = Arc::clone(&shared);
        on_own_runtime(listener, move |listener| serve(listener, inside));
        Backend { address, shared }
    }

    /// Requests whose head has come.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What is known of the requests whose body was read to its end.
    pub fn told(&self) -> Vec<Value> {
        self.shared.told.lock().expect("no test panics with it").clone()
    }

    /// Lets every request to `/gate` finish, now and later.
    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }
}

/// Serves on a thread with a runtime of its own.
pub(super) fn on_own_runtime<F, S>(listener: std::net::TcpListener, serve: F)
where
    F: FnOnce(TcpListener) -> S + Send + 'static,
    S: Future<Output = ()>,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            listener.set_nonblocking(true).expect("a socket can be non-blocking");
            serve(TcpListener::from_std(listener).expect("it is a listener")).await;
        });
    });
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    (address::fresh(), 9).into()
}

/// A listener whose queue is full, so that connecting never ends: keep the value.
pub fn unreachable() -> (std::net::TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let wanted: SocketAddr = (address::fresh(), 9).into();
    socket.bind(&wanted.into()).expect("an address of our own");
    socket.listen(0).expect("it listens");
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&wanted, std::time::Duration::from_millis(200)) {
        waiting.push(stream);
    }
    (socket.into(), waiting, wanted)
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let argument = path.rsplit('/').next().unwrap_or_default().to_owned();
    match path.split('/').nth(1).unwrap_or_default() {
        "status" => {
            let status = argument.parse().unwrap_or(StatusCode::BAD_REQUEST);
            Ok(Response::builder().status(status).body(whole(argument.into())).expect("a plain answer"))
        }
        "bytes" => Ok(Response::new(zeros(argument.parse().unwrap_or(0)))),
        "echo" => Ok(Response::new(request.into_body().map_err(std::io::Error::other).boxed())),
        "gate" => Ok(Response::new(gated(shared.gate.subscribe()))),
        "hang" => std::future::pending().await,
        "close" => Err(std::io::Error::other("closed on demand")),
        "cut" => Ok(Response::builder().header("content-length", "1000").body(cut()).expect("a plain answer")),
        "early" => Ok(Response::builder().status(413).body(whole("enough".into())).expect("a plain answer")),
        "headers" => Ok(Response::builder()
            .header("connection", "x-private")
            .header("x-private", "kept")
            .header("server", "secret/1.0")
            .header("x-envoy-decorator-operation", "op")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .body(whole("ok".into()))
            .expect("a plain answer")),
        _ => {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let told = told(&shared, &head, &bytes);
            if shared.fails(&path) {
                let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
                return Ok(answer.body(whole("not yet".into())).expect("a plain answer"));
            }
            let answer = Response::builder().header("content-type", "application/json");
            Ok(answer.body(whole(told.to_string().into())).expect("a plain answer"))
        }
    }
}

impl Shared {
    /// Whether this request to `/flaky/KEY/N` is one of the first N.
    fn fails(&self, path: &str) -> bool {
        let mut words = path.split('/').skip(1);
        let (Some("flaky"), Some(key), Some(most)) = (words.next(), words.next(), words.next()) else { return false };
        let mut asked = self.asked.lock().expect("no test panics with it");
        let count = asked.entry(key.to_owned()).or_default();
        *count += 1;
        *count <= most.parse().unwrap_or(0)
    }
}

/// Of a body; the same in every process.
pub fn checksum(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

fn told(shared: &Shared, head: &http::request::Parts, body: &[u8]) -> Value {
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let version = if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
    let mut headers = shown(&head.headers);
    if let (Some(authority), Some(headers)) = (head.uri.authority(), headers.as_object_mut()) {
        headers.insert(":authority".into(), authority.as_str().into());
    }
    let told = json!({"backend": shared.name, "method": head.method.as_str(), "path": path, "version": version,
                      "headers": headers, "body_bytes": body.len(), "checksum": checksum(body)});
    shared.told.lock().expect("no test panics with it").push(told.clone());
    told
}

/// Fields of one name are joined with ` | `, so that a test sees where they were joined before.
fn shown(headers: &HeaderMap) -> Value {
    let value = |name| {
        let lines: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        lines.join(" | ")
    };
    headers
        .keys()
        .map(|name| (name.as_str().to_owned(), Value::from(value(name))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn zeros(count: usize) -> Body {
    static ZEROS: [u8; PIECE] = [b'0'; PIECE];
    let pieces = stream::unfold(count, |left| async move {
        let now = left.min(PIECE);
        (now > 0).then(|| (Ok(Frame::data(Bytes::from_static(&ZEROS[..now]))), left - now))
    });
    StreamBody::new(pieces).boxed()
}

fn gated(gate: watch::Receiver<bool>) -> Body {
    let pieces = stream::unfold((0, gate), |(piece, mut gate)| async move {
        match piece {
            0 => Some((Ok(Frame::data(Bytes::from_static(b"first\n"))), (1, gate))),
            1 => {
                // The sender lives as long as the backend; without it nobody waits for the rest.
                let _ = gate.wait_for(|open| *open).await;
                Some((Ok(Frame::data(Bytes::from_static(b"last\n"))), (2, gate)))
            }
            _ => None,
        }
    });
    StreamBody::new(pieces).boxed()
}

fn cut() -> Body {
    let pieces = stream::unfold(0, |piece| async move {
        if piece == 0 {
            return Some((Ok(Frame::data(Bytes::from_static(b"only this"))), 1));
        }
        // While nothing is ready, what there is goes out.
        tokio::task::yield_now().await;
        Some((Err(std::io::Error::other("cut")), 2))
    });
    StreamBody::new(pieces).boxed()
}

async fn serve_h2(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(answer_h2(request, respond, Arc::clone(&shared)));
    }
}

/// Always tells what it got; the request's trailers are counted as `trailers`, and one is sent back.
async fn answer_h2(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    shared: Arc<Shared>,
) {
    let (head, mut body) = request.into_parts();
    if head.uri.path() == "/reset" {
        return respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        bytes.extend_from_slice(&piece);
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    let mut told = told(&shared, &head, &bytes);
    told["trailers"] = shown(&trailers);
    let status = if shared.fails(head.uri.path()) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let answer = Response::builder().status(status).header("content-type", "application/json");
    let answer = answer.body(()).expect("a plain answer");
    // The client may be gone; then nobody minds.
    let Ok(mut stream) = respond.send_response(answer, false) else { return };
    let _ = stream.send_data(told.to_string().into(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", bytes.len().into());
    let _ = stream.send_trailers(trailers);
}
