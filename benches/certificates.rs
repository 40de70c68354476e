//! How long do 10 000 servers with a certificate each take to load, and to reload when one of them changed? How much
//! memory do they take, that of the crypto library included?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use limani::bench::Configuration;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const COUNT: usize = 10_000;

/// Writes the certificate of a host into a folder of its own.
fn certificate(folder: &Path, host: usize, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![format!("h{host}.test")]).expect("a good name");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let folder = folder.join(format!("h{host}"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("tls.crt"), certificate.pem()).expect("a file of our own");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file of our own");
    let _ = fs::set_permissions(folder.join("tls.key"), fs::Permissions::from_mode(0o600));
}

fn gateway() -> String {
    let servers = (0..COUNT).map(|host| {
        format!(
            "  - {{ port: {{ number: 443, name: h{host}, protocol: HTTPS }}, hosts: [h{host}.test], \
             tls: {{ mode: SIMPLE, credentialName: h{host} }} }}\n"
        )
    });
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{ name: gw, namespace: bench }}\n\
         spec:\n  selector: {{ istio: ingressgateway }}\n  servers:\n{}",
        servers.collect::<String>()
    )
}

/// What the process holds now, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench");
    let issuer = Issuer::new(params, KeyPair::generate().expect("a key"));
    let certs = folder.path().join("certs");
    (0..COUNT).for_each(|host| certificate(&certs, host, &issuer));
    fs::write(folder.path().join("gateway.yaml"), gateway()).expect("a file of our own");
    let settings = folder.path().join("limani.toml");
    let text =
        "[gateway]\nnamespace = \"bench\"\n[source]\nmanifests = [\"gateway.yaml\"]\n[tls]\nsecrets = \"certs\"\n";
    fs::write(&settings, text).expect("a file of our own");
    // A file that was only just written is read again.
    std::thread::sleep(Duration::from_millis(1100));

    let before = resident();
    let clock = Instant::now();
    let mut configuration = Configuration::load(&settings).expect("the certificates are good");
    let loaded = clock.elapsed();
    let held = resident().saturating_sub(before) / 1024;
    println!("{COUNT} servers with a certificate each: {loaded:?} (limit 1 s), {held} MiB (limit 60)");
    certificate(&certs, COUNT / 2, &issuer);
    let clock = Instant::now();
    drop(configuration.reload());
    println!("a reload that changes one: {:?}", clock.elapsed());
}
