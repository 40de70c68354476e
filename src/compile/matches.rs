//! What does one HTTPMatchRequest become: decided now, or a condition on requests?

use std::sync::Arc;

use http::HeaderName;

use super::index::{gateway_key, is_subset};
use super::memory::Memory;
use super::virtual_service::ServerPlace;
use crate::resource::networking::{HttpMatchRequest, StringMatch};
use crate::resource::settings::GatewaySettings;
use crate::snapshot::matcher::{Condition, PathMatch, RequestMatch, ValueMatch};

/// Whether port, gateways, labels and namespace, which are known now, admit the match on this server. `gateways`
/// makes labels and namespace count for nothing.
pub(super) fn applies(
    entry: &HttpMatchRequest,
    namespace: &str,
    server: ServerPlace<'_>,
    ours: &GatewaySettings,
) -> bool {
    if entry.port > 0 && entry.port != u32::from(server.port) {
        return false;
    }
    if !entry.gateways.is_empty() {
        return entry.gateways.iter().any(|name| gateway_key(name, namespace) == server.gateway);
    }
    is_subset(&entry.source_labels, &ours.labels)
        && (entry.source_namespace.is_empty() || entry.source_namespace == ours.namespace)
}

/// The conditions that requests have to meet. Fails with a sentence if a pattern cannot be read.
pub(super) fn conditions(memory: &mut Memory, entry: &HttpMatchRequest) -> Result<RequestMatch, String> {
    let mut conditions = Vec::new();
    let path = match &entry.uri {
        Some(uri) => path(memory, uri, entry.ignore_uri_case)?,
        None => PathMatch::Any,
    };
    if let Some(method) = &entry.method {
        conditions.push(Condition::Method(value(memory, Some(method))?));
    }
    if let Some(scheme) = &entry.scheme {
        conditions.push(Condition::Scheme(value(memory, Some(scheme))?));
    }
    if let Some(authority) = &entry.authority {
        conditions.push(Condition::Authority(value(memory, Some(authority))?));
    }
    for (name, written) in &entry.headers {
        let value = map_value(memory, written.as_ref())?;
        conditions.push(header(name, value, |name, value| Condition::Header { name, value }));
    }
    for (name, written) in &entry.without_headers {
        let value = map_value(memory, written.as_ref())?;
        conditions.push(match claim(name, &value).or_else(|| pseudo(name, value.clone())) {
            Some(condition) => Condition::Not(Box::new(condition)),
            None => header(name, value, |name, value| Condition::WithoutHeader { name, value }),
        });
    }
    for (name, written) in &entry.query_params {
        conditions.push(Condition::Query { name: name.as_str().into(), value: map_value(memory, written.as_ref())? });
    }
    Ok(RequestMatch { path, conditions })
}

fn path(memory: &mut Memory, uri: &StringMatch, ignore_case: bool) -> Result<PathMatch, String> {
    let fold = |text: &str| if ignore_case { text.to_ascii_lowercase().into() } else { text.into() };
    Ok(match (&uri.exact, &uri.prefix, &uri.regex) {
        (Some(exact), _, _) => PathMatch::Exact { text: fold(exact), ignore_case },
        (_, Some(prefix), _) => PathMatch::Prefix { text: fold(prefix), ignore_case },
        (_, _, Some(regex)) => PathMatch::Regex(pattern(memory, regex)?),
        _ => PathMatch::Any,
    })
}

pub(super) fn value(memory: &mut Memory, written: Option<&StringMatch>) -> Result<ValueMatch, String> {
    let Some(written) = written else { return Ok(ValueMatch::Present) };
    Ok(match (&written.exact, &written.prefix, &written.regex) {
        (Some(exact), _, _) => ValueMatch::Exact(exact.as_str().into()),
        (_, Some(prefix), _) => ValueMatch::Prefix(prefix.as_str().into()),
        (_, _, Some(regex)) => ValueMatch::Regex(pattern(memory, regex)?),
        _ => ValueMatch::Present,
    })
}

/// In maps the regex `*` means present.
fn map_value(memory: &mut Memory, written: Option<&StringMatch>) -> Result<ValueMatch, String> {
    match written {
        Some(StringMatch { regex: Some(star), .. }) if star == "*" => Ok(ValueMatch::Present),
        written => value(memory, written),
    }
}

fn pattern(memory: &mut Memory, regex: &str) -> Result<Arc<crate::snapshot::pattern::Pattern>, String> {
    memory.whole_pattern(regex).map_err(|reason| format!("the regular expression `{regex}` cannot be used: {reason}"))
}

fn header(name: &str, value: ValueMatch, make: impl Fn(HeaderName, ValueMatch) -> Condition) -> Condition {
    if let Some(condition) = claim(name, &value) {
        return condition;
    }
    if let Some(condition) = pseudo(name, value.clone()) {
        return condition;
    }
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => make(name, value),
        Err(_) => Condition::Never(format!("`{name}` is no header name").into()),
    }
}

/// `@request.auth.claims.a.b`, or with `[a][b]` for names that have dots.
fn claim(name: &str, value: &ValueMatch) -> Option<Condition> {
    const PREFIX: &str = "@request.auth.claims";
    let rest =
        name.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)).and(name.get(PREFIX.len()..))?;
    let nested = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let path: Vec<Box<str>> = match (nested, rest.strip_prefix('.')) {
        (Some(nested), _) => nested.split("][").map(Into::into).collect(),
        (None, Some(dotted)) => dotted.split('.').map(Into::into).collect(),
        (None, None) => return Some(Condition::Never(format!("`{name}` names no claim").into())),
    };
    Some(Condition::Claim { path, value: value.clone() })
}

/// Header names that are not headers.
fn pseudo(name: &str, value: ValueMatch) -> Option<Condition> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => Condition::Method(value),
        ":scheme" => Condition::Scheme(value),
        ":path" => Condition::PathAndQuery(value),
        ":authority" | "host" => Condition::Authority(value),
        other if other.starts_with(':') => Condition::Never(format!("requests have no `{other}`").into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_by_dots_or_brackets() {
        let shown = |name: &str| claim(name, &ValueMatch::Present).map(|condition| condition.to_string());
        for (name, expected) in [
            ("@request.auth.claims.a.b", Some("claim a.b is present")),
            ("@request.auth.claims[https://a.b/c][d]", Some("claim https://a.b/c.d is present")),
            ("@request.auth.claimsa", Some("never: `@request.auth.claimsa` names no claim")),
            ("x-user", None),
        ] {
            assert_eq!(shown(name).as_deref(), expected);
        }
    }
}
