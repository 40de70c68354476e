//! What does the chosen rule, or a TCP server, do with what it got?

use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use serde::Serialize;

use super::asked::{Asked, is_secret};
use crate::snapshot::cluster::{Cluster, DnsName, Encryption, Endpoint, EndpointSource};
use crate::snapshot::cors::CorsVerdict;
use crate::snapshot::fault::{Abort, FaultPolicy};
use crate::snapshot::headers::TemplateFacts;
use crate::snapshot::route::{Action, ClusterReference, Destination, Forward, RequestFacts, RouteRule};
use crate::snapshot::tcp::{TcpDestination, TcpProxy};
use crate::snapshot::tls::TlsClient;

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

pub(super) fn answered(status: u16, reason: &str, location: Option<String>) -> Outcome {
    Outcome::Answered { status, reason: reason.to_owned(), location }
}

pub(super) fn outcome(rule: &RouteRule, facts: &RequestFacts<'_>, asked: &Asked, local: SocketAddr) -> Outcome {
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
pub(super) fn connected(proxy: &TcpProxy) -> Outcome {
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
        EndpointSource::Static(endpoints) => {
            let shown =
                |endpoint: &Endpoint| format!("{}{}", endpoint.address, exception(cluster, endpoint.encryption));
            endpoints.iter().map(shown).collect()
        }
        EndpointSource::Dns { names, .. } => {
            let shown = |name: &DnsName| {
                format!("{}:{} (looked up){}", name.name, name.port, exception(cluster, name.encryption))
            };
            names.iter().map(shown).collect()
        }
        EndpointSource::Original => vec!["the address that is asked for".to_owned()],
        EndpointSource::Requested => vec!["the request's own host and port, as DNS resolves it".to_owned()],
    }
}

/// What is different from the rest of the cluster.
fn exception(cluster: &Cluster, encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::None if cluster.tls.is_some() => " in plaintext",
        _ => "",
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
