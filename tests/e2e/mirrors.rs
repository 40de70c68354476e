//! Copies of requests: what a mirror gets, and that nobody waits for it.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::backend::{Backend, checksum};
use crate::support::gateway::{TestGateway, until};
use crate::support::manifests::{http_gateway, route, service};

#[test]
fn a_mirror_gets_the_request_and_its_body_once() {
    let (web, copy, h2) = (Backend::http1("web"), Backend::http1("copy"), Backend::h2c("h2"));
    let rules = "
- retries: { attempts: 2, retryOn: 5xx, backoff: 1ms }
  headers: { request: { set: { x-rule: a } } }
  mirrors: [{ destination: { host: copy.test } }, { destination: { host: h2.test } }]
  route: [{ destination: { host: web.test } }]";
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", web.address, "HTTP"),
            service("copy.test", copy.address, "HTTP"),
            service("h2.test", h2.address, "HTTP2"),
            route("web", "*", rules),
        ]
        .concat(),
    );
    let body = "0123456789".repeat(50_000);
    let file = gateway.folder().join("body");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    let answer = gateway.curl("web.test", "/flaky/key/9", &["-H", "expect:", "--data-binary", &data]);
    assert_eq!((answer.status, web.requests()), (503, 3));
    until(|| (!copy.told().is_empty() && !h2.told().is_empty()).then_some(())).expect("the mirrors have all of it");
    for mirror in [&copy, &h2] {
        let told = mirror.told();
        assert_eq!((told.len(), mirror.requests()), (1, 1), "sent once");
        let told = &told[0];
        assert_eq!(told["checksum"], checksum(body.as_bytes()), "{told}");
        let headers = &told["headers"];
        assert_eq!((&headers["x-envoy-internal"], &headers["x-rule"]), (&"true".into(), &"a".into()), "{told}");
        assert!(headers["x-forwarded-for"].as_str().unwrap().contains(','), "{told}");
    }
    let lines = gateway.access_record(|line| line["path"] == "/flaky/key/9");
    assert_eq!(lines["upstream_cluster"], "outbound|80||web.test");
}

#[test]
fn a_stuck_mirror_slows_nothing() {
    let web = Backend::http1("web");
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rules = "
- mirror: { host: stuck.test }
  route: [{ destination: { host: web.test } }]";
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", web.address, "HTTP"),
            service("stuck.test", stuck.local_addr().unwrap(), "HTTP"),
            route("web", "*", rules),
        ]
        .concat(),
    );
    let file = gateway.folder().join("body");
    std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
    let data = format!("@{}", file.display());
    let before = gateway.resident_kb();
    let began = Instant::now();
    let answer = gateway.curl("web.test", "/", &["-X", "POST", "-H", "expect:", "--data-binary", &data]);
    assert_eq!(answer.json()["body_bytes"], 64 << 20);
    assert!(began.elapsed() < Duration::from_secs(20));
    let grown = gateway.resident_kb().saturating_sub(before);
    assert!(grown < 32 * 1024, "memory grew by {grown} kB");
    // What the mirror was sent is no whole request: its connection ends before the body does.
    let (mut cut, _) = stuck.accept().unwrap();
    cut.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut got = Vec::new();
    let _ = cut.read_to_end(&mut got);
    assert!(got.len() < 64 << 20, "{}", got.len());
}
