//! Which rules does a VirtualService make on one server? (Istio VirtualService.http.)

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::clusters::{self, Place};
use super::cors;
use super::delegate::{self, ResolvedRoute};
use super::faults;
use super::hashing;
use super::header_operations::{Lists, Spoiled};
use super::matches;
use super::work::Work;
use super::{mirrors, retries};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{
    HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination, RedirectPort,
    StringMatch, VirtualService,
};
use crate::snapshot::cors::CorsPolicy;
use crate::snapshot::fault::FaultPolicy;
use crate::snapshot::hash_policy::HashPolicy;
use crate::snapshot::matcher::{PathMatch, RequestMatch};
use crate::snapshot::route::{
    Action, AuthorityRewrite, ClusterReference, Destination, DirectResponse, Forward, Mirror, PathRewrite, Redirect,
    RewriteSource, RouteRule,
};

/// The server that rules are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ServerPlace<'a> {
    /// `namespace/name`
    pub gateway: &'a str,
    /// The Gateway's port number.
    pub port: u16,
    pub tls: bool,
}

/// The rules in order, up to the first catch-all. A rule whose conditions cannot be read is left out; one that cannot
/// do what it asks for keeps its conditions and answers 500. Both are reported.
pub(super) fn rules<'a>(
    work: &mut Work<'a>,
    object: &'a Object<VirtualService>,
    server: ServerPlace<'_>,
) -> Vec<Arc<RouteRule>> {
    let mut rules = Vec::new();
    for resolved in delegate::resolve(work, object) {
        let route = &*resolved.route;
        let always = HttpMatchRequest::default();
        let entries = if route.matches.is_empty() { std::slice::from_ref(&always) } else { route.matches.as_slice() };
        for (number, entry) in entries.iter().enumerate() {
            let ours = &work.index.settings.gateway;
            if !matches::applies(entry, &resolved.object.meta.namespace, server, ours) {
                continue;
            }
            let number = (!route.matches.is_empty()).then_some(number);
            let matches = match matches::conditions(work.memory, entry) {
                Ok(matches) => matches,
                Err(reason) => {
                    let path = format!("spec.http[{}].match[{}]", resolved.number, number.unwrap_or_default());
                    let message = format!("{reason}; the match is left out");
                    work.problems.report(resolved.object, &codes::RULE_SPOILED, &path, message);
                    continue;
                }
            };
            let rule = rule(work, object, &resolved, (entry, matches), number, server);
            let last = rule.matches.is_catch_all();
            rules.push(Arc::new(rule));
            if last {
                return rules;
            }
        }
    }
    rules
}

fn rule(
    work: &mut Work<'_>,
    root: &Object<VirtualService>,
    resolved: &ResolvedRoute<'_>,
    (entry, matches): (&HttpMatchRequest, RequestMatch),
    number: Option<usize>,
    server: ServerPlace<'_>,
) -> RouteRule {
    let route = &*resolved.route;
    let place = format!("spec.http[{}]", resolved.number);
    let origin = format!("VirtualService {} http[{}]", resolved.object.key(), resolved.number);
    let made = deed(work, root, resolved, (entry, &matches), server);
    let Deed { lists, action, cors, fault } = made.unwrap_or_else(|reason| {
        let message = format!("{reason}; its requests get 500");
        work.problems.report(resolved.object, &codes::RULE_SPOILED, &place, message);
        Deed { lists: Lists::default(), action: Action::Invalid(reason.into()), cors: None, fault: None }
    });
    for operator in &lists.absent {
        let message = format!("`%{operator}%` has no value here yet");
        work.problems.report(resolved.object, &codes::OPERATOR_WITHOUT_VALUE, &place, message);
    }
    RouteRule {
        name: match entry.name.as_str() {
            "" => route.name.as_str().into(),
            name => format!("{}.{name}", route.name).into(),
        },
        origin: number.map_or(origin.clone(), |number| format!("{origin}.match[{number}]")).into(),
        matches,
        action,
        cors,
        fault,
        request_headers: lists.request.into(),
        response_headers: lists.response.into(),
    }
}

/// Everything of a rule but its conditions.
struct Deed {
    lists: Lists,
    action: Action,
    cors: Option<Box<CorsPolicy>>,
    fault: Option<Box<FaultPolicy>>,
}

fn deed(
    work: &mut Work<'_>,
    root: &Object<VirtualService>,
    resolved: &ResolvedRoute<'_>,
    (entry, matches): (&HttpMatchRequest, &RequestMatch),
    server: ServerPlace<'_>,
) -> Result<Deed, String> {
    let route = &*resolved.route;
    let (lists, action) = match Lists::new(route.headers.as_deref()) {
        Ok(lists) => action(work, root, resolved, lists, (entry, matches), server)?,
        Err(spoiled) => refusal(work, resolved, spoiled)?,
    };
    let (mut cors, mut fault) = (None, None);
    if matches!(action, Action::Forward(_)) {
        if let Some(written) = &route.cors_policy {
            cors = cors::policy(work.memory, written)?;
        }
        if let Some(written) = &route.fault {
            fault = faults::policy(written)?;
        }
    }
    Ok(Deed { lists, action, cors, fault })
}

/// Envoy answers requests itself when a header name of the operations is none.
fn refusal(work: &mut Work<'_>, resolved: &ResolvedRoute<'_>, spoiled: Spoiled) -> Result<(Lists, Action), String> {
    match spoiled {
        Spoiled::Value(reason) => Err(reason),
        Spoiled::RequestName(name) => {
            let path = format!("spec.http[{}].headers", resolved.number);
            let message = format!("`{name}` is no header name; requests get 503");
            work.problems.report(resolved.object, &codes::RULE_SPOILED, &path, message);
            let body = Bytes::from(format!("invalid header name: {name}"));
            let respond = DirectResponse { status: StatusCode::SERVICE_UNAVAILABLE, body };
            Ok((Lists::default(), Action::Respond(respond)))
        }
    }
}

fn action(
    work: &mut Work<'_>,
    root: &Object<VirtualService>,
    resolved: &ResolvedRoute<'_>,
    lists: Lists,
    (entry, matches): (&HttpMatchRequest, &RequestMatch),
    server: ServerPlace<'_>,
) -> Result<(Lists, Action), String> {
    let route = &*resolved.route;
    if let Some(redirect) = &route.redirect {
        return Ok((lists, Action::Redirect(make_redirect(redirect, &matches.path, server)?)));
    }
    if let Some(response) = &route.direct_response {
        return Ok((lists, Action::Respond(make_response(response)?)));
    }
    let place = Place { namespace: &resolved.object.meta.namespace, server_port: server.port };
    let mirrors = mirrors::mirrors(work, route, place);
    let written = route.route.iter().filter_map(|one| one.destination.as_ref());
    let hash: Vec<_> = written.filter_map(|one| hashing::of_destination(work, one, place)).collect();
    match route.route.as_slice() {
        [] => Err("the rule has no route, redirect or directResponse".to_owned()),
        [only] => {
            let joined = match Lists::new(only.headers.as_deref()) {
                Ok(own) => lists.join(own),
                Err(spoiled) => return refusal(work, resolved, spoiled),
            };
            let cluster = cluster(work, resolved, only, server)?;
            let operation = operation_of_one(&cluster, entry);
            let destinations = vec![plain_destination(cluster, 1)];
            let forward = forward(work, route, &joined, matches, (destinations, mirrors, hash), operation)?;
            Ok((joined, Action::Forward(forward)))
        }
        several => {
            let destinations = match weighted(work, resolved, several, server)? {
                Ok(destinations) => destinations,
                Err(spoiled) => return refusal(work, resolved, spoiled),
            };
            let operation = format!("{}:{}{}", root.meta.name, server.port, operation_path(entry));
            let forward = forward(work, route, &lists, matches, (destinations, mirrors, hash), operation)?;
            Ok((lists, Action::Forward(forward)))
        }
    }
}

/// Several destinations: those without weight get nothing, each keeps its own header operations.
fn weighted(
    work: &mut Work<'_>,
    resolved: &ResolvedRoute<'_>,
    several: &[HttpRouteDestination],
    server: ServerPlace<'_>,
) -> Result<Result<Vec<Destination>, Spoiled>, String> {
    let mut destinations = Vec::with_capacity(several.len());
    for one in several {
        let Some(weight) = u32::try_from(one.weight).ok().filter(|weight| *weight > 0) else { continue };
        let lists = match Lists::new(one.headers.as_deref()) {
            Ok(lists) => lists,
            Err(spoiled) => return Ok(Err(spoiled)),
        };
        for operator in &lists.absent {
            let message = format!("`%{operator}%` has no value here yet");
            let path = format!("spec.http[{}].route", resolved.number);
            work.problems.report(resolved.object, &codes::OPERATOR_WITHOUT_VALUE, &path, message);
        }
        let mut destination = plain_destination(cluster(work, resolved, one, server)?, weight);
        destination.authority_rewrite =
            lists.authority.as_deref().map(|text| authority(text, RewriteSource::Destination)).transpose()?;
        destination.request_headers = lists.request.into();
        destination.response_headers = lists.response.into();
        destinations.push(destination);
    }
    if destinations.is_empty() {
        return Err("the sum of the weights is 0".to_owned());
    }
    Ok(Ok(destinations))
}

fn plain_destination(cluster: ClusterReference, weight: u32) -> Destination {
    Destination {
        cluster,
        weight,
        request_headers: Default::default(),
        response_headers: Default::default(),
        authority_rewrite: None,
    }
}

fn cluster(
    work: &mut Work<'_>,
    resolved: &ResolvedRoute<'_>,
    one: &HttpRouteDestination,
    server: ServerPlace<'_>,
) -> Result<ClusterReference, String> {
    let destination = one.destination.as_ref().ok_or_else(|| "a route names no destination".to_owned())?;
    let place = Place { namespace: &resolved.object.meta.namespace, server_port: server.port };
    Ok(clusters::reference(work, destination, place))
}

fn forward(
    work: &mut Work<'_>,
    route: &HttpRoute,
    lists: &Lists,
    matches: &RequestMatch,
    (destinations, mirrors, hash): (Vec<Destination>, Vec<Mirror>, Vec<HashPolicy>),
    operation: String,
) -> Result<Forward, String> {
    let rewrite = route.rewrite.as_ref();
    let written = rewrite.map(|rewrite| rewrite.authority.as_str()).filter(|text| !text.is_empty());
    let authority_rewrite = match (written, &lists.authority) {
        (Some(text), _) => Some(authority(text, RewriteSource::Rewrite)?),
        (None, Some(text)) => Some(authority(text, RewriteSource::Operation)?),
        (None, None) => None,
    };
    let retry =
        retries::policy(route.retries.as_deref(), work.index.settings.mesh.http_retry.as_ref(), !hash.is_empty());
    Ok(Forward {
        total_weight: destinations.iter().fold(0, |sum: u32, one| sum.saturating_add(one.weight)),
        destinations,
        timeout: route.timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero()),
        retry,
        hash: (!hash.is_empty()).then(|| hash.into()),
        mirrors,
        path_rewrite: rewrite.map(|rewrite| path_rewrite(work, rewrite, &matches.path)).transpose()?.flatten(),
        authority_rewrite,
        decorator: HeaderValue::from_str(&operation).unwrap_or_else(|_| HeaderValue::from_static("*")),
    })
}

fn authority(text: &str, source: RewriteSource) -> Result<AuthorityRewrite, String> {
    let value = HeaderValue::from_str(text).map_err(|_| format!("{text:?} can be no authority"))?;
    Ok(AuthorityRewrite { value, source })
}

/// `<host>:<port>/<path>` of the only destination (Istio's decorator operation).
fn operation_of_one(cluster: &ClusterReference, entry: &HttpMatchRequest) -> String {
    let name = cluster.name();
    let mut parts = name.split('|').skip(1);
    let (port, host) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    format!("{host}:{port}{}", operation_path(entry))
}

/// The path's condition as it is written.
fn operation_path(entry: &HttpMatchRequest) -> String {
    match entry.uri.as_deref() {
        Some(StringMatch { exact: Some(text), .. }) => text.clone(),
        Some(StringMatch { prefix: Some(text), .. }) => format!("{text}*"),
        Some(StringMatch { regex: Some(text), .. }) => text.clone(),
        _ => "/*".to_owned(),
    }
}

/// A prefix is replaced, anything else as a whole; without a condition the prefix is `/`.
fn replace_path(path: &PathMatch, with: &str) -> PathRewrite {
    match path {
        PathMatch::Any => PathRewrite::Prefix { matched: 1, with: with.into() },
        PathMatch::Prefix { text, .. } => PathRewrite::Prefix { matched: text.len(), with: with.into() },
        PathMatch::Exact { .. } | PathMatch::Regex(_) => PathRewrite::Full(with.into()),
    }
}

fn path_rewrite(work: &mut Work<'_>, rewrite: &HttpRewrite, path: &PathMatch) -> Result<Option<PathRewrite>, String> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        let pattern = work.memory.search_pattern(&regex.pattern);
        let pattern = pattern.map_err(|reason| format!("the rewrite `{}` cannot be used: {reason}", regex.pattern))?;
        return Ok(Some(PathRewrite::Regex { pattern, with: regex.rewrite.as_str().into() }));
    }
    Ok((!rewrite.uri.is_empty()).then(|| replace_path(path, &rewrite.uri)))
}

fn make_redirect(redirect: &HttpRedirect, path: &PathMatch, server: ServerPlace<'_>) -> Result<Redirect, String> {
    let code = match redirect.redirect_code {
        0 => StatusCode::MOVED_PERMANENTLY,
        code @ (301 | 302 | 303 | 307 | 308) => {
            StatusCode::from_u16(u16::try_from(code).unwrap_or_default()).unwrap_or(StatusCode::MOVED_PERMANENTLY)
        }
        code => return Err(format!("redirects cannot have the code {code}; 301, 302, 303, 307 and 308 can")),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    let port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => u16::try_from(port).ok(),
        (None, Some(RedirectPort::FromRequestPort)) => Some(server.port),
        (None, _) => None,
    };
    let scheme = match redirect.scheme.as_str() {
        "" if server.tls => "https",
        "" => "http",
        scheme => scheme,
    };
    let own_port = |port: &u16| matches!((scheme, *port), ("http", 80) | ("https", 443));
    Ok(Redirect {
        code,
        scheme: text(&redirect.scheme),
        authority: text(&redirect.authority),
        port: port.filter(|port| *port > 0 && !own_port(port)),
        path: match (redirect.uri.as_str(), redirect.prefix_rewrite.as_str()) {
            ("", "") => None,
            ("", prefix) => Some(replace_path(path, prefix)),
            (uri, _) => Some(PathRewrite::Full(uri.into())),
        },
    })
}

fn make_response(response: &HttpDirectResponse) -> Result<DirectResponse, String> {
    let status = u16::try_from(response.status).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| format!("a direct response cannot have the status {}", response.status))?;
    let body = match response.body.as_ref().map(|body| (&body.string, &body.bytes)) {
        Some((Some(text), _)) => Bytes::from(text.clone()),
        Some((None, Some(encoded))) => {
            Bytes::from(STANDARD.decode(encoded).map_err(|_| "the body's bytes are not base64".to_owned())?)
        }
        _ => Bytes::new(),
    };
    Ok(DirectResponse { status, body })
}
