//! One request of a case: asked of the explanation, and of the rule that it names.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::found::{Found, Judged, differences};
use super::{World, skipped};
use crate::conformance::Verdict;
use crate::explain::{Explanation, Query, explain, explain_outbound};
use crate::snapshot::listener::ChainTable;
use crate::snapshot::route::{RouteTable, VirtualHost};

/// The fields of a request.
const KNOWN: [&str; 13] = [
    "port",
    "protocol",
    "tls",
    "sni",
    "alpn",
    "address",
    "mode",
    "method",
    "scheme",
    "host",
    "path",
    "headers",
    "jwtClaims",
];

pub(super) fn judge(case: &Value) -> Verdict {
    let (asked, expected) = (&case["request"], &case["expected"]);
    let is_sidecar = case["proxy"]["type"] == "sidecar";
    if asked["mode"] == "inbound" {
        return skipped("what a workload is asked is judged when sidecars are in force");
    }
    let mode = asked["mode"].as_str().unwrap_or_default();
    if !matches!(mode, "" | "gateway" | "outbound") {
        return skipped(&format!("no mode {mode} of a request is known"));
    }
    if asked["port"].as_u64().is_none_or(|port| port > 65_535) {
        return skipped("the request names no port");
    }
    if let Some(name) =
        asked.as_object().into_iter().flat_map(|map| map.keys()).find(|name| !KNOWN.contains(&name.as_str()))
    {
        return skipped(&format!("no field {name} of a request is known"));
    }
    if expected["outcome"].as_str().is_none() {
        return skipped("the case expects no outcome");
    }
    let world = World::new(case);
    let query = query(case, is_sidecar);
    let judged = if is_sidecar {
        let outbound = world.outbound();
        let explanation = match explain_outbound(&outbound, &query) {
            Ok(explanation) => explanation,
            Err(why) => return skipped(&format!("the request cannot be asked: {why}")),
        };
        let chains: Vec<&ChainTable> = outbound.listeners.iter().map(|listener| &listener.chains).collect();
        if case["type"] == "sidecar-route" {
            by_domain(expected, asked, &query, &outbound, &chains)
        } else {
            let listener = explanation.listener.clone().unwrap_or_default();
            compare(expected, explanation, &listener, &chains, asked)
        }
    } else {
        let snapshot = world.snapshot();
        let explanation = match explain(&snapshot, &query) {
            Ok(explanation) => explanation,
            Err(why) => return skipped(&format!("the request cannot be asked: {why}")),
        };
        let chains: Vec<&ChainTable> = snapshot.listeners.iter().map(|listener| &listener.chains).collect();
        let listener = explanation.listener.clone().unwrap_or_default();
        // Istio writes `0.0.0.0_80`.
        let listener = listener.rsplit_once(':').map(|(address, port)| format!("{address}_{port}")).unwrap_or_default();
        compare(expected, explanation, &listener, &chains, asked)
    };
    match judged {
        Judged::Agrees => Verdict::Passed,
        Judged::Differs(why) => Verdict::Failed(why),
        Judged::Unseen(what) => Verdict::Skipped(what),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn query(case: &Value, is_sidecar: bool) -> Query {
    let asked = &case["request"];
    // Cases that only look for a host have no TLS of their own.
    let by_host = case["type"] == "gateway-vhost" && asked["scheme"] == "https";
    let has_hello = asked.get("tls").is_some() || by_host;
    let scheme = match text(&asked["protocol"]).as_str() {
        "tcp" => "tcp",
        // A server name without TLS: the case means a ClientHello.
        _ if is_sidecar && !has_hello && asked.get("sni").is_some() => "tcp",
        _ if has_hello => "https",
        _ => "http",
    };
    let mut headers = vec![("host".to_owned(), text(&asked["host"]))];
    for (name, values) in asked["headers"].as_object().into_iter().flatten() {
        headers.extend(values.as_array().into_iter().flatten().map(|value| (name.clone(), text(value))));
    }
    let sni = asked.get(if by_host { "host" } else { "sni" }).map(text);
    Query {
        method: text(&asked["method"]),
        url: format!("{scheme}://host.test:{}{}", asked["port"], text(&asked["path"])),
        headers,
        sni: sni.or_else(|| (scheme == "https").then(String::new)),
        to: asked["address"].as_str().and_then(|address| address.parse::<IpAddr>().ok()),
        claims: asked.get("jwtClaims").cloned(),
        ..Query::default()
    }
}

fn compare(
    expected: &Value,
    explanation: Explanation,
    listener: &str,
    chains: &[&ChainTable],
    asked: &Value,
) -> Judged {
    let table = explanation.route_table.as_deref().and_then(|name| table(chains, name));
    let host = explanation.virtual_host.as_deref().zip(table).and_then(|(shown, table)| {
        let name = shown.split(" (").next().unwrap_or_default();
        table.virtual_hosts().into_iter().find(|host| &*host.name == name).cloned()
    });
    let rule = host.as_ref().and_then(|host| {
        let number = explanation.rules.iter().position(|verdict| verdict.chosen)?;
        host.rules.get(number).cloned()
    });
    differences(expected, &Found { explanation: &explanation, listener, table, host, rule, asked })
}

fn table<'a>(chains: &[&'a ChainTable], name: &str) -> Option<&'a RouteTable> {
    let all = chains.iter().flat_map(|table| table.all()).filter_map(|(_, chain)| chain.routes());
    all.into_iter().find(|table| table.name == name)
}

/// Istio's test looks for the domain itself, also where it is a wildcard, in the table of the port.
fn by_domain(
    expected: &Value,
    asked: &Value,
    query: &Query,
    outbound: &crate::snapshot::outbound::Outbound,
    chains: &[&ChainTable],
) -> Judged {
    let domain = text(&asked["host"]);
    let table = table(chains, &asked["port"].to_string());
    let host: Option<&Arc<VirtualHost>> = table.and_then(|table| match domain.strip_prefix('*') {
        Some(suffix) => table.suffixes.get(suffix),
        None => table.exact.get(domain.as_str()),
    });
    let is_none = expected["outcome"] == "no-virtual-host-for-host";
    if host.is_none() || is_none {
        let agrees = host.is_none() && is_none;
        return if agrees { Judged::Agrees } else { Judged::Differs(format!("the domain exists: {}", host.is_some())) };
    }
    // Some name that the domain means.
    let name = domain.replacen('*', "some", 1);
    let headers = vec![("host".to_owned(), name)];
    let explanation = explain_outbound(outbound, &Query { headers, ..query.clone() }).unwrap();
    let listener = explanation.listener.clone().unwrap_or_default();
    compare(expected, explanation, &listener, chains, asked)
}
