//! HTTPS: certificates by server name, protocols by ALPN, and what happens to clients that nobody serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};

use crate::support::backend::Backend;
use crate::support::certificate::Authority;
use crate::support::curl::{Answer, curl};
use crate::support::gateway::{HTTP, HTTPS, Plan, TestGateway};
use crate::support::manifests::{all_to, https_gateway, route_on, service};

struct Site {
    authority: Authority,
    gateway: TestGateway,
    ca: String,
    _web: Backend,
}

/// `exact.test` and `*.wild.test`, each with its own certificate, behind one port; and a server whose Secret is missing.
fn site() -> Site {
    let web = Backend::http1("web");
    let authority = Authority::new();
    let redirecting = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: plain, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTP}, name: http, protocol: HTTP }}
    hosts: [exact.test]
    tls: {{ httpsRedirect: true }}
"
    );
    let manifests = [
        redirecting,
        https_gateway("exact", "exact.test", "exact-tls"),
        https_gateway("wild", "*.wild.test", "wild-tls"),
        https_gateway("nokey", "nokey.test", "absent-tls"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/exact, istio-system/plain", "exact", "exact.test", &all_to("web.test")),
        route_on("istio-system/wild", "wild", "*.wild.test", &all_to("web.test")),
        route_on("istio-system/nokey", "nokey", "nokey.test", &all_to("web.test")),
    ];
    let gateway = Plan::new()
        .manifest("site.yaml", &manifests.concat())
        .manifest("exact.yaml", &authority.identity(&["exact.test"]).secret("exact-tls"))
        .manifest("wild.yaml", &authority.identity(&["*.wild.test"]).secret("wild-tls"))
        .start();
    let ca = authority.write(gateway.folder());
    Site { authority, gateway, ca, _web: web }
}

impl Site {
    fn get(&self, host: &str, arguments: &[&str]) -> Answer {
        let resolve = format!("{host}:{HTTPS}:{}", self.gateway.address);
        let url = format!("https://{host}:{HTTPS}/");
        let all: Vec<&str> = ["--resolve", &resolve, "--cacert", &self.ca].iter().chain(arguments).copied().collect();
        curl(&url, &all)
    }
}

#[test]
fn certificates_follow_the_server_name_and_protocols_follow_alpn() {
    let site = site();
    for host in ["exact.test", "a.wild.test", "a.b.wild.test"] {
        let answer = site.get(host, if host == "a.b.wild.test" { &["-k"] } else { &[] });
        assert_eq!((answer.status, answer.version.as_str()), (200, "1.1"), "{host}: {answer:?}");
        assert_eq!(answer.seen("x-forwarded-proto").as_deref(), Some("https"), "{host}");
    }
    let answer = site.get("exact.test", &["--http2"]);
    assert_eq!((answer.status, answer.version.as_str()), (200, "2"), "{answer:?}");
    let line = site.gateway.access_record(|line| line["protocol"] == "HTTP/2");
    assert_eq!(line["requested_server_name"], "exact.test");
    for version in ["1.2", "1.3"] {
        let answer = site.get("exact.test", &[&format!("--tlsv{version}"), "--tls-max", version]);
        assert_eq!(answer.status, 200, "TLS {version}: {answer:?}");
    }
}

#[test]
fn nobody_is_served_under_a_name_that_is_not_there() {
    let site = site();
    for host in ["unknown.test", "nokey.test"] {
        let answer = site.get(host, &[]);
        assert_eq!((answer.status, answer.exit), (0, 35), "{host}: {answer:?}");
    }
    // The name in the handshake opens the chain; another host is not found behind it.
    let elsewhere = site.get("exact.test", &["-H", "host: a.wild.test"]);
    assert_eq!(elsewhere.status, 404);
    let status = site.gateway.admin("/status").json().to_string();
    assert!(status.contains("absent-tls"), "the missing Secret is told: {status}");
}

#[test]
fn plaintext_is_sent_to_https() {
    let site = site();
    let answer = site.gateway.get("exact.test", "/path?q=1");
    assert_eq!((answer.status, answer.header("location")), (301, "https://exact.test/path?q=1"));
}

#[test]
fn a_new_certificate_is_served_after_a_reload_and_a_bad_one_is_not() {
    let site = site();
    let before = leaf(&site, "exact.test");
    let renewed = site.authority.identity(&["exact.test"]);
    site.gateway.write("exact.yaml", &renewed.secret("exact-tls"));
    // The server without a Secret is an error in every reload.
    assert_eq!(site.gateway.reload_wait().0, 1);
    let after = leaf(&site, "exact.test");
    assert_ne!(before, after);
    let mixed = crate::support::certificate::Identity {
        certificate: site.authority.identity(&["exact.test"]).certificate,
        key: renewed.key,
    };
    site.gateway.write("exact.yaml", &mixed.secret("exact-tls"));
    let (_, text) = site.gateway.reload_wait();
    assert!(text.contains("exact-tls") || text.contains("exact.yaml"), "the mismatch is told: {text}");
    assert_eq!(site.get("a.wild.test", &[]).status, 200);
}

#[test]
fn key_agreement_can_be_post_quantum() {
    let site = site();
    let mut connection = handshake(&site, "exact.test", vec![aws_lc_rs::kx_group::X25519MLKEM768]);
    connection.write_all(b"GET / HTTP/1.1\r\nhost: exact.test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let group = connection.conn.negotiated_key_exchange_group().map(SupportedKxGroup::name);
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
}

fn leaf(site: &Site, host: &str) -> Vec<u8> {
    let mut connection = handshake(site, host, aws_lc_rs::DEFAULT_KX_GROUPS.to_vec());
    connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    connection.conn.peer_certificates().unwrap()[0].to_vec()
}

fn handshake(
    site: &Site,
    host: &str,
    groups: Vec<&'static dyn SupportedKxGroup>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let address: SocketAddr = site.gateway.https();
    let stream = crate::support::raw::connect(address);
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}
