//! Which listener, chain, host, rule and destination would take a request, and why not the others?
//!
//! Every decision is asked of the data plane's own functions, so that explain cannot lie.

mod asked;
mod nearest;
mod outbound;
mod outcome;
mod text;
mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

pub(crate) use self::outbound::explain_outbound;
pub(crate) use self::outcome::Outcome;
#[cfg(test)]
pub(crate) use self::outcome::{Forwarding, Target};

use self::asked::{Asked, Asker};
use self::nearest::nearest;
use self::outcome::{answered, connected, outcome};
use self::verdict::{Verdict, verdicts};
use crate::snapshot::listener::{ConnectionFacts, FilterChain, Listener, Service};
use crate::snapshot::path;
use crate::snapshot::redirect::{host_of, https_location};
use crate::snapshot::route::{RequestFacts, VirtualHost};
use crate::snapshot::tls::TlsServer;
use crate::snapshot::{ProxyPolicy, Snapshot};

/// A request to explain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// Empty means GET.
    pub method: String,
    /// `http://host[:port]/path`: the port is the Gateway's or the bound one; `https` means TLS, `tcp` no HTTP.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// The client's address; 127.0.0.1 if absent.
    pub from: Option<IpAddr>,
    /// The server name of TLS; empty for none. If absent, it is the host of an `https` URL, and `tcp` is plaintext.
    pub sni: Option<String>,
    /// The address that a workload connects to; if absent, that of the service which has the URL's host.
    pub to: Option<IpAddr>,
    /// What a token that was verified says.
    pub claims: Option<serde_json::Value>,
}

/// A request that was served.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub method: String,
    pub scheme: String,
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// The bound address that took the connection.
    pub listener: SocketAddr,
    pub is_tls: bool,
    pub sni: Option<String>,
    /// Those that rules of its host looked at, as they saw them.
    pub headers: Vec<(String, String)>,
    pub from: IpAddr,
}

/// What would happen, step by step. Steps that are not reached are absent.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub generation: u64,
    /// Method, scheme, authority and normalised path as rules see them.
    pub request: String,
    pub listener: Option<String>,
    /// The chain, with the reason for it.
    pub chain: Option<String>,
    /// Istio's name of the route table, such as `http.8080`.
    pub route_table: Option<String>,
    /// The virtual host, with the reason for it.
    pub virtual_host: Option<String>,
    /// Every rule of the host, in order.
    pub rules: Vec<Verdict>,
    pub outcome: Outcome,
    /// Where no server, server name or host was found: the smallest change of the request that finds one.
    pub nearest: Option<String>,
}

/// Explains a request against a snapshot. Fails with a sentence if the URL or a header cannot be read.
pub(crate) fn explain(snapshot: &Snapshot, query: &Query) -> Result<Explanation, String> {
    Ok(explained(snapshot, &Asked::new(query, Asker::Client)?))
}

/// Explains what a snapshot would make of a request that was served. Values that give access are not shown.
pub(crate) fn explain_again(snapshot: &Snapshot, recorded: &Recorded) -> Explanation {
    explained(snapshot, &Asked::recorded(recorded))
}

fn explained(snapshot: &Snapshot, asked: &Asked) -> Explanation {
    let mut explanation = Explanation { generation: snapshot.generation, ..begin(asked) };
    if let Some((listener, chain)) = find_chain(snapshot, asked, &mut explanation) {
        let context = Context { local: listener.address, proxy: &snapshot.proxy };
        serve(chain, asked, context, &mut explanation);
    }
    explanation
}

fn begin(asked: &Asked) -> Explanation {
    let request = match asked.scheme.as_str() {
        "tcp" => format!("tcp://{}", asked.authority),
        scheme => format!("{} {scheme}://{}{}", asked.method, asked.authority, asked.target),
    };
    Explanation { request, ..Explanation::default() }
}

/// What a chain is asked under.
#[derive(Clone, Copy)]
struct Context<'a> {
    /// The address that the client connected to.
    local: SocketAddr,
    proxy: &'a ProxyPolicy,
}

/// What the chain does with the request.
fn serve(chain: &FilterChain, asked: &Asked, context: Context<'_>, explanation: &mut Explanation) {
    let routes = match &chain.service {
        Service::Http(_) if asked.scheme == "tcp" => {
            let reason = "the server reads HTTP; ask for an http or https URL";
            explanation.outcome = Outcome::Closed { reason: reason.to_owned() };
            return;
        }
        Service::Http(routes) => routes,
        Service::Tcp(proxy) => {
            explanation.outcome = connected(proxy);
            return;
        }
    };
    explanation.route_table = Some(routes.name.clone());
    let level = context.proxy.path_normalization;
    let normalized = match path::normalize(&asked.target, level) {
        Ok(normalized) if path::is_redirected(&asked.target, level) => {
            let reason = "a path with escaped slashes is redirected to its decoded form";
            explanation.outcome = answered(307, reason, Some(normalized.into_owned()));
            return;
        }
        Ok(normalized) => normalized,
        Err(error) => {
            explanation.outcome = answered(400, &error.to_string(), None);
            return;
        }
    };
    let (path, query) = path::split_query(&normalized);
    let facts = RequestFacts {
        method: &asked.method,
        scheme: &asked.scheme,
        authority: &asked.authority,
        path,
        query,
        headers: &asked.headers,
        claims: asked.claims.as_ref(),
    };
    explanation.request = format!("{} {}://{}{normalized}", asked.method, asked.scheme, asked.authority);
    let Some(host) = routes.find(&asked.authority) else {
        let hosts = routes.virtual_hosts();
        explanation.outcome = answered(404, &no_host(&hosts), None);
        let name = nearest(host_of(&asked.authority), hosts.iter().map(|host| &*host.name));
        explanation.nearest = name.map(|name| format!("host {name} would be served"));
        return;
    };
    explanation.virtual_host = Some(format!("{} ({})", host.name, why_host(&host.name)));
    let chosen = host.find(&facts);
    let stays = |authority: &str| routes.find(authority).is_some_and(|found| Arc::ptr_eq(found, host));
    explanation.rules = verdicts(host, &facts, chosen.map(|rule| &**rule), stays);
    if asked.hides_secrets {
        explanation.rules.iter_mut().for_each(Verdict::hide_secrets);
    }
    explanation.outcome = match chosen {
        _ if asked.scheme == "http" && host.wants_https(&facts) => {
            answered(301, "the server redirects plaintext to https", Some(https_location(&facts)))
        }
        None => answered(404, "no rule of the host matches", None),
        Some(rule) => outcome(rule, &facts, asked, context.local),
    };
}

fn find_chain<'a>(
    snapshot: &'a Snapshot,
    asked: &Asked,
    explanation: &mut Explanation,
) -> Option<(&'a Listener, &'a FilterChain)> {
    let Some(listener) = find_listener(snapshot, asked) else {
        explanation.nearest = nearest_listener(snapshot, asked);
        return None;
    };
    explanation.listener = Some(listener.address.to_string());
    let closed = |reason: &str| Outcome::Closed { reason: reason.to_owned() };
    let destination = listener.address.ip();
    let (facts, shown) = match (asked.is_tls, asked.sni.as_deref()) {
        (false, _) => (ConnectionFacts::plain(destination), "plaintext".to_owned()),
        (true, None) => (ConnectionFacts::tls(destination, None), "no server name".to_owned()),
        (true, Some(sni)) => (ConnectionFacts::tls(destination, Some(sni)), format!("server name {sni}")),
    };
    let Some(chain) = listener.chains.find(&facts) else {
        explanation.outcome = closed(&format!("no server of the port takes a connection with {shown}"));
        explanation.nearest = nearest_server(listener, asked);
        return None;
    };
    explanation.chain = Some(format!("{} ({shown})", chain.name));
    match &chain.tls {
        Some(_) if !asked.is_tls => {
            explanation.outcome = closed("the server takes TLS only");
            explanation.nearest = Some("TLS would be read".to_owned());
        }
        Some(TlsServer::Unavailable { reason }) => explanation.outcome = closed(reason),
        None if asked.is_tls && chain.routes().is_some() => {
            let reason = format!("no server takes {shown}; the plaintext server cannot read TLS");
            explanation.outcome = answered(400, &reason, None);
            explanation.nearest = nearest_server(listener, asked);
        }
        Some(TlsServer::Ready { .. }) | None => return Some((listener, chain)),
    }
    None
}

/// By the bound port, else by the Gateway's port; an address for all interfaces comes first.
fn find_listener<'a>(snapshot: &'a Snapshot, asked: &Asked) -> Option<&'a Listener> {
    if let Some(address) = asked.listener {
        return snapshot.listener(address).map(|listener| &**listener);
    }
    let port = asked.port;
    let all = || snapshot.listeners.iter().map(|listener| &**listener);
    let of_gateway = |listener: &&Listener| listener.chains.all().iter().any(|(_, chain)| chain.port() == port);
    let mut bound: Vec<_> = all().filter(|listener| listener.address.port() == port).collect();
    if bound.is_empty() {
        bound = all().filter(of_gateway).collect();
    }
    bound.into_iter().min_by_key(|listener| !listener.address.ip().is_unspecified())
}

fn why_host(name: &str) -> &'static str {
    match name {
        "*" => "any host",
        name if name.starts_with('*') => "the longest wildcard that holds the host",
        _ => "exactly the host",
    }
}

/// Most names that an answer lists.
const MOST_NAMES: usize = 10;

fn no_host(hosts: &[&Arc<VirtualHost>]) -> String {
    let names: Vec<&str> = hosts.iter().take(MOST_NAMES).map(|host| &*host.name).collect();
    match hosts.len().saturating_sub(names.len()) {
        _ if hosts.is_empty() => "there is no virtual host".to_owned(),
        0 => format!("no virtual host has this name; there are: {}", names.join(", ")),
        more => format!("no virtual host has this name; there are: {} and {more} more", names.join(", ")),
    }
}

/// The port that serves the host asked for, else the port whose number is nearest.
fn nearest_listener(snapshot: &Snapshot, asked: &Asked) -> Option<String> {
    let serves = |listener: &&Arc<Listener>| {
        let mut routes = listener.chains.all().iter().filter_map(|(_, chain)| chain.routes());
        routes.any(|routes| routes.find(&asked.authority).is_some())
    };
    let distance = |listener: &&Arc<Listener>| listener.address.port().abs_diff(asked.port);
    let listener = snapshot.listeners.iter().min_by_key(|listener| (!serves(listener), distance(listener)))?;
    Some(format!("port {} is bound", listener.address.port()))
}

/// The server name nearest to the one asked for.
fn nearest_server(listener: &Listener, asked: &Asked) -> Option<String> {
    let chains = listener.chains.all().iter().filter(|(_, chain)| chain.tls.is_some() || chain.routes().is_none());
    let names = chains.flat_map(|(conditions, _)| conditions.server_names.iter().map(String::as_str));
    let name = nearest(asked.sni.as_deref().unwrap_or_default(), names)?;
    Some(format!("server name {name} would be taken"))
}
