//! Which routes does a VirtualService have once its delegates stand in place? (Istio VirtualService.http.delegate.)

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::index::{gateway_key, or_default};
use super::work::Work;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};

/// One route, with the object that it was written in: its namespace completes short names.
pub(super) struct ResolvedRoute<'a> {
    pub route: Cow<'a, HttpRoute>,
    pub object: &'a Object<VirtualService>,
    /// The place in the object's `spec.http`.
    pub number: usize,
}

/// The routes in order. A root route whose delegate cannot be used is left out.
pub(super) fn resolve<'a>(work: &mut Work<'a>, root: &'a Object<VirtualService>) -> Vec<ResolvedRoute<'a>> {
    let mut routes = Vec::with_capacity(root.spec.http.len());
    for (number, route) in root.spec.http.iter().enumerate() {
        match &route.delegate {
            None => routes.push(ResolvedRoute { route: Cow::Borrowed(route), object: root, number }),
            Some(_) => match leaf_of(work, root, route) {
                Ok(leaf) => routes.extend(joined(root, route, leaf)),
                Err(reason) => {
                    work.problems.report(
                        root,
                        &codes::DELEGATE_MISSING,
                        &format!("spec.http[{number}].delegate"),
                        reason,
                    );
                }
            },
        }
    }
    routes
}

fn leaf_of<'a>(
    work: &Work<'a>,
    root: &Object<VirtualService>,
    route: &HttpRoute,
) -> Result<&'a Object<VirtualService>, String> {
    let delegate = route.delegate.as_ref().ok_or_else(String::new)?;
    let home = root.meta.namespace.as_str();
    let namespace = if delegate.namespace.is_empty() { home } else { &delegate.namespace };
    let name = format!("VirtualService {namespace}/{}", delegate.name);
    let leaf = work.index.virtual_service(namespace, &delegate.name).ok_or_else(|| format!("{name} does not exist"))?;
    let words = or_default(&leaf.spec.export_to, &work.index.settings.mesh.virtual_service_export_to);
    let exported = |word: &String| word == "*" || word == home || (word == "." && namespace == home);
    if !words.is_empty() && !words.iter().any(exported) {
        return Err(format!("{name} is not exported to namespace {home}"));
    }
    if !leaf.spec.hosts.is_empty() {
        return Err(format!("{name} has hosts of its own, so it is no delegate"));
    }
    if leaf.spec.http.iter().any(|route| route.delegate.is_some()) {
        return Err(format!("{name} delegates again, which is not allowed"));
    }
    Ok(leaf)
}

fn joined<'a>(
    root: &Object<VirtualService>,
    route: &HttpRoute,
    leaf: &'a Object<VirtualService>,
) -> Vec<ResolvedRoute<'a>> {
    let root_matches = with_gateway_keys(&route.matches, &root.meta.namespace);
    let routes = leaf.spec.http.iter().enumerate().filter_map(|(number, own)| {
        let matches = join_matches(&root_matches, &with_gateway_keys(&own.matches, &leaf.meta.namespace))?;
        let route = Cow::Owned(join_routes(route, own, matches));
        Some(ResolvedRoute { route, object: leaf, number })
    });
    routes.collect()
}

fn with_gateway_keys(matches: &[HttpMatchRequest], namespace: &str) -> Vec<HttpMatchRequest> {
    let mut matches = matches.to_vec();
    for entry in &mut matches {
        entry.gateways.iter_mut().for_each(|name| *name = gateway_key(name, namespace));
    }
    matches
}

/// What the leaf does not say is taken from the root; headers are not merged.
fn join_routes(root: &HttpRoute, leaf: &HttpRoute, matches: Vec<HttpMatchRequest>) -> HttpRoute {
    let mut joined = leaf.clone();
    joined.matches = matches;
    joined.name = join_names(&root.name, &leaf.name);
    fill(&mut joined.rewrite, &root.rewrite);
    fill(&mut joined.direct_response, &root.direct_response);
    fill(&mut joined.timeout, &root.timeout);
    fill(&mut joined.retries, &root.retries);
    fill(&mut joined.fault, &root.fault);
    fill(&mut joined.mirror, &root.mirror);
    fill(&mut joined.mirror_percent, &root.mirror_percent);
    fill(&mut joined.mirror_percentage, &root.mirror_percentage);
    fill(&mut joined.cors_policy, &root.cors_policy);
    fill(&mut joined.headers, &root.headers);
    if joined.mirrors.is_empty() {
        joined.mirrors = root.mirrors.clone();
    }
    joined
}

fn fill<T: Clone>(own: &mut Option<T>, inherited: &Option<T>) {
    if own.is_none() {
        own.clone_from(inherited);
    }
}

fn join_names(root: &str, leaf: &str) -> String {
    match (root, leaf) {
        (root, "") => root.to_owned(),
        ("", leaf) => leaf.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    }
}

/// Each match of the leaf with each compatible one of the root; `None` if one finds none.
pub(super) fn join_matches(root: &[HttpMatchRequest], leaf: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() || leaf.is_empty() {
        return Some(if root.is_empty() { leaf } else { root }.to_vec());
    }
    let mut joined = Vec::new();
    for own in leaf {
        let before = joined.len();
        joined.extend(root.iter().filter(|root| !conflict(root, own)).map(|root| join_match(root, own)));
        if joined.len() == before {
            return None;
        }
    }
    Some(joined)
}

/// Whether no request, by Istio's rules, can meet both.
pub(super) fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let pairs = [
        (root.uri.as_deref(), leaf.uri.as_deref()),
        (root.scheme.as_deref(), leaf.scheme.as_deref()),
        (root.method.as_deref(), leaf.method.as_deref()),
        (root.authority.as_deref(), leaf.authority.as_deref()),
    ];
    pairs.into_iter().any(|(root, leaf)| value_conflict(root, leaf))
        || map_conflict(&root.headers, &leaf.headers)
        || map_conflict(&root.without_headers, &leaf.without_headers)
        || map_conflict(&root.query_params, &leaf.query_params)
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace)
        || root.source_labels.iter().any(|(key, value)| leaf.source_labels.get(key).is_some_and(|own| own != value))
        || (!root.gateways.is_empty() && !leaf.gateways.iter().all(|name| root.gateways.contains(name)))
}

type Values = BTreeMap<String, Option<StringMatch>>;

fn map_conflict(root: &Values, leaf: &Values) -> bool {
    root.iter().any(|(name, value)| leaf.get(name).is_some_and(|own| value_conflict(value.as_ref(), own.as_ref())))
}

/// An empty matcher conflicts with everything that is set, even with an empty one.
fn value_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (exact, prefix, regex) = (text(&root.exact), text(&root.prefix), text(&root.regex));
    let (own_exact, own_prefix, own_regex) = (text(&leaf.exact), text(&leaf.prefix), text(&leaf.regex));
    if !regex.is_empty() || !own_regex.is_empty() {
        return true;
    }
    match (exact.as_str(), prefix.as_str()) {
        ("", "") => true,
        ("", prefix) if own_exact.is_empty() => !own_prefix.starts_with(prefix),
        ("", prefix) => !own_exact.starts_with(prefix),
        (exact, _) => !own_prefix.is_empty() || own_exact != exact,
    }
}

/// The leaf's words win, maps are united.
pub(super) fn join_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let mut joined = leaf.clone();
    joined.name = join_names(&root.name, &leaf.name);
    fill(&mut joined.uri, &root.uri);
    fill(&mut joined.scheme, &root.scheme);
    fill(&mut joined.method, &root.method);
    fill(&mut joined.authority, &root.authority);
    unite(&mut joined.headers, &root.headers);
    unite(&mut joined.without_headers, &root.without_headers);
    unite(&mut joined.query_params, &root.query_params);
    unite(&mut joined.source_labels, &root.source_labels);
    if joined.port == 0 {
        joined.port = root.port;
    }
    if joined.gateways.is_empty() {
        joined.gateways = root.gateways.clone();
    }
    for (own, inherited) in
        [(&mut joined.source_namespace, &root.source_namespace), (&mut joined.stat_prefix, &root.stat_prefix)]
    {
        if own.is_empty() {
            own.clone_from(inherited);
        }
    }
    joined
}

fn unite<V: Clone>(own: &mut BTreeMap<String, V>, inherited: &BTreeMap<String, V>) {
    for (key, value) in inherited {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}
