//! CAs that look whether a name is ours: http-01 before any redirect or rule, tls-alpn-01 on every TLS port; and names
//! whose certificates are still to come.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::backend::Backend;
use crate::support::certificate::Authority;
use crate::support::curl::curl;
use crate::support::gateway::{HTTP, HTTPS, Plan, TestGateway};
use crate::support::manifests::service;

const PROBES: &str = "/.well-known/acme-challenge/";

/// `a.test` by ACME with a redirect at the plaintext port, from a CA that nobody can reach; cert-manager's solver has an
/// exact rule. What another process of the storage would answer lies there.
fn site(solver: &Backend) -> TestGateway {
    let manifests = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: web, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTPS}, name: https, protocol: HTTPS }}
    hosts: [a.test]
    tls: {{ mode: SIMPLE, credentialName: acme:// }}
  - port: {{ number: {HTTPS}, name: https-ready, protocol: HTTPS }}
    hosts: [ready.test]
    tls: {{ mode: SIMPLE, credentialName: ready }}
  - port: {{ number: {HTTP}, name: http, protocol: HTTP }}
    hosts: [a.test]
    tls: {{ httpsRedirect: true }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: web, namespace: istio-system }}
spec:
  hosts: [a.test]
  gateways: [web]
  http:
  - match: [{{ uri: {{ exact: {PROBES}solver }} }}]
    route: [{{ destination: {{ host: solver.test }} }}]
  - directResponse: {{ status: 200, body: {{ string: page }} }}
"
    );
    let authority = Authority::new();
    let plan = Plan::new()
        .settings("[acme]\ndirectory = \"https://127.0.0.1:9/directory\"\nlisten_http = false\n")
        .manifest("web.yaml", &manifests)
        .manifest("solver.yaml", &service("solver.test", solver.address, "HTTP"))
        .manifest("ready.yaml", &authority.identity(&["ready.test"]).secret("ready"));
    let challenges = plan.folder().join("acme/challenges");
    fs::create_dir_all(challenges.join("http")).unwrap();
    fs::create_dir_all(challenges.join("tls")).unwrap();
    fs::write(challenges.join("http/token-1"), "token-1.thumbprint").unwrap();
    fs::write(challenges.join("http/token-2"), "another.thumbprint").unwrap();
    let digest = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    fs::write(challenges.join("tls/any.test"), format!("dns any.test\n{digest}\n")).unwrap();
    plan.start()
}

#[test]
fn http_01_comes_before_redirects_and_rules() {
    let solver = Backend::http1("solver");
    let gateway = site(&solver);
    let ask = |host: &str, token: &str| gateway.get(host, &format!("{PROBES}{token}"));
    // Also for a host that nobody serves.
    for host in ["a.test", "other.test"] {
        let answer = ask(host, "token-1");
        assert_eq!((answer.status, answer.body.as_str()), (200, "token-1.thumbprint"), "{host}: {answer:?}");
    }
    let record = gateway.access_record(|line| line["response_code_details"] == "acme_challenge");
    assert_eq!(record["response_code"], 200, "{record}");
    assert_eq!(gateway.metric("limani_acme_challenges_answered_total", "kind=\"http-01\""), 2.0);
    let answer = ask("a.test", "solver");
    assert_eq!((answer.status, answer.backend().as_str()), (200, "solver"), "{answer:?}");
    for token in ["token-2", "unknown", "..%2f..%2flimani.toml", ""] {
        assert_eq!(ask("a.test", token).status, 301, "{token}");
    }
    assert_eq!(gateway.get("a.test", "/").status, 301);
}

/// What openssl says of a handshake.
fn openssl(gateway: &TestGateway, name: &str, alpn: &str) -> String {
    let address = gateway.https().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", name, "-alpn", alpn]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("openssl is needed");
    child.stdin.take().unwrap().write_all(b"Q\n").unwrap();
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

#[test]
fn tls_alpn_01_is_answered_for_names_that_nobody_serves() {
    let solver = Backend::http1("solver");
    let gateway = site(&solver);
    let shown = openssl(&gateway, "any.test", "acme-tls/1");
    assert!(shown.contains("ALPN protocol: acme-tls/1"), "{shown}");
    let pem = shown.split_inclusive("-----END CERTIFICATE-----").next().unwrap();
    let mut text = Command::new("openssl");
    text.args(["x509", "-noout", "-text"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = text.spawn().unwrap();
    child.stdin.take().unwrap().write_all(pem.as_bytes()).unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("DNS:any.test") && text.contains("1.3.6.1.5.5.7.1.31: critical"), "{text}");
    assert_eq!(gateway.metric("limani_acme_challenges_answered_total", "kind=\"tls-alpn-01\""), 1.0);
    // Nobody knows this one, and nobody serves it.
    assert!(!openssl(&gateway, "none.test", "acme-tls/1").contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_name_without_its_certificate_gets_an_alert_and_others_are_served() {
    let solver = Backend::http1("solver");
    let gateway = site(&solver);
    let shown = openssl(&gateway, "a.test", "h2,http/1.1");
    assert!(shown.contains("alert access denied"), "{shown}");
    assert!(gateway.metric("limani_tls_handshakes_total", "result=\"no_certificate\"") >= 1.0);
    let resolve = format!("ready.test:{HTTPS}:{}", gateway.address);
    let answer = curl(&format!("https://ready.test:{HTTPS}/"), &["-k", "--resolve", &resolve]);
    assert_eq!(answer.status, 404, "{answer:?}");
    let status = gateway.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains("LIM0080") || status.contains("is being issued"), "{status}");
}
