//! Does the compiler agree with Istio's own test cases (../shared/cases/routing), as far as they can be judged without a
//! socket? The folder may be absent; then nothing is tested.

mod found;
mod live;
mod requests;
mod tables;

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Memory, compile, outbound};
use crate::analysis;
use crate::base::clock;
use crate::conformance::{self, Case, Falsified, Set, Verdict};
use crate::resource::ResourceSet;
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::outbound::Outbound;
use crate::source;

/// The cases of Istio's own tests of routing.
pub(crate) const ROUTING: Set =
    Set { folder: "routing", read: |folder| conformance::yaml_files(folder, "type"), judge, falsify };

fn judge(case: &Case) -> Verdict {
    let content = &case.content;
    match content["type"].as_str().unwrap_or_default() {
        "table" => tables::judge(content),
        _ if !has_manifests(content) => skipped("the case has no list of manifests"),
        _ if !matches!(content["proxy"]["type"].as_str(), Some("gateway" | "sidecar")) => {
            skipped("the proxy of the case is neither a gateway nor a sidecar")
        }
        "gateway-listeners" => listeners(content),
        "gateway-vhost" | "sidecar-route" | "simulation" | "route-unit" => requests::judge(content),
        other => skipped(&format!("no cases of type {other} are known")),
    }
}

fn has_manifests(case: &Value) -> bool {
    case["manifests"].as_array().is_some_and(|all| all.iter().all(Value::is_object))
}

fn skipped(why: &str) -> Verdict {
    Verdict::Skipped(why.to_owned())
}

/// Every row of a table and every expected value is made false, one after the other.
fn falsify(case: &Case) -> Vec<Falsified> {
    let rows = case.content["cases"].as_array().map(Vec::len).unwrap_or_default();
    let keys = ["expected", "want", "effective", "out", "intersection"];
    let of_rows = (0..rows).flat_map(|row| keys.map(|key| case.contradict(&format!("/cases/{row}/{key}"))));
    let expected = case.content["expected"].as_object();
    let names = expected.into_iter().flat_map(|map| map.keys()).filter(|name| !found::NOTES.contains(&name.as_str()));
    let of_request = names.map(|name| case.contradict(&format!("/expected/{name}")));
    of_rows.chain(of_request).flatten().collect()
}

fn listeners(case: &Value) -> Verdict {
    let world = World::new(case);
    let snapshot = world.snapshot();
    // Listeners that cannot be bound are left out; this is what an unprivileged process cannot bind.
    let addresses = snapshot.listeners.iter().map(|one| one.address);
    let possible = addresses.filter(|address| !world.unprivileged || address.port() >= 1024);
    let mut bound: Vec<_> = possible.map(|address| format!("{}_{}", address.ip(), address.port())).collect();
    let Some(wanted) = case["expected"]["listeners"].as_array() else { return skipped("no listeners are expected") };
    let mut wanted: Vec<_> = wanted.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect();
    bound.sort();
    wanted.sort();
    if bound == wanted { Verdict::Passed } else { Verdict::Failed(format!("{bound:?}, not {wanted:?}")) }
}

/// The address of the proxy in Istio's tests: an endpoint with it is the proxy itself.
const PROXY: &str = "1.1.1.1";

/// The Secret of every server that ends TLS.
const CREDENTIAL: &str = "of-the-case";

/// What a case configures.
struct World {
    resources: ResourceSet,
    settings: Settings,
    unprivileged: bool,
}

impl World {
    fn new(case: &Value) -> World {
        let proxy = &case["proxy"];
        let mut settings = Settings::default();
        settings.gateway.namespace = proxy["namespace"].as_str().unwrap_or("istio-system").to_owned();
        settings.gateway.labels = serde_json::from_value(proxy["labels"].clone()).unwrap_or_default();
        if settings.gateway.labels.is_empty() && proxy["type"] == "gateway" {
            // A pod that Services can select, and a Gateway without a selector selects anyway.
            settings.gateway.labels.insert("proxy".into(), "of-the-case".into());
        }
        settings.http.own_headers.forwarded_host =
            case["expected"]["requires"] == "proxyHeaders.xForwardedHost.enabled=true";
        for target in proxy["serviceTargets"].as_array().into_iter().flatten() {
            let number = |key: &str| target[key].as_u64().and_then(|number| u16::try_from(number).ok());
            settings.listen.ports.extend(number("servicePort").zip(number("targetPort")));
        }
        let labels = json!(settings.gateway.labels);
        // The cases name certificates, or none at all, and have no Secrets.
        let secret = secret(&settings.gateway.namespace);
        let manifests = case["manifests"].as_array().unwrap().iter().map(|one| with_proxy(one.clone(), &labels));
        // Istio's test asks a sidecar for the rules of a VirtualService alone; here a service has to lead to them.
        let asked = (case["type"] == "route-unit" && proxy["type"] == "sidecar").then(|| service(&case["request"]));
        let manifests = manifests.map(with_certificate).chain([secret]).chain(asked);
        let text = manifests.map(|one| one.to_string()).collect::<Vec<_>>().join("\n---\n");
        let (resources, settings) = gather(&text, settings);
        World { resources, settings, unprivileged: proxy["unprivileged"] == true }
    }

    fn snapshot(&self) -> Snapshot {
        compile(&self.resources, &self.settings, 1, clock::now(), &mut Memory::default()).0
    }

    fn outbound(&self) -> Outbound {
        let gateway = &self.settings.gateway;
        let workload = outbound::Workload { namespace: gateway.namespace.clone(), labels: gateway.labels.clone() };
        outbound::compile(&self.resources, &self.settings, &workload, clock::now(), &mut Memory::default()).0
    }
}

/// The labels of the proxy for every endpoint that is the proxy.
fn with_proxy(mut manifest: Value, labels: &Value) -> Value {
    for endpoint in manifest["spec"]["endpoints"].as_array_mut().into_iter().flatten() {
        if endpoint["address"] == PROXY {
            endpoint["labels"] = labels.clone();
        }
    }
    manifest
}

/// Servers that end TLS all have the same certificate.
fn with_certificate(mut manifest: Value) -> Value {
    let is_gateway = manifest["kind"] == "Gateway";
    for server in manifest["spec"]["servers"].as_array_mut().into_iter().flatten().filter(|_| is_gateway) {
        let tls = &mut server["tls"];
        if ["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"].iter().any(|mode| tls["mode"] == *mode) {
            for name in ["serverCertificate", "privateKey", "caCertificates"] {
                tls.as_object_mut().unwrap().remove(name);
            }
            tls["credentialName"] = json!(CREDENTIAL);
        }
    }
    manifest
}

fn secret(namespace: &str) -> Value {
    let pair = rcgen::generate_simple_self_signed(vec!["host.test".to_owned()]).unwrap();
    let certificate = STANDARD.encode(pair.cert.pem());
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": CREDENTIAL, "namespace": namespace },
        "data": { "tls.crt": certificate, "tls.key": STANDARD.encode(pair.signing_key.serialize_pem()), "ca.crt": certificate },
    })
}

fn service(request: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": { "name": "asked", "namespace": "default" },
        "spec": {
            "hosts": [request["host"]],
            "ports": [{ "number": request["port"], "name": "http", "protocol": "HTTP" }],
        },
    })
}

fn gather(text: &str, mut settings: Settings) -> (ResourceSet, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    fs::write(&file, text).unwrap();
    settings.source.manifests = vec![file];
    let gathered = source::gather_manifests(settings, &mut source::Cache::default());
    (gathered.resources, gathered.settings)
}

/// Unlike in Istio's own tests of routing, objects that break a rule of their kind are left out first.
fn compile_text(text: &str, settings: Settings) -> Snapshot {
    let (resources, settings) = gather(text, settings);
    let resources =
        analysis::analyze(&resources, &settings, analysis::Look::default(), &mut analysis::Memory::default()).0;
    compile(&resources, &settings, 1, clock::now(), &mut Memory::default()).0
}
