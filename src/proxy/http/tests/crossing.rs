//! Do messages keep their meaning between HTTP/1.1 and HTTP/2?

use http::{HeaderMap, Request, Response, StatusCode};

use super::*;

/// An HTTP/2 client of the gateway.
async fn client(gateway: &Gateway) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// A backend that echoes bodies and trailers over HTTP/2.
async fn echo_http2() -> SocketAddr {
    let (address, _) = backend(|wire, _| async move {
        let mut connection = h2::server::handshake(wire.0).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let (head, mut body) = request.into_parts();
                assert!(head.headers.get("host").is_none() && head.uri.authority().is_some());
                let mut answer = Response::builder().header("x-path", head.uri.path());
                if let Some(te) = head.headers.get("te") {
                    answer = answer.header("x-te", te);
                }
                let mut send = respond.send_response(answer.body(()).unwrap(), false).unwrap();
                while let Some(Ok(chunk)) = body.data().await {
                    body.flow_control().release_capacity(chunk.len()).unwrap();
                    send.send_data(chunk, false).unwrap();
                }
                let trailers = body.trailers().await.unwrap();
                let mut back = HeaderMap::new();
                back.insert("grpc-status", HeaderValue::from_static("0"));
                if let Some(seen) = trailers.as_ref().and_then(|trailers| trailers.get("x-sent")) {
                    back.insert("x-seen", seen.clone());
                }
                send.send_trailers(back).unwrap();
            });
        }
    })
    .await;
    address
}

async fn body(mut stream: h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut got = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        got.extend_from_slice(&chunk);
    }
    (got, stream.trailers().await.unwrap())
}

async fn start(backend: SocketAddr, to: UpstreamProtocol, from: ClientProtocol) -> Gateway {
    Gateway::start(Setup { protocol: to, ..Setup::new(backend) }, from).await
}

#[tokio::test]
async fn trailers_pass_both_ways_over_http2() {
    let gateway = start(echo_http2().await, UpstreamProtocol::Http2, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let request = Request::post("http://a.test/svc").header("te", "trailers").body(()).unwrap();
    let (response, mut send) = sender.send_request(request, false).unwrap();
    send.send_data("ping".into(), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (&response.headers()["x-path"], &response.headers()["x-te"]),
        (&"/svc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(response.headers()["server"], "istio-envoy");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", HeaderValue::from_static("yes"));
    send.send_trailers(trailers).unwrap();
    let (got, trailers) = body(response.into_body()).await;
    let trailers = trailers.unwrap();
    assert_eq!(
        (&got[..], &trailers["grpc-status"], &trailers["x-seen"]),
        (&b"ping"[..], &"0".parse().unwrap(), &"yes".parse().unwrap())
    );
}

/// Written as an empty chunk, the last frame would end the request twice, and the next one would begin with the rest.
#[tokio::test]
async fn an_empty_last_frame_does_not_split_the_next_request() {
    let (address, connections) = backend(|mut wire, _| async move {
        loop {
            let head = wire.head().await;
            let body = if head.contains("chunked") { wire.until("0\r\n\r\n").await } else { String::new() };
            assert!(head.starts_with("post /") || head.starts_with("get /"), "{head:?}");
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await;
    let gateway = start(address, UpstreamProtocol::Http1, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    for pieces in [&["a"][..], &["", "a"], &[], &["", ""]] {
        let (response, mut send) =
            sender.send_request(Request::post("http://a.test/").body(()).unwrap(), false).unwrap();
        for piece in pieces {
            send.send_data(Bytes::copy_from_slice(piece.as_bytes()), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
        let (got, _) = body(response.await.unwrap().into_body()).await;
        let expected = if pieces.contains(&"a") { "1\r\na\r\n0\r\n\r\n" } else { "0\r\n\r\n" };
        assert_eq!(String::from_utf8(got).unwrap(), expected, "{pieces:?}");
        let (response, _) = sender.send_request(Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http2_becomes_http1() {
    let gateway = start(echo_heads().await.0, UpstreamProtocol::Http1, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let request = Request::get("http://a.test/x?y").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert!(response.headers().contains_key("date") && !response.headers().contains_key("connection"));
    let seen = String::from_utf8(body(response.into_body()).await.0).unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("get /x?y http/1.1\r\n") && seen.contains("host: a.test\r\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\r\n") && !seen.contains("chunked"), "{seen}");
}

#[tokio::test]
async fn http1_becomes_http2() {
    let gateway = start(echo_http2().await, UpstreamProtocol::Http2, ClientProtocol::Http1).await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        wire.send("POST /p HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello").await;
        let head = wire.head().await;
        assert!(head.contains("x-path: /p") && head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(wire.until("\r\n0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn malformed_streams_are_reset_and_the_connection_lives() {
    let gateway = start(echo_heads().await.0, UpstreamProtocol::Http1, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    for bad in ["http://u@a.test/", "http://a.test:1:2@b/"] {
        let (response, _) = sender.send_request(Request::get(bad).body(()).unwrap(), true).unwrap();
        assert!(response.await.unwrap_err().is_reset(), "{bad}");
    }
    let (response, _) = sender.send_request(Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_is_cut_becomes_a_reset() {
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let gateway = start(address, UpstreamProtocol::Http1, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let (response, _) = sender.send_request(Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    // The reset may overtake the head.
    let Ok(response) = response.await else { return };
    let mut stream = response.into_body();
    let failure = loop {
        match stream.data().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(failure.is_some_and(|failure| failure.is_err()), "not an ordinary end");
}

#[tokio::test]
async fn draining_says_goaway_and_finishes_streams() {
    let gateway = start(echo_http2().await, UpstreamProtocol::Http2, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let (response, mut send) = sender.send_request(Request::post("http://a.test/").body(()).unwrap(), false).unwrap();
    let response = response.await.unwrap();
    gateway.drain.enter(crate::net::drain::Phase::Closed);
    send.send_data("late".into(), true).unwrap();
    assert_eq!(body(response.into_body()).await.0, b"late");
    let mut sender = sender;
    while let Ok(ready) = sender.ready().await {
        sender = ready;
        let Ok((response, _)) = sender.send_request(Request::get("http://a.test/").body(()).unwrap(), true) else {
            break;
        };
        if response.await.is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn one_length_only_comes_from_http2() {
    let gateway = start(echo_heads().await.0, UpstreamProtocol::Http1, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let twice = Request::post("http://a.test/").header("content-length", "5").header("content-length", "5");
    let (response, mut send) = sender.send_request(twice.body(()).unwrap(), false).unwrap();
    // The stream may be reset before this.
    let _ = send.send_data("hello".into(), true);
    assert_eq!(response.await.unwrap_err().reason(), Some(h2::Reason::PROTOCOL_ERROR));
}

/// An HTTP/2 backend that reads the preface and the first frames, then sends `frames` on its first connection and
/// answers 204 on every other.
async fn framed_backend(frames: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    backend(move |mut wire, count| async move {
        if count > 0 {
            let mut connection = h2::server::handshake(wire.0).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
            }
            return;
        }
        wire.exactly(24).await;
        wire.send(SETTINGS).await;
        loop {
            let head = wire.exactly(9).await;
            wire.exactly(usize::from(head[1]) << 8 | usize::from(head[2])).await;
            if head[3] == 1 {
                break;
            }
        }
        wire.send(frames).await;
        wire.rest().await;
    })
    .await
}

#[tokio::test]
async fn a_stream_that_a_leaving_endpoint_did_not_look_at_is_sent_again() {
    let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let (address, connections) = framed_backend(goaway).await;
    let gateway = start(address, UpstreamProtocol::Http2, ClientProtocol::Http1).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    assert!(wire.head().await.starts_with("http/1.1 204 "));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn http2_endpoints_cannot_switch_protocols() {
    // HEADERS of stream 1 with `:status: 101` as a literal.
    let switching = b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03101";
    let gateway = start(framed_backend(switching).await.0, UpstreamProtocol::Http2, ClientProtocol::Http1).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    assert!(wire.head().await.starts_with("http/1.1 502 "));
}

#[tokio::test]
async fn no_content_stays_without_body_over_http2() {
    // HEADERS of stream 1 with `:status: 204`, then DATA.
    let frames = b"\0\0\x01\x01\x04\0\0\0\x01\x89\0\0\x04\0\x01\0\0\0\x01EVIL";
    let gateway = start(framed_backend(frames).await.0, UpstreamProtocol::Http2, ClientProtocol::Http2).await;
    let mut sender = client(&gateway).await;
    let (response, _) = sender.send_request(Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 204);
    assert!(body(response.into_body()).await.0.is_empty());
}
