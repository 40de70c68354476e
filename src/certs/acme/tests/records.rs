//! Records by dynamic updates, at a real DNS server: Knot, where it is installed.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::certs::acme::dns::present;
use crate::snapshot::issuance::{DnsSolver, TsigKey};

const PORT: u16 = 5353;
const SECRET: &[u8] = b"secret-secret-secret-secret-secr";

struct Knot {
    server: SocketAddr,
    folder: tempfile::TempDir,
    _running: Running,
}

impl Knot {
    async fn start() -> Option<Knot> {
        let program = program("knotd")?;
        let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
        let path = folder.path().display();
        let secret = BASE64_STANDARD.encode(SECRET);
        let settings = format!(
            "server:\n  rundir: \"{path}\"\n  listen: {address}@{PORT}\n  udp-workers: 1\n  tcp-workers: 1\n\
             database:\n  storage: \"{path}\"\n\
             key:\n- id: limani\n  algorithm: hmac-sha384\n  secret: {secret}\n\
             acl:\n- id: updates\n  key: limani\n  action: update\n\
             zone:\n- domain: example.test\n  storage: \"{path}\"\n  file: zone\n  acl: updates\n\
             - domain: proofs.test\n  storage: \"{path}\"\n  file: proofs\n  acl: updates\n"
        );
        let zone = |name: &str| {
            format!(
                "{name}. 60 SOA ns.{name}. admin.{name}. 1 60 60 600 1\n{name}. 60 NS ns.{name}.\nns.{name}. 60 A {address}\n"
            )
        };
        let alias = "_acme-challenge.www.example.test. 60 CNAME www.proofs.test.\n";
        std::fs::write(folder.path().join("knot.conf"), settings).unwrap();
        std::fs::write(folder.path().join("zone"), zone("example.test") + alias).unwrap();
        std::fs::write(folder.path().join("proofs"), zone("proofs.test")).unwrap();
        std::fs::write(folder.path().join("secret"), secret + "\n").unwrap();
        let running = Running::start(Command::new(program).args(["-c", "knot.conf"]).current_dir(folder.path()));
        let server = SocketAddr::from((address, PORT));
        listening(server).await;
        Some(Knot { server, folder, _running: running })
    }

    fn solver(&self, zone: Option<&str>, algorithm: &str) -> DnsSolver {
        let secret_file = self.folder.path().join("secret");
        let key = TsigKey { name: "limani".into(), algorithm: algorithm.into(), secret_file };
        DnsSolver::Rfc2136 { server: self.server, zone: zone.map(str::to_owned), key: Some(key) }
    }

    /// The texts of a name in a zone.
    fn texts(&self, zone: &str, name: &str) -> Vec<String> {
        let mut command = Command::new(program("knotc").unwrap());
        let output = command.args(["-c", "knot.conf", "zone-read", zone, name, "TXT"]).current_dir(self.folder.path());
        let output = output.output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let mut texts: Vec<_> = lines.lines().filter_map(text).collect();
        texts.sort();
        texts
    }
}

#[tokio::test]
async fn records_are_added_beside_others_and_removed_alone() {
    let Some(knot) = Knot::start().await else { return };
    let name = "_acme-challenge.example.test.";
    let one = present(&knot.solver(None, "hmac-sha384"), name, "one").await.unwrap();
    let two = present(&knot.solver(Some("example.test"), "HMAC-SHA384."), name, "two").await.unwrap();
    one.seen().await.unwrap();
    two.seen().await.unwrap();
    assert_eq!(knot.texts("example.test", name), ["one", "two"]);
    one.withdraw().await;
    assert_eq!(knot.texts("example.test", name), ["two"]);
    two.withdraw().await;
    assert_eq!(knot.texts("example.test", name), [""; 0]);

    // An alias leads to another zone, where the record has to be.
    let www = present(&knot.solver(None, "hmac-sha384"), "_acme-challenge.www.example.test.", "three").await.unwrap();
    www.seen().await.unwrap();
    assert_eq!(knot.texts("proofs.test", "www.proofs.test."), ["three"]);
    // Dropped, as when an order is cancelled: a task removes it.
    drop(www);
    for _ in 0..200 {
        if knot.texts("proofs.test", "www.proofs.test.").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(knot.texts("proofs.test", "www.proofs.test."), [""; 0]);
}

#[tokio::test]
async fn a_server_that_refuses_is_named() {
    let Some(knot) = Knot::start().await else { return };
    let name = "_acme-challenge.example.test.";
    let without_key = DnsSolver::Rfc2136 { server: knot.server, zone: None, key: None };
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let table = [
        (without_key, name, "look at the key"),
        (knot.solver(None, "hmac-sha256"), name, "another key"),
        (knot.solver(None, "hmac-md5"), name, "hmac-md5"),
        (knot.solver(Some("other.test"), "hmac-sha384"), name, "is not in the zone"),
        (DnsSolver::Rfc2136 { server: nobody, zone: Some("example.test".into()), key: None }, name, "127.0.0.1:1"),
    ];
    for (solver, name, words) in table {
        let Err(error) = present(&solver, name, "x").await else { panic!("{solver:?}") };
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(knot.texts("example.test", name), [""; 0]);
}
