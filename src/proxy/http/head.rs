//! How does one HTTP/1 head come in? As raw bytes, within limits of size and time, without memory while it waits.

use std::future::poll_fn;

use bytes::{Buf, BufMut, BytesMut};

use crate::net::link::Link;
use crate::snapshot::ProxyPolicy;

use super::guard::{self, Judged, Refusal};

/// What came in place of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The client closed or broke the connection, before a head was whole.
    Gone,
    Refused(Refusal),
}

/// Waits until the client begins a request; false if it has gone instead. Nothing is allocated while it waits. Empty
/// lines between requests are dropped (RFC 9112 2.2).
pub(super) async fn begin(link: &Link, buffer: &mut BytesMut) -> bool {
    loop {
        drop_empty_lines(buffer);
        if !buffer.is_empty() {
            return true;
        }
        *buffer = BytesMut::new();
        match poll_fn(|cx| link.poll_fill(cx, buffer)).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

fn drop_empty_lines(buffer: &mut BytesMut) {
    while buffer.starts_with(b"\r\n") {
        buffer.advance(2);
    }
}

/// Reads until `buffer` begins with a whole head and judges it. What follows the head stays in it.
pub(super) async fn read(
    link: &Link,
    buffer: &mut BytesMut,
    policy: &ProxyPolicy,
    tls: bool,
) -> Result<Judged, NoHead> {
    let end = match whole_head(buffer, 0) {
        Some(end) => end,
        None => {
            let rest = finish(link, buffer, policy.max_head_bytes);
            match tokio::time::timeout(policy.head_timeout, rest).await {
                Ok(end) => end?,
                Err(_) => return Err(NoHead::Refused(Refusal::TooSlow)),
            }
        }
    };
    if end > policy.max_head_bytes {
        return Err(NoHead::Refused(Refusal::TooLarge));
    }
    let head = buffer.get(..end).unwrap_or_default();
    let mut judged = guard::judge(head, policy.max_headers, tls).map_err(NoHead::Refused)?;
    if let Some((authority, path)) = judged.absolute.take() {
        let origin_form = to_origin_form(head, authority, path);
        let rest = buffer.split_off(end);
        *buffer = origin_form;
        buffer.unsplit(rest);
    }
    Ok(judged)
}

async fn finish(link: &Link, buffer: &mut BytesMut, max_head_bytes: usize) -> Result<usize, NoHead> {
    let mut searched = 0;
    loop {
        if let Some(end) = whole_head(buffer, searched) {
            return Ok(end);
        }
        if buffer.len() > max_head_bytes {
            return Err(NoHead::Refused(Refusal::TooLarge));
        }
        if !may_begin(buffer) {
            return Err(NoHead::Refused(Refusal::Malformed));
        }
        searched = buffer.len().saturating_sub(3);
        match poll_fn(|cx| link.poll_fill(cx, buffer)).await {
            Ok(0) | Err(_) => return Err(NoHead::Gone),
            Ok(_) => {}
        }
    }
}

/// Whether these bytes can become a request: a TLS client at a plaintext port is told at once.
fn may_begin(buffer: &[u8]) -> bool {
    buffer.iter().find(|byte| !matches!(byte, b'\r' | b'\n')).is_none_or(|&byte| guard::is_token(byte))
}

/// Where the head ends, once its empty line is there. A bare
/// line feed also ends a line here, so that the guard sees and refuses such a head.
fn whole_head(buffer: &mut BytesMut, searched: usize) -> Option<usize> {
    if searched == 0 {
        drop_empty_lines(buffer);
    }
    let bytes = buffer.get(searched..)?;
    let mut from = 0;
    loop {
        let feed = from + bytes.get(from..)?.iter().position(|&byte| byte == b'\n')? + 1;
        match bytes.get(feed..)? {
            [b'\n', ..] => return Some(searched + feed + 1),
            [b'\r', b'\n', ..] => return Some(searched + feed + 2),
            _ => from = feed,
        }
    }
}

/// The same head with the path as target and the authority as its only Host.
fn to_origin_form(head: &[u8], authority: std::ops::Range<usize>, path: std::ops::Range<usize>) -> BytesMut {
    let text = |range: std::ops::Range<usize>| head.get(range).unwrap_or_default();
    let mut lines = head.split_inclusive(|&byte| byte == b'\n');
    let request_line = lines.next().unwrap_or_default();
    let mut words = request_line.split(|&byte| byte == b' ');
    let (method, version) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
    let mut out = BytesMut::with_capacity(head.len() + 16);
    out.put_slice(method);
    out.put_slice(b" ");
    if !text(path.clone()).starts_with(b"/") {
        out.put_slice(b"/");
    }
    out.put_slice(text(path));
    out.put_slice(b" ");
    out.put_slice(version);
    out.put_slice(b"host: ");
    out.put_slice(text(authority));
    out.put_slice(b"\r\n");
    for line in lines {
        let is_host = line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"host:"));
        if !is_host {
            out.put_slice(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn policy() -> ProxyPolicy {
        ProxyPolicy {
            max_head_bytes: 1024,
            max_headers: 100,
            head_timeout: Duration::from_millis(50),
            handshake_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_millis(50),
            trusted_proxies: Vec::new(),
            num_trusted_proxies: 0,
            path_normalization: crate::snapshot::PathNormalization::Base,
            forward_client_cert: Default::default(),
            max_concurrent_streams: 100,
            access_logs: Default::default(),
            rejects_underscores: false,
            own_headers: crate::snapshot::OwnHeaders::default(),
        }
    }

    async fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Link::server_plain(listener.accept().await.unwrap().0, Bytes::new()), client)
    }

    #[tokio::test]
    async fn a_head_in_pieces_is_put_together_and_the_rest_is_kept() {
        let (link, mut client) = pair().await;
        let writer = tokio::spawn(async move {
            for piece in ["\r\nGET / HT", "TP/1.1\r\nHost: a\r", "\n\r", "\nrest"] {
                client.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        let mut buffer = BytesMut::new();
        read(&link, &mut buffer, &policy(), false).await.unwrap();
        assert!(buffer.starts_with(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn slow_and_endless_heads_are_refused() {
        let (link, mut client) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        let outcome = read(&link, &mut BytesMut::new(), &policy(), false).await;
        assert_eq!(outcome, Err(NoHead::Refused(Refusal::TooSlow)));
        let (link, mut client) = pair().await;
        client.write_all(&[b'a'; 4000]).await.unwrap();
        let outcome = read(&link, &mut BytesMut::new(), &policy(), false).await;
        assert_eq!(outcome, Err(NoHead::Refused(Refusal::TooLarge)));
        let (link, mut client) = pair().await;
        client.write_all(b"\x16\x03\x01\x02\0").await.unwrap();
        let outcome = read(&link, &mut BytesMut::new(), &policy(), false).await;
        assert_eq!(outcome, Err(NoHead::Refused(Refusal::Malformed)));
        let (link, client) = pair().await;
        drop(client);
        assert!(!begin(&link, &mut BytesMut::new()).await);
    }

    #[tokio::test]
    async fn an_absolute_target_becomes_path_and_host() {
        let (link, mut client) = pair().await;
        client.write_all(b"GET http://b.com?x HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\nbody").await.unwrap();
        let mut buffer = BytesMut::new();
        read(&link, &mut buffer, &policy(), false).await.unwrap();
        assert_eq!(&buffer[..], b"GET /?x HTTP/1.1\r\nhost: b.com\r\nx: y\r\n\r\nbody");
    }
}
