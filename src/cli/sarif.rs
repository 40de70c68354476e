//! How are findings written for code scanning? SARIF 2.1.0 (OASIS).

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::resource::codes::{self, Code};
use crate::resource::finding::{Finding, Location, Severity};

/// What stays as it is in the path of a URI.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+').remove(b'@');

/// A log with one run; its rules are the codes of the findings.
pub(super) fn report(findings: &[Finding]) -> Value {
    let meant = |code: &&&Code| findings.iter().any(|finding| finding.code == code.id);
    let rules: Vec<&Code> = codes::ALL.iter().filter(meant).copied().collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &rules)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "limani",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|code| rule(code)).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: &Code) -> Value {
    let help = if code.help.is_empty() { code.meaning } else { code.help };
    json!({
        "id": code.id,
        "shortDescription": { "text": code.meaning },
        "help": { "text": help },
        "defaultConfiguration": { "level": level(code.severity) },
    })
}

fn result(finding: &Finding, rules: &[&Code]) -> Value {
    let text = match finding.hint.as_str() {
        "" => finding.message.clone(),
        hint => format!("{} ({hint})", finding.message),
    };
    let mut result = json!({
        "ruleId": finding.code,
        "ruleIndex": rules.iter().position(|code| code.id == finding.code),
        "level": level(finding.severity),
        "message": { "text": text },
        "partialFingerprints": { "limani/v1": fingerprint(finding) },
    });
    let mut place = serde_json::Map::new();
    if !finding.location.file.is_empty() {
        place.insert("physicalLocation".into(), physical(&finding.location));
    }
    if !finding.object.is_empty() {
        let name = [finding.object.as_str(), &finding.path].join(" ");
        place.insert("logicalLocations".into(), json!([{ "fullyQualifiedName": name.trim_end() }]));
    }
    if let (Some(result), false) = (result.as_object_mut(), place.is_empty()) {
        result.insert("locations".into(), json!([place]));
    }
    result
}

fn physical(location: &Location) -> Value {
    let path = utf8_percent_encode(&location.file, IN_PATH).to_string();
    let uri = if Path::new(&location.file).is_absolute() { format!("file://{path}") } else { path };
    // A place in a file counts from 1.
    match (location.line, location.column) {
        (0, _) => json!({ "artifactLocation": { "uri": uri } }),
        (line, 0) => json!({ "artifactLocation": { "uri": uri }, "region": { "startLine": line } }),
        (line, column) => json!({
            "artifactLocation": { "uri": uri },
            "region": { "startLine": line, "startColumn": column },
        }),
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// The same for the same finding when its line moves (FNV-1a of code, object, field and message).
fn fingerprint(finding: &Finding) -> String {
    let parts = [finding.code, &finding.object, &finding.path, &finding.message];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_keeps_its_fingerprint_when_its_line_moves() {
        let at = |line| {
            let location = Location { file: "a b.yaml".into(), line, column: 3 };
            Finding::new(&codes::SCHEMA, location, "wrong").about("Gateway default/gw").at("spec.servers")
        };
        let report = report(&[at(4), at(9)]);
        let results = &report["runs"][0]["results"];
        assert_eq!(results[0]["partialFingerprints"], results[1]["partialFingerprints"]);
        let place = &results[1]["locations"][0];
        assert_eq!(place["physicalLocation"]["artifactLocation"]["uri"], "a%20b.yaml");
        assert_eq!(place["physicalLocation"]["region"]["startLine"], 9);
        assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], "Gateway default/gw spec.servers");
        let rules = report["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!((rules.len(), rules[0]["id"].as_str()), (1, Some("IST0106")));
    }
}
