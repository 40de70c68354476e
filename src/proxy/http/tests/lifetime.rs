//! When does a request, a try or a connection end?

use tokio::sync::mpsc;

use super::*;
use crate::net::drain::Phase;

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    for answer in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n"] {
        let (told, mut ended) = mpsc::channel(1);
        let (address, _) = backend(move |mut wire, _| {
            let told = told.clone();
            async move {
                wire.head().await;
                wire.send(answer).await;
                wire.rest().await;
                told.send(()).await.unwrap();
            }
        })
        .await;
        let gateway = Gateway::http1(address).await;
        let mut wire = gateway.connect().await;
        wire.send(get("/")).await;
        if !answer.is_empty() {
            wire.until("event\r\n").await;
        }
        drop(wire);
        tokio::time::timeout(PATIENCE, ended.recv()).await.expect("the backend sees the end").unwrap();
    }
}

#[tokio::test]
async fn a_stale_connection_costs_no_get_but_what_was_read_is_not_sent_twice() {
    let (address, connections) = backend(|mut wire, number| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        // Taken from the pool, then closed without an answer: with the next request unread, or read.
        match number {
            1 => drop(wire.head().await),
            _ => drop(wire.0.peek(&mut [0]).await),
        }
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    for (connection, request, answer) in [
        (1, get("/"), "ok"),
        (2, get("/unread"), "ok"),
        (2, get("/read"), "connection termination"),
        (3, get("/"), "ok"),
        (3, post_nothing(), "connection termination"),
    ] {
        wire.send(request).await;
        wire.until(answer).await;
        assert_eq!(connections.load(Ordering::SeqCst), connection);
    }
}

fn post_nothing() -> String {
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned()
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_then_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    let head = wire.head().await;
    assert!(head.starts_with("http/1.1 503") && head.contains("content-type: text/plain"), "{head}");
    wire.until("retried and the latest reset reason: remote connection failure").await;
}

#[tokio::test]
async fn a_slow_endpoint_meets_the_timeout() {
    let (address, _) = backend(|mut wire, _| async move {
        let head = wire.head().await;
        assert!(head.contains("x-envoy-expected-rq-timeout-ms: "), "{head}");
        if head.starts_with("get /begun") {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart").await;
        }
        wire.rest().await;
    })
    .await;
    let setup = Setup { timeout: Some(Duration::from_millis(100)), ..Setup::new(address) };
    let gateway = Gateway::start(setup, ClientProtocol::Http1).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    assert!(wire.head().await.starts_with("http/1.1 504"));
    wire.until("upstream request timeout").await;
    wire.send(get("/begun")).await;
    assert!(wire.rest().await.0.ends_with(b"\r\n\r\npart"), "cut");
}

#[tokio::test]
async fn draining_ends_idle_connections_and_lets_the_others_finish() {
    let (go, mut gone) = mpsc::channel::<()>(1);
    let go = Arc::new(go);
    let permit = Arc::new(tokio::sync::Semaphore::new(0));
    let (address, _) = backend({
        let (permit, go) = (Arc::clone(&permit), Arc::clone(&go));
        move |mut wire, _| {
            let (permit, go) = (Arc::clone(&permit), Arc::clone(&go));
            async move {
                wire.head().await;
                go.send(()).await.unwrap();
                permit.acquire().await.unwrap().forget();
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let (mut idle, mut busy) = (gateway.connect().await, gateway.connect().await);
    busy.send(get("/")).await;
    gone.recv().await.unwrap();
    gateway.drain.enter(Phase::Leaving);
    assert!(idle.rest().await.0.is_empty());
    permit.add_permits(1);
    let (got, _) = busy.rest().await;
    let got = String::from_utf8(got).unwrap().to_ascii_lowercase();
    assert!(got.contains("connection: close\r\n") && got.ends_with("ok"), "{got}");
}

#[tokio::test]
async fn idle_clients_are_let_go() {
    let setup = Setup { idle_timeout: Duration::from_millis(50), ..Setup::new(echo_heads().await.0) };
    let gateway = Gateway::start(setup, ClientProtocol::Http1).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/")).await;
    assert!(wire.rest().await.0.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn every_request_is_counted() {
    let gateway = Gateway::http1(echo_heads().await.0).await;
    let mut wire = gateway.connect().await;
    wire.send(get("/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    wire.rest().await;
    let mut wire = gateway.connect().await;
    wire.send("junk\r\n\r\n").await;
    wire.rest().await;
    let metrics = gateway.worker.telemetry.metrics.render();
    let counted = |status: &str, flags: &str| {
        metrics.lines().any(|line| {
            line.starts_with("istio_requests_total")
                && line.contains(&format!("response_code=\"{status}\""))
                && line.contains(&format!("response_flags=\"{flags}\""))
        })
    };
    assert!(counted("200", "-") && counted("400", "DPE"), "{metrics}");
}
