//! HTTP/2 on either side.

use std::process::Command;

use crate::support::backend::Backend;
use crate::support::gateway::TestGateway;
use crate::support::manifests::{all_to, http_gateway, route, service, simple};

#[test]
fn prior_knowledge_is_enough_on_the_plaintext_port() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    let answer = gateway.curl("web.test", "/path", &["--http2-prior-knowledge", "-H", "cookie: a=1", "-d", "four"]);
    assert_eq!((answer.status, answer.version.as_str()), (200, "2"), "{answer:?}");
    let told = answer.json();
    assert_eq!((&told["version"], &told["body_bytes"]), (&"HTTP/1.1".into(), &4.into()));
    assert_eq!(told["headers"]["host"], "web.test");
    let missing = gateway.curl("no.test", "/", &["--http2-prior-knowledge"]);
    assert_eq!((missing.status, missing.header("server")), (404, "istio-envoy"));
}

#[test]
fn backends_whose_port_says_so_get_http2() {
    let web = Backend::h2c("web");
    let gateway = TestGateway::with(
        &[http_gateway(), service("web.test", web.address, "HTTP2"), route("web", "web.test", &all_to("web.test"))]
            .concat(),
    );
    for arguments in [&["-d", "four"] as &[&str], &["--http2-prior-knowledge", "-d", "four"]] {
        let told = gateway.curl("web.test", "/path?q", arguments).json();
        assert_eq!(
            (&told["version"], &told["path"], &told["body_bytes"]),
            (&"HTTP/2".into(), &"/path?q".into(), &4.into())
        );
        assert_eq!(told["headers"][":authority"], "web.test");
    }
    assert_eq!(web.connections(), 1, "streams share a connection");
    assert_eq!(gateway.get("web.test", "/reset").status, 503);
}

#[test]
fn many_streams_at_once_are_all_answered() {
    let (one, two) = (Backend::http1("one"), Backend::h2c("two"));
    for (backend, protocol) in [(&one, "HTTP"), (&two, "HTTP2")] {
        let gateway = TestGateway::with(
            &[http_gateway(), service("web.test", backend.address, protocol), route("web", "*", &all_to("web.test"))]
                .concat(),
        );
        let url = format!("http://{}/", gateway.http());
        let output = Command::new("h2load").args(["-n", "2000", "-c", "8", "-m", "16", &url]).output();
        let text = String::from_utf8_lossy(&output.expect("h2load is installed").stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed"), "{protocol}: {text}");
        assert!(text.contains("status codes: 2000 2xx"), "{protocol}: {text}");
    }
}
