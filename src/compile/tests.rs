//! What does the compiler make of small configurations, and what does it say about broken ones?

use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Memory, compile};
use crate::base::clock;
use crate::resource::ResourceSet;
use crate::resource::core::Secret;
use crate::resource::finding::Finding;
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::EndpointSource;
use crate::snapshot::listener::{ConnectionFacts, Service};
use crate::snapshot::route::{Action, RouteRule};
use crate::snapshot::tls::TlsServer;

fn object<T: DeserializeOwned>(name: &str, spec: Value) -> Arc<Object<T>> {
    let meta = Meta { name: name.into(), namespace: "istio-system".into(), ..Meta::default() };
    Arc::new(Object { meta, spec: serde_json::from_value(spec).unwrap(), origin: Origin::default() })
}

fn secret(name: &str, data: &[(&str, &str)]) -> Arc<Object<Secret>> {
    let meta = Meta { name: name.into(), namespace: "istio-system".into(), ..Meta::default() };
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    Arc::new(Object { meta, spec: Secret { kind: String::new(), data }, origin: Origin::default() })
}

fn https(credential: &str, hosts: &[&str]) -> Value {
    json!({
        "port": { "number": 443, "name": format!("https-{credential}"), "protocol": "HTTPS" },
        "hosts": hosts,
        "tls": { "mode": "SIMPLE", "credentialName": credential },
    })
}

fn certificate(name: &str, expired: bool) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn compiled(resources: &ResourceSet, memory: &mut Memory) -> (Snapshot, Vec<Finding>) {
    compile(resources, &Settings::default(), 1, clock::now(), memory)
}

#[test]
fn a_bad_certificate_closes_its_own_server_alone() {
    let (good, key) = certificate("good.test", false);
    let (old, old_key) = certificate("old.test", true);
    let mut resources = ResourceSet::default();
    let servers = ["good", "old", "mixed", "empty", "missing"].map(|name| https(name, &[&format!("{name}.test")]));
    resources.gateways.push(object("gw", json!({ "servers": servers })));
    resources.secrets = vec![
        secret("good", &[("tls.crt", &good), ("tls.key", &key)]),
        secret("old", &[("cert", &old), ("key", &old_key)]),
        secret("mixed", &[("tls.crt", &good), ("tls.key", &old_key)]),
        secret("empty", &[("tls.crt", &good), ("tls.key", "")]),
    ];
    let mut memory = Memory::default();
    let (snapshot, findings) = compiled(&resources, &mut memory);
    let chain = |snapshot: &Snapshot, name: &str| {
        let facts = ConnectionFacts::tls([127, 0, 0, 1].into(), Some(name));
        snapshot.listeners[0].chains.find(&facts).cloned().unwrap()
    };
    for (name, ready) in [("good", true), ("old", true), ("mixed", false), ("empty", false), ("missing", false)] {
        let chain = chain(&snapshot, &format!("{name}.test"));
        assert_eq!(matches!(chain.tls, Some(TlsServer::Ready { .. })), ready, "{name}");
    }
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["IST0161", "IST0161", "IST0161", "LIM0033"]);
    assert!(findings.iter().any(|finding| finding.message.contains("belongs to another certificate")));
    assert!(findings.iter().all(|finding| !finding.message.contains("PRIVATE")));

    // A reload that does not touch a server's TLS keeps its configuration, with its tickets.
    let (again, _) = compiled(&resources, &mut memory);
    let config = |snapshot: &Snapshot| match &chain(snapshot, "good.test").tls {
        Some(TlsServer::Ready(terms)) => terms.config.clone(),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&config(&snapshot), &config(&again)));
    assert!(config(&snapshot).alpn_protocols == [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn what_was_good_is_served_until_something_better_comes() {
    let server = json!({ "servers": [{
        "port": { "number": 443, "name": "https", "protocol": "HTTPS" },
        "hosts": ["*"],
        "tls": { "mode": "MUTUAL", "credentialName": "web" },
    }] });
    let (good, key) = certificate("good.test", false);
    let (old, old_key) = certificate("old.test", true);
    let mut memory = Memory::default();
    let mut shown = |data: &[(&str, &str)]| {
        let mut resources = ResourceSet::default();
        resources.gateways.push(object("gw", server.clone()));
        resources.secrets = vec![secret("web", data)];
        let (snapshot, findings) = compiled(&resources, &mut memory);
        let facts = ConnectionFacts::tls([127, 0, 0, 1].into(), None);
        let name = match &snapshot.listeners[0].chains.find(&facts).unwrap().tls {
            Some(TlsServer::Ready(terms)) => terms.certificates.facts().next().unwrap().certificate.dns[0].clone(),
            _ => "nothing".to_owned(),
        };
        let told: Vec<_> = findings.iter().map(|finding| format!("{} {}", finding.code, finding.kind)).collect();
        (name, told.join(", "))
    };
    let said = |name: &str, told: &str| (name.to_owned(), told.to_owned());
    let ca = ("ca.crt", good.as_str());
    for (case, data, expected) in [
        (
            "expired is better than nothing",
            vec![("tls.crt", old.as_str()), ("tls.key", &old_key), ca],
            said("old.test", "LIM0033 expired"),
        ),
        ("a good one", vec![("tls.crt", &good), ("tls.key", &key), ca], said("good.test", "")),
        (
            "then an expired one",
            vec![("tls.crt", &old), ("tls.key", &old_key), ca],
            said("good.test", "LIM0070 expired"),
        ),
        ("a mix", vec![("tls.crt", &good), ("tls.key", &old_key), ca], said("good.test", "LIM0070 wrong_key")),
        ("nothing at all", vec![], said("good.test", "LIM0070 missing, LIM0070 authorities")),
        ("no CA", vec![("tls.crt", &good), ("tls.key", &key)], said("good.test", "LIM0070 authorities")),
        ("good again", vec![("tls.crt", &good), ("tls.key", &key), ca], said("good.test", "")),
    ] {
        assert_eq!(shown(&data), expected, "{case}");
    }
}

#[test]
fn a_spoiled_rule_leaves_the_others() {
    let mut resources = ResourceSet::default();
    let server = json!({ "port": { "number": 80, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] });
    resources.gateways.push(object("gw", json!({ "servers": [server] })));
    let to = json!([{ "destination": { "host": "web" } }]);
    let rules = json!([
        { "match": [{ "uri": { "regex": "(" } }], "route": to },
        { "match": [{ "uri": { "prefix": "/a" } }], "redirect": { "uri": "/b", "redirectCode": 304 } },
        { "match": [{ "uri": { "prefix": "/h" } }], "route": to, "headers": { "request": { "set": { "x": "%NOPE%" } } } },
        { "route": to },
    ]);
    resources.virtual_services.push(object("vs", json!({ "hosts": ["*"], "gateways": ["gw"], "http": rules })));
    let (snapshot, findings) = compiled(&resources, &mut Memory::default());
    let facts = ConnectionFacts::plain([127, 0, 0, 1].into());
    let chain = snapshot.listeners[0].chains.find(&facts).unwrap();
    let made = |rule: &Arc<RouteRule>| (rule.origin.to_string(), matches!(rule.action, Action::Invalid(_)));
    let rules: Vec<_> = chain.routes().unwrap().find("x").unwrap().rules.iter().map(made).collect();
    let origin = |place: &str| format!("VirtualService istio-system/vs {place}");
    assert_eq!(
        rules,
        [(origin("http[1].match[0]"), true), (origin("http[2].match[0]"), true), (origin("http[3]"), false)],
        "a rule whose conditions can be read keeps its requests"
    );
    assert_eq!(findings.iter().filter(|finding| finding.code == "LIM0030").count(), 3, "{findings:?}");
}

#[test]
fn a_service_without_endpoints_is_looked_up_unless_the_settings_name_it() {
    let mut resources = ResourceSet::default();
    let server = json!({ "port": { "number": 80, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] });
    resources.gateways.push(object("gw", json!({ "servers": [server] })));
    resources.services.push(object("web", json!({ "ports": [{ "name": "grpc", "port": 9080 }] })));
    let rules = json!([{ "route": [{ "destination": { "host": "web" } }] }]);
    resources.virtual_services.push(object("vs", json!({ "hosts": ["*"], "gateways": ["gw"], "http": rules })));
    let name = "outbound|9080||web.istio-system.svc.cluster.local";
    let mut settings = Settings::default();
    let (snapshot, _) = compile(&resources, &settings, 1, clock::now(), &mut Memory::default());
    let EndpointSource::Dns { names, .. } = &snapshot.clusters[name].endpoints else { panic!("{snapshot:?}") };
    assert_eq!((names[0].name.as_str(), names[0].port), ("web.istio-system.svc.cluster.local", 9080));

    let fixed = crate::resource::settings::HostAddress {
        address: [127, 0, 0, 1].into(),
        port: Some(1234),
        labels: Default::default(),
    };
    settings.hosts.insert("web.istio-system".into(), vec![fixed]);
    let (snapshot, _) = compile(&resources, &settings, 2, clock::now(), &mut Memory::default());
    let EndpointSource::Static(endpoints) = &snapshot.clusters[name].endpoints else { panic!("{snapshot:?}") };
    assert_eq!(endpoints[0].address.to_string(), "127.0.0.1:1234");
}

#[test]
fn routes_of_layer_4_become_chains() {
    let server = |number: u16, protocol: &str, tls: Value| json!({ "port": { "number": number, "name": format!("p{number}"), "protocol": protocol }, "hosts": ["*.test"], "tls": tls });
    let servers = [
        server(9000, "TCP", Value::Null),
        server(9001, "MONGO", Value::Null),
        server(9002, "TLS", json!({ "mode": "PASSTHROUGH" })),
        server(9003, "TLS", json!({ "mode": "AUTO_PASSTHROUGH" })),
    ];
    let mut resources = ResourceSet::default();
    resources.gateways.push(object("gw", json!({ "servers": servers })));
    let to = |host: &str, weight: u32| json!({ "destination": { "host": host, "port": { "number": 80 } }, "weight": weight });
    let tcp = json!([
        { "match": [{ "port": 9001 }], "route": [to("web", 1)] },
        { "match": [{ "port": 9000, "gateways": ["gw"], "destinationSubnets": ["10.9.0.0/16"] }],
          "route": [to("web", 1), to("nowhere", 3), to("web", 0)] },
        { "route": [to("web", 1)] },
    ]);
    let tls = json!([
        { "match": [{ "sniHosts": ["a.test"] }, { "sniHosts": ["b.test", "a.test"] }], "route": [to("web", 1)] },
        { "match": [{ "sniHosts": ["b.test"] }, { "port": 9999, "sniHosts": ["c.test"] }], "route": [to("web", 1)] },
    ]);
    resources.virtual_services.push(object(
        "vs",
        json!({ "hosts": ["a.test", "b.test", "c.test"], "gateways": ["gw"], "tcp": tcp, "tls": tls }),
    ));
    let entry = json!({
        "hosts": ["mesh.test"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{ "number": 443, "name": "tcp", "protocol": "TCP" }],
        "endpoints": [
            { "address": "10.0.0.1", "labels": { "security.istio.io/tlsMode": "istio" } },
            { "address": "10.0.0.2" },
        ],
    });
    resources.service_entries.push(object("mesh", entry));
    resources.services.push(object("web", json!({ "ports": [{ "name": "tcp", "port": 80 }] })));
    let (snapshot, findings) = compiled(&resources, &mut Memory::default());

    let proxies = |port: u16| -> Vec<(Vec<String>, String, Vec<u32>)> {
        let listener = snapshot.listeners.iter().find(|listener| listener.address.port() == port).unwrap();
        let shown = listener.chains.all().iter().map(|(conditions, chain)| {
            let Service::Tcp(proxy) = &chain.service else { panic!("{chain:?}") };
            let weights = proxy.destinations.iter().map(|destination| destination.weight).collect();
            (conditions.server_names.clone(), proxy.origin.to_string(), weights)
        });
        shown.collect()
    };
    let origin = |place: &str| format!("VirtualService istio-system/vs {place}");
    assert_eq!(
        proxies(9000),
        [(vec![], origin("tcp[1]"), vec![1, 3])],
        "the first usable route, unknown ones keep their share"
    );
    assert_eq!(proxies(9001), [(vec![], origin("tcp[0]"), vec![1])]);
    let names = |name: &str| vec![name.to_owned()];
    assert_eq!(
        proxies(9002),
        [(names("a.test"), origin("tls[0].match[0]"), vec![1]), (names("b.test"), origin("tls[1].match[0]"), vec![1])],
        "a match with a taken name is left out with all its names"
    );
    assert_eq!(proxies(9003), [(names("outbound_.443_._.mesh.test"), "AUTO_PASSTHROUGH".into(), vec![1])]);
    let EndpointSource::Static(endpoints) = &snapshot.clusters["outbound_.443_._.mesh.test"].endpoints else {
        panic!()
    };
    assert_eq!(endpoints.len(), 1, "only what speaks mesh TLS");
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["LIM0024"], "{findings:?}");
}

/// 2 000 VirtualServices with 10 000 rules, 2 000 of them regexes.
pub(crate) fn many() -> ResourceSet {
    let mut resources = ResourceSet::default();
    let server = json!({ "port": { "number": 80, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] });
    resources.gateways.push(object("gw", json!({ "servers": [server] })));
    for n in 0..2000 {
        resources.services.push(object(&format!("web-{n}"), json!({ "ports": [{ "name": "http", "port": 80 }] })));
        let to = json!([{ "destination": { "host": format!("web-{n}"), "port": { "number": 80 } } }]);
        let rules: Vec<Value> = (0..4)
            .map(|i| json!({ "match": [{ "uri": { "prefix": format!("/{n}/{i}/") } }], "route": to }))
            .chain([json!({ "match": [{ "uri": { "regex": format!("/{n}/[a-z]+/x") } }], "route": to })])
            .collect();
        let spec = json!({ "hosts": [format!("h{n}.test")], "gateways": ["gw"], "http": rules });
        resources.virtual_services.push(object(&format!("vs-{n}"), spec));
    }
    resources
}

#[test]
fn ten_thousand_rules_compile_from_memory() {
    let resources = many();
    let mut memory = Memory::default();
    let (first, findings) = compiled(&resources, &mut memory);
    assert!(findings.is_empty(), "{findings:?}");
    let start = Instant::now();
    let (second, _) = compiled(&resources, &mut memory);
    println!("10 000 rules with warm memory: {:?}", start.elapsed());
    assert_eq!((first.clusters.len(), second.clusters.len()), (2000, 2000));
}

#[test]
fn hosts_that_no_certificate_is_for_are_told() {
    let (pem, key) = certificate("*.a.test", false);
    let mut resources =
        ResourceSet { secrets: vec![secret("one", &[("tls.crt", &pem), ("tls.key", &key)])], ..ResourceSet::default() };
    let mut told = |hosts: &[&str]| {
        resources.gateways = vec![object("gw", json!({ "servers": [https("one", hosts)] }))];
        let (_, findings) = compiled(&resources, &mut Memory::default());
        let names = findings.iter().filter(|finding| finding.code == "LIM0079");
        names.map(|finding| finding.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&["*", "X.a.test", "ns/y.a.test", "*.a.test"]), [""; 0]);
    assert_eq!(told(&["a.test", "x.a.test"]), ["no certificate of the server is for its host `a.test`"]);
    let both = "no certificate of the server is for its host `x.y.a.test`, nor for 1 more";
    assert_eq!(told(&["x.y.a.test", "*.b.test"]), [both]);
}
