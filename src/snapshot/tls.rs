//! With which certificates and rules is TLS ended here or begun towards an endpoint?

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, ServerConfig};

use super::certificate::Certificate;
use super::offer::Offer;

/// How a chain ends TLS.
pub(crate) enum TlsServer {
    /// Kept over reloads while certificates and rules stay the same.
    Ready(Arc<ServerTerms>),
    /// The secret is missing or unusable: connections are accepted and closed without an alert, as Istio does.
    Unavailable { reason: String },
}

/// Ready to shake hands.
pub(crate) struct ServerTerms {
    /// Resumes no session but those that began under the same rules for clients, at the same port of its Gateway.
    pub config: Arc<ServerConfig>,
    /// Whether a client may put ChaCha20 before AES, as those without hardware for AES do.
    pub has_default_ciphers: bool,
    pub certificates: Arc<Offer>,
    /// Names whose certificates are still to come; `None`: none.
    pub awaited: Option<Box<Awaited>>,
    pub clients: ClientRules,
    /// Who judges certificates of clients, also those of a resumed session; `None`: nobody does.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// The hosts of a server whose certificates are got by ACME and are not there yet. In lower case; `*` stands for any
/// text in front, as in servers' hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Awaited {
    /// They are being issued.
    pub hosts: BTreeSet<Box<str>>,
    /// A name that they mean is ordered when a client asks for it.
    pub on_demand: BTreeSet<Box<str>>,
}

/// What becomes of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// There is a certificate, be it of another name.
    Ready,
    /// The certificate is being issued.
    Awaited,
    /// The certificate may be ordered now.
    OnDemand,
}

impl Awaited {
    pub(crate) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.on_demand.is_empty()
    }

    fn readiness(&self, name: &str) -> Readiness {
        let means = |hosts: &BTreeSet<Box<str>>| {
            let behind = name.match_indices('.').map(|(dot, _)| name.get(dot..).unwrap_or_default());
            hosts.contains(name)
                || behind.map(|rest| format!("*{rest}")).chain(["*".to_owned()]).any(|host| hosts.contains(&*host))
        };
        match (means(&self.hosts), means(&self.on_demand)) {
            (true, _) => Readiness::Awaited,
            (false, true) => Readiness::OnDemand,
            (false, false) => Readiness::Ready,
        }
    }
}

impl ServerTerms {
    /// Whether there is a certificate for the server name that a client sent.
    pub(crate) fn readiness(&self, server_name: Option<&str>) -> Readiness {
        match (&self.awaited, server_name) {
            (Some(awaited), Some(name)) if !self.certificates.has(name) => {
                awaited.readiness(&name.to_ascii_lowercase())
            }
            _ => Readiness::Ready,
        }
    }
}

/// What clients are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientRules {
    /// Another one where authorities, revocation lists, names or pins are others; 0: nothing is asked for.
    pub identity: u128,
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// Whether a certificate has to be vouched for and in date.
    pub verified: bool,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsServer::Ready(terms) => {
                f.debug_tuple("Ready").field(&terms.certificates.facts().collect::<Vec<_>>()).finish()
            }
            TlsServer::Unavailable { reason } => f.debug_tuple("Unavailable").field(reason).finish(),
        }
    }
}

/// What /certs tells of a certificate; never a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Where it came from, such as `Secret istio-system/web-tls`.
    pub source: String,
    pub certificate: Arc<Certificate>,
}

/// How TLS is begun towards the endpoints of a cluster (Istio ClientTLSSettings).
pub(crate) enum TlsClient {
    Ready {
        /// Without ALPN, or with Istio's own names for ISTIO_MUTUAL: the connector clones it with `h2` or `http/1.1`
        /// once, as the cluster's protocol says.
        config: Arc<ClientConfig>,
        /// The server name to send; `None` sends the request's authority (Envoy auto_sni).
        sni: Option<String>,
        /// For what has no authority: nothing is verified of the host.
        unnamed: Arc<ClientConfig>,
        /// What we show if we are asked.
        own: Option<Arc<Certificate>>,
    },
    /// The credential is missing: every connection fails with this reason (503 UF).
    Unavailable { reason: String },
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsClient::Ready { sni, .. } => f.debug_struct("Ready").field("sni", sni).finish(),
            TlsClient::Unavailable { reason } => f.debug_tuple("Unavailable").field(reason).finish(),
        }
    }
}

/// A version as metrics and logs name it; empty for one that is not offered.
pub(crate) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}

/// A cipher suite by its OpenSSL name, as Envoy shows it.
pub(crate) fn cipher_name(suite: CipherSuite) -> Option<&'static str> {
    Some(match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}
