//! CORS policies and injected faults act at the gateway, and a broken rule keeps its requests from broader ones.

use std::io::Write;

use crate::support::backend::Backend;
use crate::support::gateway::TestGateway;
use crate::support::manifests::{all_to, http_gateway, route, service};
use crate::support::raw;

fn gateway(web: &Backend, rules: &str) -> TestGateway {
    let rest = all_to("web.test");
    let manifests = [
        http_gateway(),
        service("web.test", web.address, "HTTP"),
        route("web", "web.test", &format!("{rules}\n{rest}")),
    ];
    TestGateway::with(&manifests.concat())
}

#[test]
fn preflights_are_answered_and_answers_permitted() {
    let web = Backend::http1("web");
    let rules = "\
- corsPolicy:
    allowOrigins: [{ exact: https://shop.example }]
    allowMethods: [GET, PUT]
    maxAge: 10m
  match: [{ uri: { prefix: /api } }]
  route: [{ destination: { host: web.test } }]";
    let gateway = gateway(&web, rules);
    let origin = ["-H", "origin: https://shop.example"];
    let asks = ["-X", "OPTIONS", "-H", "access-control-request-method: PUT"];
    let preflight = gateway.curl("web.test", "/api", &[&origin[..], &asks].concat());
    assert_eq!((preflight.status, preflight.body.as_str(), web.requests()), (200, "", 0));
    let said =
        ["allow-origin", "allow-methods", "max-age"].map(|name| preflight.header(&format!("access-control-{name}")));
    assert_eq!(said, ["https://shop.example", "GET,PUT", "600"]);
    let answer = gateway.curl("web.test", "/api", &origin);
    assert_eq!(
        (answer.backend().as_str(), answer.header("access-control-allow-origin")),
        ("web", "https://shop.example")
    );
    let foreign = gateway.curl("web.test", "/api", &["-H", "origin: https://other.example"]);
    assert_eq!((foreign.backend().as_str(), foreign.header("access-control-allow-origin")), ("web", ""));
}

#[test]
fn faults_are_injected_and_end_with_their_client_or_the_drain() {
    let web = Backend::http1("web");
    let rules = "\
- fault: { abort: { httpStatus: 418, percentage: { value: 100 } } }
  match: [{ uri: { prefix: /abort } }]
  route: [{ destination: { host: web.test } }]
- fault: { delay: { fixedDelay: 1h, percentage: { value: 100 } } }
  match: [{ uri: { prefix: /delay } }]
  route: [{ destination: { host: web.test } }]";
    let mut gateway = gateway(&web, rules);
    let aborted = gateway.get("web.test", "/abort");
    assert_eq!((aborted.status, aborted.body.as_str()), (418, "fault filter abort"));
    let flags_of = |path: &'static str| gateway.access_record(|line| line["path"] == path)["response_flags"].clone();
    assert_eq!(flags_of("/abort"), "FI");

    let mut leaves = raw::connect(gateway.http());
    leaves.write_all(b"GET /delay/left HTTP/1.1\r\nhost: web.test\r\n\r\n").unwrap();
    drop(leaves);
    assert_eq!(flags_of("/delay/left"), "DI,DC");

    // The second request is in the gateway's hands as soon as the first is answered.
    let mut held = raw::connect(gateway.http());
    let requests = "GET /status/200 HTTP/1.1\r\nhost: web.test\r\n\r\nGET /delay HTTP/1.1\r\nhost: web.test\r\n\r\n";
    held.write_all(requests.as_bytes()).unwrap();
    assert!(raw::read_answer(&mut held).starts_with("HTTP/1.1 200"));
    gateway.signal("TERM");
    let (answer, _) = raw::read_to_end(&mut held);
    assert!(answer.starts_with("HTTP/1.1 200"), "the drain ends the delay: {answer}");
    assert!(gateway.ended().success(), "{}", gateway.log());
}

#[test]
fn a_broken_rule_keeps_its_requests() {
    let web = Backend::http1("web");
    let rules = "\
- fault: { abort: { httpStatus: 600, percentage: { value: 100 } } }
  match: [{ uri: { prefix: /broken } }]
  route: [{ destination: { host: web.test } }]";
    let gateway = gateway(&web, rules);
    assert_eq!(gateway.get("web.test", "/broken/x").status, 500);
    assert_eq!(gateway.get("web.test", "/other").backend(), "web");
    let line = gateway.access_record(|line| line["path"] == "/broken/x");
    assert_eq!(line["response_code_details"], "invalid_rule");
}
