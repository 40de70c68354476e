//! Do the analyzers agree with Istio's own tests? The cases of `analyze`: what one analyzer says about some manifests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::analyzers::{ANALYZERS, Analyzer, Ask};
use super::report::{Places, Report};
use super::world::{Look, View, World};
use crate::base::clock;
use crate::conformance::{Case, Falsified, Set, Verdict};
use crate::resource::settings::Settings;
use crate::source::{Cache, gather_manifests, read_mesh_file};

/// `analyze`: what one analyzer says.
pub(crate) const ANALYZE: Set = Set { folder: "analyze", read, judge, falsify };

/// Analyzers that are left out, by the beginning of their name.
const LEFT_OUT: [(&str, &str); 6] = [
    ("deployment.ServiceAssociationAnalyzer", "it is about how applications are deployed beside Istio's sidecars"),
    ("injection.", "it is about the injection of Istio's sidecars"),
    ("webhook.", "it is about the installation of Istio"),
    ("externalcontrolplane.", "it is about the installation of Istio"),
    ("multicluster.", "it is about several clusters of Istio"),
    ("annotations.", "it is about annotations that only Istio's sidecars obey"),
];

/// What istioctl adds to the files of a case, beside the Pod of the gateway, which is in every world.
const INGRESS_SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports:
  - {name: http2, port: 80, protocol: TCP}
  - {name: https, port: 443, protocol: TCP}
  - {name: tcp, port: 31400, protocol: TCP}
  - {name: tls, port: 15443, protocol: TCP}
";

fn read(folder: &Path) -> Vec<Case> {
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let Value::Object(mut all) = serde_json::from_str(&text).unwrap() else { panic!("no object") };
    let Some(Value::Array(cases)) = all.remove("cases") else { panic!("no list of cases") };
    let case = |content: Value| Case {
        name: content["name"].as_str().unwrap().to_owned(),
        kind: analyzer(&content).to_owned(),
        folder: folder.to_owned(),
        content,
    };
    cases.into_iter().map(case).collect()
}

/// `gateway.SecretAnalyzer`, where the case says `&gateway.SecretAnalyzer{}`.
fn analyzer(content: &Value) -> &str {
    content["analyzer"].as_str().unwrap_or_default().trim_start_matches('&').trim_end_matches("{}")
}

fn judge(case: &Case) -> Verdict {
    let analyzers: Vec<&Analyzer> = ANALYZERS.iter().filter(|analyzer| analyzer.name == case.kind).collect();
    if analyzers.is_empty() {
        let reason = LEFT_OUT.iter().find(|(start, _)| case.kind.starts_with(start));
        let reason = reason.map(|(_, reason)| (*reason).to_owned());
        return Verdict::Skipped(reason.unwrap_or_else(|| format!("there is no analyzer {}", case.kind)));
    }
    if let Some(file) = files(case).iter().find(|file| !file.is_file()) {
        return Verdict::Skipped(format!("the case has no file {}", file.display()));
    }
    let expected = sorted(case.content["expected"].as_array().into_iter().flatten().map(message).collect());
    let found = sorted(ask(case, &analyzers));
    if found == expected {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("expected {expected:?}\n      found    {found:?}"))
    }
}

/// The code and the object, as findings show them.
fn message(expected: &Value) -> (String, String) {
    let text = |name: &str| expected[name].as_str().unwrap_or_default();
    (text("code").to_owned(), format!("{} {}/{}", text("kind"), text("namespace"), text("object")))
}

fn sorted(mut messages: Vec<(String, String)>) -> Vec<(String, String)> {
    messages.sort();
    messages
}

fn files(case: &Case) -> Vec<PathBuf> {
    let files = case.content["inputFiles"].as_array().into_iter().flatten();
    files.map(|file| case.folder.join(file.as_str().unwrap_or_default())).collect()
}

fn ask(case: &Case, analyzers: &[&Analyzer]) -> Vec<(String, String)> {
    let service = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(service.path(), INGRESS_SERVICE).unwrap();
    let mut settings = Settings::default();
    settings.gateway.default_namespace = String::new();
    if let Some(mesh) = case.content["meshConfigFile"].as_str() {
        read_mesh_file(&case.folder.join(mesh), &mut settings);
    }
    settings.source.manifests = files(case).into_iter().chain([PathBuf::from(service.path())]).collect();
    let gathered = gather_manifests(settings, &mut Cache::default());
    let look = Look { view: View::Cluster, now: clock::now() };
    let places = Places::default();
    let mut report = Report::new(&places);
    let world = World::new(&gathered.resources, &gathered.settings, look);
    for analyzer in analyzers {
        match analyzer.ask {
            Ask::Whole(ask) => ask(&world, &mut report),
            Ask::EachVirtualService(ask) => {
                gathered.resources.virtual_services.iter().for_each(|service| ask(&world, service, &mut report));
            }
        }
    }
    let told = report.into_told().into_iter().map(|told| told.finding);
    told.map(|finding| (finding.code.to_owned(), finding.object)).collect()
}

/// Each message with another code and about another object, one message less, and one more.
fn falsify(case: &Case) -> Vec<Falsified> {
    let messages = case.content["expected"].as_array().map_or(0, Vec::len);
    let mut falsified: Vec<Falsified> = (0..messages)
        .flat_map(|index| ["code", "object"].map(|field| case.contradict(&format!("/expected/{index}/{field}"))))
        .flatten()
        .collect();
    let list = || case.content["expected"].as_array().cloned().unwrap_or_default();
    if let [_, less @ ..] = list().as_slice() {
        falsified.push(case.with("/expected", json!(less)));
    }
    let one = json!({ "code": "IST0101", "kind": "Gateway", "namespace": "nowhere", "object": "none" });
    let more: Vec<Value> = list().into_iter().chain([one]).collect();
    falsified.push(case.with("/expected", json!(more)));
    falsified
}
