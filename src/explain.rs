//! Which listener, chain, host, rule and destination would take a request, and why not the others?
//!
//! Every decision is asked of the data plane's own functions, so that explain cannot lie.

mod asked;
mod nearest;
mod outbound;
mod text;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use serde::Serialize;

pub(crate) use self::outbound::explain_outbound;

use self::asked::{Asked, Asker, is_secret};
use self::nearest::nearest;
use crate::snapshot::cluster::{Cluster, EndpointSource};
use crate::snapshot::cors::CorsVerdict;
use crate::snapshot::fault::{Abort, FaultPolicy};
use crate::snapshot::headers::TemplateFacts;
use crate::snapshot::listener::{ConnectionFacts, FilterChain, Listener, Service};
use crate::snapshot::miss::{Change, Miss};
use crate::snapshot::path;
use crate::snapshot::redirect::{host_of, https_location};
use crate::snapshot::route::{Action, ClusterReference, Destination, Forward, RequestFacts, RouteRule, VirtualHost};
use crate::snapshot::tcp::{TcpDestination, TcpProxy};
use crate::snapshot::tls::{TlsClient, TlsServer};
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

/// What one rule says to the request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    pub origin: String,
    pub name: String,
    pub chosen: bool,
    /// The first condition that failed and what would meet it, or why the rule was not asked.
    pub reason: String,
    /// The first condition that failed.
    pub miss: Option<Miss>,
    /// What of the request has to be changed for the rule to match it; empty if nothing is known.
    pub changes: Vec<Change>,
}

/// How the request ends.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(crate) enum Outcome {
    /// Nothing is bound there.
    #[default]
    Refused,
    /// The connection is accepted and closed.
    Closed { reason: String },
    /// The proxy answers by itself.
    Answered { status: u16, reason: String, location: Option<String> },
    /// The request goes to one of the destinations.
    Forwarded(Box<Forwarding>),
    /// The bytes of the connection go to one of the destinations.
    Connected { origin: String, destinations: Vec<Target>, idle_timeout: Option<String> },
}

/// What goes where.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forwarding {
    pub destinations: Vec<Target>,
    /// With the query.
    pub path: String,
    pub authority: String,
    pub timeout: Option<String>,
    /// Which share of the requests is delayed or aborted on purpose.
    pub faults: Vec<String>,
    /// What CORS adds to the answer.
    pub cors: Option<String>,
    /// What header operations change, such as `set x: 1`.
    pub header_changes: Vec<String>,
}

/// One destination.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub cluster: String,
    pub weight: u32,
    /// In percent of all weights.
    pub share: f64,
    /// How it is spoken to, or why it cannot be.
    pub transport: String,
    pub endpoints: Vec<String>,
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
        _ if host.require_tls && asked.scheme == "http" => {
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

/// `stays` says whether an authority still leads to this host.
fn verdicts(
    host: &VirtualHost,
    facts: &RequestFacts<'_>,
    chosen: Option<&RouteRule>,
    stays: impl Fn(&str) -> bool,
) -> Vec<Verdict> {
    let mut reached = true;
    let verdict = |rule: &Arc<RouteRule>| {
        let is_chosen = reached && chosen.is_some_and(|chosen| std::ptr::eq(chosen, &**rule));
        let miss = rule.matches.first_miss(facts);
        let leads_away = |change: &Change| matches!(change, Change::Authority { to } if !stays(to));
        let changes = miss.as_ref().and_then(|_| rule.matches.changes(facts));
        let changes = changes.filter(|changes| !changes.iter().any(leads_away)).unwrap_or_default();
        let reason = why(is_chosen, miss.as_ref(), &changes);
        reached &= !is_chosen;
        let (origin, name) = (rule.origin.to_string(), rule.name.to_string());
        Verdict { origin, name, chosen: is_chosen, reason, miss, changes }
    };
    host.rules.iter().map(verdict).collect()
}

fn why(is_chosen: bool, miss: Option<&Miss>, changes: &[Change]) -> String {
    match miss {
        _ if is_chosen => "every condition holds".to_owned(),
        Some(miss) if changes.is_empty() => miss.to_string(),
        Some(miss) => {
            let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
            format!("{miss}; {} would match", changes.join(" with "))
        }
        None => "not reached; it would match as well".to_owned(),
    }
}

impl Verdict {
    /// Takes out what a header said that gives access.
    fn hide_secrets(&mut self) {
        let Some(miss) = &mut self.miss else { return };
        if miss.seen.is_some() && miss.subject.strip_prefix("header ").is_some_and(is_secret) {
            miss.seen = Some("(hidden)".to_owned());
            self.reason = why(self.chosen, self.miss.as_ref(), &self.changes);
        }
    }
}

fn answered(status: u16, reason: &str, location: Option<String>) -> Outcome {
    Outcome::Answered { status, reason: reason.to_owned(), location }
}

fn outcome(rule: &RouteRule, facts: &RequestFacts<'_>, asked: &Asked, local: SocketAddr) -> Outcome {
    match &rule.action {
        Action::Redirect(redirect) => {
            answered(redirect.code.as_u16(), "the rule redirects", Some(redirect.location(facts)))
        }
        Action::Respond(response) => {
            let reason = format!("the rule answers with a body of {} bytes", response.body.len());
            answered(response.status.as_u16(), &reason, None)
        }
        Action::Invalid(reason) => answered(500, &format!("the rule is invalid: {reason}"), None),
        Action::Forward(_) if is_answered_preflight(rule, facts) => {
            answered(200, "the CORS policy of the rule answers the preflight", None)
        }
        Action::Forward(forward) => Outcome::Forwarded(Box::new(forwarding(rule, forward, facts, asked, local))),
    }
}

fn is_answered_preflight(rule: &RouteRule, facts: &RequestFacts<'_>) -> bool {
    rule.cors.as_ref().is_some_and(|cors| matches!(cors.judge(facts), CorsVerdict::Answer(_)))
}

fn cors(rule: &RouteRule, facts: &RequestFacts<'_>) -> Option<String> {
    let verdict = rule.cors.as_ref()?.judge(facts);
    Some(match verdict {
        CorsVerdict::Nothing => "no allowed origin asks; the answer stays as it is".to_owned(),
        CorsVerdict::Answer(_) => "the preflight is answered".to_owned(),
        CorsVerdict::Permit(_) => "the answer permits the origin".to_owned(),
    })
}

fn faults(policy: &FaultPolicy) -> Vec<String> {
    let delay = policy.delay.map(|(share, delay)| format!("{} % are delayed by {delay:?}", share.percent()));
    let abort = policy.abort.map(|(share, abort)| match abort {
        Abort::Http(status) => format!("{} % are aborted with {}", share.percent(), status.as_u16()),
        Abort::Grpc(status) => format!("{} % are aborted with the gRPC status {status}", share.percent()),
    });
    delay.into_iter().chain(abort).collect()
}

fn forwarding(
    rule: &RouteRule,
    forward: &Forward,
    facts: &RequestFacts<'_>,
    asked: &Asked,
    local: SocketAddr,
) -> Forwarding {
    let path = forward.path_rewrite.as_ref().map_or_else(|| facts.path.to_owned(), |rewrite| rewrite.apply(facts.path));
    let query = facts.query.map(|query| format!("?{query}")).unwrap_or_default();
    let authority = forward.authority_rewrite.as_ref().map_or(facts.authority, |rewrite| rewrite.text());
    Forwarding {
        destinations: forward.destinations.iter().map(|one| target(one, forward.total_weight)).collect(),
        path: format!("{path}{query}"),
        authority: authority.to_owned(),
        timeout: forward.timeout.map(|timeout| format!("{timeout:?}")),
        faults: rule.fault.as_deref().map(faults).unwrap_or_default(),
        cors: cors(rule, facts),
        header_changes: header_changes(rule, facts, asked, local),
    }
}

fn target(destination: &Destination, total: u32) -> Target {
    let (transport, endpoints) = match &destination.cluster {
        ClusterReference::Missing(_) => ("the destination does not exist: 503".to_owned(), Vec::new()),
        ClusterReference::Known(cluster) => (transport(cluster), endpoints(cluster)),
    };
    Target {
        cluster: destination.cluster.name().to_string(),
        weight: destination.weight,
        share: share(destination.weight, total),
        transport,
        endpoints,
    }
}

fn share(weight: u32, total: u32) -> f64 {
    f64::from(weight) * 100.0 / f64::from(total.max(1))
}

/// What becomes of the bytes of a connection.
fn connected(proxy: &TcpProxy) -> Outcome {
    if proxy.destinations.is_empty() {
        return Outcome::Closed { reason: "no route of a VirtualService is for this server".to_owned() };
    }
    let target = |destination: &TcpDestination| {
        let (transport, endpoints) = match &destination.cluster {
            ClusterReference::Missing(_) => ("the destination does not exist: closed".to_owned(), Vec::new()),
            ClusterReference::Known(cluster) => (encryption(cluster), endpoints(cluster)),
        };
        Target {
            cluster: destination.cluster.name().to_string(),
            weight: destination.weight,
            share: share(destination.weight, proxy.total_weight),
            transport,
            endpoints,
        }
    };
    Outcome::Connected {
        origin: proxy.origin.to_string(),
        destinations: proxy.destinations.iter().map(target).collect(),
        idle_timeout: proxy.idle_timeout.map(|timeout| format!("{timeout:?}")),
    }
}

fn transport(cluster: &Cluster) -> String {
    format!("{} over {}", cluster.protocol, encryption(cluster))
}

fn encryption(cluster: &Cluster) -> String {
    let tls = match &cluster.tls {
        None => "plaintext".to_owned(),
        Some(TlsClient::Ready { sni, .. }) => format!("TLS for {}", sni.as_deref().unwrap_or("the request's host")),
        Some(TlsClient::Unavailable { reason }) => format!("no connection: {reason}"),
    };
    format!("{tls}, {}", cluster.balancing)
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    match &cluster.endpoints {
        EndpointSource::Static(endpoints) => endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect(),
        EndpointSource::Dns { names, .. } => {
            names.iter().map(|name| format!("{}:{} (looked up)", name.name, name.port)).collect()
        }
        EndpointSource::Original => vec!["the address that is asked for".to_owned()],
    }
}

/// The rule's own operations on the request, as differences of the headers.
fn header_changes(rule: &RouteRule, facts: &RequestFacts<'_>, asked: &Asked, local: SocketAddr) -> Vec<String> {
    let peer = SocketAddr::new(asked.from, 0);
    let template = TemplateFacts {
        tls_cipher: None,
        client_certificate: None,
        server_certificate: None,
        request: None,
        method: facts.method,
        scheme: facts.scheme,
        authority: facts.authority,
        path: &asked.target,
        response_code: 0,
        response_flags: "-".into(),
        protocol: "HTTP/1.1",
        start: SystemTime::UNIX_EPOCH,
        remote: peer,
        direct_remote: peer,
        local,
        server_name: asked.sni.as_deref(),
        tls_version: None,
        hostname: "",
        upstream_host: None,
        upstream_cluster: None,
        attempts: 1,
        route_name: &rule.name,
        details: "",
        received: 0,
    };
    let mut sent = asked.headers.clone();
    if asked.hides_secrets {
        asked.headers.keys().filter(|name| is_secret(name.as_str())).for_each(|name| drop(sent.remove(name)));
    }
    let mut changed = sent.clone();
    rule.request_headers.apply(&mut changed, &template);
    let lines = |headers: &HeaderMap, name: &HeaderName| -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let removed = sent.keys().filter(|name| !changed.contains_key(*name)).map(|name| format!("remove {name}"));
    let set = changed.keys().filter(|name| lines(&changed, name) != lines(&sent, name));
    removed.chain(set.map(|name| format!("{name}: {}", lines(&changed, name).join(" | ")))).collect()
}
