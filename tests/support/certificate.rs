//! Certificates for the tests: an authority, and servers signed by it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// A certificate authority that lives as long as the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A server's certificate and key in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no error");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Limani test authority");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub fn identity(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names of the test are good");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate for somebody else's key, in PEM.
    pub fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Option<String> {
        params.signed_by(key, &self.issuer).ok().map(|certificate| certificate.pem())
    }

    /// Writes the authority's certificate for curl's `--cacert`.
    pub fn write(&self, folder: &Path) -> String {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).expect("the certificate is written");
        path.to_string_lossy().into_owned()
    }
}

impl Authority {
    /// A Secret with the authority alone, for what has to trust it.
    pub fn secret(&self, name: &str) -> String {
        let pem = base64(self.pem.as_bytes());
        format!(
            r#"---
apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: istio-system }}
data:
  ca.crt: {pem}
"#
        )
    }
}

impl Identity {
    /// For a server of the tests.
    pub fn server(&self) -> ServerConfig {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("our own PEM")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM");
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
            .expect("a certificate of our own")
    }

    /// The same, for clients that show a certificate of `authority`.
    pub fn mutual_server(&self, authority: &Authority) -> ServerConfig {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("our own PEM")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("our own PEM")).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|config| config.with_client_cert_verifier(verifier.build().expect("roots verify")))
            .and_then(|config| config.with_single_cert(chain, key))
            .expect("a certificate of our own")
    }

    /// A Secret of type kubernetes.io/tls in istio-system.
    pub fn secret(&self, name: &str) -> String {
        format!(
            r#"---
apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: istio-system }}
type: kubernetes.io/tls
data:
  tls.crt: {}
  tls.key: {}
"#,
            base64(self.certificate.as_bytes()),
            base64(self.key.as_bytes())
        )
    }
}

/// RFC 4648 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}
