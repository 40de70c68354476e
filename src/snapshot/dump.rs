//! What is in force, as JSON for operators? Never a key.

use http::HeaderValue;
use serde_json::{Value, json};

use super::cluster::{Cluster, Encryption, EndpointSource, Limits};
use super::cors::{CorsPolicy, Offer};
use super::fault::{Abort, FaultPolicy};
use super::listener::{Listener, Service, Transport};
use super::retry::{RetryCondition, RetryPolicy};
use super::route::{Action, ClusterReference, Forward, Mirror, PathRewrite, RouteRule, RouteTable, VirtualHost};
use super::tcp::TcpProxy;
use super::tls::{TlsClient, TlsServer};
use super::{PathNormalization, Snapshot};

/// The whole snapshot.
pub(crate) fn dump(snapshot: &Snapshot) -> Value {
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let policy = &snapshot.proxy;
    json!({
        "generation": snapshot.generation,
        "listeners": snapshot.listeners.iter().map(|listener| show_listener(listener)).collect::<Vec<_>>(),
        "clusters": clusters.into_iter().map(|cluster| show_cluster(cluster)).collect::<Vec<_>>(),
        "proxy": {
            "maxHeadBytes": policy.max_head_bytes,
            "maxHeaders": policy.max_headers,
            "headTimeout": show_duration(policy.head_timeout),
            "handshakeTimeout": show_duration(policy.handshake_timeout),
            "idleTimeout": show_duration(policy.idle_timeout),
            "trustedProxies": policy.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "numTrustedProxies": policy.num_trusted_proxies,
            "pathNormalization": show_normalization(policy.path_normalization),
            "maxConcurrentStreams": policy.max_concurrent_streams,
            "rejectsUnderscores": policy.rejects_underscores,
        },
    })
}

/// The route tables alone: per listener and chain the hosts with their rules, in the order of look-up.
pub(crate) fn routes(snapshot: &Snapshot) -> Value {
    let tables = snapshot.listeners.iter().flat_map(|listener| {
        listener.chains.all().iter().filter_map(|(conditions, chain)| {
            let routes = chain.routes()?;
            Some(json!({
                "listener": listener.address.to_string(),
                "chain": chain.name,
                "serverNames": conditions.server_names,
                "routeTable": routes.name,
                "virtualHosts": show_hosts(routes),
            }))
        })
    });
    Value::Array(tables.collect())
}

/// The certificates that are served, chain by chain.
pub(crate) fn certificates(snapshot: &Snapshot) -> Value {
    let chains = snapshot.listeners.iter().flat_map(|listener| {
        let chains = listener.chains.all().iter();
        let tls = chains.filter_map(|(conditions, chain)| Some((conditions, chain, chain.tls.as_ref()?)));
        tls.map(|(conditions, chain, tls)| {
            json!({
                "listener": listener.address.to_string(),
                "chain": chain.name,
                "serverNames": conditions.server_names,
                "tls": show_tls(tls),
            })
        })
    });
    Value::Array(chains.collect())
}

fn show_listener(listener: &Listener) -> Value {
    let chains = listener.chains.all().iter().map(|(conditions, chain)| {
        let (table, hosts, tcp) = match &chain.service {
            Service::Http(routes) => (Some(&routes.name), Some(show_hosts(routes)), None),
            Service::Tcp(proxy) => (None, None, Some(show_tcp(proxy))),
        };
        json!({
            "name": chain.name,
            "serverNames": conditions.server_names,
            "destinations": conditions.destinations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "transport": conditions.transport.map(Transport::word),
            "alpn": conditions.alpn,
            "tls": chain.tls.as_ref().map(show_tls),
            "port": chain.port(),
            "routeTable": table,
            "virtualHosts": hosts,
            "tcp": tcp,
        })
    });
    json!({
        "address": listener.address.to_string(),
        "proxyProtocol": listener.proxy_protocol,
        "filterChains": chains.collect::<Vec<_>>(),
    })
}

fn show_tls(tls: &TlsServer) -> Value {
    match tls {
        TlsServer::Unavailable { reason } => json!({ "unavailable": reason }),
        TlsServer::Ready(terms) => {
            let facts = terms.certificates.facts().map(|facts| {
                let certificate = &facts.certificate;
                json!({
                    "source": facts.source,
                    "subject": certificate.subject,
                    "issuer": certificate.issuer,
                    "names": certificate.names().collect::<Vec<_>>(),
                    "serial": certificate.serial,
                    "notBefore": show_time(certificate.not_before),
                    "notAfter": show_time(certificate.not_after),
                })
            });
            json!({ "certificates": facts.collect::<Vec<_>>() })
        }
    }
}

fn show_tcp(proxy: &TcpProxy) -> Value {
    let destinations = proxy.destinations.iter().map(|destination| {
        let exists = matches!(destination.cluster, ClusterReference::Known(_));
        json!({ "cluster": &**destination.cluster.name(), "weight": destination.weight, "exists": exists })
    });
    json!({
        "origin": proxy.origin,
        "destinations": destinations.collect::<Vec<_>>(),
        "bySource": proxy.by_source,
        "idleTimeout": proxy.idle_timeout.map(show_duration),
        "maxDuration": proxy.max_duration.map(show_duration),
    })
}

fn show_hosts(routes: &RouteTable) -> Vec<Value> {
    routes.virtual_hosts().into_iter().map(|host| show_host(host)).collect()
}

fn show_host(host: &VirtualHost) -> Value {
    json!({
        "name": host.name,
        "requireTls": host.require_tls,
        "rules": host.rules.iter().map(|rule| show_rule(rule)).collect::<Vec<_>>(),
    })
}

fn show_rule(rule: &RouteRule) -> Value {
    json!({
        "name": rule.name,
        "origin": rule.origin,
        "path": rule.matches.path.to_string(),
        "conditions": rule.matches.conditions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "action": show_action(&rule.action),
        "cors": rule.cors.as_deref().map(show_cors),
        "fault": rule.fault.as_deref().map(show_fault),
    })
}

fn show_cors(policy: &CorsPolicy) -> Value {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let offer = |offer: &Offer| match offer {
        Offer::Nothing => Value::Null,
        Offer::Asked => json!("*"),
        Offer::Listed(list) => json!(text(list)),
    };
    json!({
        "origins": policy.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": offer(&policy.methods),
        "headers": offer(&policy.headers),
        "expose": policy.expose.as_ref().map(text),
        "maxAge": policy.max_age.as_ref().map(text),
        "credentials": policy.credentials,
        "answersUnmatched": policy.answers_unmatched,
    })
}

fn show_fault(policy: &FaultPolicy) -> Value {
    let delay = policy.delay.map(|(share, delay)| json!({ "percent": share.percent(), "delay": show_duration(delay) }));
    let abort = policy.abort.map(|(share, abort)| match abort {
        Abort::Http(status) => json!({ "percent": share.percent(), "status": status.as_u16() }),
        Abort::Grpc(status) => json!({ "percent": share.percent(), "grpcStatus": status }),
    });
    json!({ "delay": delay, "abort": abort })
}

fn show_action(action: &Action) -> Value {
    match action {
        Action::Forward(forward) => show_forward(forward),
        Action::Redirect(redirect) => json!({
            "redirect": {
                "code": redirect.code.as_u16(),
                "scheme": redirect.scheme,
                "authority": redirect.authority,
                "port": redirect.port,
                "path": redirect.path.as_ref().map(show_rewrite),
            },
        }),
        Action::Invalid(reason) => json!({ "invalid": reason }),
        Action::Respond(response) => {
            json!({ "respond": { "status": response.status.as_u16(), "bytes": response.body.len() } })
        }
    }
}

fn show_forward(forward: &Forward) -> Value {
    let destinations = forward.destinations.iter().map(|destination| {
        let exists = matches!(destination.cluster, ClusterReference::Known(_));
        json!({ "cluster": &**destination.cluster.name(), "weight": destination.weight, "exists": exists })
    });
    json!({
        "forward": {
            "destinations": destinations.collect::<Vec<_>>(),
            "timeout": forward.timeout.map(show_duration),
            "hash": forward.hash.as_ref().map(|policies| format!("{policies:?}")),
            "retries": forward.retry.as_ref().map(|policy| show_retry(policy)),
            "mirrors": forward.mirrors.iter().map(show_mirror).collect::<Vec<_>>(),
            "pathRewrite": forward.path_rewrite.as_ref().map(show_rewrite),
            "authorityRewrite": forward.authority_rewrite.as_ref().map(|rewrite| rewrite.text()),
        },
    })
}

fn show_retry(policy: &RetryPolicy) -> Value {
    json!({
        "attempts": policy.attempts,
        "perTryTimeout": policy.per_try_timeout.map(show_duration),
        "retryOn": policy.conditions.iter().map(RetryCondition::word).collect::<Vec<_>>(),
        "statusCodes": policy.status_codes.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
        "backoff": show_duration(policy.backoff),
        "hostPicks": policy.host_picks,
        "remoteLocalities": policy.remote_localities,
    })
}

fn show_mirror(mirror: &Mirror) -> Value {
    json!({ "cluster": &*mirror.cluster.name, "perMillion": mirror.share.millionths() })
}

fn show_cluster(cluster: &Cluster) -> Value {
    let tls = match &cluster.tls {
        None => Value::Null,
        Some(TlsClient::Ready { sni, .. }) => json!({ "sni": sni }),
        Some(TlsClient::Unavailable { reason }) => json!({ "unavailable": reason }),
    };
    let endpoints = match &cluster.endpoints {
        EndpointSource::Static(endpoints) => {
            let shown = endpoints.iter().map(|e| {
                json!({ "address": e.address.to_string(), "weight": e.weight, "tls": has_tls(cluster, e.encryption) })
            });
            json!({ "static": shown.collect::<Vec<_>>() })
        }
        EndpointSource::Dns { names, logical } => {
            let shown = names.iter().map(|name| {
                let tls = has_tls(cluster, name.encryption);
                json!({ "name": name.name, "port": name.port, "weight": name.weight, "tls": tls })
            });
            json!({ "dns": shown.collect::<Vec<_>>(), "logical": logical })
        }
        EndpointSource::Original => json!({ "original": true }),
        EndpointSource::Requested => json!({ "requested": true }),
    };
    json!({
        "name": &*cluster.name,
        "service": cluster.service.host,
        "namespace": cluster.service.namespace,
        "protocol": cluster.protocol.to_string(),
        "balancing": cluster.balancing.to_string(),
        "warmup": cluster.warmup.as_ref().map(|warmup| format!("{warmup:?}")),
        "endpoints": endpoints,
        "tls": tls,
        "proxyProtocol": cluster.proxy_header.map(|header| header.to_string()),
        "tunnel": cluster.tunnel.as_ref().map(|tunnel| &*tunnel.authority),
        "connectTimeout": show_duration(cluster.connect_timeout),
        "idleTimeout": cluster.idle_timeout.map(show_duration),
        "maxRequestsPerConnection": cluster.max_requests_per_connection,
        "limits": show_limits(&cluster.limits),
        "outlierDetection": cluster.outlier.as_ref().map(|policy| format!("{policy:?}")),
        "places": cluster.places.as_ref().map(|places| format!("{places:?}")),
    })
}

fn has_tls(cluster: &Cluster, encryption: Encryption) -> bool {
    cluster.tls.is_some() && encryption == Encryption::OfCluster
}

/// Those that are set.
fn show_limits(limits: &Limits) -> Value {
    let numbers = [
        ("maxConnections", limits.max_connections),
        ("maxPending", limits.max_pending),
        ("maxRequests", limits.max_requests),
        ("maxRetries", limits.max_retries),
        ("maxStreams", limits.max_streams),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, json!(number?))));
    let budget = limits.retry_budget.map(|budget| json!({ "percent": budget.percent, "least": budget.least }));
    let pings = limits
        .pings
        .map(|pings| json!({ "interval": show_duration(pings.interval), "timeout": show_duration(pings.timeout) }));
    let keepalive = limits.keepalive.map(|keepalive| {
        json!({
            "probes": keepalive.probes,
            "time": keepalive.time.map(show_duration),
            "interval": keepalive.interval.map(show_duration),
        })
    });
    let others = [
        ("retryBudget", budget),
        ("maxAge", limits.max_age.map(|age| json!(show_duration(age)))),
        ("keepalive", keepalive),
        ("pings", pings),
    ];
    let others = others.into_iter().filter_map(|(name, shown)| Some((name, shown?)));
    numbers.chain(others).map(|(name, shown)| (name.to_owned(), shown)).collect::<serde_json::Map<_, _>>().into()
}

fn show_rewrite(path: &PathRewrite) -> Value {
    match path {
        PathRewrite::Prefix { with, .. } => json!({ "prefix": with }),
        PathRewrite::Full(path) => json!({ "full": path }),
        PathRewrite::Regex { pattern, with } => json!({ "regex": pattern.source(), "with": with }),
    }
}

/// As the settings write it.
fn show_normalization(level: PathNormalization) -> &'static str {
    match level {
        PathNormalization::None => "NONE",
        PathNormalization::Base => "BASE",
        PathNormalization::MergeSlashes => "MERGE_SLASHES",
        PathNormalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        PathNormalization::RedirectEscapedSlashes => "MERGE_SLASHES, escaped slashes are redirected",
    }
}

fn show_duration(duration: std::time::Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn show_time(seconds: i64) -> String {
    chrono::DateTime::from_timestamp(seconds, 0).map(|time| time.to_rfc3339()).unwrap_or_default()
}
