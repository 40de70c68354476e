//! An agent of SPIFFE: the published Workload API (workloadapi.proto) over a Unix socket, which says what the test wants.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::svid::Svid;

/// X509SVIDRequest
#[derive(Clone, PartialEq, prost::Message)]
pub struct SvidRequest {}

/// X509SVIDResponse
#[derive(Clone, PartialEq, prost::Message)]
pub struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// X509SVID
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl X509Svid {
    pub fn new(svid: &Svid, bundle: &[u8]) -> Self {
        X509Svid {
            spiffe_id: svid.id.clone(),
            x509_svid: svid.der(),
            x509_svid_key: svid.key.serialize_der(),
            bundle: bundle.to_vec(),
            hint: String::new(),
        }
    }
}

/// What the agent says: a state, or a status that ends the stream.
pub type Said = Result<SvidResponse, Status>;

/// A running agent.
pub struct Agent {
    said: watch::Sender<Said>,
    streams: Arc<AtomicUsize>,
}

impl Agent {
    /// Listens at `path`, where nothing may be yet.
    pub fn start(path: &Path, said: Said) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket of our own");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let agent = Agent { said: watch::Sender::new(said), streams: Arc::default() };
        let fetch = Fetch { said: agent.said.subscribe(), streams: Arc::clone(&agent.streams) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).expect("it is a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let fetch = fetch.clone();
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let fetch = fetch.clone();
                        async move {
                            assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
                            let mut grpc = Grpc::new(ProstCodec::<SvidResponse, SvidRequest>::default());
                            Ok::<_, Infallible>(grpc.server_streaming(fetch, request).await)
                        }
                    });
                    tokio::spawn(
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        agent
    }

    /// Tells everybody something else.
    pub fn say(&self, said: Said) {
        let _ = self.said.send_replace(said);
    }

    /// How often a stream was opened.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Fetch {
    said: watch::Receiver<Said>,
    streams: Arc<AtomicUsize>,
}

impl ServerStreamingService<SvidRequest> for Fetch {
    type Response = SvidResponse;
    type ResponseStream = BoxStream<'static, Said>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<SvidRequest>) -> Self::Future {
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return std::future::ready(Err(Status::invalid_argument("security header missing from request")));
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        let (mut said, ended) = (self.said.clone(), false);
        said.mark_changed();
        let states = stream::unfold((said, ended), |(mut said, ended)| async move {
            if ended || said.changed().await.is_err() {
                return None;
            }
            let now = said.borrow_and_update().clone();
            let ended = now.is_err();
            Some((now, (said, ended)))
        });
        std::future::ready(Ok(Response::new(states.boxed())))
    }
}
