//! Certificates that are there already: renewed in time, ordered once, and never lost.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::ca::{Ca, Door};
use crate::support::gateway::{Plan, TestGateway};
use crate::support::issued::{get, issuer, leaf, route, until, until_renewed, until_served};
use crate::support::pebble::PebblePlan;
use crate::support::{raw, tool};

const HOST: &str = "web.example.test";

/// A gateway with one route, whose certificate this CA issues.
fn site(ca: &Ca, web: &Backend) -> Plan {
    Plan::new().settings(&issuer("ca", &ca.directory, &ca.root, "")).settings(&route(HOST, web.address))
}

#[test]
fn a_restart_orders_nothing() {
    let (web, ca) = (Backend::http1("web"), Ca::new());
    let mut gateway = site(&ca, &web).start();
    until_served(&gateway, HOST, &ca.root());
    let before = leaf(&gateway, HOST);
    for _ in 0..2 {
        gateway.kill();
        gateway.spawn_again();
        gateway.wait_until_ready();
        // What was issued is served from the first connection on.
        assert_eq!(get(&gateway, HOST, &ca.root()).status, 200, "{}", gateway.log());
        assert_eq!(leaf(&gateway, HOST), before);
    }
    assert_eq!((ca.asked(Door::NewOrder).len(), ca.asked(Door::NewAccount).len()), (1, 1));
}

#[test]
fn a_window_in_the_past_renews_at_once_with_a_new_key_and_names_the_old_certificate() {
    let (web, ca) = (Backend::http1("web"), Ca::new().renewed_early(1));
    let gateway = site(&ca, &web).start();
    let second = until(|| (ca.issued() == 2).then_some(()));
    assert!(second.is_some(), "{}", gateway.log());
    let served = || leaf(&gateway, HOST).filter(|leaf| leaf.serial() == 1001);
    assert!(until(served).is_some(), "{}", gateway.log());
    let orders = ca.asked(Door::NewOrder);
    assert!(orders[0]["replaces"].is_null(), "{orders:?}");
    // The authority's key identifier, and the serial number 1000.
    assert!(orders[1]["replaces"].as_str().is_some_and(|text| text.ends_with(".A-g")), "{orders:?}");
    let keys: Vec<_> = ca.asked(Door::Finalize);
    assert_ne!(keys[0]["csr"], keys[1]["csr"]);
    assert_eq!(ca.asked(Door::NewOrder).len(), 2);

    // The gateway has looked at itself, and tells how it stands.
    let checked = || gateway.metric("limani_certificate_self_checks_total", "") >= 2.0;
    assert!(until(|| checked().then_some(())).is_some(), "{}", gateway.metrics());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let ends = gateway.metric("limani_certificate_not_after_seconds", HOST);
    assert!((now + 89.0 * 86_400.0..now + 91.0 * 86_400.0).contains(&ends), "{ends}: {}", gateway.metrics());
    let told = gateway.command(&["certs"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && text.contains(HOST) && text.contains("ca"), "{text}");
    assert!(gateway.admin("/certs").body.contains(HOST));
}

#[test]
fn a_ca_that_tells_its_window_is_obeyed() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    if !pebble.is_recent() {
        return;
    }
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, "") + &route(HOST, web.address);
    let mut gateway = plan.settings(&settings).start();
    until_served(&gateway, HOST, &pebble.root());
    let before = leaf(&gateway, HOST).expect("it is served");
    gateway.kill();
    let past = serde_json::json!({"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"},
                                  "explanationURL": "https://ca.test/incident"});
    pebble.set_renewal_info(&before.pem(), &past);
    // The CA said when it may be asked again; an operator who cannot wait forgets what it said.
    forget_state(&gateway.folder().join("acme"));
    gateway.spawn_again();
    gateway.wait_until_ready();
    until_renewed(&gateway, HOST, &before);
    assert!(pebble.log().contains("is a replacement of"), "{}", pebble.log());
    assert_eq!(pebble.issued(), 2);
}

fn forget_state(storage: &Path) {
    let _ = fs::remove_dir_all(storage.join("state"));
}

#[test]
fn two_gateways_on_one_storage_order_once() {
    let (web, first) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(first.address()).start() else { return };
    let storage = pebble.folder().join("shared");
    // Only the first address is looked at, whoever ordered: its gateway answers for both.
    let settings = format!("[acme]\nstorage = \"{}\"\n", storage.display())
        + &issuer("pebble", &pebble.directory, &pebble.api_root, "challenges = [\"http-01\"]")
        + &route(HOST, web.address);
    let first = first.settings(&settings).start();
    let second = Plan::new().settings(&settings).start();
    let root = pebble.root();
    for gateway in [&first, &second] {
        until_served(gateway, HOST, &root);
    }
    assert_eq!(leaf(&first, HOST), leaf(&second, HOST));
    assert_eq!(pebble.issued(), 1, "{}\n---\n{}", first.log(), second.log());
}

#[test]
fn who_dies_during_an_order_is_succeeded_by_who_waits() {
    let (web, ca, storage) = (Backend::http1("web"), Ca::new().slow(10_000), tempfile::tempdir().unwrap());
    let start = || {
        let shared = format!("[acme]\nstorage = \"{}\"\n", storage.path().display());
        let plan = Plan::new().settings(&shared).settings(&issuer("ca", &ca.directory, &ca.root, ""));
        plan.settings(&route(HOST, web.address)).start()
    };
    let mut first = start();
    let is_ordered = || (ca.asked(Door::Finalize).len() == 1).then_some(());
    assert!(until(is_ordered).is_some(), "{}", first.log());
    let second = start();
    let waits = || second.admin("/certs").body.contains("at work on it").then_some(());
    assert!(until(waits).is_some(), "{}", second.admin("/certs").body);
    assert_eq!(ca.asked(Door::NewOrder).len(), 1);
    first.kill();
    ca.hurry();
    until_served(&second, HOST, &ca.root());
    assert_eq!((ca.asked(Door::NewOrder).len(), ca.asked(Door::NewAccount).len()), (2, 1));
}

#[test]
fn renewals_under_load_fail_no_handshake() {
    let (web, ca) = (Backend::http1("web"), Ca::new().validity(Duration::from_secs(9)));
    let gateway = site(&ca, &web).start();
    until_served(&gateway, HOST, &ca.root());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca.root).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (config, ended, served) = (Arc::new(config), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    request(&config, &gateway);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let renewed = until(|| (ca.issued() >= 4 || clients.iter().any(|client| client.is_finished())).then_some(()));
        ended.store(true, Ordering::Relaxed);
        assert!(renewed.is_some(), "{}", gateway.log());
    });
    assert!(ca.issued() >= 4 && served.load(Ordering::Relaxed) > 20, "{served:?}");
}

/// A verified handshake and a request on it; it panics if anything fails.
fn request(config: &Arc<ClientConfig>, gateway: &TestGateway) {
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(HOST).unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, raw::connect(gateway.https()));
    let asked = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn killed_at_any_moment_it_leaves_a_certificate_that_can_be_served() {
    let (web, ca) = (Backend::http1("web"), Ca::new().validity(Duration::from_secs(2)));
    let mut gateway = site(&ca, &web).start();
    until_served(&gateway, HOST, &ca.root());
    let mut chance = fastrand::Rng::new();
    for _ in 0..8 {
        // A moment of chance, while certificates are renewed all the time.
        std::thread::sleep(Duration::from_millis(chance.u64(100..900)));
        gateway.kill();
        pair_fits(&gateway.folder().join("acme"));
        gateway.spawn_again();
    }
    gateway.wait_until_ready();
    assert!(leaf(&gateway, HOST).is_some(), "{}", gateway.log());
    until_served(&gateway, HOST, &ca.root());
}

/// The certificate of the store belongs to its key.
fn pair_fits(storage: &Path) {
    let folder = storage.join("hosts").join(HOST);
    let chain = CertificateDer::pem_file_iter(folder.join("tls.crt")).expect("a certificate is there");
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("it is whole");
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).expect("its key is there");
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    server.with_single_cert(chain, key).expect("they belong together");
}

#[test]
fn a_full_disk_orders_nothing_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return tool::skip("a small disk can be mounted by root alone");
    };
    let (web, ca) = (Backend::http1("web"), Ca::new());
    let storage = format!("[acme]\nstorage = \"{}\"\n", disk.0.path().display());
    let mut gateway = Plan::new()
        .settings(&storage)
        .settings(&issuer("ca", &ca.directory, &ca.root, ""))
        .settings(&route(HOST, web.address))
        .start();
    until_served(&gateway, HOST, &ca.root());
    let before = leaf(&gateway, HOST);
    gateway.kill();
    disk.fill();
    gateway.spawn_again();
    gateway.wait_until_ready();
    assert_eq!(leaf(&gateway, HOST), before, "{}", gateway.log());
    assert_eq!(get(&gateway, HOST, &ca.root()).status, 200);
    gateway.kill();

    // Another name, for which there is no room.
    let other = "other.example.test";
    let settings = fs::read_to_string(gateway.folder().join("limani.toml")).unwrap();
    fs::write(gateway.folder().join("limani.toml"), settings.replace(HOST, other)).unwrap();
    gateway.spawn_again();
    gateway.wait_for_log(|line| line.contains("was not issued") && line.contains(other));
    assert!(ca.issued() <= 2);
    gateway.kill();
    disk.empty();
    forget_state(disk.0.path());
    gateway.spawn_again();
    gateway.wait_until_ready();
    until_served(&gateway, other, &ca.root());
}

/// A file system of 1 MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder to mount at");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(folder))
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.path().join("filler")).expect("a file can be made");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
