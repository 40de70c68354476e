//! Istio's CA: the published CreateCertificate (istio.v1.auth, ca.proto) over TLS, with a token to be shown, and faults
//! on demand.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};

use super::address;
use super::backend::on_own_runtime;
use super::certificate::{Authority, Identity};
use super::svid::sign;

/// IstioCertificateRequest
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    #[prost(string, tag = "1")]
    pub csr: String,
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// IstioCertificateResponse
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// What the CA does.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// Signs; a chain from the leaf to the root.
    Good,
    /// Signs, and leaves the root out.
    ShortChain,
    /// This status, to this many calls; then it is good again.
    Fails(tonic::Code, usize),
    /// Never answers.
    Hangs,
}

/// One call, as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub token: Option<String>,
    /// Whether the client showed a certificate.
    pub certificate: bool,
    pub cluster: String,
    pub id: String,
    /// Seconds.
    pub validity: i64,
}

/// A running CA.
pub struct Istiod {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    authority: Arc<Authority>,
    state: Mutex<State>,
}

struct State {
    mood: Mood,
    /// What has to be shown; `None`: a certificate.
    token: Option<String>,
    life: Duration,
    calls: Vec<Call>,
}

impl Istiod {
    /// Takes `token`, and serves with a certificate for `istiod.test`; what it signs lives for `life`.
    pub fn start(authority: &Arc<Authority>, token: Option<&str>, life: Duration) -> Self {
        let state = State { mood: Mood::Good, token: token.map(str::to_owned), life, calls: Vec::new() };
        let shared = Arc::new(Shared { authority: Arc::clone(authority), state: Mutex::new(state) });
        let listener = std::net::TcpListener::bind((address::fresh(), 0)).expect("an address of our own");
        let address = listener.local_addr().expect("it is bound");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server(authority)));
        let inside = Arc::clone(&shared);
        on_own_runtime(listener, |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&inside)));
            }
        });
        Istiod { address, shared }
    }

    pub fn mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Takes only this token from now on.
    pub fn token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics with it")
    }
}

fn server(authority: &Authority) -> ServerConfig {
    let Identity { certificate, key } = authority.identity(&["istiod.test"]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("our own PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("our own PEM");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("our own PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .expect("roots verify");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .expect("a certificate of our own");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn serve(stream: tokio::net::TcpStream, acceptor: tokio_rustls::TlsAcceptor, shared: Arc<Shared>) {
    // A client that does not trust us ends here.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().is_some();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let create = Create { shared: Arc::clone(&shared), certificate };
        async move {
            assert_eq!(request.uri().path(), "/istio.v1.auth.IstioCertificateService/CreateCertificate");
            let mut grpc = Grpc::new(ProstCodec::<CertificateResponse, CertificateRequest>::default());
            Ok::<_, Infallible>(grpc.unary(create, request).await)
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

struct Create {
    shared: Arc<Shared>,
    certificate: bool,
}

impl UnaryService<CertificateRequest> for Create {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let answer = self.answer(&request);
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

impl Create {
    /// `None`: never.
    fn answer(&self, request: &Request<CertificateRequest>) -> Option<Result<Response<CertificateResponse>, Status>> {
        let header = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let token = header("authorization").and_then(|value| Some(value.strip_prefix("Bearer ")?.to_owned()));
        let cluster = header("clusterid").unwrap_or_default();
        let Some(asked) = Asked::read(&request.get_ref().csr) else {
            return Some(Err(Status::invalid_argument("this is no request for a certificate")));
        };
        let (certificate, validity) = (self.certificate, request.get_ref().validity_duration);
        let mut state = self.shared.state.lock().expect("no test panics with it");
        state.calls.push(Call { token: token.clone(), certificate, cluster, id: asked.id.clone(), validity });
        match &state.token {
            Some(wanted) if token.as_ref() != Some(wanted) => return Some(Err(Status::unauthenticated("bad token"))),
            None if !certificate => return Some(Err(Status::unauthenticated("no certificate"))),
            _ => {}
        }
        match state.mood.clone() {
            Mood::Fails(code, left) => {
                state.mood = if left > 1 { Mood::Fails(code, left - 1) } else { Mood::Good };
                Some(Err(Status::new(code, "on demand")))
            }
            Mood::Hangs => None,
            mood => {
                let leaf = sign(&self.shared.authority, &asked.id, state.life, &asked);
                let root = (mood == Mood::Good).then(|| self.shared.authority.pem.clone());
                Some(Ok(Response::new(CertificateResponse { cert_chain: std::iter::once(leaf).chain(root).collect() })))
            }
        }
    }
}

/// What a request asks for.
struct Asked {
    id: String,
    key: Vec<u8>,
}

impl Asked {
    /// One URI and nothing else, as Istio's agent writes it.
    fn read(pem: &str) -> Option<Asked> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let key = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
        let mut names = request.requested_extensions()?.filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.clone()),
            _ => None,
        });
        match names.next()?.as_slice() {
            [GeneralName::URI(id)] => Some(Asked { id: (*id).to_owned(), key }),
            _ => None,
        }
    }
}

impl rcgen::PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
