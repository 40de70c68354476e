//! What does the demo write into its folder? The manifests and limani.toml.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Options;
use super::origins::Role;

/// The manifests as they are shipped in conf/demo.
const MANIFESTS: [(&str, &str); 8] = [
    ("bookinfo.yaml", include_str!("../../conf/demo/bookinfo.yaml")),
    ("grafana.yaml", include_str!("../../conf/demo/grafana.yaml")),
    ("https.yaml", include_str!("../../conf/demo/https.yaml")),
    ("inside.yaml", include_str!("../../conf/demo/inside.yaml")),
    ("kiali.yaml", include_str!("../../conf/demo/kiali.yaml")),
    ("reviews.yaml", include_str!("../../conf/demo/reviews.yaml")),
    ("services.yaml", include_str!("../../conf/demo/services.yaml")),
    ("tracing.yaml", include_str!("../../conf/demo/tracing.yaml")),
];

/// Writes everything and returns the path of limani.toml.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write(folder: &Path, options: &Options, origins: &[(Role, SocketAddr)]) -> anyhow::Result<PathBuf> {
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("cannot make {}", manifests.display()))?;
    for (name, text) in MANIFESTS {
        let path = manifests.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let settings = folder.join("limani.toml");
    fs::write(&settings, limani_toml(options, origins))
        .with_context(|| format!("cannot write {}", settings.display()))?;
    Ok(settings)
}

fn limani_toml(options: &Options, origins: &[(Role, SocketAddr)]) -> String {
    format!(
        "# Written by `limani demo`; every start writes it anew.\n\
         [listen]\naddress = \"{address}\"\nports = {{ 80 = {http}, 443 = {https} }}\n\n\
         [source]\nmanifests = [\"manifests\"]\n\
         variables = {{ INGRESS_DOMAIN = \"demo.localhost\", HTTPS_PORT = \"{https}\" }}\n\n\
         # HTTPS with an authority that is made at the first start.\n[tls]\nlocal_ca = true\n\n\
         [admin]\naddress = \"{admin}\"\nready = \"{ready}\"\nmetrics = \"{metrics}\"\n\n\
         # Ctrl-C should not keep anybody waiting.\n[shutdown]\ngrace = \"0s\"\ndrain = \"5s\"\n\n\
         # Where the embedded services listen.\n[hosts]\n{hosts}",
        address = options.address,
        http = options.http,
        https = options.https,
        admin = options.admin(),
        ready = options.ready(),
        metrics = options.metrics(),
        hosts = hosts(origins),
    )
}

fn hosts(origins: &[(Role, SocketAddr)]) -> String {
    let mut by_host: BTreeMap<String, String> = BTreeMap::new();
    for (role, address) in origins {
        // Writing to a String cannot fail.
        let _ = writeln!(
            by_host.entry(role.host()).or_default(),
            "  {{ address = \"{address}\", labels = {{ version = \"{}\" }} }},",
            role.version()
        );
    }
    by_host.into_iter().map(|(host, addresses)| format!("\"{host}\" = [\n{addresses}]\n")).collect()
}
