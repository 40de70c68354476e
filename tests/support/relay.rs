//! Mutual TLS in front of a backend, as a sidecar does it: who came is told, and the bytes are passed on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;

use super::address;
use super::backend::on_own_runtime;
use super::certificate::{Authority, Identity};

/// A running relay; its thread ends with the process.
pub struct Relay {
    pub address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The client's certificate.
    pub client: CertificateDer<'static>,
    pub server_name: String,
    pub offered: Vec<String>,
    pub ended: bool,
}

impl Relay {
    /// In front of `backend`, for clients that one of `authorities` signed.
    pub fn new(identity: &Identity, authorities: &[&Authority], backend: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((address::fresh(), 0)).expect("an address of our own");
        let address = listener.local_addr().expect("it is bound");
        let config = Arc::new(config(identity, authorities));
        let visits = Arc::new(Mutex::new(Vec::<Visit>::new()));
        let seen = Arc::clone(&visits);
        on_own_runtime(listener, move |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                tokio::spawn(async move {
                    let started = tokio_rustls::LazyConfigAcceptor::new(Default::default(), stream);
                    let Ok(started) = started.await else { return };
                    let hello = started.client_hello();
                    let server_name = hello.server_name().unwrap_or_default().to_owned();
                    let offered = hello.alpn().into_iter().flatten();
                    let offered: Vec<String> = offered.map(|name| String::from_utf8_lossy(name).into()).collect();
                    // A client that does not trust us, or that we do not trust, ends here.
                    let Ok(mut stream) = started.into_stream(config).await else { return };
                    let client = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    let client = client.expect("one is required").clone().into_owned();
                    let place = {
                        let mut seen = seen.lock().expect("nobody panics with it");
                        seen.push(Visit { client, server_name, offered, ended: false });
                        seen.len() - 1
                    };
                    if let Ok(mut inner) = TcpStream::connect(backend).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
                    }
                    seen.lock().expect("nobody panics with it")[place].ended = true;
                });
            }
        });
        Relay { address, visits }
    }

    /// Every connection so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().expect("nobody panics with it").clone()
    }
}

fn config(identity: &Identity, authorities: &[&Authority]) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("our own PEM");
        roots.add(root).expect("an authority");
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("our own PEM")];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("our own PEM");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("roots"))
        .with_single_cert(chain, key)
        .expect("a certificate of our own");
    config.alpn_protocols = vec![b"istio".to_vec(), b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
