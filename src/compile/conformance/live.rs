//! Does the compiler do what a real Istio was seen to do (../shared/live/cases/matching), as far as that can be judged
//! without a socket? The folder may be absent; then nothing is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{compile_text, skipped};
use crate::conformance::{self, Verdict};
use crate::explain::{Explanation, Outcome, Query, explain};
use crate::resource::settings::{PathNormalization, Settings};

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
    let snapshot = compile_text(&manifests, settings);
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
        ("response", Outcome::Connected { destinations, .. }) => {
            let known = |at: &&str| destinations.iter().any(|one| one.endpoints.iter().any(|endpoint| endpoint == at));
            seen.iter().all(known)
        }
        ("response", Outcome::Answered { status: answered, location, .. }) => {
            let headers = expected["headers"].as_array().into_iter().flatten();
            let wanted = headers.filter(|line| line[0] == "location").find_map(|line| line[1].as_str());
            u64::from(*answered) == status && seen.is_empty() && (wanted.is_none() || wanted == location.as_deref())
        }
        _ => false,
    }
}
