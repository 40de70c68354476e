//! How long do 10 000 certificates take to load, and to reload when one of them changed? How much memory do they take,
//! that of the crypto library included?
//!
//! Once as 10 000 servers that name a Secret of a folder each, and once as one server of 10 000 hosts whose certificates
//! an ACME issuer gave. Loading is everything from the files to the snapshot: reading folders and manifests, checking,
//! and making keys ready to sign. Memory is what the process grew by.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use limani::bench::Configuration;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNT: usize = 10_000;

/// Writes the certificate of a host into a folder of its own.
fn certificate(folder: &Path, host: usize, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![format!("h{host}.test")]).expect("a good name");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let folder = folder.join(format!("h{host}.test"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("tls.crt"), certificate.pem()).expect("a file of our own");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file of our own");
    let _ = fs::set_permissions(folder.join("tls.key"), fs::Permissions::from_mode(0o600));
}

/// How the certificates are asked for.
#[derive(Clone, Copy)]
enum Shape {
    /// A server for each, that names its Secret.
    Servers,
    /// One server with all hosts, that an ACME issuer gave certificates for.
    Acme,
}

impl Shape {
    fn servers(self) -> String {
        let tls = "tls: { mode: SIMPLE, credentialName";
        let server = |name: &str, hosts: &str, credential: &str| {
            format!(
                "  - {{ port: {{ number: 443, name: {name}, protocol: HTTPS }}, hosts: [{hosts}], {tls}: {credential} }} }}\n"
            )
        };
        match self {
            Shape::Servers => (0..COUNT)
                .map(|host| server(&format!("h{host}"), &format!("h{host}.test"), &format!("h{host}.test")))
                .collect(),
            Shape::Acme => {
                let hosts: Vec<_> = (0..COUNT).map(|host| format!("h{host}.test")).collect();
                server("all", &hosts.join(", "), "acme://")
            }
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Shape::Servers => "[tls]\nsecrets = \"store/hosts\"\n",
            Shape::Acme => "[acme]\nstorage = \"store\"\ndirectory = \"https://ca.test/directory\"\n",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Shape::Servers => "servers with a certificate each",
            Shape::Acme => "certificates of one server, by acme://",
        }
    }
}

fn gateway(shape: Shape) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{ name: gw, namespace: bench }}\n\
         spec:\n  selector: {{ istio: ingressgateway }}\n  servers:\n{}",
        shape.servers()
    )
}

/// What the process holds now, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn main() {
    // Each in a process of its own, so that neither uses what the other has freed.
    let shape = match std::env::args().nth(1).as_deref() {
        Some("servers") => Shape::Servers,
        Some("acme") => Shape::Acme,
        _ => {
            for shape in ["servers", "acme"] {
                let program = std::env::current_exe().expect("our own path");
                let status = Command::new(program).arg(shape).status().expect("ourselves");
                assert!(status.success(), "{shape}: {status}");
            }
            return;
        }
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench");
    let issuer = Issuer::new(params, KeyPair::generate().expect("a key"));
    let certs = folder.path().join("store/hosts");
    (0..COUNT).for_each(|host| certificate(&certs, host, &issuer));
    fs::write(folder.path().join("gateway.yaml"), gateway(shape)).expect("a file of our own");
    let settings = folder.path().join("limani.toml");
    let own = shape.settings();
    let text = format!("[gateway]\nnamespace = \"bench\"\n[source]\nmanifests = [\"gateway.yaml\"]\n{own}");
    fs::write(&settings, text).expect("a file of our own");
    // A file that was only just written is read again.
    std::thread::sleep(Duration::from_millis(1100));

    let before = resident();
    let clock = Instant::now();
    let mut configuration = Configuration::load(&settings).expect("the certificates are good");
    let loaded = clock.elapsed();
    let held = resident().saturating_sub(before) / 1024;
    println!("{COUNT} {}: {loaded:?} (limit 1 s), {held} MiB (limit 60)", shape.title());
    certificate(&certs, COUNT / 2, &issuer);
    let clock = Instant::now();
    drop(configuration.reload());
    println!("a reload that changes one: {:?}", clock.elapsed());
}
