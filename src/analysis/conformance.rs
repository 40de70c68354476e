//! Does validation agree with Istio's own tests? The cases of `../shared/cases/validation`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reachability::shadows;
use super::validate::{Faults, Validate};
use crate::conformance::{self, Case, Falsified, Set, Verdict};
use crate::resource::extensions::{TrafficExtension, WasmPlugin};
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::networking::{
    DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use crate::resource::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::resource::telemetry::Telemetry;
use crate::source::decode::decode;
use crate::source::yaml;

/// The cases of Istio's own tests of validation.
pub(crate) const VALIDATION: Set =
    Set { folder: "validation", read: |folder| conformance::yaml_files(folder, "kind"), judge, falsify };

/// Cases that are not judged, and why.
const SKIPPED: [(&str, &str); 1] =
    [("serviceentry-crd-full", "the address 001:db8:: of the case was written as a mapping when it was converted")];

/// What is said about the object of a case: its errors and whether there are warnings.
#[derive(Debug)]
struct Answer {
    /// The paths of what is wrong, with what is said about each.
    errors: Vec<(String, String)>,
    warnings: Vec<String>,
}

fn judge(case: &Case) -> Verdict {
    if let Some((_, why)) = SKIPPED.iter().find(|(name, _)| *name == case.name) {
        return Verdict::Skipped((*why).to_owned());
    }
    let Some(manifest) = case.content.get("manifest") else {
        return Verdict::Skipped("the case has no manifest".to_owned());
    };
    if case.content.get("valid").and_then(Value::as_bool).is_none() {
        return Verdict::Skipped("the case does not say whether the manifest is valid".to_owned());
    }
    let Some(answer) = ask(&case.kind, manifest) else {
        return Verdict::Skipped(format!("the kind {} has no validation", case.kind));
    };
    match agrees(&case.content, &answer) {
        Ok(()) => Verdict::Passed,
        // A nil element and an empty list of a Go literal cannot be told from absence in a manifest.
        Err(_) if case.content.get("goLiteralOnly").is_some() => {
            Verdict::Skipped("the manifest cannot say what the Go literal says".to_owned())
        }
        Err(why) => Verdict::Failed(why),
    }
}

fn agrees(case: &Value, answer: &Answer) -> Result<(), String> {
    match (case.get("valid").and_then(Value::as_bool), answer.errors.as_slice()) {
        (Some(true), []) => {}
        (Some(true), errors) => return Err(format!("should be valid: {errors:?}")),
        (_, []) => return Err("should be refused".to_owned()),
        (_, errors) => fits_path(case, errors)?,
    }
    let told = !answer.warnings.is_empty();
    match case.get("warning").and_then(Value::as_bool) {
        Some(wanted) if wanted != told && answer.errors.is_empty() => {
            Err(format!("a warning should be: {wanted}; told: {:?}", answer.warnings))
        }
        _ => Ok(()),
    }
}

/// The field that the case names has to be the one that is complained about, or be around it.
fn fits_path(case: &Value, errors: &[(String, String)]) -> Result<(), String> {
    let text = |name: &str| case.get(name).and_then(Value::as_str).unwrap_or_default();
    // Such as `spec.http[0] (delegate)`; `object` and `crd` name no field.
    let via = text("via").split(' ').next().filter(|via| via.starts_with("spec")).unwrap_or_default();
    for wanted in [text("errorPath"), via] {
        if !errors.iter().any(|(path, _)| path.starts_with(wanted)) {
            return Err(format!("the fault should be at {wanted}: {errors:?}"));
        }
    }
    Ok(())
}

fn ask(kind: &str, manifest: &Value) -> Option<Answer> {
    Some(match kind {
        "Gateway" => validate::<Gateway>(manifest),
        "VirtualService" => with_shadows(validate::<VirtualService>(manifest), manifest),
        "DestinationRule" => validate::<DestinationRule>(manifest),
        "ServiceEntry" => validate::<ServiceEntry>(manifest),
        "WorkloadEntry" => validate::<WorkloadEntry>(manifest),
        "WorkloadGroup" => validate::<WorkloadGroup>(manifest),
        "Sidecar" => validate::<Sidecar>(manifest),
        "ProxyConfig" => validate::<ProxyConfig>(manifest),
        "PeerAuthentication" => validate::<PeerAuthentication>(manifest),
        "RequestAuthentication" => validate::<RequestAuthentication>(manifest),
        "AuthorizationPolicy" => validate::<AuthorizationPolicy>(manifest),
        "Telemetry" => validate::<Telemetry>(manifest),
        "WasmPlugin" => validate::<WasmPlugin>(manifest),
        "TrafficExtension" => validate::<TrafficExtension>(manifest),
        _ => return None,
    })
}

fn validate<T: Validate + DeserializeOwned + Default>(manifest: &Value) -> Answer {
    let nothing = Value::Object(serde_json::Map::new());
    let part = |name: &str| manifest.get(name).filter(|part| !part.is_null()).unwrap_or(&nothing);
    let object = decode::<T>(part("spec"), "spec").and_then(|spec| {
        let meta = decode::<Meta>(part("metadata"), "metadata")?.value;
        Ok(Object { meta, spec: spec.value, origin: Origin::default() })
    });
    match object {
        Ok(object) => {
            let Faults { errors, warnings } = T::validate(&object);
            Answer {
                errors: errors.into_iter().map(|fault| (fault.path, fault.message)).collect(),
                warnings: warnings.into_iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect(),
            }
        }
        Err(error) => Answer { errors: vec![(error.path, error.message)], warnings: Vec::new() },
    }
}

/// The project's own cases, by their kind: tests/validation/README.md says what stands in them.
pub(super) fn own_cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validation");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let cases = |file: &PathBuf| {
        let kind = file.file_stem().unwrap().to_string_lossy().into_owned();
        let list = yaml::parse(&fs::read_to_string(file).unwrap()).unwrap();
        let named = move |mut case: Value| {
            case["metadata"]["name"] = Value::from("own");
            case["metadata"]["namespace"] = Value::from("cases");
            (kind.clone(), case)
        };
        list.as_array().cloned().unwrap().into_iter().map(named)
    };
    files.iter().flat_map(cases).collect()
}

#[test]
fn own_cases_hold() {
    let mut wrong = Vec::new();
    for (kind, case) in own_cases() {
        let answer = ask(&kind, &case).unwrap();
        let errors: Vec<&str> = answer.errors.iter().map(|(path, _)| path.as_str()).collect();
        let warned = |path: &str| answer.warnings.iter().any(|warning| warning.starts_with(&format!("{path}: ")));
        let good = match (case["fault"].as_str(), case["warning"].as_str()) {
            (Some(path), _) => errors.contains(&path),
            (None, Some(path)) => errors.is_empty() && warned(path),
            (None, None) => errors.is_empty() && answer.warnings.is_empty(),
        };
        if !good {
            wrong.push(format!("{kind} {case}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Istio's validation also warns of rules that cannot be reached.
fn with_shadows(mut answer: Answer, manifest: &Value) -> Answer {
    let spec = manifest.get("spec").and_then(|spec| decode::<VirtualService>(spec, "spec").ok());
    let shadows = spec.map(|spec| shadows(&spec.value)).unwrap_or_default();
    answer.warnings.extend(shadows.into_iter().map(|shadow| format!("{}: {}", shadow.path, shadow.message)));
    answer
}

/// The verdict, and what else the case expects.
fn falsify(case: &Case) -> Vec<Falsified> {
    let valid = case.content.get("valid").and_then(Value::as_bool) == Some(true);
    let path = case.content.get("errorPath").and_then(Value::as_str).is_some_and(|path| !path.is_empty());
    let expected = [("/valid", true), ("/warning", valid), ("/errorPath", !valid && path)];
    // It agreed as it is, so it is no longer excused.
    let mut case = case.clone();
    case.content.as_object_mut().into_iter().for_each(|content| drop(content.remove("goLiteralOnly")));
    expected.iter().filter(|(_, judged)| *judged).filter_map(|(pointer, _)| case.contradict(pointer)).collect()
}
