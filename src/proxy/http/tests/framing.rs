//! Is every message whole, apart from the next one, and never read in two ways?

use super::*;

/// Reads an answer with content-length.
async fn answer(wire: &mut Wire) -> (String, String) {
    let head = wire.head().await;
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    (head, String::from_utf8(wire.exactly(length).await).unwrap())
}

#[tokio::test]
async fn requests_share_connections_on_both_sides() {
    let (address, connections) = echo_heads().await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    for path in ["/a", "/b?c", "/%41/../d"] {
        wire.send(get(path)).await;
        let (head, seen) = answer(&mut wire).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("server: istio-envoy\r\n"), "{head}");
        assert!(head.contains("date: ") && head.contains("x-envoy-upstream-service-time: "), "{head}");
        let seen = seen.to_ascii_lowercase();
        for line in
            ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-envoy-attempt-count: 1", "host: a.test"]
        {
            assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
        }
        assert!(seen.contains("x-request-id: ") && seen.contains("x-envoy-decorator-operation: web.test:80/*"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::http1(echo_heads().await.0).await;
    let mut wire = gateway.connect().await;
    wire.send(["/1", "/2", "/3"].map(get).concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert!(answer(&mut wire).await.1.starts_with(&format!("GET {path} ")));
    }
}

#[tokio::test]
async fn bodies_keep_their_framing() {
    let (address, _) = backend(|mut wire, _| async move {
        let head = wire.head().await;
        let body = match head.contains("transfer-encoding: chunked") {
            true => wire.until("\r\n0\r\n\r\n").await,
            false => String::from_utf8(wire.exactly(5).await).unwrap(),
        };
        assert!(head.contains("transfer-encoding: chunked") != head.contains("content-length: 5"), "{head}");
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ))
        .await;
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(wire.head().await.contains("transfer-encoding: chunked"));
    assert_eq!(wire.until("\r\n0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
    let mut wire = gateway.connect().await;
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nt: 1\r\n\r\n",
    )
    .await;
    wire.head().await;
    assert!(
        wire.until("\r\n0\r\n\r\n\r\n0\r\n\r\n").await.contains("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        "no trailer, one end"
    );
}

#[tokio::test]
async fn answers_without_body_end_with_their_head() {
    let (address, _) = backend(|mut wire, _| async move {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ] {
            wire.head().await;
            wire.send(answer).await;
        }
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(wire.head().await.contains("content-length: 7"));
    for status in ["204", "304"] {
        wire.send(get("/")).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status}")) && !head.contains("chunked"), "{head}");
    }
    wire.send(get("/")).await;
    assert_eq!(answer(&mut wire).await.1, "ok");
}

#[tokio::test]
async fn old_clients_and_old_servers_are_served() {
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    assert!(wire.head().await.contains("transfer-encoding: chunked"));
    assert!(wire.until("0\r\n\r\n").await.contains("until the end"));
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    let (got, well) = wire.rest().await;
    let got = String::from_utf8(got).unwrap();
    assert!(well && got.ends_with("\r\n\r\nuntil the end") && !got.contains("chunked"), "{got}");
}

#[tokio::test]
async fn informational_answers_come_before_the_answer() {
    let (address, _) = backend(|mut wire, _| async move {
        assert!(wire.head().await.contains("expect: 100-continue"));
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        wire.exactly(5).await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert!(wire.head().await.starts_with("http/1.1 103"));
    assert!(wire.head().await.starts_with("http/1.1 100"));
    wire.send("hello").await;
    assert_eq!(answer(&mut wire).await.1, "ok");
}

#[tokio::test]
async fn bad_heads_are_answered_and_reach_nobody() {
    let (address, connections) = echo_heads().await;
    let gateway = Gateway::http1(address).await;
    for (request, status, body) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "Bad Request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            400,
            "Bad Request",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Not Implemented"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: \x01\r\n\r\n", 400, "Bad Request"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 426, "Upgrade Required"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Bad Request"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""),
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400, "Bad Request"),
    ] {
        let mut wire = gateway.connect().await;
        wire.send(request).await;
        let (got, well) = wire.rest().await;
        let got = String::from_utf8(got).unwrap();
        assert!(well && got.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {got:?}");
        assert!(
            got.to_ascii_lowercase().contains("connection: close\r\n") && got.ends_with(&format!("\r\n\r\n{body}")),
            "{got:?}"
        );
    }
    let mut wire = gateway.connect().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(61 * 1024))).await;
    assert!(wire.head().await.starts_with("http/1.1 431"));
    for (line, status) in
        [("Connection: host", 400), ("Connection: upgrade\r\nUpgrade: foo", 403), ("Connection: x-forwarded-for", 400)]
    {
        let mut wire = gateway.connect().await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")).await;
        assert!(wire.head().await.starts_with(&format!("http/1.1 {status}")), "{line}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_that_is_cut_looks_cut() {
    for (answer, http10) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
    ] {
        let (address, _) = backend(move |mut wire, _| async move {
            wire.head().await;
            wire.send(answer).await;
        })
        .await;
        let gateway = Gateway::http1(address).await;
        let mut wire = gateway.connect().await;
        wire.send(if http10 { "GET / HTTP/1.0\r\n\r\n".to_owned() } else { get("/") }).await;
        let (got, well) = wire.rest().await;
        assert!(!got.ends_with(b"0\r\n\r\n"), "no terminator after an error");
        assert!(!http10 || !well, "a client that takes the end for the end must see a reset");
    }
}

#[tokio::test]
async fn broken_endpoints_are_told_apart() {
    for (answer, status, reason) in [
        ("", 503, "connection termination"),
        ("junk\r\n\r\n", 502, "protocol error"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "protocol error"),
    ] {
        let (address, _) = backend(move |mut wire, _| async move {
            wire.head().await;
            wire.send(answer).await;
        })
        .await;
        let gateway = Gateway::http1(address).await;
        let mut wire = gateway.connect().await;
        wire.send(get("/")).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{answer:?}: {head}");
        wire.until(&format!("reset reason: {reason}")).await;
    }
}

#[tokio::test]
async fn empty_lines_between_requests_are_no_request() {
    let gateway = Gateway::http1(echo_heads().await.0).await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        wire.send(["\r\n", &get("/a"), "\r\n"].concat()).await;
        assert!(answer(&mut wire).await.1.starts_with("GET /a "));
    }
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_refused() {
    for fields in [
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2, 2\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 2\r\n",
    ] {
        let (address, _) = backend(move |mut wire, _| async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nok")).await;
            wire.rest().await;
        })
        .await;
        let gateway = Gateway::http1(address).await;
        let mut wire = gateway.connect().await;
        wire.send(get("/")).await;
        let head = wire.head().await;
        assert!(head.starts_with("http/1.1 502 "), "{fields}: {head}");
    }
}

#[tokio::test]
async fn heads_before_the_answer_are_limited() {
    for (count, status) in [(100, 200), (101, 502)] {
        let (address, _) = backend(move |mut wire, _| async move {
            wire.head().await;
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count)).await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            wire.rest().await;
        })
        .await;
        let gateway = Gateway::http1(address).await;
        let mut wire = gateway.connect().await;
        wire.send(get("/")).await;
        for _ in 0..100 {
            assert!(wire.head().await.starts_with("http/1.1 103 "));
        }
        assert!(wire.head().await.starts_with(&format!("http/1.1 {status} ")));
    }
}
