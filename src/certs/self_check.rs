//! Is the new certificate served? The gateway shakes hands with its own listeners and looks at what it is shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::status::Served;
use super::store;
use super::stored::Stored;
use crate::base::kept_name;
use crate::snapshot::Snapshot;
use crate::snapshot::certificate::sha256;
use crate::snapshot::issuance::{Identifier, KeyKind, Wanted};
use crate::snapshot::listener::{ConnectionFacts, Listener};
use crate::snapshot::tls::{CertificateFacts, TlsServer};

const LIMIT: Duration = Duration::from_secs(5);
/// Servers that are asked; more show nothing new.
const MOST_SERVERS: usize = 16;
/// Stands for the names of a wildcard.
const ANY_LABEL: &str = "limani-self-check";

/// One handshake to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    address: SocketAddr,
    proxy_protocol: bool,
    /// `None`: no server name is sent.
    name: Option<String>,
}

/// Asks every server of the snapshot that should serve the certificate.
pub(super) async fn check(snapshot: &Snapshot, wanted: &Wanted, stored: &Stored) -> Served {
    let questions = questions(snapshot, wanted, stored);
    if questions.is_empty() {
        return Served::Nowhere;
    }
    for question in questions {
        let about = question.name.as_deref().unwrap_or("a client without a server name");
        match shown(&question, stored.key).await {
            Ok(shown) if sha256(&shown) == stored.certificate.sha256 => {}
            Ok(_) => return Served::Old(format!("{} shows {about} another certificate", question.address)),
            Err(error) => return Served::Old(format!("{} shows {about} no certificate: {error}", question.address)),
        }
    }
    Served::New
}

/// Which servers have the certificate, or the one that it follows.
fn questions(snapshot: &Snapshot, wanted: &Wanted, stored: &Stored) -> Vec<Question> {
    let Some(secret) = secret_of(&wanted.folder) else { return Vec::new() };
    let mut questions = Vec::new();
    for listener in &snapshot.listeners {
        for identifier in &wanted.identifiers {
            let name = match identifier {
                Identifier::Dns(name) => Some(name.replacen('*', ANY_LABEL, 1)),
                Identifier::Ip(_) => None,
            };
            if questions.len() < MOST_SERVERS && serves(listener, name.as_deref(), identifier, &secret, stored) {
                let address = reachable(listener.address);
                questions.push(Question { address, proxy_protocol: listener.proxy_protocol, name });
            }
        }
    }
    questions
}

/// The end of the name of the Secret that the configuration makes of a folder.
fn secret_of(folder: &str) -> Option<String> {
    let (kind, name) = folder.split_once('/')?;
    Some(match kind {
        store::HOSTS => format!("/acme:{}", kept_name::to_host(name)?),
        store::LOCAL => format!("/local-ca:{}", kept_name::to_host(name)?),
        _ => format!("/{name}"),
    })
}

/// Whether a listener ends TLS for a name with this Secret.
fn serves(listener: &Listener, name: Option<&str>, identifier: &Identifier, secret: &str, stored: &Stored) -> bool {
    let address = match identifier {
        Identifier::Ip(address) if listener.address.ip().is_unspecified() => *address,
        _ => reachable(listener.address).ip(),
    };
    let chain = listener.chains.find(&ConnectionFacts::tls(address, name));
    let Some(TlsServer::Ready(terms)) = chain.and_then(|chain| chain.tls.as_ref()) else { return false };
    let is_ours = |facts: &CertificateFacts| {
        facts.certificate.sha256 == stored.certificate.sha256 || facts.source.ends_with(secret)
    };
    terms.certificates.facts().any(is_ours)
}

/// Where we reach ourselves.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(any) if any.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The leaf that a server shows to a client that takes keys of this kind alone.
async fn shown(question: &Question, kind: Option<KeyKind>) -> std::io::Result<CertificateDer<'static>> {
    let seen = Arc::new(Witness { schemes: schemes(kind), leaf: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = match &question.name {
        Some(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other)?,
        None => ServerName::IpAddress(question.address.ip().into()),
    };
    let handshake = async {
        let mut stream = TcpStream::connect(question.address).await?;
        if question.proxy_protocol {
            stream.write_all(b"PROXY UNKNOWN\r\n").await?;
        }
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let ended = timeout(LIMIT, handshake).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    // A server that wants a certificate of the client has shown its own before it refuses.
    let leaf = seen.leaf.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (leaf, ended) {
        (Some(leaf), _) => Ok(leaf),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(std::io::Error::other("it was not shown")),
    }
}

fn schemes(kind: Option<KeyKind>) -> Vec<SignatureScheme> {
    match kind {
        Some(KeyKind::EcdsaP256) => vec![SignatureScheme::ECDSA_NISTP256_SHA256],
        Some(KeyKind::EcdsaP384) => vec![SignatureScheme::ECDSA_NISTP384_SHA384],
        Some(KeyKind::Ed25519) => vec![SignatureScheme::ED25519],
        Some(KeyKind::Rsa2048) | None => vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256],
    }
}

/// Believes everything, and remembers what it saw. Nothing is sent over such a connection.
#[derive(Debug)]
struct Witness {
    schemes: Vec<SignatureScheme>,
    leaf: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
