//! What is known of a client's connection from its first bytes on?

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use rustls::{CipherSuite, ProtocolVersion};

use crate::net::proxy_protocol::Addresses;
use crate::snapshot::Snapshot;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::listener::{ConnectionFacts, FilterChain};
use crate::snapshot::tls::{ClientRules, TlsServer, cipher_name, version_name};
use crate::telemetry::record::{CertificateRecord, TlsRecord};

/// The facts of one client connection. They outlive snapshots; what configuration decides is looked up by them.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The bound address that took the connection: names the listener.
    pub listener: SocketAddr,
    /// The address that the client connected to, or that the PROXY protocol tells.
    pub local: SocketAddr,
    /// The client, or the one that the PROXY protocol tells. IPv4-mapped addresses are IPv4.
    pub peer: SocketAddr,
    /// The other end of the socket, whatever the PROXY protocol tells.
    pub socket_peer: SocketAddr,
    /// `None` on plaintext.
    pub tls: Option<TlsFacts>,
}

/// What the TLS handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFacts {
    /// As the client sent it.
    pub server_name: Option<Box<str>>,
    /// The agreed version.
    pub version: ProtocolVersion,
    pub cipher: Option<CipherSuite>,
    /// Our own certificate.
    pub served: Option<Arc<Certificate>>,
    /// `None`: the client showed no certificate.
    pub client: Option<Arc<ClientFacts>>,
    /// What clients were asked for then.
    pub rules: ClientRules,
}

/// How a connection stands with the rules of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Welcome,
    /// It began under other rules for clients' certificates: it is served, but told to go.
    Outdated,
    /// A certificate is required by now, and nobody vouches for this client.
    Unproven,
}

/// Who the client is, by its certificate. Where insecureSkipVerify is set nobody vouches for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFacts {
    pub certificate: Certificate,
    /// What we say of it in `x-forwarded-client-cert`.
    pub element: HeaderValue,
    pub chain: ShownChain,
}

/// The certificate and those that the client showed behind it, in their order. Hexadecimal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShownChain {
    pub serials: Vec<String>,
    pub sha256: Vec<String>,
    pub sha1: Vec<String>,
}

impl TlsFacts {
    fn standing(&self, now: ClientRules) -> Standing {
        let is_proven = self.client.is_some() && self.rules.verified;
        match now {
            _ if now == self.rules || now.identity == 0 => Standing::Welcome,
            _ if now.required && !is_proven => Standing::Unproven,
            _ => Standing::Outdated,
        }
    }

    /// What an access log may tell of it.
    pub(crate) fn record(&self) -> TlsRecord<'_> {
        TlsRecord {
            version: version_name(self.version),
            cipher: self.cipher.and_then(cipher_name).unwrap_or_default(),
            peer: self.client.as_deref().map(|client| CertificateRecord {
                chain_serials: &client.chain.serials,
                chain_sha256: &client.chain.sha256,
                chain_sha1: &client.chain.sha1,
                ..client.certificate.record()
            }),
            local: self.served.as_deref().map(Certificate::record),
        }
    }
}

/// What the client speaks: by ALPN, else by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientProtocol {
    Http1,
    Http2,
}

impl Connection {
    /// As a PROXY protocol header tells it to endpoints.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses { client: self.peer, destination: self.local }
    }

    /// Who the client is by its certificate; `None` on plaintext and without one.
    pub(crate) fn client(&self) -> Option<&ClientFacts> {
        self.tls.as_ref()?.client.as_deref()
    }

    /// The chain that serves this connection in `snapshot`, the same that a new connection like it would get;
    /// `None` if there is none any more.
    pub(crate) fn chain<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<FilterChain>> {
        let listener = snapshot.listener(self.listener)?;
        let destination = self.local.ip();
        let facts = match &self.tls {
            Some(facts) => ConnectionFacts::tls(destination, facts.server_name.as_deref()),
            None => ConnectionFacts::plain(destination),
        };
        listener.chains.find(&facts).filter(|chain| chain.tls.is_some() == self.tls.is_some())
    }

    /// Whether the connection may go on under what `chain` asks of clients.
    pub(crate) fn standing(&self, chain: &FilterChain) -> Standing {
        match (&self.tls, &chain.tls) {
            (Some(facts), Some(TlsServer::Ready(terms))) => facts.standing(terms.clients),
            _ => Standing::Welcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_under_other_rules_is_told_to_go_or_not_served() {
        let rules = |identity, required, verified| ClientRules { identity, required, verified };
        let (none, mutual, optional) = (rules(0, false, false), rules(1, true, true), rules(2, false, true));
        let (other, unverified) = (rules(3, true, true), rules(4, true, false));
        for (began, shows, now, expected) in [
            (none, false, none, Standing::Welcome),
            (mutual, true, mutual, Standing::Welcome),
            (mutual, true, none, Standing::Welcome),
            (none, false, mutual, Standing::Unproven),
            (none, false, optional, Standing::Outdated),
            (optional, false, mutual, Standing::Unproven),
            (optional, true, mutual, Standing::Outdated),
            (mutual, true, other, Standing::Outdated),
            (unverified, true, mutual, Standing::Unproven),
        ] {
            let element = HeaderValue::from_static("Hash=1");
            let client = shows.then(|| {
                Arc::new(ClientFacts { certificate: Certificate::default(), element, chain: ShownChain::default() })
            });
            let (server_name, version) = (None, ProtocolVersion::TLSv1_3);
            let facts = TlsFacts { server_name, version, cipher: None, served: None, client, rules: began };
            assert_eq!(facts.standing(now), expected, "{began:?} {now:?}");
        }
    }
}
