//! Do orders work, with a real CA? And does nonsense stay an error?

mod nonsense;
mod pebble;
mod records;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::snapshot::issuance::{ChallengeKind, KeyKind, Wanted};

/// An issuer of these challenges, whose storage is in `folder`.
fn issuer(directory: &str, root: Option<&Path>, challenges: &[ChallengeKind]) -> AcmeIssuer {
    AcmeIssuer {
        directory: directory.to_owned(),
        root: root.map(Path::to_owned),
        email: String::new(),
        profile: None,
        preferred_chain: None,
        external_account: None,
        challenges: challenges.to_vec(),
        dns: None,
    }
}

/// The issuer with its storage in `folder`, and the challenges that it answers.
fn acme(folder: &Path, issuer: AcmeIssuer) -> (Acme, Arc<Challenges>) {
    let challenges = Arc::new(Challenges::default());
    challenges.share(Some(folder));
    (Acme::new("test", issuer, Store::open(folder).unwrap(), challenges.clone()), challenges)
}

fn wanted(names: &[&str], key: KeyKind) -> Wanted {
    let identifier = |name: &&str| match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns((*name).to_owned()),
    };
    Wanted {
        folder: "hosts/test".to_owned(),
        identifiers: names.iter().map(identifier).collect(),
        issuers: vec!["test".to_owned()],
        key,
        profile: None,
    }
}

/// Where a program is that a test needs; a word on stderr if it is skipped.
fn program(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(home).chain([own, "/usr/sbin".into()]).collect();
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address of this machine that no other test has.
fn fresh_address() -> Ipv4Addr {
    Ipv4Addr::new(127, fastrand::u8(100..250), fastrand::u8(1..250), fastrand::u8(1..250))
}

/// Waits until somebody listens.
async fn listening(address: SocketAddr) {
    for _ in 0..1200 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody listens at {address}");
}

impl Acme {
    async fn gets(&self, names: &[&str]) -> Result<Issued, IssueError> {
        self.issue(Order { wanted: &wanted(names, KeyKind::EcdsaP256), replaces: None }).await
    }
}
