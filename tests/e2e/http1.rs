//! HTTP/1.1 on both sides: framing, streaming, reuse.

use std::io::{Read, Write};

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::simple;
use crate::support::raw;

const MEGABYTE: usize = 1 << 20;

fn site() -> (Backend, TestGateway) {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    (web, gateway)
}

#[test]
fn bodies_of_any_size_pass_both_ways_in_constant_memory() {
    let (_web, gateway) = site();
    assert_eq!(gateway.get("web.test", "/").status, 200);
    let before = gateway.resident_kb();
    let down =
        gateway.curl("web.test", &format!("/bytes/{}", 300 * MEGABYTE), &["-o", "/dev/null", "-w", "%{size_download}"]);
    assert_eq!(down.exit, 0, "{}", down.error);
    let file = gateway.folder().join("upload");
    std::fs::File::create(&file).unwrap().set_len(300 * MEGABYTE as u64).unwrap();
    let file = file.to_string_lossy().into_owned();
    let echoed = gateway.folder().join("echoed").to_string_lossy().into_owned();
    let both = gateway.curl("web.test", "/echo", &["-X", "POST", "--no-include", "-T", &file, "-o", &echoed]);
    assert_eq!(both.exit, 0, "{}", both.error);
    assert_eq!(std::fs::metadata(&echoed).unwrap().len(), 300 * MEGABYTE as u64);
    let grown = gateway.resident_kb().saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} kB");
}

#[test]
fn clients_that_do_not_read_hold_their_backend_not_our_memory() {
    let (web, gateway) = site();
    let before = gateway.resident_kb();
    let request = format!("GET /bytes/{} HTTP/1.1\r\nhost: web.test\r\n\r\n", 1000 * MEGABYTE);
    let mut idle: Vec<_> = (0..8).map(|_| raw::connect(gateway.http())).collect();
    for stream in &mut idle {
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 1024];
        assert!(stream.read(&mut first).unwrap() > 0);
    }
    assert_eq!(web.requests(), 8);
    // Others are served meanwhile.
    assert_eq!(gateway.curl("web.test", "/[1-50]", &[]).exit, 0);
    let grown = gateway.resident_kb().saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} kB");
}

#[test]
fn connections_to_backends_are_used_again() {
    let (web, gateway) = site();
    for _ in 0..20 {
        assert_eq!(gateway.get("web.test", "/").status, 200);
    }
    assert_eq!((web.requests(), web.connections()), (20, 1));
    assert!(gateway.metric("limani_upstream_connections_total", "web.test") >= 1.0);
}

#[test]
fn answers_without_a_body_and_old_clients_are_understood() {
    let (_web, gateway) = site();
    let head = gateway.curl("web.test", "/status/200", &["-I"]);
    assert_eq!((head.status, head.body.as_str(), head.exit), (200, "", 0));
    let empty = gateway.get("web.test", "/status/204");
    assert_eq!((empty.status, empty.body.as_str(), empty.header("transfer-encoding")), (204, "", ""));
    let old = gateway.curl("web.test", "/bytes/1000", &["--http1.0"]);
    assert_eq!((old.status, old.body.len(), old.header("transfer-encoding")), (200, 1000, ""));
    let expecting = gateway.curl("web.test", "/", &["-H", "Expect: 100-continue", "-d", "twelve bytes"]);
    assert_eq!(expecting.json()["body_bytes"], 12);
    let early = gateway.curl("web.test", "/early", &["-d", "body"]);
    assert_eq!((early.status, early.body.as_str()), (413, "enough"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_web, gateway) = site();
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n{more}\r\n");
    let requests =
        [one("/status/201", ""), one("/status/202", ""), one("/status/203", "connection: close\r\n")].concat();
    let (text, closed) = raw::exchange(gateway.http(), requests.as_bytes());
    assert!(closed);
    let codes: Vec<&str> = text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)).collect();
    assert_eq!(codes, ["201", "202", "203"], "{text}");
}

#[test]
fn a_client_that_goes_away_is_logged() {
    let (web, gateway) = site();
    let mut stream = raw::connect(gateway.http());
    stream.write_all(b"GET /hang HTTP/1.1\r\nhost: web.test\r\n\r\n").unwrap();
    until(|| (web.requests() == 1).then_some(())).unwrap();
    drop(stream);
    let line = gateway.access_record(|line| line["path"] == "/hang");
    assert_eq!((&line["response_code"], &line["response_flags"]), (&0.into(), &"DC".into()));
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let (_web, gateway) = site();
    let request = b"GET /status/200 HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";
    let wave = || {
        for _ in 0..1000 {
            assert!(raw::exchange(gateway.http(), request).1);
        }
        gateway.resident_kb()
    };
    // Allocators and rings fill up at first; what leaks at each connection grows in every wave.
    let sizes: Vec<u64> = std::iter::repeat_with(wave).take(12).collect();
    let calm = sizes.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) < 256).count();
    assert!(calm >= 3, "memory in kB: {sizes:?}");
    let active = || gateway.metric("limani_downstream_connections_active", "");
    until(|| (active() == 0.0).then_some(())).expect("no connection is left over");
}

#[test]
fn the_proxy_protocol_tells_who_the_client_is() {
    let web = Backend::http1("web");
    let plan = Plan::new().listen("proxy_protocol = true\n").manifest("all.yaml", &simple("web.test", web.address));
    let gateway = plan.start();
    let request = b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";
    let first = [&b"PROXY TCP4 192.0.2.7 127.0.0.1 4096 80\r\n"[..], request].concat();
    let (text, _) = raw::exchange(gateway.http(), &first);
    assert!(text.contains(r#""x-forwarded-for":"192.0.2.7""#), "{text}");
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([192, 0, 2, 8, 127, 0, 0, 1, 0x10, 0, 0, 80]);
    second.extend(request);
    let (text, _) = raw::exchange(gateway.http(), &second);
    assert!(text.contains(r#""x-forwarded-for":"192.0.2.8""#), "{text}");
    let (text, closed) = raw::exchange(gateway.http(), b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n");
    assert_eq!((text.as_str(), closed), ("", true), "without the header nobody is served");
}

#[test]
fn trusted_proxies_are_believed() {
    let web = Backend::http1("web");
    let plan = Plan::new()
        .settings("[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n")
        .manifest("all.yaml", &simple("web.test", web.address));
    let gateway = plan.start();
    let sent = ["-H", "x-forwarded-for: 203.0.113.9", "-H", "x-forwarded-proto: https"];
    let answer = gateway.curl("web.test", "/", &sent);
    assert_eq!(answer.seen("x-envoy-external-address").as_deref(), Some("203.0.113.9"), "{answer:?}");
    assert_eq!(answer.seen("x-forwarded-proto").as_deref(), Some("https"));
}
