//! The way to the backends: which of them, by which name, and over what.

use crate::support::backend::Backend;
use crate::support::certificate::Authority;
use crate::support::gateway::TestGateway;
use crate::support::manifests::{all_to, http_gateway, route, service};

fn rule(host: &str, policy: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: {}, namespace: default }}
spec:
  host: {host}
  trafficPolicy: {{ {policy} }}
",
        host.replace('.', "-")
    )
}

#[test]
fn round_robin_takes_turns() {
    let (one, two) = (Backend::http1("one"), Backend::http1("two"));
    let second = format!("  - address: {}\n    ports: {{ main: {} }}\n", two.address.ip(), two.address.port());
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", one.address, "HTTP") + &second,
            rule("web.test", "loadBalancer: { simple: ROUND_ROBIN }"),
            route("web", "web.test", &all_to("web.test")),
        ]
        .concat(),
    );
    let names: Vec<String> = (0..6).map(|_| gateway.get("web.test", "/").backend()).collect();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn names_are_resolved() {
    let web = Backend::http1("web");
    let entry = service("web.test", web.address, "HTTP").replace("resolution: STATIC", "resolution: DNS");
    let gateway = TestGateway::with(&[http_gateway(), entry, route("web", "web.test", &all_to("web.test"))].concat());
    assert_eq!(gateway.get("web.test", "/").backend(), "web", "an address is a name of its own");
    let unknown = service("none.invalid", web.address, "HTTP").replace("resolution: STATIC", "resolution: DNS");
    let unknown = unknown.split_once("  endpoints:").map_or("", |(head, _)| head).to_owned();
    gateway.write("more.yaml", &[unknown, route("none", "none.test", &all_to("none.invalid"))].concat());
    gateway.reload();
    let answer = gateway.get("none.test", "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(gateway.get("web.test", "/").status, 200);
}

#[test]
fn tls_to_backends_is_verified() {
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let good = Backend::tls("good", &trusted.identity(&["good.test"]));
    let bad = Backend::tls("bad", &stranger.identity(&["bad.test"]));
    let wrong = Backend::tls("wrong", &trusted.identity(&["other.test"]));
    let mut manifests = vec![http_gateway(), trusted.secret("trusted")];
    for (host, backend) in [("good.test", &good), ("bad.test", &bad), ("wrong.test", &wrong)] {
        manifests.push(service(host, backend.address, "HTTP"));
        manifests.push(rule(host, "tls: { mode: SIMPLE, credentialName: trusted }"));
        manifests.push(route(host.trim_end_matches(".test"), host, &all_to(host)));
    }
    let gateway = TestGateway::with(&manifests.concat());
    assert_eq!(gateway.get("good.test", "/").backend(), "good");
    for host in ["bad.test", "wrong.test"] {
        assert_eq!(gateway.get(host, "/").status, 503, "{host}");
        let line = gateway.access_record(|line| line["authority"] == host);
        assert!(line["response_flags"].as_str().unwrap_or_default().contains("UF"), "{line}");
        assert!(!line["upstream_transport_failure_reason"].is_null(), "{line}");
    }
    assert_eq!((bad.requests(), wrong.requests()), (0, 0));
}
