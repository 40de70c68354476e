//! Whom does a connection to an endpoint lead to, as the TLS handshake proved it?

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ClientConnection, ProtocolVersion};

use crate::snapshot::certificate::Certificate;
use crate::snapshot::tls::{cipher_name, version_name};
use crate::telemetry::record::TlsRecord;

/// What was settled with one endpoint; its certificate is read when somebody asks.
#[derive(Debug)]
pub(crate) struct Peer {
    version: Option<ProtocolVersion>,
    cipher: Option<CipherSuite>,
    leaf: Option<CertificateDer<'static>>,
    /// What we showed.
    own: Option<Arc<Certificate>>,
    read: OnceLock<Option<Certificate>>,
    key: OnceLock<u64>,
}

impl Peer {
    /// After the handshake; `own` is the certificate that we show if we are asked.
    pub(super) fn new(connection: &ClientConnection, own: Option<Arc<Certificate>>) -> Peer {
        Peer {
            version: connection.protocol_version(),
            cipher: connection.negotiated_cipher_suite().map(|suite| suite.suite()),
            leaf: connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned()),
            own,
            read: OnceLock::new(),
            key: OnceLock::new(),
        }
    }

    fn certificate(&self) -> Option<&Certificate> {
        self.read.get_or_init(|| self.leaf.as_ref().and_then(|leaf| Certificate::read(leaf))).as_ref()
    }

    /// Istio's `destination_principal`: the first URI of the endpoint's certificate, or nothing.
    pub(crate) fn principal(&self) -> &str {
        first_uri(self.certificate())
    }

    /// Istio's `source_principal`.
    pub(crate) fn own_principal(&self) -> &str {
        first_uri(self.own.as_deref())
    }

    /// A number that is the same for the same principals.
    pub(crate) fn key(&self) -> u64 {
        *self.key.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            (self.principal(), self.own_principal()).hash(&mut hasher);
            hasher.finish()
        })
    }

    /// What an access log may tell of it.
    pub(crate) fn record(&self) -> TlsRecord<'_> {
        TlsRecord {
            version: self.version.map(version_name).unwrap_or_default(),
            cipher: self.cipher.and_then(cipher_name).unwrap_or_default(),
            peer: self.certificate().map(Certificate::record),
            local: self.own.as_deref().map(Certificate::record),
        }
    }
}

fn first_uri(certificate: Option<&Certificate>) -> &str {
    certificate.and_then(|certificate| certificate.uris.first()).map(String::as_str).unwrap_or_default()
}
