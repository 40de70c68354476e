//! Endpoints of the mesh: mutual TLS without a rule, identities that are verified, and certificates that change.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_tungstenite::tungstenite::Message;

use crate::support::backend::Backend;
use crate::support::certificate::{Authority, Identity};
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::{all_to, http_gateway, route};
use crate::support::relay::Relay;
use crate::support::websocket;

const OURS: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway";
const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";
const IDENTITY: &str = "[identity]\ncertificate = \"own.crt\"\nkey = \"own.key\"\nroot = \"root.crt\"\n";

fn member(authority: &Authority, id: &str) -> Identity {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().expect("an ASCII text"))];
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = authority.sign(&params, &key).expect("a certificate");
    Identity { certificate, key: key.serialize_pem() }
}

/// A service of the mesh with these endpoints, each as the lines of its settings.
fn in_mesh(host: &str, endpoints: &[(SocketAddr, &str)]) -> String {
    let name = host.replace('.', "-");
    let endpoint = |(address, more): &(SocketAddr, &str)| {
        format!("  - {{ address: {}, ports: {{ main: {} }}, {more} }}\n", address.ip(), address.port())
    };
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{ name: {name}, namespace: default }}
spec:
  hosts: [{host}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{ number: 80, name: main, protocol: HTTP }}]
  endpoints:
{endpoints}"
    )
}

const MUTUAL: &str = "labels: { security.istio.io/tlsMode: istio }, serviceAccount: web";
const PLAIN: &str = "labels: { app: old }";

fn write_identity(folder: &std::path::Path, identity: &Identity, roots: &str) {
    std::fs::write(folder.join("own.crt"), &identity.certificate).unwrap();
    std::fs::write(folder.join("own.key"), &identity.key).unwrap();
    std::fs::write(folder.join("root.crt"), roots).unwrap();
}

fn start(manifests: &[String], identity: &Identity, roots: &str) -> TestGateway {
    let plan = Plan::new().settings(IDENTITY).manifest("all.yaml", &manifests.concat());
    write_identity(plan.folder(), identity, roots);
    plan.mesh(LOG).start()
}

const LOG: &str = "accessLogFile: /dev/stdout
accessLogFormat: \"%REQ(:AUTHORITY)% %UPSTREAM_TLS_VERSION% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_LOCAL_URI_SAN%\\n\"
";

#[test]
fn each_endpoint_is_spoken_to_as_it_wants() {
    let authority = Authority::new();
    let (old, new) = (Backend::http1("old"), Backend::http1("new"));
    let relay = Relay::new(&member(&authority, WEB), &[&authority], new.address);
    let wrong =
        Relay::new(&member(&authority, "spiffe://cluster.local/ns/default/sa/other"), &[&authority], new.address);
    let ours = member(&authority, OURS);
    let gateway = start(
        &[
            http_gateway(),
            in_mesh("web.test", &[(relay.address, MUTUAL), (old.address, PLAIN)]),
            in_mesh("wrong.test", &[(wrong.address, MUTUAL)]),
            route("web", "web.test", &all_to("web.test")),
            route("wrong", "wrong.test", &all_to("wrong.test")),
        ],
        &ours,
        &authority.pem,
    );
    let names: std::collections::BTreeSet<String> = (0..40).map(|_| gateway.get("web.test", "/").backend()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["new", "old"]);
    let visits = relay.visits();
    assert_eq!(visits.len(), 1, "one connection is enough");
    let first = &visits[0];
    assert_eq!(first.server_name, "outbound_.80_._.web.test");
    assert_eq!(first.offered, ["istio-http/1.1", "istio", "http/1.1"]);
    assert_eq!(first.client, CertificateDer::from_pem_slice(ours.certificate.as_bytes()).unwrap());
    assert_eq!(gateway.get("wrong.test", "/").status, 503, "another service account");
    let metrics = gateway.metrics();
    let labels = format!("source_principal=\"{OURS}\"");
    let line = metrics.lines().find(|line| line.starts_with("istio_requests_total") && line.contains(&labels));
    let line = line.expect("requests over mutual TLS are counted");
    assert!(line.contains(&format!("destination_principal=\"{WEB}\"")), "{line}");
    for expected in [format!("web.test TLSv1.3 {WEB} {OURS}"), "web.test - - -".to_owned()] {
        let told = || gateway.access_log().lines().any(|line| line == expected).then_some(());
        until(told).unwrap_or_else(|| panic!("{expected} is not in\n{}", gateway.access_log()));
    }
    // Without the label it is spoken to in plaintext, and no connection of before carries a request.
    let moved = in_mesh("web.test", &[(relay.address, PLAIN), (old.address, PLAIN)]);
    gateway.write("all.yaml", &[http_gateway(), moved, route("web", "web.test", &all_to("web.test"))].concat());
    gateway.reload();
    until(|| relay.visits()[0].ended.then_some(())).expect("it is closed");
    assert!((0..10).all(|_| !gateway.get("web.test", "/").body.contains("new")), "nobody shakes hands");
}

/// One keep-alive connection that asks again and again; returns the statuses that were not 200.
fn ask_until(gateway: SocketAddr, done: &AtomicBool, count: &AtomicUsize) -> Vec<String> {
    let mut stream = BufReader::new(TcpStream::connect(gateway).expect("the gateway listens"));
    let mut failures = Vec::new();
    while !done.load(Ordering::Relaxed) {
        stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").expect("it is open");
        let mut status = String::new();
        stream.read_line(&mut status).expect("an answer");
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a header");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).expect("a body");
        if !status.starts_with("HTTP/1.1 200") {
            failures.push(status);
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn certificates_change_under_load_and_nothing_fails() {
    let (authority, next) = (Authority::new(), Authority::new());
    let web = Backend::http1("web");
    let relay = Relay::new(&member(&authority, WEB), &[&authority, &next], web.address);
    let chat = Relay::new(&member(&authority, WEB), &[&authority], websocket::echo_service());
    let gateway = start(
        &[
            http_gateway(),
            in_mesh("web.test", &[(relay.address, MUTUAL)]),
            in_mesh("chat.test", &[(chat.address, MUTUAL)]),
            route("web", "web.test", &all_to("web.test")),
            route("chat", "chat.test", &all_to("chat.test")),
        ],
        &member(&authority, OURS),
        &authority.pem,
    );
    let mut socket = websocket::open(gateway.http(), "chat.test", "/").await;
    let both = format!("{}{}", authority.pem, next.pem);
    // A new certificate, a wider bundle, and a certificate of the new authority.
    let steps = [
        (member(&authority, OURS), authority.pem.clone()),
        (member(&authority, OURS), both.clone()),
        (member(&next, OURS), both),
    ];
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..4).map(|_| scope.spawn(|| ask_until(gateway.http(), &done, &count))).collect();
        let more = |least: usize| {
            let wanted = count.load(Ordering::Relaxed) + least;
            until(|| (count.load(Ordering::Relaxed) >= wanted).then_some(())).expect("requests go on");
        };
        more(50);
        for (identity, roots) in &steps {
            write_identity(gateway.folder(), identity, roots);
            gateway.reload();
            let now = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
            until(|| relay.visits().iter().any(|visit| visit.client == now).then_some(()))
                .expect("it is shown at once");
            let retired = || relay.visits().iter().all(|visit| visit.ended || visit.client == now).then_some(());
            until(retired).expect("connections with the old one end");
            more(50);
        }
        done.store(true, Ordering::Relaxed);
        for load in load {
            assert_eq!(load.join().expect("the load runs to its end"), [""; 0]);
        }
    });
    let message = Message::text("still here");
    socket.send(message.clone()).await.expect("the socket is open");
    assert_eq!(socket.next().await.expect("an echo").expect("a message"), message);
    assert_eq!(chat.visits().len(), 1);
    assert!(!chat.visits()[0].ended);
}
