//! The way to the backends: which of them, by which name, and over what.

use std::io::{BufRead as _, Read as _, Write as _};

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

#[test]
fn a_request_names_its_own_endpoint() {
    let (one, two) = (Backend::http1("one"), Backend::http1("two"));
    let entry = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: any, namespace: default }
spec:
  hosts: ['*.localhost']
  resolution: DYNAMIC_DNS
  ports: [{ number: 80, name: http, protocol: HTTP }]
";
    let gateway =
        TestGateway::with(&[http_gateway(), entry.to_owned(), route("any", "*", &all_to("'*.localhost'"))].concat());
    for (backend, name) in [(&one, "one"), (&two, "two")] {
        assert_eq!(gateway.get(&backend.address.to_string(), "/").backend(), name);
    }
    let local = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("A.localhost:{}", local.local_addr().unwrap().port());
    let asked = std::thread::spawn(move || {
        let (mut socket, _) = local.accept().unwrap();
        let mut head = [0; 4096];
        let read = socket.read(&mut head).unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    assert_eq!(gateway.get(&host, "/").status, 204);
    assert!(asked.join().unwrap().contains(&host));
    assert_eq!(gateway.get("nowhere.invalid:80", "/").status, 503);
}

#[test]
fn endpoints_are_told_the_client() {
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", address, "HTTP"),
            rule("web.test", "proxyProtocol: { version: V1 }"),
            route("web", "web.test", &all_to("web.test")),
        ]
        .concat(),
    );
    let told = std::thread::spawn(move || {
        // Each client has a connection of its own, and keeps it.
        let connection = || {
            let mut reader = std::io::BufReader::new(origin.accept().unwrap().0);
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            for _ in 0..2 {
                let mut line = String::from("first");
                while !line.trim().is_empty() {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                }
                reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
            (header, reader)
        };
        [connection(), connection()].map(|(header, _open)| header)
    });
    let local = gateway.http();
    let mut expected = Vec::new();
    for _ in 0..2 {
        let mut client = std::net::TcpStream::connect(local).unwrap();
        let from = client.local_addr().unwrap();
        expected.push(format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), local.ip(), from.port(), local.port()));
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").unwrap();
            let mut answer = [0; 1024];
            let read = client.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 204"), "{}", answer[..read].escape_ascii());
        }
    }
    assert_eq!(told.join().unwrap().as_slice(), expected);
}

#[test]
fn requests_with_a_cookie_stay_at_one_endpoint() {
    let (one, two) = (Backend::http1("one"), Backend::http1("two"));
    let second = format!("  - address: {}\n    ports: {{ main: {} }}\n", two.address.ip(), two.address.port());
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", one.address, "HTTP") + &second,
            rule("web.test", "loadBalancer: { consistentHash: { httpCookie: { name: user, ttl: 60s, path: / } } }"),
            route("web", "web.test", &all_to("web.test")),
        ]
        .concat(),
    );
    let first = gateway.get("web.test", "/");
    let set = first.header("set-cookie");
    assert!(set.starts_with("user=\"") && set.ends_with("\"; Max-Age=60; Path=/; HttpOnly"), "{set}");
    let cookie = format!("cookie: {}", set.split_once(';').map_or("", |(pair, _)| pair));
    for _ in 0..5 {
        let again = gateway.curl("web.test", "/", &["-H", &cookie]);
        assert_eq!((again.backend(), again.header("set-cookie")), (first.backend(), ""));
    }
    let chosen = |user: u32| gateway.curl("web.test", "/", &["-H", &format!("cookie: user={user}")]).backend();
    let all: std::collections::BTreeSet<String> = (0..20).map(chosen).collect();
    assert_eq!(all.len(), 2, "others go elsewhere");
}

#[test]
fn a_full_cluster_refuses() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("web.test", web.address, "HTTP"),
            rule("web.test", "connectionPool: { http: { http2MaxRequests: 1 } }"),
            route("web", "web.test", &all_to("web.test")),
        ]
        .concat(),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| gateway.curl("web.test", "/hang", &["-m", "2"]));
        while web.requests() == 0 {
            std::thread::yield_now();
        }
        let answer = gateway.get("web.test", "/");
        assert_eq!((answer.status, answer.header("x-envoy-overloaded")), (503, "true"), "{answer:?}");
        assert!(answer.body.ends_with("reset reason: overflow"), "{}", answer.body);
    });
    let line = gateway.access_record(|line| line["response_code"] == 503);
    assert_eq!(line["response_flags"], "UO", "{line}");
}
