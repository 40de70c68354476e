//! Does a RequestAuthentication keep the rules of its kind? (Istio ValidateRequestAuthentication)

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::faults::{At, Faults};
use super::names::{check_duration, check_header_name};
use super::selection::{Attachment, check_attachment};
use super::urls::{self, Url};
use crate::resource::security::{JwtRule, RequestAuthentication};

const MAX_RULES: usize = 4096;
const MAX_URL: usize = 2048;
const MAX_CLAIMS: usize = 64;

/// Checks the whole object.
pub(super) fn check(policy: &RequestAuthentication, faults: &mut Faults) {
    let spec = At::root("spec");
    let attachment = Attachment {
        selector: policy.selector.as_ref(),
        target_ref: policy.target_ref.as_ref(),
        target_refs: &policy.target_refs,
    };
    check_attachment(&attachment, spec, faults);
    faults.require(policy.jwt_rules.len() <= MAX_RULES, spec.field("jwtRules"), "at most 4096 rules can be given");
    for (index, rule) in policy.jwt_rules.iter().enumerate() {
        check_rule(rule, spec.item("jwtRules", index), faults);
    }
}

fn check_rule(rule: &JwtRule, at: At<'_>, faults: &mut Faults) {
    let some = !rule.issuer.is_empty() || !rule.jwks_uri.is_empty() || !rule.jwks.is_empty();
    faults.require(some, at, "a rule needs issuer, jwksUri or jwks");
    let both = !rule.jwks_uri.is_empty() && !rule.jwks.is_empty();
    faults.require(!both, at, "jwksUri and jwks exclude each other");
    if !rule.jwks_uri.is_empty() {
        faults.check(at.field("jwksUri"), check_jwks_uri(&rule.jwks_uri));
    }
    if !rule.jwks.is_empty() {
        check_jwks(&rule.jwks, at.field("jwks"), faults);
    }
    let lists = [
        ("audiences", &rule.audiences, "an audience cannot be empty"),
        ("fromParams", &rule.from_params, "a query parameter needs a name"),
        ("fromCookies", &rule.from_cookies, "a cookie needs a name"),
        ("spaceDelimitedClaims", &rule.space_delimited_claims, "a claim needs a name"),
    ];
    for (field, values, message) in lists {
        for (index, value) in values.iter().enumerate() {
            faults.require(!value.is_empty(), at.item(field, index), message);
        }
    }
    let few = rule.space_delimited_claims.len() <= MAX_CLAIMS;
    faults.require(few, at.field("spaceDelimitedClaims"), "at most 64 claims can be named");
    for (index, header) in rule.from_headers.iter().enumerate() {
        let at = at.item("fromHeaders", index);
        faults.require(!header.name.is_empty(), at.field("name"), "a header needs a name");
    }
    check_outputs(rule, at, faults);
    if let Some(timeout) = rule.timeout {
        faults.check(at.field("timeout"), check_duration(timeout));
    }
}

fn check_outputs(rule: &JwtRule, at: At<'_>, faults: &mut Faults) {
    let mut headers = HashSet::new();
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = at.item("outputClaimToHeaders", index);
        if output.header.is_empty() && output.claim.is_empty() {
            faults.error(at, "the header and the claim have to be named");
            continue;
        }
        faults.require(!output.claim.is_empty(), at.field("claim"), "the claim has to be named");
        faults.check(at.field("header"), check_header_name(&output.header));
        let new = headers.insert(output.header.to_ascii_lowercase());
        faults.require(new, at.field("header"), "the header stands here twice");
    }
}

fn check_jwks_uri(uri: &str) -> Result<(), String> {
    if uri.len() > MAX_URL {
        return Err("the URL is longer than 2048 bytes".into());
    }
    match urls::split(uri)? {
        Url { scheme: Some("http" | "https"), authority: Some(authority) } => urls::check_authority(authority),
        Url { scheme: Some(scheme), .. } if !matches!(scheme, "http" | "https") => {
            Err(format!("the scheme `{scheme}` is neither http nor https"))
        }
        _ => Err(format!("`{uri}` is no URL of http or https")),
    }
}

/// A set of keys, or one key, as JSON (RFC 7517). A private key is not needed here and should not lie here.
fn check_jwks(text: &str, at: At<'_>, faults: &mut Faults) {
    let Ok(Value::Object(document)) = serde_json::from_str::<Value>(text) else {
        return faults.error(at, "the key set is no JSON object");
    };
    let keys: Vec<&Value> = match document.get("keys") {
        Some(Value::Array(keys)) => keys.iter().collect(),
        Some(_) => return faults.error(at, "`keys` of the key set is no list"),
        None => return check_keys(&[&document], at, faults),
    };
    let objects: Vec<&Map<String, Value>> = keys.iter().filter_map(|key| key.as_object()).collect();
    faults.require(objects.len() == keys.len(), at, "a key of the set is no JSON object");
    check_keys(&objects, at, faults);
}

fn check_keys(keys: &[&Map<String, Value>], at: At<'_>, faults: &mut Faults) {
    for key in keys {
        faults.check(at, check_key(key));
        let kind = key.get("kty").and_then(Value::as_str);
        if key.contains_key("d") && kind != Some("oct") {
            faults.warn(at, "the set holds a private key; publish the public part only");
        }
    }
}

fn check_key(key: &Map<String, Value>) -> Result<(), String> {
    let members: &[&str] = match key.get("kty").and_then(Value::as_str) {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["crv", "x", "y"],
        Some("OKP") => &["crv", "x"],
        Some("oct") => &["k"],
        Some(other) => return Err(format!("`{other}` is no kind of key")),
        None => return Err("a key of the set has no `kty`".into()),
    };
    for member in members {
        let value = key.get(*member).and_then(Value::as_str).unwrap_or_default();
        let good = !value.is_empty() && (*member == "crv" || URL_SAFE_NO_PAD.decode(value).is_ok());
        if !good {
            return Err(format!("a key of the set has no good `{member}`"));
        }
    }
    Ok(())
}
