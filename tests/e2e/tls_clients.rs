//! What do real TLS clients settle with the gateway? Versions, suites, groups and certificates, by openssl and sslscan;
//! and what becomes of hellos that come in pieces, are broken, or break off.

use std::io::{Read, Write};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::support::backend::Backend;
use crate::support::certificate::{Authority, Identity};
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::{all_to, route_on, service, tls_gateway};
use crate::support::openssl::visit;
use crate::support::raw;
use crate::support::tool;

/// A server for `host` with the Secrets `names`.
fn manifests(web: &Backend, host: &str, names: &str) -> String {
    let gateway = tls_gateway("edge", host, &format!("mode: SIMPLE, credentialNames: [{names}]"));
    let route = route_on("istio-system/edge", "web", "*", &all_to("web.test"));
    [gateway, service("web.test", web.address, "HTTP"), route].concat()
}

/// A certificate with an RSA key.
fn rsa(authority: &Authority, names: &[&str]) -> Identity {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    Identity { certificate: authority.sign(&params, &key).unwrap(), key: key.serialize_pem() }
}

/// RSA and ECDSA side by side for `a.test`; `b.test` has RSA alone, and names below `w.test` ECDSA.
fn two(web: &Backend, settings: &str) -> TestGateway {
    let authority = Authority::new();
    let secrets = [
        rsa(&authority, &["a.test", "b.test"]).secret("rsa"),
        authority.identity(&["a.test", "*.w.test"]).secret("ecdsa"),
    ];
    Plan::new()
        .manifest("site.yaml", &manifests(web, "*", "rsa, ecdsa"))
        .manifest("secrets.yaml", &secrets.concat())
        .settings(settings)
        .start()
}

#[test]
fn each_client_gets_the_certificate_for_its_name_and_its_algorithms() {
    let web = Backend::http1("web");
    let gateway = two(&web, "");
    let only_rsa = ["-sigalgs", "rsa_pss_rsae_sha256"];
    let rsa_suite = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    for (name, further, expected) in [
        ("a.test", &[][..], "ECDSA"),
        ("a.test", &["-tls1_2"], "ECDSA"),
        ("a.test", &only_rsa, "RSA-PSS"),
        ("a.test", &rsa_suite, "RSA-PSS"),
        ("b.test", &[], "RSA-PSS"),
        ("x.w.test", &[], "ECDSA"),
        ("x.w.test", &only_rsa, "RSA-PSS"),
        ("unknown.test", &[], "ECDSA"),
        ("unknown.test", &only_rsa, "RSA-PSS"),
        ("", &[], "ECDSA"),
        ("", &["-tls1_2"], "ECDSA"),
    ] {
        let asked = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let visit = visit(gateway.https(), "a.test", &[&asked, further].concat());
        assert!(visit.is_served(), "{name} {further:?}: {visit:?}");
        assert_eq!(visit.word("Peer signature type:"), Some(expected), "{name} {further:?}");
    }
}

#[test]
fn a_scan_finds_nothing_weak() {
    let Some(sslscan) = tool::needed("sslscan") else { return };
    let web = Backend::http1("web");
    let gateway = two(&web, "");
    let mut scan = Command::new(sslscan);
    scan.args(["--no-colour", "--show-certificate", "--sni-name=a.test"]).arg(gateway.https().to_string());
    let output = scan.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] {
        let line = text.lines().find(|line| line.starts_with(version)).unwrap_or_else(|| panic!("{version}: {text}"));
        assert_eq!(line.contains("enabled"), version >= "TLSv1.2", "{line}");
    }
    let accepted = |version: &str| -> Vec<&str> {
        let is_suite = |line: &&str| line.starts_with("Preferred") || line.starts_with("Accepted");
        let lines = text.lines().filter(|line| is_suite(line) && line.contains(version));
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
    for word in ["Session renegotiation not supported", "TLSv1.2 not vulnerable to heartbleed", "x25519", "secp256r1"] {
        assert!(text.contains(word), "{word}: {text}");
    }
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
    let gateway = two(&web, "");
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
    let gateway = two(&web, "[http]\nhandshake_timeout = \"1s\"\n");
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
