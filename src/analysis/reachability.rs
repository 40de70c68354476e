//! Can every rule of a VirtualService be reached? (Istio's unreachable and ineffective warnings, IST0130 and IST0131)

use std::collections::HashMap;
use std::fmt::Debug;

use crate::resource::codes::{self, Code};
use crate::resource::finding::Finding;
use crate::resource::meta::Object;
use crate::resource::networking::{HttpMatchRequest, HttpRoute, VirtualService};

/// Most findings of one object.
const MAX_FINDINGS: usize = 20;

/// What is said about one rule or match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shadow {
    pub code: &'static Code,
    pub path: String,
    pub message: String,
}

/// Findings about one object.
pub(super) fn analyze(object: &Object<VirtualService>) -> Vec<Finding> {
    shadows(&object.spec).into_iter().map(|shadow| object.finding(shadow.code, &shadow.path, shadow.message)).collect()
}

/// Rules and matches that earlier ones leave nothing for.
pub(super) fn shadows(service: &VirtualService) -> Vec<Shadow> {
    let mut found = shadows_of_http(&service.http);
    found.extend(shadows_of_connections("tls", service.tls.iter().map(|route| route.matches.as_slice())));
    found.extend(shadows_of_connections("tcp", service.tcp.iter().map(|route| route.matches.as_slice())));
    found.truncate(MAX_FINDINGS);
    found
}

fn shadows_of_connections<'a, M>(kind: &str, routes: impl Iterator<Item = &'a [M]>) -> Vec<Shadow>
where
    M: Debug + 'a,
{
    let mut found = Vec::new();
    let mut catch_all: Option<usize> = None;
    let mut seen: HashMap<String, (usize, usize)> = HashMap::new();
    for (index, matches) in routes.enumerate() {
        let path = format!("spec.{kind}[{index}]");
        if let Some(first) = catch_all {
            let message = format!("it is never reached: {kind}[{first}] has no match and takes every connection");
            found.push(Shadow { code: &codes::UNREACHABLE_RULE, path, message });
            continue;
        }
        if matches.is_empty() {
            catch_all = Some(index);
        }
        let mut repeated = Vec::new();
        for (place, entry) in matches.iter().enumerate() {
            let key = format!("{entry:?}");
            if let Some((rule, earlier)) = seen.get(&key) {
                let message = format!("it is the same as {kind}[{rule}].match[{earlier}]");
                repeated.push(Shadow {
                    code: &codes::INEFFECTIVE_MATCH,
                    path: format!("{path}.match[{place}]"),
                    message,
                });
            } else {
                seen.insert(key, (index, place));
            }
        }
        if !repeated.is_empty() && repeated.len() == matches.len() {
            let message = "it is never reached: earlier rules take the connections of all its matches".to_owned();
            found.push(Shadow { code: &codes::UNREACHABLE_RULE, path, message });
        } else {
            found.append(&mut repeated);
        }
    }
    found
}

fn shadows_of_http(routes: &[HttpRoute]) -> Vec<Shadow> {
    let mut found = Vec::new();
    let mut catch_all: Option<usize> = None;
    let mut seen: HashMap<String, (usize, usize)> = HashMap::new();
    let mut prefixes: HashMap<String, Vec<(&str, usize)>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        if found.len() >= MAX_FINDINGS {
            break;
        }
        if let Some(first) = catch_all {
            let message = format!("it is never reached: http[{first}] has no match and takes every request");
            found.push(Shadow { code: &codes::UNREACHABLE_RULE, path: format!("spec.http[{index}]"), message });
            continue;
        }
        if route.matches.is_empty() {
            catch_all = Some(index);
        }
        let mut repeated = 0;
        let mut ineffective = Vec::new();
        for (place, entry) in route.matches.iter().enumerate() {
            let path = format!("spec.http[{index}].match[{place}]");
            let key = conditions(entry, true);
            if let Some((rule, earlier)) = seen.get(&key) {
                repeated += 1;
                let message = format!("it is the same as http[{rule}].match[{earlier}]");
                ineffective.push(Shadow { code: &codes::INEFFECTIVE_MATCH, path, message });
                continue;
            }
            seen.insert(key, (index, place));
            let Some(prefix) = entry.uri.as_ref().and_then(|uri| uri.prefix.as_deref()) else { continue };
            let known = prefixes.entry(conditions(entry, false)).or_default();
            if let Some((shorter, rule)) = known.iter().find(|(shorter, _)| prefix.starts_with(shorter)) {
                repeated += 1;
                let message = format!("the prefix `{shorter}` of http[{rule}] takes its requests");
                ineffective.push(Shadow { code: &codes::INEFFECTIVE_MATCH, path, message });
            } else if known.len() < MAX_PREFIXES {
                known.push((prefix, index));
            }
        }
        if repeated > 0 && repeated == route.matches.len() {
            let message = "it is never reached: earlier rules take the requests of all its matches".to_owned();
            found.push(Shadow { code: &codes::UNREACHABLE_RULE, path: format!("spec.http[{index}]"), message });
        } else {
            found.extend(ineffective);
        }
    }
    found
}

/// Prefixes with the same other conditions that are compared with each later one.
const MAX_PREFIXES: usize = 64;

/// The conditions of a match as text; an absent method counts as GET, as in Istio.
fn conditions(entry: &HttpMatchRequest, with_uri: bool) -> String {
    let by_uri_alone = HttpMatchRequest { uri: entry.uri.clone(), ..HttpMatchRequest::default() };
    if *entry == by_uri_alone {
        return if with_uri { format!("{:?}", entry.uri) } else { String::new() };
    }
    let mut entry = HttpMatchRequest { name: String::new(), stat_prefix: String::new(), ..entry.clone() };
    if !with_uri {
        entry.uri = None;
        if entry.method.as_ref().is_some_and(|method| method.exact.as_deref() == Some("GET")) {
            entry.method = None;
        }
    }
    if entry == HttpMatchRequest::default() { String::new() } else { format!("{entry:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::networking::StringMatch;
    use crate::source::decode::decode;

    fn route(prefixes: &[&str]) -> HttpRoute {
        let uri = |prefix: &&str| {
            Some(Box::new(StringMatch { prefix: Some((*prefix).to_owned()), ..StringMatch::default() }))
        };
        let matches = prefixes.iter().map(|prefix| HttpMatchRequest { uri: uri(prefix), ..Default::default() });
        HttpRoute { matches: matches.collect(), ..HttpRoute::default() }
    }

    #[test]
    fn what_earlier_rules_take_is_told() {
        let told = |routes: &[HttpRoute]| -> Vec<(&str, String)> {
            shadows_of_http(routes).into_iter().map(|shadow| (shadow.code.id, shadow.path)).collect()
        };
        assert_eq!(told(&[route(&["/b"]), route(&["/a"]), route(&[])]), []);
        assert_eq!(told(&[route(&[]), route(&["/a"])]), [("IST0130", "spec.http[1]".into())]);
        assert_eq!(told(&[route(&["/a"]), route(&["/ab"])]), [("IST0130", "spec.http[1]".into())]);
        assert_eq!(told(&[route(&["/a"]), route(&["/a", "/b"])]), [("IST0131", "spec.http[1].match[0]".into())]);
    }

    #[test]
    fn rules_of_connections_are_told_too() {
        let text = r#"{"tcp": [{"match": [{"port": 1}]}, {"match": [{"port": 1}, {"port": 2}]}, {"match": [{"port": 2}]},
            {}, {"match": [{"port": 3}]}]}"#;
        let spec = decode::<VirtualService>(&serde_json::from_str(text).unwrap(), "spec").unwrap().value;
        let told: Vec<_> = shadows(&spec).into_iter().map(|shadow| (shadow.code.id, shadow.path)).collect();
        assert_eq!(
            told,
            [
                ("IST0131", "spec.tcp[1].match[0]".to_owned()),
                ("IST0130", "spec.tcp[2]".to_owned()),
                ("IST0130", "spec.tcp[4]".to_owned())
            ]
        );
    }
}
