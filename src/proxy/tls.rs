//! How is TLS ended? The chain's own configuration takes over from the ClientHello that was read.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme, SupportedCipherSuite,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::connection::{ClientFacts, ClientProtocol, ShownChain, TlsFacts};
use crate::certs::challenges::ACME_TLS;
use crate::net::hello::{Hello, Opening, Preface, preface};
use crate::net::prefixed::Prefixed;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::offer::Offer;
use crate::snapshot::tls::{ServerTerms, cipher_name};

/// A client's connection after the handshake.
pub(super) type Secured = TlsStream<Prefixed>;

/// Shakes hands, with `key` in place of the server's own if there is one. Failures that the client can understand are answered with an alert.
pub(super) async fn shake_hands(
    mut opening: Opening,
    hello: Hello,
    terms: &ServerTerms,
    key: Option<Arc<CertifiedKey>>,
) -> io::Result<(Secured, TlsFacts)> {
    let client_hello = hello.accepted.client_hello();
    let server_name: Option<Box<str>> = client_hello.server_name().map(Into::into);
    let spoken = &terms.config.alpn_protocols;
    let agrees =
        client_hello.alpn().is_none_or(|mut offered| offered.any(|name| spoken.iter().any(|known| known == name)));
    let prefers_chacha = client_hello.cipher_suites().iter().copied().find(|suite| cipher_name(*suite).is_some());
    let prefers_chacha = prefers_chacha.is_some_and(is_old_chacha);
    let schemes = match terms.certificates.is_single() {
        true => Vec::new(),
        false => client_hello.signature_schemes().to_vec(),
    };
    opening.consume(hello.length);
    let (socket, rest) = opening.into_parts();
    // Changed copies share tickets and sessions.
    let mut config = Arc::clone(&terms.config);
    if !agrees {
        // Nothing is agreed, and the first bytes decide.
        Arc::make_mut(&mut config).alpn_protocols.clear();
    }
    if terms.has_default_ciphers && prefers_chacha {
        Arc::make_mut(&mut config).ignore_client_order = false;
    }
    if let Some(key) = &key {
        Arc::make_mut(&mut config).cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(key)));
    }
    let stream = StartHandshake::from_parts(hello.accepted, Prefixed::new(socket, rest));
    let stream = stream.into_stream(config).await?;
    let (_, session) = stream.get_ref();
    let suite = session.negotiated_cipher_suite();
    let served = match key {
        Some(key) => key.cert.first().and_then(|leaf| Certificate::read(leaf)).map(Arc::new),
        None => served(&terms.certificates, server_name.as_deref(), &schemes, suite),
    };
    let client = match session.peer_certificates().and_then(<[_]>::split_first) {
        Some((shown, others)) => {
            judge_again(session, terms)?;
            Some(read_client(shown, others, served.as_deref())?)
        }
        None => None,
    };
    let facts = TlsFacts {
        server_name,
        version: session.protocol_version().unwrap_or(ProtocolVersion::Unknown(0)),
        cipher: suite.map(|suite| suite.suite()),
        served,
        client,
        rules: terms.clients,
    };
    Ok((stream, facts))
}

/// Shows a CA the certificate that proves a name (RFC 8737 section 3), and closes the connection.
pub(super) async fn prove(mut opening: Opening, hello: Hello, key: Arc<CertifiedKey>) -> io::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    opening.consume(hello.length);
    let (socket, rest) = opening.into_parts();
    let stream = StartHandshake::from_parts(hello.accepted, Prefixed::new(socket, rest));
    stream.into_stream(Arc::new(config)).await?.shutdown().await
}

/// Answers with an alert, as there is no certificate yet.
pub(super) async fn refuse(mut opening: Opening, hello: Hello, terms: &ServerTerms) {
    let mut config = (*terms.config).clone();
    config.cert_resolver = Arc::new(Nothing);
    config.alpn_protocols.clear();
    opening.consume(hello.length);
    let (socket, rest) = opening.into_parts();
    let stream = StartHandshake::from_parts(hello.accepted, Prefixed::new(socket, rest));
    // The failure is what is wanted.
    let _ = stream.into_stream(Arc::new(config)).await;
}

/// No certificate for anybody.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// ChaCha20 of TLS 1.2: whoever names it first has no hardware for AES.
fn is_old_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// The certificate that a client got: what was agreed tells which algorithms of its hello counted.
fn served(
    offer: &Offer,
    name: Option<&str>,
    schemes: &[SignatureScheme],
    suite: Option<SupportedCipherSuite>,
) -> Option<Arc<Certificate>> {
    let is_usable = |key: &dyn SigningKey| {
        suite.is_none_or(|suite| suite.usable_for_signature_algorithm(key.algorithm()))
            && key.choose_scheme(schemes).is_some()
    };
    offer.choose(name, is_usable).map(|offered| Arc::clone(&offered.facts.certificate))
}

/// A resumed session brings a certificate that was judged before. It, its authority or a revocation list may have expired
/// since.
fn judge_again(session: &ServerConnection, terms: &ServerTerms) -> io::Result<()> {
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let Some(verifier) = terms.verifier.as_ref().filter(|_| resumed) else { return Ok(()) };
    let Some((shown, others)) = session.peer_certificates().and_then(<[_]>::split_first) else { return Ok(()) };
    let verdict = verifier.verify_client_cert(shown, others, UnixTime::now());
    verdict.map(drop).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What the client's certificate says.
fn read_client(
    shown: &[u8],
    others: &[CertificateDer<'_>],
    served: Option<&Certificate>,
) -> io::Result<Arc<ClientFacts>> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "the client's certificate cannot be read");
    let certificate = Certificate::read(shown).ok_or_else(unreadable)?;
    let element = HeaderValue::try_from(forwarded_element(&certificate, served)).map_err(|_| unreadable())?;
    let others: Vec<_> = others.iter().filter_map(|der| Certificate::read(der)).collect();
    let chain = || std::iter::once(&certificate).chain(&others);
    let chain = ShownChain {
        serials: chain().map(|one| one.serial.clone()).collect(),
        sha256: chain().map(|one| one.sha256.clone()).collect(),
        sha1: chain().map(|one| one.sha1.clone()).collect(),
    };
    Ok(Arc::new(ClientFacts { certificate, element, chain }))
}

/// The element of `x-forwarded-client-cert` for this connection.
fn forwarded_element(client: &Certificate, served: Option<&Certificate>) -> String {
    let mut parts = Vec::new();
    parts.extend(served.into_iter().flat_map(|own| &own.uris).map(|uri| format!("By={}", delimited(uri))));
    parts.push(format!("Hash={}", client.sha256));
    parts.push(format!("Cert=\"{}\"", client.escaped_pem));
    parts.push(format!("Subject=\"{}\"", client.subject));
    match client.uris.is_empty() {
        true => parts.push("URI=".to_owned()),
        false => parts.extend(client.uris.iter().map(|uri| format!("URI={}", delimited(uri)))),
    }
    parts.extend(client.dns.iter().map(|name| format!("DNS={}", delimited(name))));
    parts.join(";")
}

/// A name that cannot be taken for more than a value: in quotes where it holds `,` or `;`. Quotes and backslashes, which
/// no such name has, are escaped as in URIs.
fn delimited(name: &str) -> Cow<'_, str> {
    if !name.contains(['"', '\\', ',', ';']) {
        return Cow::Borrowed(name);
    }
    let name = name.replace('"', "%22").replace('\\', "%5C");
    Cow::Owned(if name.contains([',', ';']) { format!("\"{name}\"") } else { name })
}

/// The protocol that ALPN settled; `None`: the client did not ask.
pub(super) fn settled_protocol(stream: &Secured) -> Option<ClientProtocol> {
    let (_, session) = stream.get_ref();
    session.alpn_protocol().map(|name| if name == b"h2" { ClientProtocol::Http2 } else { ClientProtocol::Http1 })
}

/// What a client without ALPN speaks. Its first bytes are looked at, not taken.
pub(super) async fn spoken_protocol(stream: &mut Secured) -> io::Result<ClientProtocol> {
    match stream.fill_buf().await? {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        // A client sends the preface in one piece; the HTTP/2 session checks the rest of it.
        bytes if bytes.len() >= 3 && preface(bytes) != Preface::No => Ok(ClientProtocol::Http2),
        _ => Ok(ClientProtocol::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_certificate_adds_nothing_to_its_element() {
        for (uri, expected) in [
            ("spiffe://a/ns/b/sa/c", "URI=spiffe://a/ns/b/sa/c"),
            ("spiffe://a;URI=spiffe://b", "URI=\"spiffe://a;URI=spiffe://b\""),
            ("spiffe://a,By=b", "URI=\"spiffe://a,By=b\""),
            ("spiffe://a\";URI=b\\", "URI=\"spiffe://a%22;URI=b%5C\""),
        ] {
            let client = Certificate { uris: vec![uri.to_owned()], ..Certificate::default() };
            let element = forwarded_element(&client, None);
            assert_eq!(element.split_once("Subject=\"\";").unwrap().1, expected);
        }
    }
}
