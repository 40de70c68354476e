//! What are the first bytes of a connection? A TLS ClientHello, HTTP/2's preface, or something else.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The first byte of a TLS handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;
/// The longest ClientHello that is read.
const HELLO_LIMIT: usize = 64 * 1024;
/// What one read makes room for; a ClientHello with a post-quantum key share fits.
const READ_SIZE: usize = 2048;
/// How an HTTP/2 client begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection of which nothing but the first bytes is known.
#[derive(Debug)]
pub(crate) struct Opening {
    stream: TcpStream,
    read: BytesMut,
}

impl Opening {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Opening { stream, read: BytesMut::new() }
    }

    /// What was read and not yet consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.read
    }

    /// Drops bytes that are understood.
    pub(crate) fn consume(&mut self, count: usize) {
        self.read.advance(count.min(self.read.len()));
    }

    /// Returns when the client has sent something or closed. Nothing is allocated while waiting.
    pub(crate) async fn stirs(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).await.map(drop)
    }

    /// Reads more bytes behind the ones that are there. The end of the connection is an error.
    pub(crate) async fn more(&mut self) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            self.read.reserve(READ_SIZE);
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The first byte that is not consumed.
    pub(crate) async fn first(&mut self) -> io::Result<u8> {
        loop {
            if let Some(first) = self.read.first() {
                return Ok(*first);
            }
            self.more().await?;
        }
    }

    /// Whether the client speaks HTTP/2 without having been asked. Reads no more than that needs.
    pub(crate) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        loop {
            match preface(&self.read) {
                Preface::Yes => return Ok(true),
                Preface::No => return Ok(false),
                Preface::Unclear => self.more().await?,
            }
        }
    }

    /// Reads the ClientHello without consuming it, so that the bytes can still go elsewhere.
    pub(crate) async fn hello(&mut self) -> Result<Hello, NoHello> {
        let mut acceptor = Acceptor::default();
        let mut fed = 0;
        loop {
            let mut unfed = self.read.get(fed..).unwrap_or_default();
            if unfed.is_empty() {
                self.more().await?;
                continue;
            }
            fed += acceptor.read_tls(&mut unfed)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Hello { accepted, length: fed }),
                Ok(None) if fed > HELLO_LIMIT => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write_all(&mut bytes)?;
                    return Err(NoHello::Unreadable { error, alert: bytes });
                }
            }
        }
    }

    /// Tells the client why its ClientHello is refused.
    pub(crate) async fn alert(&mut self, alert: &[u8]) -> io::Result<()> {
        self.stream.write_all(alert).await
    }

    /// The socket and the bytes that are not consumed.
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.read.freeze())
    }
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHello {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are none, or none that can be answered.
    #[error("{error}")]
    Unreadable { error: rustls::Error, alert: Vec<u8> },
}

/// A ClientHello that rustls has read.
pub(crate) struct Hello {
    pub accepted: Accepted,
    /// Bytes of the connection that rustls has.
    pub length: usize,
}

impl Hello {
    /// The server name that the client asks for.
    pub(crate) fn server_name(&self) -> Option<Box<str>> {
        self.accepted.client_hello().server_name().map(Box::from)
    }

    /// Whether the client offers this protocol and no other.
    pub(crate) fn offers_only(&self, protocol: &[u8]) -> bool {
        let hello = self.accepted.client_hello();
        let mut offered = hello.alpn().into_iter().flatten();
        offered.next() == Some(protocol) && offered.next().is_none()
    }

    /// The protocols that the client offers, in its order.
    pub(crate) fn alpn(&self) -> Vec<&[u8]> {
        self.accepted.client_hello().alpn().into_iter().flatten().collect()
    }
}

/// Whether a first byte begins TLS.
pub(crate) fn is_tls(first: u8) -> bool {
    first == HANDSHAKE_RECORD
}

/// How far bytes agree with the preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    Yes,
    No,
    /// All agree, but there are too few.
    Unclear,
}

/// Compares the first bytes of a connection with HTTP/2's preface.
pub(crate) fn preface(bytes: &[u8]) -> Preface {
    match bytes.iter().zip(PREFACE).all(|(byte, wanted)| byte == wanted) {
        false => Preface::No,
        true if bytes.len() >= PREFACE.len() => Preface::Yes,
        true => Preface::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_preface_is_http2() {
        let cases: [(&[u8], Preface); 5] = [
            (b"", Preface::Unclear),
            (b"PRI * HTTP/2.0\r\n", Preface::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Preface::Yes),
            (b"PROPFIND / HTTP/1.1\r\n", Preface::No),
            (b"GET", Preface::No),
        ];
        for (bytes, expected) in cases {
            assert_eq!(preface(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
