//! Route tables of any size, as the side-by-side benchmark makes them: five rules for each host.

#![allow(dead_code)] // each bench uses its own part of it

use std::fmt::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

const HOSTS_PER_FILE: usize = 500;

/// A folder with settings and manifests.
pub struct Table {
    folder: TempDir,
    pub settings: PathBuf,
}

impl Table {
    /// `rules` is a multiple of 5.
    pub fn new(rules: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).expect("a folder");
        write(&manifests.join("00-base.yaml"), &base());
        let hosts: Vec<usize> = (0..rules / 5).collect();
        for (file, hosts) in hosts.chunks(HOSTS_PER_FILE).enumerate() {
            let text: String = hosts.iter().map(|host| virtual_service(&format!("h{host}"))).collect();
            write(&manifests.join(format!("30-routes-{file:04}.yaml")), &text);
        }
        let settings = folder.path().join("limani.toml");
        write(&settings, "[gateway]\nnamespace = \"bench\"\n[source]\nmanifests = [\"manifests\"]\n");
        Table { folder, settings }
    }

    /// Writes the small file that a reload finds changed.
    pub fn change(&self, turn: usize) {
        let file = self.folder.path().join("manifests/39-extra.yaml");
        write(&file, &virtual_service(&format!("new{turn}")));
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file of our own");
}

fn base() -> String {
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: gw, namespace: bench }
spec:
  selector: { istio: ingressgateway }
  servers:
  - port: { number: 8080, name: http, protocol: HTTP }
    hosts: [\"*\"]
",
    );
    for name in ["a", "b"] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{ name: be-{name}, namespace: bench }}
spec:
  hosts: [be-{name}.bench.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{ number: 80, name: http, protocol: HTTP, targetPort: 9080 }}]
  endpoints: [{{ address: 127.0.0.1 }}]
"
        );
    }
    text
}

fn virtual_service(name: &str) -> String {
    let to = |backend| {
        format!("[{{ destination: {{ host: be-{backend}.bench.svc.cluster.local, port: {{ number: 80 }} }} }}]")
    };
    let (a, b) = (to("a"), to("b"));
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: {name}, namespace: bench }}
spec:
  hosts: [{name}.example.com]
  gateways: [gw]
  http:
  - match: [{{ uri: {{ prefix: /header }}, headers: {{ x-bench: {{ exact: \"1\" }} }} }}]
    route: {b}
  - match: [{{ uri: {{ exact: /exact }} }}]
    route: {a}
  - match: [{{ uri: {{ regex: \"/regex/{name}/[0-9]+\" }} }}]
    route: {b}
  - match: [{{ uri: {{ prefix: /prefix }} }}]
    route: {a}
  - route: {b}
"
    )
}
