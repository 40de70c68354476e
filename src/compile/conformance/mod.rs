//! Does the compiler agree with Istio's own test cases (../shared/cases/routing), and with what a real Istio was seen
//! to do (../shared/live/cases/matching), as far as both can be judged without a socket?
//!
//! The folders may be absent; then nothing is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Memory, compile, delegate};
use crate::analysis;
use crate::base::clock;
use crate::base::host;
use crate::conformance::{self, Case, Falsified, Set, Verdict};
use crate::explain::{Explanation, Outcome, Query, explain};
use crate::resource::networking::HttpMatchRequest;
use crate::resource::settings::{PathNormalization, Settings};
use crate::snapshot::Snapshot;
use crate::source;

/// The cases of Istio's own tests of routing.
pub(crate) const ROUTING: Set =
    Set { folder: "routing", read: |folder| conformance::yaml_files(folder, "type"), judge: routing, falsify };

/// Whether objects that break a rule of their kind are left out first.
#[derive(Clone, Copy)]
enum Validation {
    Done,
    /// As in Istio's own tests of routing.
    Bypassed,
}

fn routing(case: &Case) -> Verdict {
    let (name, case) = (case.name.as_str(), &case.content);
    match case["type"].as_str().unwrap_or_default() {
        "table" => table(name, case),
        _ if case["proxy"]["type"] != "gateway" => skipped("sidecars are not judged yet"),
        "gateway-listeners" => listeners(case),
        _ if case["request"]["protocol"] == "tcp" => skipped("TCP is not judged yet"),
        _ if case["expected"].get("requires").is_some() => skipped("needs settings"),
        _ if case["request"].get("jwtClaims").is_some() => skipped("needs claims"),
        _ if case["manifests"].to_string().contains("internal.istio.io/gateway-service") => {
            skipped("bound to a Service")
        }
        _ => request(case),
    }
}

fn skipped(why: &str) -> Verdict {
    Verdict::Skipped(why.to_owned())
}

/// Each row of a table, and each expected value.
fn falsify(case: &Case) -> Vec<Falsified> {
    let rows = case.content["cases"].as_array().map(Vec::len).unwrap_or_default();
    let of_rows =
        (0..rows).flat_map(|row| ["expected", "want"].map(|key| case.contradict(&format!("/cases/{row}/{key}"))));
    let expected = case.content["expected"].as_object();
    let keys = expected.into_iter().flat_map(|map| map.keys().map(|key| case.contradict(&format!("/expected/{key}"))));
    of_rows.chain(keys).flatten().collect()
}

#[test]
fn matching_cases_of_a_real_istio() {
    let Some(folder) = shared("live/cases/matching") else { return };
    let pki = folder.join("../../pki/secrets.yaml");
    run(&folder, |case| live(case, &pki));
}

fn shared(path: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    // A copy of the project elsewhere says where they are.
    let folder = std::env::var_os("SHARED").map_or(folder, |shared| PathBuf::from(shared).join(path));
    if !folder.is_dir() {
        println!("{} is absent: nothing is tested", folder.display());
        return None;
    }
    Some(folder)
}

fn run(folder: &Path, judge: impl Fn(&Value) -> Verdict) {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in conformance::yaml_files(folder, "type") {
        match judge(&case.content) {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(_) => skipped += 1,
            Verdict::Failed(why) => {
                failed += 1;
                println!("FAILED {}: {why}", case.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    assert_eq!(failed, 0);
}

fn table(name: &str, case: &Value) -> Verdict {
    let rows = case["cases"].as_array().unwrap();
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    };
    for row in rows {
        let agrees = match name {
            "host-sort-order" => {
                let mut sorted = strings(&row["in"]);
                sorted.sort_by(|a, b| host::by_specificity(a, b));
                sorted == strings(&row["want"])
            }
            "delegate-match-conflict" => {
                delegate::conflict(&entry(&row["root"]), &entry(&row["leaf"])) == row["expected"].as_bool().unwrap()
            }
            "delegate-merge-matches" => {
                let entries = |value: &Value| value.as_array().into_iter().flatten().map(entry).collect::<Vec<_>>();
                let joined = delegate::join_matches(&entries(&row["root"]), &entries(&row["delegate"]));
                match &row["expected"] {
                    Value::Null => joined.is_none_or(|joined| joined.is_empty()),
                    expected => joined == Some(entries(expected)),
                }
            }
            _ => return skipped("no such table"),
        };
        if !agrees {
            return Verdict::Failed(row.to_string());
        }
    }
    Verdict::Passed
}

fn entry(value: &Value) -> HttpMatchRequest {
    serde_json::from_value(value.clone()).unwrap()
}

/// Only HTTP listeners can be judged: cases with others are skipped.
fn listeners(case: &Value) -> Verdict {
    let text = case["manifests"].to_string();
    if ["\"TCP\"", "\"TLS\"", "PASSTHROUGH", "MUTUAL"].iter().any(|word| text.contains(word))
        || case["proxy"]["unprivileged"] == true
        || case["proxy"]["serviceTargets"].as_array().is_some_and(|targets| !targets.is_empty())
    {
        return skipped("TCP, TLS and targets are not judged yet");
    }
    let snapshot = compiled(case, settings_of(case));
    let mut bound: Vec<_> =
        snapshot.listeners.iter().map(|one| format!("{}_{}", one.address.ip(), one.address.port())).collect();
    let mut wanted: Vec<_> =
        case["expected"]["listeners"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    bound.sort();
    wanted.sort();
    if bound == wanted { Verdict::Passed } else { Verdict::Failed(format!("{bound:?}, not {wanted:?}")) }
}

fn settings_of(case: &Value) -> Settings {
    let mut settings = Settings::default();
    let proxy = &case["proxy"];
    settings.gateway.namespace = proxy["namespace"].as_str().unwrap_or("istio-system").to_owned();
    settings.gateway.labels = serde_json::from_value(proxy["labels"].clone()).unwrap_or_default();
    settings
}

fn compiled(case: &Value, settings: Settings) -> Snapshot {
    let documents: Vec<String> = case["manifests"].as_array().unwrap().iter().map(Value::to_string).collect();
    compile_text(&documents.join("\n---\n"), settings, Validation::Bypassed)
}

fn compile_text(text: &str, mut settings: Settings, validation: Validation) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    fs::write(&file, text).unwrap();
    settings.source.manifests = vec![file];
    let gathered = source::gather_manifests(settings, &mut source::Cache::default());
    let resources = match validation {
        Validation::Done => {
            analysis::analyze(
                &gathered.resources,
                &gathered.settings,
                analysis::Look::default(),
                &mut analysis::Memory::default(),
            )
            .0
        }
        Validation::Bypassed => gathered.resources,
    };
    compile(&resources, &gathered.settings, 1, clock::now(), &mut Memory::default()).0
}

fn request(case: &Value) -> Verdict {
    let asked = &case["request"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_host = case["expected"]["outcome"] == "virtual-host-selected" && asked["port"] == 443;
    let scheme = if asked.get("tls").is_some() || by_host { "https" } else { "http" };
    let mut headers = vec![("host".to_owned(), text(&asked["host"]))];
    for (name, values) in asked["headers"].as_object().into_iter().flatten() {
        headers.extend(values.as_array().into_iter().flatten().map(|value| (name.clone(), text(value))));
    }
    let query = Query {
        method: text(&asked["method"]),
        url: format!("{scheme}://host.test:{}{}", asked["port"], text(&asked["path"])),
        headers,
        sni: Some(text(&asked[if by_host { "host" } else { "sni" }])),
        ..Query::default()
    };
    let explained = explain(&compiled(case, settings_of(case)), &query).unwrap();
    match judge(&case["expected"], &explained) {
        Ok(()) => Verdict::Passed,
        // The secrets of these cases do not exist, and tls routes are not in force yet.
        Err(_) if matches!(explained.outcome, Outcome::Closed { .. }) => skipped("closed"),
        Err(why) => Verdict::Failed(format!("{why}\n{explained}")),
    }
}

fn judge(expected: &Value, explained: &Explanation) -> Result<(), String> {
    let differs = |what: &str| Err(format!("{what}: expected {expected}"));
    match (expected["outcome"].as_str().unwrap_or_default(), &explained.outcome) {
        ("routed", Outcome::Forwarded(forwarding)) => {
            for target in &forwarding.destinations {
                // Istio's simulation has no cluster domain.
                let name = target.cluster.replace(".svc.cluster.local", "");
                let whole = expected.to_string().contains(".svc.cluster.local");
                let name = if whole { &target.cluster } else { &name };
                let parts: Vec<&str> = name.split('|').collect();
                let destination = &expected["destination"];
                let unlike = |key: &str, found: &str| {
                    let wanted = &destination[key];
                    !wanted.is_null() && wanted.as_str().map_or(wanted.to_string(), str::to_owned) != found
                };
                if expected["cluster"].as_str().is_some_and(|wanted| wanted != name)
                    || unlike("host", parts[3])
                    || unlike("port", parts[1])
                    || unlike("subset", parts[2])
                {
                    return differs(&target.cluster);
                }
            }
            let weights = expected["weighted"].as_array().into_iter().flatten().map(|one| one["weight"].as_u64());
            let found: Vec<_> = forwarding.destinations.iter().map(|one| Some(u64::from(one.weight))).collect();
            if expected.get("weighted").is_some() && !weights.eq(found) {
                return differs("weights");
            }
            if expected["upstreamPath"].as_str().is_some_and(|path| path != forwarding.path) {
                return differs("path");
            }
            Ok(())
        }
        ("http", Outcome::Answered { status, location, .. }) => {
            let location_differs =
                expected["location"].as_str().is_some_and(|wanted| location.as_deref() != Some(wanted));
            if expected["status"] != u64::from(*status) || location_differs { differs("answer") } else { Ok(()) }
        }
        ("virtual-host-selected", _) => {
            let host = explained.virtual_host.clone().unwrap_or_default();
            let domain = expected["domain"].as_str().unwrap_or_default();
            let count = expected["routeCount"].as_u64();
            let right = host.starts_with(&format!("{domain} ("))
                && count.is_none_or(|count| count == explained.rules.len() as u64);
            if right { Ok(()) } else { differs("virtual host") }
        }
        ("connection-refused", Outcome::Refused) | ("connection-closed", Outcome::Closed { .. }) => Ok(()),
        _ => differs("outcome"),
    }
}

fn live(case: &Value, pki: &Path) -> Verdict {
    // Objects that validation refuses are judged by the analysis; several addresses need sockets.
    if case.get("invalid").is_some() || case["manifests"].as_str().unwrap_or_default().contains("bind: ") {
        return skipped("TCP, TLS and targets are not judged yet");
    }
    let mut settings = Settings::default();
    let mesh = case["mesh"].as_str().unwrap_or_default();
    settings.http.path_normalization = match mesh {
        mesh if mesh.contains("DECODE_AND_MERGE_SLASHES") => PathNormalization::DecodeAndMergeSlashes,
        mesh if mesh.contains("MERGE_SLASHES") => PathNormalization::MergeSlashes,
        mesh if mesh.contains("normalization: NONE") => PathNormalization::None,
        "" => PathNormalization::Base,
        _ => return skipped("no such table"),
    };
    let mut manifests = case["manifests"].as_str().unwrap().to_owned();
    if case["include"].to_string().contains("secrets.yaml") {
        manifests = format!("{manifests}\n---\n{}", fs::read_to_string(pki).unwrap());
    }
    let snapshot = compile_text(&manifests, settings, Validation::Done);
    for (number, exchange) in case["exchanges"].as_array().unwrap().iter().enumerate() {
        let (sent, expected) = (&exchange["send"], &exchange["expect"]);
        // What only sockets tell: HTTP/2 rules, hop-by-hop headers, several addresses of one port, odd hosts.
        let plain = ["http", "scheme", "address", "body"].iter().all(|key| sent.get(key).is_none());
        let Some(query) = live_query(sent).filter(|_| plain) else { continue };
        let explained = match explain(&snapshot, &query) {
            Ok(explained) => explained,
            Err(_) => continue,
        };
        if !live_agrees(expected, &explained) {
            return Verdict::Failed(format!("exchange {number} {sent}: expected {expected}\n{explained}"));
        }
    }
    Verdict::Passed
}

fn live_query(sent: &Value) -> Option<Query> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let scheme = if sent.get("tls").is_some() { "https" } else { "http" };
    let mut headers = vec![("host".to_owned(), text(sent.get("host")?))];
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for line in sent["headers"].as_array().into_iter().flatten() {
        let name = text(&line[0]).to_ascii_lowercase();
        *lines.entry(name.clone()).or_default() += 1;
        if ["connection", "te", "upgrade", "transfer-encoding", "host"].contains(&name.as_str())
            || name.starts_with("x-") && name.contains("envoy")
        {
            return None;
        }
        headers.push((name, text(&line[1]).trim().to_owned()));
    }
    Some(Query {
        method: text(&sent["method"]),
        url: format!("{scheme}://host.test:{}{}", sent["port"], text(&sent["target"])),
        headers,
        sni: Some(text(&sent["tls"]["sni"])),
        ..Query::default()
    })
}

fn live_agrees(expected: &Value, explained: &Explanation) -> bool {
    let seen: Vec<&str> =
        expected["seen"].as_array().into_iter().flatten().filter_map(|one| one["at"].as_str()).collect();
    let status = expected["status"].as_u64().unwrap_or_default();
    match (expected["outcome"].as_str().unwrap_or_default(), &explained.outcome) {
        ("refused", Outcome::Refused) => true,
        ("closed" | "tls-error", Outcome::Closed { .. }) | ("tls-error", Outcome::Answered { status: 400, .. }) => true,
        // The proxy's guard answers before any rule is asked.
        ("response", _) if status == 400 || status == 431 || status == 426 => true,
        ("response", Outcome::Forwarded(forwarding)) => match seen.as_slice() {
            [] => {
                status == 503
                    && forwarding.destinations.iter().any(|one| {
                        one.endpoints.is_empty()
                            || one.endpoints.iter().all(|endpoint| endpoint.ends_with("(looked up)"))
                    })
            }
            seen => seen.iter().all(|at| {
                forwarding.destinations.iter().any(|one| one.endpoints.iter().any(|endpoint| endpoint == at))
            }),
        },
        ("response", Outcome::Answered { status: answered, location, .. }) => {
            let headers = expected["headers"].as_array().into_iter().flatten();
            let wanted = headers.filter(|line| line[0] == "location").find_map(|line| line[1].as_str());
            u64::from(*answered) == status && seen.is_empty() && (wanted.is_none() || wanted == location.as_deref())
        }
        _ => false,
    }
}
