//! Which cluster takes a workload's request? Small meshes, asked through the explanation.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::Memory;
use super::{Workload, compile};
use crate::base::clock;
use crate::explain::{Outcome, Query, explain_outbound};
use crate::resource::ResourceSet;
use crate::resource::meta::{Labels, Meta, Object, Origin};
use crate::resource::settings::Settings;

/// `shop/web` with a spec.
fn object<T: DeserializeOwned>(name: &str, spec: Value) -> Arc<Object<T>> {
    let (namespace, name) = name.split_once('/').unwrap();
    let meta = Meta { name: name.into(), namespace: namespace.into(), ..Meta::default() };
    Arc::new(Object { meta, spec: serde_json::from_value(spec).unwrap(), origin: Origin::default() })
}

fn service(name: &str, address: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
    json!({ "name": name, "clusterIP": address, "ports": ports })
}

/// `shop` and `bank` have a service each, and there is a ServiceEntry for everybody.
fn mesh() -> ResourceSet {
    let mut resources = ResourceSet::default();
    for (name, address, ports) in [
        ("shop/web", "10.0.0.1", &[("http", 80), ("http-admin", 8080)][..]),
        ("bank/api", "10.0.0.2", &[("http", 80), ("tcp", 9000), ("data", 7000)]),
        ("bank/web", "10.0.0.3", &[("http", 80)]),
    ] {
        resources.services.push(object(name, service(name, address, ports)));
    }
    let ports = json!([
        { "number": 80, "name": "http", "protocol": "HTTP" },
        { "number": 443, "name": "tls", "protocol": "TLS" },
    ]);
    let entry = json!({ "hosts": ["ext.test", "two.test"], "ports": ports, "resolution": "DNS" });
    resources.service_entries.push(object("bank/ext", entry));
    resources
}

fn route(to: &str) -> Value {
    json!([{ "route": [{ "destination": { "host": to } }] }])
}

fn workload(text: &str) -> Workload {
    let (namespace, label) = text.split_once('/').unwrap_or((text, ""));
    let labels: Labels = label.split_once('=').map(|(key, value)| (key.into(), value.into())).into_iter().collect();
    Workload { namespace: namespace.into(), labels }
}

/// Where a request goes: `80 web.shop.svc.cluster.local`, a special cluster, or a status.
fn answer(resources: &ResourceSet, from: &str, url: &str) -> String {
    let (outbound, _) = compile(resources, &Settings::default(), &workload(from), clock::now(), &mut Memory::default());
    let explanation = explain_outbound(&outbound, &Query { url: url.into(), ..Query::default() }).unwrap();
    let short = |name: &str| match name.split('|').collect::<Vec<_>>().as_slice() {
        [_, port, "", host] => format!("{port} {}", host.trim_end_matches(".svc.cluster.local")),
        _ => name.to_owned(),
    };
    match explanation.outcome {
        Outcome::Forwarded(forwarding) => short(&forwarding.destinations[0].cluster),
        Outcome::Connected { destinations, .. } => format!("bytes {}", short(&destinations[0].cluster)),
        Outcome::Answered { status, .. } => status.to_string(),
        other => panic!("{other:?}"),
    }
}

fn check(resources: &ResourceSet, rows: &[(&str, &str, &str)]) {
    for (from, url, expected) in rows {
        assert_eq!(answer(resources, from, url), *expected, "{url} from {from}");
    }
}

#[test]
fn services_are_found_by_name_port_and_address() {
    let mut resources = mesh();
    resources
        .services
        .push(object("shop/old", json!({ "type": "ExternalName", "externalName": "api.bank.svc.cluster.local" })));
    check(
        &resources,
        &[
            ("shop", "http://web/", "80 web.shop"),
            ("bank", "http://web/", "80 web.bank"),
            ("shop", "http://web.bank/", "80 web.bank"),
            ("shop", "http://WEB.bank.svc:80/", "80 web.bank"),
            ("shop", "http://web:8080/", "8080 web.shop"),
            ("shop", "http://10.0.0.2/", "80 api.bank"),
            ("shop", "http://ext.test/", "80 ext.test"),
            ("shop", "http://old/", "80 api.bank"),
            ("shop", "http://api/", "PassthroughCluster"),
            ("shop", "http://nobody.test:81/", "bytes PassthroughCluster"),
            // A port that names no protocol is the service's, whatever is spoken.
            ("shop", "http://api.bank:7000/", "7000 api.bank"),
            ("shop", "tcp://api.bank:7000/", "bytes 7000 api.bank"),
            ("shop", "tcp://api.bank:9000/", "bytes 9000 api.bank"),
            ("shop", "tcp://nobody.test:9000/", "bytes PassthroughCluster"),
            ("shop", "tcp://api.bank:80/", "bytes PassthroughCluster"),
            ("shop", "https://two.test/", "bytes 443 two.test"),
            ("shop", "https://three.test/", "bytes PassthroughCluster"),
            ("shop", "http://api.bank:15001/", "bytes BlackHoleCluster"),
        ],
    );
}

#[test]
fn a_virtual_service_takes_the_services_that_its_hosts_mean() {
    let mut resources = mesh();
    let bound = |hosts: &[&str], to: &str| json!({ "hosts": hosts, "http": route(to) });
    for (name, spec) in [
        ("shop/a", bound(&["*.bank.svc.cluster.local"], "wild.test")),
        ("shop/b", bound(&["web.bank.svc.cluster.local"], "exact.test")),
        ("shop/c", bound(&["web.bank.svc.cluster.local"], "younger.test")),
        ("shop/d", bound(&["name.test", "*.name.test"], "named.test")),
        ("shop/e", json!({ "hosts": ["web"], "exportTo": ["."], "http": route("own.test") })),
        ("shop/f", json!({ "hosts": ["two.test"], "gateways": ["gw"], "http": route("gateway.test") })),
    ] {
        resources.virtual_services.push(object(name, spec));
    }
    check(
        &resources,
        &[
            ("shop", "http://api.bank/", "80 wild.test"),
            ("shop", "http://web.bank/", "80 exact.test"),
            ("shop", "http://name.test/", "80 named.test"),
            ("shop", "http://x.name.test/", "80 named.test"),
            // Names that are no service stand on port 80 alone.
            ("shop", "http://name.test:8080/", "PassthroughCluster"),
            ("shop", "http://web/", "80 own.test"),
            ("shop", "http://web:8080/", "8080 own.test"),
            ("bank", "http://web.shop/", "80 web.shop"),
            ("shop", "http://two.test/", "80 two.test"),
        ],
    );
}

#[test]
fn matches_look_at_the_workload_that_asks() {
    let mut resources = mesh();
    let to = |matches: Value, host: &str| json!({ "match": [matches], "route": [{ "destination": { "host": host } }] });
    let http = json!([
        to(json!({ "sourceLabels": { "app": "beta" } }), "labels.test"),
        to(json!({ "sourceNamespace": "bank" }), "namespace.test"),
        to(json!({ "gateways": ["gw"] }), "gateway.test"),
        to(json!({ "port": 8080 }), "port.test"),
        to(json!({ "gateways": ["mesh"], "uri": { "prefix": "/m" } }), "mesh.test"),
    ]);
    resources
        .virtual_services
        .push(object("shop/v", json!({ "hosts": ["web"], "gateways": ["mesh", "gw"], "http": http })));
    check(
        &resources,
        &[
            ("shop/app=beta", "http://web/", "80 labels.test"),
            ("bank", "http://web.shop/", "80 namespace.test"),
            ("shop", "http://web:8080/", "8080 port.test"),
            ("shop", "http://web/m", "80 mesh.test"),
            ("shop", "http://web/", "404"),
        ],
    );
}

#[test]
fn a_sidecar_settles_what_is_seen_and_what_becomes_of_the_rest() {
    let mut resources = mesh();
    let closed = json!({ "mode": "REGISTRY_ONLY" });
    let proxy = json!({ "mode": "ALLOW_ANY", "egressProxy": { "host": "two.test", "port": { "number": 80 } } });
    for (name, spec) in [
        ("istio-system/root", json!({ "egress": [{ "hosts": ["./*"] }], "outboundTrafficPolicy": closed })),
        (
            "shop/all",
            json!({ "egress": [{ "hosts": ["./*", "bank/api.bank.svc.cluster.local"] }], "outboundTrafficPolicy": proxy }),
        ),
        (
            "shop/beta",
            json!({
                "workloadSelector": { "labels": { "app": "beta" } },
                "egress": [
                    { "port": { "number": 8080, "protocol": "HTTP", "name": "a" }, "hosts": ["./*"] },
                    { "port": { "number": 7000, "protocol": "TCP", "name": "b" }, "bind": "127.0.0.1", "hosts": ["bank/*"] },
                    { "hosts": ["*/*.test"] },
                ],
            }),
        ),
    ] {
        resources.sidecars.push(object(name, spec));
    }
    check(
        &resources,
        &[
            ("shop", "http://web/", "80 web.shop"),
            ("shop", "http://api.bank/", "80 api.bank"),
            ("shop", "http://web.bank/", "80 two.test"),
            ("shop", "tcp://api.bank:9999/", "bytes 80 two.test"),
            ("shop/app=beta", "http://web:8080/", "8080 web.shop"),
            ("shop/app=beta", "http://web:80/", "PassthroughCluster"),
            ("shop/app=beta", "http://ext.test/", "80 ext.test"),
            ("shop/app=beta", "tcp://127.0.0.1:7000/", "bytes 7000 api.bank"),
            // Namespaces without a Sidecar have the root namespace's.
            ("bank", "http://web/", "80 web.bank"),
            ("bank", "http://web.shop/", "502"),
            ("bank", "tcp://web.shop:9999/", "bytes BlackHoleCluster"),
        ],
    );
}

#[test]
fn tls_and_tcp_routes_steer_connections() {
    let mut resources = mesh();
    let to = |host: &str| json!([{ "destination": { "host": host, "port": { "number": 1 } } }]);
    let tls = json!([{ "match": [{ "sniHosts": ["ext.test", "www.test"] }], "route": to("steered.test") }]);
    resources.virtual_services.push(object("bank/tls", json!({ "hosts": ["ext.test"], "tls": tls })));
    let tcp = json!([{ "match": [{ "port": 9000, "sourceLabels": { "app": "beta" } }], "route": to("tcp.test") }]);
    resources.virtual_services.push(object("bank/tcp", json!({ "hosts": ["api"], "tcp": tcp })));
    check(
        &resources,
        &[
            ("shop", "https://ext.test/", "bytes 1 steered.test"),
            ("shop", "https://www.test/", "bytes 1 steered.test"),
            ("shop", "https://two.test/", "bytes 443 two.test"),
            ("shop/app=beta", "tcp://api.bank:9000/", "bytes 1 tcp.test"),
            ("shop", "tcp://api.bank:9000/", "bytes 9000 api.bank"),
        ],
    );
}
