//! Knot DNS with one zone that takes updates signed with a key (RFC 2136, RFC 8945).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tempfile::TempDir;

use super::address;
use super::server::Server;
use super::tool;

const PORT: u16 = 5353;

/// A running DNS server.
pub struct Knot {
    pub address: SocketAddr,
    /// The key's secret, in base64; its name is `limani` and its algorithm hmac-sha256.
    pub secret: &'static str,
    zone: String,
    folder: TempDir,
    server: Server,
}

impl Knot {
    /// One whose zone sends every name to this address; `None`, and a word that the test is skipped, without Knot.
    pub fn start(zone: &str, every_name: Ipv4Addr) -> Option<Self> {
        let program = tool::needed("knotd")?;
        let (folder, address) = (tempfile::tempdir().expect("a folder"), SocketAddr::from((address::fresh(), PORT)));
        let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=";
        let path = folder.path().display();
        let settings = format!(
            "server:\n  rundir: \"{path}\"\n  listen: {}@{PORT}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\n\
             log:\n- target: stdout\n  any: info\n\
             database:\n  storage: \"{path}\"\n\
             key:\n- id: limani\n  algorithm: hmac-sha256\n  secret: {secret}\n\
             acl:\n- id: updates\n  key: limani\n  action: update\n\
             zone:\n- domain: {zone}\n  storage: \"{path}\"\n  file: zone\n  acl: updates\n",
            address.ip()
        );
        let records = format!(
            "{zone}. 60 SOA ns.{zone}. admin.{zone}. 1 60 60 600 1\n{zone}. 60 NS ns.{zone}.\n\
             *.{zone}. 60 A {every_name}\nns.{zone}. 60 A {}\n",
            address.ip()
        );
        fs::write(folder.path().join("knot.conf"), settings).expect("settings are written");
        fs::write(folder.path().join("zone"), records).expect("the zone is written");
        let mut command = Command::new(program);
        command.args(["-c", "knot.conf"]).current_dir(folder.path());
        let server = Server::start(command, folder.path().join("knot.log"), &[address]);
        Some(Knot { address, secret, zone: zone.to_owned(), folder, server })
    }

    /// All records of the zone, one a line.
    pub fn records(&self) -> String {
        let program = tool::needed("knotc").expect("it comes with knotd");
        let mut command = Command::new(program);
        let output =
            command.args(["-c", "knot.conf", "zone-read", &self.zone]).current_dir(self.folder.path()).output();
        let output = output.expect("knotc runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How many updates it took.
    pub fn updates(&self) -> usize {
        self.server.log().matches("DDNS, finished").count()
    }
}
