//! Every field that a case expects, held against what was found.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::explain::{Explanation, Outcome, Target};
use crate::snapshot::hash_policy::HashPolicy;
use crate::snapshot::headers::{HeaderOperations, ValueTemplate};
use crate::snapshot::route::{Action, Forward, RewriteSource, RouteRule, RouteTable, VirtualHost};
use crate::snapshot::template;

/// Fields that expect nothing of their own: remarks, what the case needs, and statistics that are not kept by route.
pub(super) const NOTES: [&str; 5] = ["note", "simulationError", "strict", "requires", "statPrefix"];

/// What was found for one request.
pub(super) struct Found<'a> {
    pub explanation: &'a Explanation,
    /// `0.0.0.0_80`
    pub listener: &'a str,
    pub table: Option<&'a RouteTable>,
    pub host: Option<Arc<VirtualHost>>,
    pub rule: Option<Arc<RouteRule>>,
    pub asked: &'a Value,
}

/// How a case ended.
pub(super) enum Judged {
    Agrees,
    Differs(String),
    /// Everything agrees but what cannot be seen.
    Unseen(String),
}

pub(super) fn differences(expected: &Value, found: &Found<'_>) -> Judged {
    let mut unseen = Vec::new();
    for (name, wanted) in expected.as_object().into_iter().flatten() {
        if NOTES.contains(&name.as_str()) {
            continue;
        }
        match found.field(name, wanted) {
            Some(seen) if seen == in_order(name, wanted) => {}
            Some(seen) => {
                let explanation = found.explanation;
                return Judged::Differs(format!("{name} is {seen}, not {wanted}\n{explanation}"));
            }
            None => unseen.push(name.as_str()),
        }
    }
    if unseen.is_empty() { Judged::Agrees } else { Judged::Unseen(format!("cannot be seen: {}", unseen.join(", "))) }
}

/// The order of header operations on different names does not matter.
fn in_order(name: &str, wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    let lists = match name {
        "requestHeaderOps" | "responseHeaderOps" => vec![&mut wanted],
        "weighted" => {
            let all = wanted.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
            all.flat_map(|one| one.iter_mut().filter(|(key, _)| key.ends_with("HeaderOps")).map(|(_, list)| list))
                .collect()
        }
        _ => Vec::new(),
    };
    lists.into_iter().filter_map(Value::as_array_mut).for_each(|list| list.sort_by_key(Value::to_string));
    wanted
}

impl Found<'_> {
    /// The field in the case's words; `None` for what cannot be seen.
    fn field(&self, name: &str, wanted: &Value) -> Option<Value> {
        Some(match name {
            "outcome" => return self.outcome(wanted),
            "status" => match &self.explanation.outcome {
                Outcome::Answered { status, .. } => json!(status),
                _ => Value::Null,
            },
            "body" => return self.body(),
            "location" => match &self.explanation.outcome {
                Outcome::Answered { location, .. } => json!(location),
                _ => Value::Null,
            },
            "cluster" => same_for_all(self.targets(), |target| json!(in_words_of(wanted, &target.cluster))),
            "destination" => same_for_all(self.targets(), |target| destination(wanted, &target.cluster)),
            "weighted" => self.weighted(wanted),
            "virtualHost" => {
                let host = self.host.as_ref().map(|host| host.name.to_string());
                json!(host.zip(self.table).map(|(host, table)| format!("{host}:{}", table.port)))
            }
            "domain" => json!(self.host.as_ref().map(|host| host.name.to_string())),
            "routeCount" => json!(self.host.as_ref().map(|host| host.rules.len())),
            "routeConfig" => json!(self.table.map(|table| &table.name)),
            "route" => json!(self.rule.as_ref().map(|rule| rule.name.to_string())),
            "listener" => json!(self.listener),
            // What a grpc-timeout may ask for is the route's own timeout.
            "timeout" | "grpcTimeoutMax" => json!(self.forward().map(|forward| duration(forward.timeout))),
            "authority" => self.forwarded(|forwarding| json!(forwarding.authority)),
            "upstreamPath" => self.forwarded(|forwarding| json!(forwarding.path)),
            "upstreamHeaders" => self.upstream_headers(wanted),
            "responseHeaders" => self.response_headers(wanted),
            "requestHeaderOps" => operations(&self.rule.as_ref()?.request_headers),
            "requestHeadersRemoved" => removed(&self.rule.as_ref()?.request_headers),
            "responseHeaderOps" => operations(&self.rule.as_ref()?.response_headers),
            "responseHeadersRemoved" => removed(&self.rule.as_ref()?.response_headers),
            "hashPolicy" => {
                let policies = self.forward()?.hash.as_deref().unwrap_or_default();
                policies.iter().map(hash_policy).collect::<Vec<_>>().into()
            }
            "retryPreviousHostsPredicate" => {
                json!(self.forward()?.retry.as_ref().is_some_and(|policy| policy.host_picks.is_some()))
            }
            _ => return None,
        })
    }

    /// Istio's simulation tells kinds of broken connections apart; here each is closed, or answered 400 where a
    /// server of plain HTTP reads TLS.
    fn outcome(&self, wanted: &Value) -> Option<Value> {
        let word = match (&self.explanation.outcome, wanted.as_str()) {
            (_, Some("ambiguous")) => return None,
            (Outcome::Closed { .. }, Some(word @ ("tls-error" | "mtls-error" | "protocol-error"))) => word,
            (Outcome::Answered { status: 400, .. }, Some(word @ ("tls-error" | "protocol-error"))) => word,
            // The explanation is not asked with certificates.
            (_, Some("mtls-error")) => return None,
            (_, Some("virtual-host-selected")) if self.host.is_some() => "virtual-host-selected",
            (Outcome::Forwarded(_) | Outcome::Connected { .. }, _) => "routed",
            (Outcome::Answered { .. }, _) => "http",
            (Outcome::Refused, _) => "connection-refused",
            (Outcome::Closed { .. }, _) => "connection-closed",
        };
        Some(json!(word))
    }

    fn targets(&self) -> &[Target] {
        match &self.explanation.outcome {
            Outcome::Forwarded(forwarding) => &forwarding.destinations,
            Outcome::Connected { destinations, .. } => destinations,
            _ => &[],
        }
    }

    fn forward(&self) -> Option<&Forward> {
        match &self.rule.as_ref()?.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    fn forwarded(&self, field: impl Fn(&crate::explain::Forwarding) -> Value) -> Value {
        match &self.explanation.outcome {
            Outcome::Forwarded(forwarding) => field(forwarding),
            _ => Value::Null,
        }
    }

    fn body(&self) -> Option<Value> {
        match &self.rule.as_ref()?.action {
            Action::Respond(response) => Some(json!(String::from_utf8_lossy(&response.body))),
            _ => Some(Value::Null),
        }
    }

    /// Each destination with the fields that the case names.
    fn weighted(&self, wanted: &Value) -> Value {
        let Some(forward) = self.forward() else { return Value::Null };
        let fields = wanted[0].as_object().cloned().unwrap_or_default();
        let one = |destination: &crate::snapshot::route::Destination| -> Value {
            let cluster = destination.cluster.name();
            let parts: Vec<&str> = cluster.split('|').collect();
            let field = |name: &str| match name {
                "weight" => json!(destination.weight),
                "subset" => json!(parts.get(2)),
                "host" => json!(parts.get(3)),
                "port" => json!(parts.get(1).and_then(|port| port.parse::<u16>().ok())),
                "cluster" => json!(in_words_of(&fields[name], cluster)),
                "requestHeaderOps" => operations(&destination.request_headers),
                "requestHeadersRemoved" => removed(&destination.request_headers),
                "responseHeaderOps" => operations(&destination.response_headers),
                "responseHeadersRemoved" => removed(&destination.response_headers),
                "destinationAuthority" => json!(destination.authority_rewrite.as_ref().map(|rewrite| rewrite.text())),
                _ => Value::Null,
            };
            fields.keys().map(|name| (name.clone(), field(name))).collect::<serde_json::Map<_, _>>().into()
        };
        forward.destinations.iter().map(one).collect::<Vec<_>>().into()
    }

    /// The named headers as the endpoint gets them.
    fn upstream_headers(&self, wanted: &Value) -> Value {
        let Outcome::Forwarded(forwarding) = &self.explanation.outcome else { return Value::Null };
        let changed = |name: &str| {
            let start = format!("{name}: ");
            forwarding.header_changes.iter().find_map(|line| line.strip_prefix(&start))
        };
        let is_removed = |name: &str| forwarding.header_changes.iter().any(|line| *line == format!("remove {name}"));
        let rewrite = self.forward().and_then(|forward| forward.authority_rewrite.as_ref());
        let is_rewritten = rewrite.is_some_and(|rewrite| rewrite.source == RewriteSource::Rewrite);
        let value = |name: &str| match changed(name) {
            Some(values) => json!(values.split(" | ").collect::<Vec<_>>()),
            None if is_removed(name) => Value::Null,
            // Said by the proxy itself, which is settled to do so in these cases.
            None if name == "x-forwarded-host" && is_rewritten => json!([self.asked["host"]]),
            None => self.asked["headers"].get(name).cloned().unwrap_or_default(),
        };
        let names = wanted.as_object().into_iter().flatten();
        names.map(|(name, _)| (name.clone(), value(name))).collect::<serde_json::Map<_, _>>().into()
    }

    fn response_headers(&self, wanted: &Value) -> Value {
        let mut headers = HeaderMap::new();
        if let Some(rule) = &self.rule {
            rule.response_headers.apply(&mut headers, &template::tests::facts("/"));
        }
        let values = |name: &str| {
            let lines =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            lines.collect::<Vec<_>>()
        };
        let names = wanted.as_object().into_iter().flatten();
        names.map(|(name, _)| (name.clone(), json!(values(name)))).collect::<serde_json::Map<_, _>>().into()
    }
}

/// What holds for every destination; null if they differ, or if there is none.
fn same_for_all(targets: &[Target], field: impl Fn(&Target) -> Value) -> Value {
    let mut all = targets.iter().map(field);
    let first = all.next().unwrap_or_default();
    if all.all(|other| other == first) { first } else { Value::Null }
}

/// Istio's simulation has no cluster domain.
fn in_words_of(wanted: &Value, cluster: &str) -> String {
    let whole = wanted.to_string().contains(".svc.cluster.local");
    if whole { cluster.to_owned() } else { cluster.replace(".svc.cluster.local", "") }
}

/// The parts of a cluster's name that the case asks for.
fn destination(wanted: &Value, cluster: &str) -> Value {
    let cluster = in_words_of(wanted, cluster);
    let parts: Vec<&str> = cluster.split('|').collect();
    let field = |name: &str| match (name, parts.as_slice()) {
        ("special", [name]) => json!(name),
        ("direction", [direction, ..]) => json!(direction),
        ("port", [_, port, ..]) => json!(port.parse::<u16>().ok()),
        ("subset", [_, _, subset, _]) => json!(subset),
        ("host", [_, _, _, host]) => json!(host),
        _ => Value::Null,
    };
    let names = wanted.as_object().into_iter().flatten();
    names.map(|(name, _)| (name.clone(), field(name))).collect::<serde_json::Map<_, _>>().into()
}

/// As Envoy's configuration writes it: sets and adds as `[kind, name, value]`.
fn operations(operations: &HeaderOperations) -> Value {
    let text = |template: &ValueTemplate| match template {
        ValueTemplate::Fixed(Some(value)) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        other => format!("{other:?}"),
    };
    let row =
        |kind: &str, (name, template): &(http::HeaderName, ValueTemplate)| json!([kind, name.as_str(), text(template)]);
    let lists = operations.lists();
    let set = lists.set.iter().map(|one| row("set", one));
    let mut rows: Vec<Value> = set.chain(lists.add.iter().map(|one| row("add", one))).collect();
    rows.sort_by_key(Value::to_string);
    Value::Array(rows)
}

fn removed(operations: &HeaderOperations) -> Value {
    operations.lists().remove.iter().map(|name| json!(name.as_str())).collect::<Vec<_>>().into()
}

fn hash_policy(policy: &HashPolicy) -> Value {
    match policy {
        HashPolicy::Header(name) => json!({ "header": name.as_str() }),
        HashPolicy::Authority => json!({ "header": ":authority" }),
        HashPolicy::SourceIp => json!({ "sourceIp": true }),
        HashPolicy::Query(name) => json!({ "queryParameter": name }),
        HashPolicy::Cookie(cookie) => {
            let mut shown = json!({ "name": cookie.name });
            if let Some(ttl) = cookie.ttl {
                shown["ttl"] = json!(format!("{}.{:09}s", ttl.as_secs(), ttl.subsec_nanos()));
            }
            if !cookie.path.is_empty() {
                shown["path"] = json!(cookie.path);
            }
            if !cookie.attributes.is_empty() {
                shown["attributes"] = json!(cookie.attributes);
            }
            json!({ "cookie": shown })
        }
    }
}

/// Seconds, as in `1.5s`; none is `0s`.
fn duration(timeout: Option<Duration>) -> String {
    format!("{}s", timeout.unwrap_or_default().as_secs_f64())
}
