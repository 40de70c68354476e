//! Requests that are no requests are refused, and nothing of them reaches a backend.

use std::io::{Read, Write};

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::simple;
use crate::support::raw;

#[test]
fn malformed_heads_are_refused_and_the_connection_is_closed() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("*", web.address));
    let many: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "a".repeat(70_000));
    let crowded = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    let cases: [(&str, &str, u16); 17] = [
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (
            "both framings",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc", 400),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", 400),
        ("another coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("bare LF", "GET / HTTP/1.1\nhost: a\n\n", 400),
        ("a folded line", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", 400),
        ("a control byte", "GET / HTTP/1.1\r\nhost: a\r\nx: \u{1}\r\n\r\n", 400),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("no path", "GET a HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("an unknown method", "get / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("an unknown version", "GET / HTTP/1.2\r\nhost: a\r\n\r\n", 426),
        ("a NUL in the path", "GET /%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 400),
        ("a long head", &long, 431),
        ("a crowded head", &crowded, 431),
    ];
    for (about, request, status) in cases {
        let (text, closed) = raw::exchange(gateway.http(), request.as_bytes());
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{about}: {text:?}");
        assert!(closed, "{about}: the connection stays open");
    }
    assert_eq!(web.requests(), 0);
    let line = gateway.access_record(|line| line["response_code"] == 431);
    assert_eq!(line["response_flags"], "DPE");
    assert_eq!(gateway.get("web.test", "/").status, 200);
}

#[test]
fn a_bad_chunk_is_never_part_of_the_next_request() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("*", web.address));
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let (text, closed) = raw::exchange(gateway.http(), request.as_bytes());
    assert!(closed, "{text}");
    assert!(!text.contains("smuggled"), "{text}");
    assert_eq!(gateway.get("web.test", "/after").json()["path"], "/after");
}

#[test]
fn heads_have_a_deadline_as_a_whole() {
    let web = Backend::http1("web");
    let plan =
        Plan::new().settings("[http]\nhead_timeout = \"300ms\"\n").manifest("all.yaml", &simple("*", web.address));
    let gateway = plan.start();
    let mut dripping = raw::connect(gateway.http());
    dripping.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut dripper = dripping.try_clone().unwrap();
    // One header after the other does not win time.
    let drips = std::thread::spawn(move || {
        (0..20_000).take_while(|n| dripper.write_all(format!("x{}: 1\r\n", n % 9).as_bytes()).is_ok()).count()
    });
    let (text, closed) = raw::read_to_end(&mut dripping);
    assert!(closed && (text.is_empty() || text.starts_with("HTTP/1.1 4")), "{text}");
    drop(dripping);
    let _ = drips.join();
    let mut silent = raw::connect(gateway.http());
    silent.write_all(b"GET / HT").unwrap();
    let (text, closed) = raw::read_to_end(&mut silent);
    assert!(closed && text.starts_with("HTTP/1.1 408"), "{text:?}");
    assert_eq!(web.requests(), 0);
}

#[test]
fn garbage_is_no_handshake_and_no_http2() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("*", web.address));
    for garbage in [
        &b"\x16\x03\x01\xff\xff garbage"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = raw::connect(gateway.http());
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(raw::read_to_end(&mut stream).1, "{garbage:?}");
    }
    assert_eq!(web.requests(), 0);
    assert_eq!(gateway.get("web.test", "/").status, 200);
}

#[test]
fn without_file_descriptors_existing_connections_live() {
    let web = Backend::http1("web");
    let gateway = Plan::new().most_files(90).manifest("all.yaml", &simple("*", web.address)).start();
    let request = b"GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut kept = raw::connect(gateway.http());
    kept.write_all(request).unwrap();
    assert!(raw::read_answer(&mut kept).starts_with("HTTP/1.1 200"));
    let crowd: Vec<_> = (0..150).map(|_| raw::connect(gateway.http())).collect();
    until(|| (gateway_is_out_of_files(&gateway)).then_some(())).expect("the limit is met");
    kept.write_all(request).unwrap();
    assert!(raw::read_answer(&mut kept).starts_with("HTTP/1.1 200"));
    // Closed by the backend, so that the next request needs a new connection to it.
    kept.write_all(b"GET /close HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(raw::read_answer(&mut kept).starts_with("HTTP/1.1 503"));
    kept.write_all(request).unwrap();
    assert!(raw::read_answer(&mut kept).starts_with("HTTP/1.1 200"), "files are spared for endpoints");
    assert_eq!(gateway.reload_wait().0, 0, "and for reloads");
    drop(crowd);
    assert_eq!(gateway.get("web.test", "/").status, 200);
    let mut byte = [0];
    kept.set_nonblocking(true).unwrap();
    assert!(kept.read(&mut byte).is_err(), "the kept connection is still open");
}

fn gateway_is_out_of_files(gateway: &TestGateway) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("the process lives").count();
    open >= 78
}
