//! What do real TLS clients settle with the gateway? Versions, suites, groups and certificates, by openssl and sslscan;
//! and what becomes of hellos that come in pieces, are broken, or break off.

use std::io::{Read, Write};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::support::backend::Backend;
use crate::support::certificate::{Authority, Identity};
use crate::support::gateway::{HTTPS, Plan, TestGateway, until};
use crate::support::manifests::{all_to, route_on, service};
use crate::support::openssl::visit;
use crate::support::raw;
use crate::support::tool;

/// A server for `host` with the Secrets `names`.
fn manifests(web: &Backend, host: &str, names: &str) -> String {
    let gateway = format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: edge, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTPS}, name: https, protocol: HTTPS }}
    hosts: ["{host}"]
    tls: {{ mode: SIMPLE, credentialNames: [{names}] }}
"#
    );
    let route = route_on("istio-system/edge", "web", "*", &all_to("web.test"));
    [gateway, service("web.test", web.address, "HTTP"), route].concat()
}

fn rsa(authority: &Authority, name: &str) -> Identity {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    Identity { certificate: authority.sign(&params, &key).unwrap(), key: key.serialize_pem() }
}

/// Two names, each with an RSA and an ECDSA certificate, and a wildcard beside them, all of one server.
fn several(web: &Backend, settings: &str) -> TestGateway {
    let authority = Authority::new();
    let secrets = [
        rsa(&authority, "a.test").secret("a-rsa"),
        authority.identity(&["a.test"]).secret("a-ecdsa"),
        rsa(&authority, "b.test").secret("b-rsa"),
        authority.identity(&["*.w.test"]).secret("w-ecdsa"),
        authority.identity(&["b.test"]).secret("b-ecdsa"),
    ];
    Plan::new()
        .manifest("site.yaml", &manifests(web, "*", "a-rsa, a-ecdsa, b-rsa, w-ecdsa, b-ecdsa"))
        .manifest("secrets.yaml", &secrets.concat())
        .settings(settings)
        .start()
}

#[test]
fn each_client_gets_the_certificate_for_its_name_and_its_algorithms() {
    let web = Backend::http1("web");
    let gateway = several(&web, "");
    // The names of a certificate, and the kind of its key.
    let served = |arguments: &[&str]| {
        let visit = visit(gateway.https(), "a.test", arguments);
        assert!(visit.is_served(), "{arguments:?}: {visit:?}");
        let begin = visit.0.find("-----BEGIN").unwrap();
        let mut reader = Command::new("openssl");
        reader.args(["x509", "-noout", "-text"]).stdin(std::process::Stdio::piped());
        let mut reader = reader.stdout(std::process::Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(visit.0[begin..].as_bytes()).unwrap();
        let text = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
        let name = text.lines().find_map(|line| line.trim().strip_prefix("DNS:")).unwrap().to_owned();
        (name, if text.contains("id-ecPublicKey") { "ECDSA" } else { "RSA" })
    };
    let only_rsa = ["-sigalgs", "rsa_pss_rsae_sha256"];
    let rsa_suite = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    for (name, further, expected) in [
        ("a.test", &[][..], ("a.test", "ECDSA")),
        ("a.test", &only_rsa, ("a.test", "RSA")),
        ("b.test", &[], ("b.test", "ECDSA")),
        ("b.test", &rsa_suite, ("b.test", "RSA")),
        ("x.w.test", &[], ("*.w.test", "ECDSA")),
        ("unknown.test", &only_rsa, ("a.test", "RSA")),
        ("", &[], ("a.test", "ECDSA")),
        ("", &["-tls1_2"], ("a.test", "ECDSA")),
    ] {
        let asked = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let (found, kind) = served(&[&asked, further].concat());
        assert_eq!((found.as_str(), kind), expected, "{name} {further:?}");
    }
}

#[test]
fn a_scan_finds_nothing_weak() {
    let Some(sslscan) = tool::needed("sslscan") else { return };
    let web = Backend::http1("web");
    let gateway = several(&web, "");
    let mut scan = Command::new(sslscan);
    scan.args(["--no-colour", "--show-certificate", "--sni-name=a.test"]).arg(gateway.https().to_string());
    let output = scan.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] {
        let line = text.lines().find(|line| line.starts_with(version)).unwrap_or_else(|| panic!("{version}: {text}"));
        assert_eq!(line.contains("enabled"), version >= "TLSv1.2", "{line}");
    }
    let accepted = |version: &str| -> Vec<&str> {
        let lines = text.lines().filter(|line| line.contains(version) && line.contains(" bits "));
        let mut suites: Vec<_> = lines.filter_map(|line| line.split_whitespace().nth(4)).collect();
        suites.sort_unstable();
        suites
    };
    assert_eq!(
        accepted("TLSv1.3"),
        ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
        "{text}"
    );
    let of_tls12 = accepted("TLSv1.2");
    let is_good = |suite: &&str| suite.starts_with("ECDHE-") && (suite.contains("GCM") || suite.contains("POLY1305"));
    assert!(of_tls12.len() == 6 && of_tls12.iter().all(is_good), "{of_tls12:?}");
    for word in ["Session renegotiation not supported", "Compression disabled", "not vulnerable to heartbleed"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("X25519") || text.contains("x25519"), "{text}");
}

/// A whole ClientHello of openssl for `a.test`, as it would stand on the wire.
fn client_hello() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address, "-servername", "a.test"]);
    client.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut client = client.spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
    stream.read_exact(&mut body).unwrap();
    drop(stream);
    client.wait().unwrap();
    record.extend(body);
    record
}

#[test]
fn a_hello_in_pieces_is_one_hello() {
    let web = Backend::http1("web");
    let gateway = several(&web, "");
    let whole = client_hello();
    let (head, body) = whole.split_at(5);
    // One record for every seven bytes, each with the type and version of the whole.
    let records: Vec<u8> =
        body.chunks(7).flat_map(|piece| [&head[..3], &[0, piece.len() as u8], piece].concat()).collect();
    let segments = |bytes: &[u8], size: usize| {
        let mut stream = raw::connect(gateway.https());
        stream.set_nodelay(true).unwrap();
        for piece in bytes.chunks(size) {
            stream.write_all(piece).unwrap();
        }
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    for (case, bytes, size) in
        [("whole", &whole, 9999), ("segments", &whole, 3), ("records", &records, 9999), ("both", &records, 2)]
    {
        let answer = segments(bytes, size);
        assert_eq!((answer[0], answer[5]), (22, 2), "{case}: a ServerHello");
    }
}

#[test]
fn broken_handshakes_end_and_are_counted() {
    let web = Backend::http1("web");
    let gateway = several(&web, "[http]\nhandshake_timeout = \"1s\"\n");
    let whole = client_hello();
    let mut wrong = whole.clone();
    wrong[9] = 9;
    for garbage in [&b"\x16\x03\x01\xff\xff garbage"[..], b"\x16\x03\x01\0\0", b"\x16\xff\xff\0\x05hello", &wrong] {
        let mut stream = raw::connect(gateway.https());
        stream.write_all(garbage).unwrap();
        assert!(raw::read_to_end(&mut stream).1, "{garbage:?}");
    }
    // One goes in the middle of its hello, one after it, and one says no more after either.
    for sent in [&whole[..40], &whole] {
        let mut gone = raw::connect(gateway.https());
        gone.write_all(sent).unwrap();
        drop(gone);
        let mut silent = raw::connect(gateway.https());
        silent.write_all(sent).unwrap();
        assert!(raw::read_to_end(&mut silent).1, "closed after the limit");
    }
    let counted = |result: &str| gateway.metric("limani_tls_handshakes_total", &format!("result=\"{result}\""));
    let all = until(|| (counted("failed") >= 5.0 && counted("timeout") >= 2.0).then_some(()));
    assert!(all.is_some(), "{}", gateway.metrics());
    assert!(visit(gateway.https(), "a.test", &["-servername", "a.test"]).is_served());
}
