//! Does validation agree with Istio's own tests? The cases of `../shared/cases/validation`, where they are there.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reachability::shadows;
use super::validate::Validate;
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::networking::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};
use crate::source::decode::decode;
use crate::source::yaml;

/// Cases that are answered differently on purpose.
const KNOWN_DIFFERENCES: [(&str, &str); 1] =
    [("serviceentry-crd-full", "the address 001:db8:: of the case was written as a mapping when it was converted")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid { warning: bool },
    Invalid,
}

fn judge<T: Validate + DeserializeOwned + Default>(manifest: &Value) -> (Verdict, String) {
    let no_spec = Value::Object(serde_json::Map::new());
    let spec = match decode::<T>(manifest.get("spec").unwrap_or(&no_spec), "spec") {
        Ok(decoded) => decoded.value,
        Err(error) => return (Verdict::Invalid, format!("{}: {}", error.path, error.message)),
    };
    let meta = match decode::<Meta>(manifest.get("metadata").unwrap_or(&no_spec), "metadata") {
        Ok(decoded) => decoded.value,
        Err(error) => return (Verdict::Invalid, error.message),
    };
    let faults = T::validate(&Object { meta, spec, origin: Origin::default() });
    match faults.errors.first() {
        Some(error) => (Verdict::Invalid, format!("{}: {}", error.path, error.message)),
        None => (Verdict::Valid { warning: !faults.warnings.is_empty() }, format!("{:?}", faults.warnings)),
    }
}

/// Istio's validation also warns of rules that cannot be reached.
fn with_shadows(judged: (Verdict, String), manifest: &Value) -> (Verdict, String) {
    let spec = manifest.get("spec").and_then(|spec| decode::<VirtualService>(spec, "spec").ok());
    let shadowed = spec.is_some_and(|spec| !shadows(&spec.value.http).is_empty());
    match judged.0 {
        Verdict::Valid { .. } if shadowed => (Verdict::Valid { warning: true }, "shadowed".into()),
        _ => judged,
    }
}

fn judge_kind(kind: &str, manifest: &Value) -> Option<(Verdict, String)> {
    match kind {
        "Gateway" => Some(judge::<Gateway>(manifest)),
        "VirtualService" => Some(with_shadows(judge::<VirtualService>(manifest), manifest)),
        "DestinationRule" => Some(judge::<DestinationRule>(manifest)),
        "ServiceEntry" => Some(judge::<ServiceEntry>(manifest)),
        "WorkloadEntry" => Some(judge::<WorkloadEntry>(manifest)),
        _ => None,
    }
}

/// Why the case fails, if it does; `None` for cases that are not counted.
fn run(case: &Value) -> Option<Result<(), String>> {
    // The text of a case cannot say what a nil element of a Go literal says.
    if case.get("goLiteralOnly").is_some() {
        return None;
    }
    let (verdict, why) = judge_kind(case.get("kind")?.as_str()?, case.get("manifest")?)?;
    let valid = case.get("valid")?.as_bool()?;
    let warning = case.get("warning").and_then(Value::as_bool);
    Some(match (verdict, valid) {
        (Verdict::Invalid, true) => Err(format!("should be valid: {why}")),
        (Verdict::Valid { .. }, false) => Err("should be refused".into()),
        (Verdict::Valid { warning: told }, true) if warning.is_some_and(|wanted| wanted != told) => {
            Err(format!("warned: {told}, which should not be so: {why}"))
        }
        _ => Ok(()),
    })
}

#[test]
fn validation_agrees_with_istio() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases/validation");
    let Ok(entries) = fs::read_dir(&folder) else {
        return println!("skipped: {} is not there", folder.display());
    };
    let (mut passed, mut failures, mut skipped) = (0, Vec::new(), 0);
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = yaml::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        match run(&case) {
            None => skipped += 1,
            Some(Ok(())) => passed += 1,
            Some(Err(_)) if KNOWN_DIFFERENCES.iter().any(|(known, _)| *known == name) => skipped += 1,
            Some(Err(why)) => failures.push(format!("{name}: {why}")),
        }
    }
    println!("{passed} passed, {} failed, {skipped} skipped", failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
