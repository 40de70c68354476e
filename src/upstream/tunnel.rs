//! How does a connection get through a proxy? By CONNECT; from the answer on it is the target's. (Istio
//! trafficPolicy.tunnel, for connections that are not HTTP.)

use std::pin::pin;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::{self, Upgraded};
use hyper_util::rt::TokioIo;

use super::connect::ConnectError;
use crate::net::link::Link;
use crate::snapshot::cluster::{Tunnel, TunnelMethod};

/// Asks the proxy at the other end of `link` for the target. What the target has said already is kept for the reader.
pub(super) async fn through(link: Link, tunnel: &Tunnel) -> Result<Link, ConnectError> {
    if tunnel.method == TunnelMethod::Post {
        return Err(ConnectError::Unavailable("a tunnel is opened by CONNECT alone".into()));
    }
    let request = Request::connect(&*tunnel.authority).header(header::HOST, &*tunnel.authority);
    let request = request.body(Empty::<Bytes>::new()).map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await.map_err(failed)?;
    let asking = async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        match answer.status() {
            status if status.is_success() => upgrade::on(answer).await.map_err(failed),
            status => Err(failed(format_args!("the answer is {status}"))),
        }
    };
    let mut asking = pin!(asking);
    let opened = tokio::select! {
        biased;
        opened = &mut asking => opened,
        ended = connection.with_upgrades() => {
            ended.map_err(failed)?;
            asking.await
        }
    };
    unwrapped(opened?)
}

fn unwrapped(opened: Upgraded) -> Result<Link, ConnectError> {
    let parts = opened.downcast::<TokioIo<Link>>().map_err(|_| failed("the connection is lost"))?;
    let mut link = parts.io.into_inner();
    link.unread(parts.read_buf);
    Ok(link)
}

fn failed(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Failed(format!("the proxy opens no tunnel: {error}").into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What the proxy was asked, and what came of it.
    async fn ask(method: TunnelMethod, answer: &'static [u8]) -> (String, Result<Vec<u8>, ConnectError>) {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        let serve = async {
            let (mut socket, _) = proxy.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") && socket.read_buf(&mut asked).await.unwrap() > 0 {}
            socket.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let tunnel = Tunnel { method, authority: "far.test:22".into() };
        let open = async {
            let link = Link::client_plain(TcpStream::connect(address).await.unwrap());
            let mut link = through(link, &tunnel).await?;
            let mut said = Vec::new();
            link.read_to_end(&mut said).await.unwrap();
            Ok(said)
        };
        tokio::join!(serve, open)
    }

    #[tokio::test]
    async fn the_target_may_speak_first() {
        let (asked, said) = ask(TunnelMethod::Connect, b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0\r\n").await;
        assert_eq!(asked, "CONNECT far.test:22 HTTP/1.1\r\nhost: far.test:22\r\n\r\n");
        assert_eq!(said.unwrap(), b"SSH-2.0\r\n");
    }

    #[tokio::test]
    async fn without_a_yes_there_is_no_tunnel() {
        let cases = [
            (TunnelMethod::Connect, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".as_slice(), "403 Forbidden"),
            (TunnelMethod::Connect, b"SSH-2.0\r\n\r\n", "the proxy opens no tunnel"),
            (TunnelMethod::Connect, b"", "the proxy opens no tunnel"),
            (TunnelMethod::Post, b"", "CONNECT alone"),
        ];
        for (method, answer, expected) in cases {
            let error = ask(method, answer).await.1.unwrap_err();
            let told = error.transport_failure().unwrap_or_default();
            assert!(told.contains(expected), "{told}");
        }
    }
}
