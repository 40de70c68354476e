//! With which certificates and rules is TLS ended here or begun towards an endpoint?

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, ServerConfig};

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
        terms: Arc<ClientTerms>,
        /// The server name to send; `None` sends the request's authority (Envoy auto_sni).
        sni: Option<String>,
        /// For what has no authority: nothing is verified of the host.
        unnamed: Arc<ClientTerms>,
        /// What we show if we are asked.
        own: Option<Arc<Certificate>>,
    },
    /// The credential is missing: every connection fails with this reason (503 UF).
    Unavailable { reason: String },
}

/// Ready to shake hands with endpoints.
pub(crate) struct ClientTerms {
    /// Without ALPN, or with Istio's own names for ISTIO_MUTUAL: the connector clones it with `h2` or `http/1.1` once, as
    /// the cluster's protocol says.
    pub config: Arc<ClientConfig>,
    /// Who judges certificates of endpoints.
    pub verifier: Arc<dyn ServerCertVerifier>,
    /// What `config` resumes.
    pub sessions: Arc<ClientSessionMemoryCache>,
}

impl ClientTerms {
    /// A resumed session brings a certificate that was judged before. It, its authority or a revocation list may have
    /// expired since; then no session with `name` is resumed any more.
    pub(crate) fn judge_again(&self, session: &ClientConnection, name: &ServerName<'static>) -> Result<(), Error> {
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let shown = session.peer_certificates().filter(|_| resumed);
        let Some((leaf, others)) = shown.and_then(<[_]>::split_first) else { return Ok(()) };
        let verdict = self.verifier.verify_server_cert(leaf, others, name, &[], UnixTime::now());
        verdict.map(drop).inspect_err(|_| {
            self.sessions.remove_tls12_session(name);
            while self.sessions.take_tls13_ticket(name).is_some() {}
        })
    }
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustls::client::Resumption;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{CertificateError, DigitallySignedStruct, ServerConnection, SignatureScheme, version};

    use super::*;

    /// Believes everybody until a day comes.
    #[derive(Debug, Default)]
    struct Until(AtomicBool);

    impl ServerCertVerifier for Until {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(CertificateError::Expired.into()),
                false => Ok(ServerCertVerified::assertion()),
            }
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.verify_tls12_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// Moves bytes until nobody has any.
    fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> io::Result<()> {
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes)?;
            }
            server.read_tls(&mut bytes.as_slice())?;
            server.process_new_packets().map_err(io::Error::other)?;
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes)?;
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest)?;
                client.process_new_packets().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    #[test]
    fn an_endpoint_that_is_believed_no_more_is_not_resumed() {
        let issued = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        for version in [&version::TLS13, &version::TLS12] {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
            let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]);
            let server = server.unwrap().with_no_client_auth();
            let server = Arc::new(server.with_single_cert(vec![issued.cert.der().clone()], key).unwrap());
            let until = Arc::new(Until::default());
            let sessions = Arc::new(ClientSessionMemoryCache::new(8));
            let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
            let config = config.dangerous().with_custom_certificate_verifier(until.clone());
            let mut config = config.with_no_client_auth();
            config.resumption = Resumption::store(sessions.clone());
            let terms = ClientTerms { config: Arc::new(config), verifier: until.clone(), sessions };
            let name = ServerName::try_from("a.test").unwrap();
            let meet = || {
                let mut client = ClientConnection::new(Arc::clone(&terms.config), name.clone()).unwrap();
                let shaken = shake_hands(&mut client, &mut ServerConnection::new(Arc::clone(&server)).unwrap());
                let resumed = client.handshake_kind() == Some(HandshakeKind::Resumed);
                (shaken.is_ok(), resumed, terms.judge_again(&client, &name).is_ok())
            };
            assert_eq!([meet(), meet()], [(true, false, true), (true, true, true)], "{version:?}");
            until.0.store(true, Ordering::Relaxed);
            assert_eq!(meet(), (true, true, false), "the handshake asks nobody");
            assert_eq!((meet().0, meet().1), (false, false), "it begins anew, and fails");
        }
    }
}
