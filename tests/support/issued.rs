//! Which certificate does a gateway serve, and what does it take to get one?

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::curl::{Answer, curl};
use super::gateway::{HTTPS, TestGateway};
use super::raw;

/// An issuer may be slow on a busy machine, and its client waits a second or more between two looks.
const PATIENCE: Duration = Duration::from_secs(90);

/// An `[[acme.issuer]]`; `more` are further lines of it. The storage is the folder `acme` beside the settings.
pub fn issuer(name: &str, directory: &str, root: &Path, more: &str) -> String {
    let root = root.display();
    format!("[[acme.issuer]]\nname = \"{name}\"\ndirectory = \"{directory}\"\nroot = \"{root}\"\n{more}\n")
}

/// A `[[route]]` whose certificate is got by ACME.
pub fn route(host: &str, backend: SocketAddr) -> String {
    format!("[[route]]\nhost = \"{host}\"\nto = \"http://{backend}\"\ntls = \"acme\"\n")
}

/// A Gateway in istio-system with one HTTPS server on port 443; `hosts` as YAML writes them.
pub fn gateway(name: &str, hosts: &str, credential: &str) -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: {name}, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: 443, name: https-{name}, protocol: HTTPS }}
    hosts: [{hosts}]
    tls: {{ mode: SIMPLE, credentialName: "{credential}" }}
"#
    )
}

/// GET by curl over TLS; `root` has to have issued the certificate, and it has to be for `host`.
pub fn get(gateway: &TestGateway, host: &str, root: &str) -> Answer {
    let resolve = format!("{host}:{HTTPS}:{}", gateway.address);
    curl(&format!("https://{host}:{HTTPS}/"), &["--resolve", &resolve, "--cacert", root])
}

/// Waits until a client that trusts `root` alone is served under this name.
pub fn until_served(gateway: &TestGateway, host: &str, root: &str) -> Answer {
    until(|| Some(get(gateway, host, root)).filter(|answer| answer.status == 200))
        .unwrap_or_else(|| panic!("{host} is not served: {:?}\n{}", get(gateway, host, root), gateway.log()))
}

/// Waits until another certificate than `old` is served under this name.
pub fn until_renewed(gateway: &TestGateway, host: &str, old: &Leaf) -> Leaf {
    until(|| leaf(gateway, host).filter(|new| new != old))
        .unwrap_or_else(|| panic!("{host} has its old certificate still\n{}", gateway.log()))
}

/// Asks again and again, as long as an issuer may take.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// A server's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf(pub Vec<u8>);

impl Leaf {
    pub fn pem(&self) -> String {
        let text = super::certificate::base64(&self.0);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// Seconds from its first to its last instant.
    pub fn validity(&self) -> i64 {
        let parsed = self.parsed();
        let validity = &parsed.validity;
        validity.not_after.timestamp() - validity.not_before.timestamp()
    }

    pub fn serial(&self) -> u64 {
        self.parsed().raw_serial().iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// The public key, as it stands in the certificate.
    pub fn key(&self) -> Vec<u8> {
        self.parsed().subject_pki.raw.to_vec()
    }

    fn parsed(&self) -> X509Certificate<'_> {
        X509Certificate::from_der(&self.0).expect("a certificate was served").1
    }
}

/// What is served under this name, whoever issued it; `None` if the handshake fails.
pub fn leaf(gateway: &TestGateway, host: &str) -> Option<Leaf> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(aws_lc_rs::default_provider())))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).expect("a name of the test");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    let mut stream = StreamOwned::new(connection, raw::connect(gateway.https()));
    stream.flush().ok()?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    stream.conn.peer_certificates()?.first().map(|certificate| Leaf(certificate.to_vec()))
}

/// Believes every server.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
