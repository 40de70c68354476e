//! How is TLS ended? The chain's own configuration takes over from the ClientHello that was read.

use std::io;
use std::sync::Arc;

use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncBufReadExt;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::connection::ClientProtocol;
use crate::net::hello::{Hello, Opening, Preface, preface};
use crate::net::prefixed::Prefixed;

/// A client's connection after the handshake.
pub(super) type Secured = TlsStream<Prefixed>;

/// Shakes hands. Failures that the client can understand are answered with an alert.
pub(super) async fn shake_hands(mut opening: Opening, hello: Hello, config: Arc<ServerConfig>) -> io::Result<Secured> {
    opening.consume(hello.length);
    let (socket, rest) = opening.into_parts();
    StartHandshake::from_parts(hello.accepted, Prefixed::new(socket, rest)).into_stream(config).await
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

/// The agreed version.
pub(super) fn version(stream: &Secured) -> ProtocolVersion {
    let (_, session) = stream.get_ref();
    session.protocol_version().unwrap_or(ProtocolVersion::Unknown(0))
}

/// A version as metrics name it.
pub(super) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}
