//! Tries after the first: what is tried again, with which body, and where.

use crate::support::backend::{self, Backend, checksum};
use crate::support::curl::Answer;
use crate::support::gateway::TestGateway;
use crate::support::manifests::{all_to, http_gateway, route, service};

const MEGABYTE: usize = 1 << 20;

fn gateway(rules: &str, services: &[(&str, &Backend, &str)]) -> TestGateway {
    let mut manifests = vec![http_gateway(), route("web", "*", rules)];
    manifests.extend(services.iter().map(|(host, backend, protocol)| service(host, backend.address, protocol)));
    TestGateway::with(&manifests.concat())
}

fn post(gateway: &TestGateway, path: &str, body: &[u8]) -> Answer {
    let file = gateway.folder().join("body");
    std::fs::write(&file, body).unwrap();
    let data = format!("@{}", file.display());
    gateway.curl("web.test", path, &["-X", "POST", "-H", "expect:", "--data-binary", &data])
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|place| (place * 7 + place / 251) as u8).collect()
}

#[test]
fn a_body_is_sent_again_whole_up_to_its_limit() {
    let (web, h2) = (Backend::http1("web"), Backend::h2c("h2"));
    let rules = "
- match: [{ uri: { prefix: /h2 } }]
  rewrite: { uri: /flaky }
  retries: { attempts: 2, retryOn: 5xx, backoff: 1ms }
  route: [{ destination: { host: h2.test } }]
- retries: { attempts: 2, retryOn: 5xx, backoff: 1ms }
  route: [{ destination: { host: web.test } }]";
    let gateway = gateway(rules, &[("web.test", &web, "HTTP"), ("h2.test", &h2, "HTTP2")]);
    for (number, size) in [1, 1000, 300_000, MEGABYTE].into_iter().enumerate() {
        for path in ["/flaky", "/h2"] {
            let body = body(size);
            let answer = post(&gateway, &format!("{path}/{number}/2"), &body);
            assert_eq!(answer.status, 200, "{path} {size} {answer:?}");
            let told = answer.json();
            assert_eq!((&told["body_bytes"], &told["checksum"]), (&size.into(), &checksum(&body).into()));
            assert_eq!(answer.seen("x-envoy-attempt-count").as_deref(), Some("3"));
        }
    }
    let before = web.requests();
    let answer = post(&gateway, "/flaky/large/2", &body(MEGABYTE + 1));
    assert_eq!((answer.status, web.requests() - before), (503, 1), "too large to be kept");
    let answer = post(&gateway, "/flaky/often/9", b"x");
    assert_eq!((answer.status, web.requests() - before), (503, 4), "the last answer is given");
    let line = gateway.access_record(|line| line["path"] == "/flaky/often/9");
    assert_eq!((&line["response_flags"], &line["bytes_received"]), (&"URX".into(), &1.into()), "{line}");
    assert_eq!(answer.body, "not yet", "whole");
}

#[test]
fn another_endpoint_is_tried_and_a_slow_try_ends() {
    let (good, slow) = (Backend::http1("good"), Backend::http1("slow"));
    let nobody = backend::nobody();
    let dead = format!("  - address: {}\n    ports: {{ main: {} }}\n", nobody.ip(), nobody.port());
    let manifests = [
        http_gateway(),
        service("web.test", good.address, "HTTP") + &dead,
        service("slow.test", slow.address, "HTTP"),
        route("web", "web.test", &all_to("web.test")),
        route(
            "slow",
            "slow.test",
            "
- retries: { attempts: 1, perTryTimeout: 100ms, retryOn: gateway-error, backoff: 1ms }
  route: [{ destination: { host: slow.test } }]",
        ),
    ];
    let gateway = TestGateway::with(&manifests.concat());
    for _ in 0..20 {
        assert_eq!(gateway.get("web.test", "/").backend(), "good");
    }
    let answer = gateway.get("slow.test", "/hang");
    assert_eq!((answer.status, answer.body.as_str(), slow.requests()), (504, "upstream request timeout", 2));
    let line = gateway.access_record(|line| line["path"] == "/hang");
    assert_eq!(line["response_flags"], "URX,UT", "{line}");
    assert_eq!(line["response_code_details"], "upstream_per_try_timeout", "{line}");
}
