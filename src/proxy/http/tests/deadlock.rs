//! Does everything keep moving, whoever sends first and however much?

use super::*;

const MUCH: usize = 24 * 1024 * 1024;

/// Half-duplex writing upstream would wait here for ever: the backend answers before it reads.
#[tokio::test]
async fn a_backend_may_answer_before_it_reads() {
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n")).await;
        wire.send(vec![b'd'; MUCH - 1]).await;
        // The answer ends behind the request: else nobody would be obliged to pass on the rest of it.
        assert!(wire.exactly(MUCH).await.iter().all(|&byte| byte == b'u'));
        wire.send("D").await;
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let Wire(stream) = gateway.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let upload = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&vec![b'u'; MUCH]).await.unwrap();
        writer
    });
    let (mut got, mut last) = (0, 0);
    let mut buffer = vec![0; 65536];
    while got < MUCH || last != b'D' {
        let read = tokio::time::timeout(PATIENCE, reader.read(&mut buffer)).await.expect("no deadlock").unwrap();
        assert_ne!(read, 0, "the answer was cut");
        (got, last) = (got + read, buffer[read - 1]);
    }
    tokio::time::timeout(PATIENCE, upload).await.expect("no deadlock").unwrap();
}

/// The connection is closed behind an answer that came before the end of the request; a reset would take the answer
/// away from a client that reads it late.
#[tokio::test]
async fn an_answer_is_not_lost_on_a_client_that_sends_before_it_reads() {
    const ANSWER: usize = 1024 * 1024;
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n")).await;
        wire.send(vec![b'd'; ANSWER]).await;
        std::future::pending().await
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    // It sends for two seconds, or until nobody takes any more.
    let much = vec![b'u'; 100_000_000];
    let _ = tokio::time::timeout(Duration::from_secs(2), wire.0.write_all(&much)).await;
    wire.head().await;
    assert!(wire.exactly(ANSWER).await.iter().all(|&byte| byte == b'd'));
}

#[tokio::test]
async fn an_echo_of_any_size_arrives_unchanged() {
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n")).await;
        let (mut reader, mut writer) = wire.0.into_split();
        let mut reader = (&mut reader).take(MUCH as u64);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n")).await;
    wire.head().await;
    let sent: Vec<u8> = (0..MUCH).map(|place| (place % 251) as u8).collect();
    let expected = sent.clone();
    let (mut reader, mut writer) = wire.0.into_split();
    let upload = tokio::spawn(async move { writer.write_all(&sent).await.map(|()| writer) });
    let mut got = vec![0; MUCH];
    tokio::time::timeout(PATIENCE, reader.read_exact(&mut got)).await.expect("no deadlock").unwrap();
    assert!(got == expected);
    upload.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let (address, _) = backend(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let Wire(stream) = gateway.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let upload = tokio::spawn(async move {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
        writer.write_all(head.as_bytes()).await.unwrap();
        // Refused at some point; the answer must come through all the same.
        while writer.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let mut got = Vec::new();
    let mut buffer = [0; 1024];
    while !got.ends_with(b"\r\n\r\nbig") {
        let read = tokio::time::timeout(PATIENCE, reader.read(&mut buffer)).await.expect("in time").unwrap();
        assert_ne!(read, 0, "the answer was lost");
        got.extend_from_slice(&buffer[..read]);
    }
    drop(reader);
    upload.await.unwrap();
}

#[tokio::test]
async fn a_websocket_carries_both_ways_until_one_side_ends() {
    let (address, _) = backend(|mut wire, _| async move {
        let head = wire.head().await;
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nserver first")
            .await;
        let (mut reader, mut writer) = wire.0.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let gateway = Gateway::http1(address).await;
    let mut wire = gateway.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly").await;
    let head = wire.head().await;
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    assert!(!head.contains("x-envoy-upstream-service-time"), "{head}");
    assert_eq!(wire.exactly(17).await, b"server firstearly");
    let much = vec![b'w'; 3 * 1024 * 1024];
    let (mut reader, mut writer) = wire.0.into_split();
    let sent = much.clone();
    let upload = tokio::spawn(async move { writer.write_all(&sent).await.map(|()| writer).unwrap() });
    let mut got = vec![0; much.len()];
    tokio::time::timeout(PATIENCE, reader.read_exact(&mut got)).await.expect("no deadlock").unwrap();
    assert!(got == much);
    drop(upload.await.unwrap());
    tokio::time::timeout(PATIENCE, reader.read(&mut [0; 1])).await.expect("an end").unwrap();
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_ignored() {
    let gateway = Gateway::http1(echo_heads().await.0).await;
    let mut wire = gateway.connect().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("http/1.1 200"));
    let seen = wire.head().await;
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
}
