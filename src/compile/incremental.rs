//! Is a generation that remembers the last one the same as one made afresh, whatever changed in between?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auto_mtls::{LABEL, MUTUAL};
use super::tls_server::IDENTITY;
use super::{Memory, compile};
use crate::resource::ResourceSet;
use crate::resource::core::Secret;
use crate::resource::finding::Finding;
use crate::resource::meta::{Labels, Meta, Object, Origin, Status};
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::dump::dump;

/// One change: an object of a kind and number gets a version, or goes (`None`).
#[derive(Clone, Copy, Debug)]
struct Change {
    kind: usize,
    number: usize,
    version: Option<usize>,
}

const KINDS: usize = 12;

fn change() -> impl Strategy<Value = Change> {
    (0..KINDS, 0..3_usize, prop::option::weighted(0.8, 0..4_usize)).prop_map(|(kind, number, version)| Change {
        kind,
        number,
        version,
    })
}

fn put<T: DeserializeOwned>(list: &mut Vec<Arc<Object<T>>>, change: Change, labels: Labels, spec: Value) {
    let namespace = ["default", "shop"].get(change.number % 2).copied().unwrap_or_default();
    let name = format!("o{}", change.number);
    list.retain(|object| object.meta.name != name);
    if change.version.is_some() {
        let meta = Meta { name, namespace: namespace.into(), labels, ..Meta::default() };
        let spec = serde_json::from_value(spec).unwrap();
        list.push(Arc::new(Object { meta, spec, origin: Origin::default() }));
    }
}

fn apply(set: &mut ResourceSet, change: Change) {
    let Change { kind, number, version } = change;
    let version = version.unwrap_or_default();
    let label = Labels::from([("kubernetes.io/service-name".to_owned(), format!("o{}", version % 3))]);
    let none = Labels::new;
    let port = json!([{ "name": "http", "number": 80, "port": 80, "protocol": "HTTP" }]);
    match kind {
        0 => {
            let tls = (version == 3).then(|| json!({ "httpsRedirect": true }));
            let server = |port: usize| json!({ "port": { "number": port, "name": "http", "protocol": "HTTP" }, "hosts": ["*.test", format!("shop/s{version}")], "tls": tls });
            put(&mut set.gateways, change, none(), json!({ "servers": [server(80), server(80 + version)] }));
        }
        1 => {
            let to = |n: usize| json!({ "destination": { "host": format!("o{n}.default.svc.cluster.local"), "subset": if version == 1 { "v1" } else { "" } } });
            let rules = json!([
                { "match": [{ "uri": { "prefix": format!("/{number}/{version}") } }, { "port": 81, "uri": { "regex": format!("/{version}+") } }], "route": [to(version)] },
                { "match": [{ "uri": { "prefix": "/d" } }], "delegate": { "name": "o2", "namespace": "default" } },
                { "route": [to(0), to(1)] },
            ]);
            let gateways: Vec<String> = (0..=version).map(|n| format!("{}/o{n}", ["default", "shop"][n % 2])).collect();
            let hosts = if number == 2 { json!([]) } else { json!([format!("a{version}.test"), "b.test"]) };
            let http = if number == 2 {
                json!([{ "match": [{ "uri": { "prefix": format!("/d/{version}") } }], "route": [to(version)] }])
            } else {
                rules
            };
            put(
                &mut set.virtual_services,
                change,
                none(),
                json!({ "hosts": hosts, "gateways": gateways, "http": http }),
            );
        }
        2 => put(
            &mut set.services,
            change,
            none(),
            match version {
                3 => json!({ "type": "ExternalName", "externalName": "o1.default.svc.cluster.local" }),
                _ => {
                    json!({ "ports": [{ "name": if version == 1 { "grpc" } else { "http" }, "port": 80 + version }], "selector": { "app": "a" } })
                }
            },
        ),
        3 => put(
            &mut set.service_entries,
            change,
            none(),
            json!({
                "hosts": [format!("o{version}.default.svc.cluster.local")], "ports": port, "resolution": "STATIC",
                "endpoints": [{ "address": format!("10.0.0.{number}"), "labels": { "version": "v1" } }],
            }),
        ),
        4 => put(
            &mut set.destination_rules,
            change,
            none(),
            json!({
                "host": if version == 3 { "*.svc.cluster.local".to_owned() } else { format!("o{version}.default.svc.cluster.local") },
                "trafficPolicy": { "loadBalancer": { "consistentHash": { "httpHeaderName": format!("x-{version}-{number}") } }, "outlierDetection": { "consecutive5xxErrors": number + 1 }, "connectionPool": { "http": { "maxRequestsPerConnection": number + 1 } }, "tls": { "mode": if version == 2 { "ISTIO_MUTUAL" } else { "SIMPLE" }, "credentialName": format!("o{version}") } },
                "subsets": [{ "name": "v1", "labels": { "version": format!("v{number}") } }],
            }),
        ),
        5 => put(
            &mut set.endpoint_slices,
            change,
            label,
            json!({
                "endpoints": [{ "addresses": [format!("10.1.0.{}", version % 2)] }], "ports": [{ "name": "http", "port": 8080 }],
            }),
        ),
        6 => put(
            &mut set.workload_entries,
            change,
            Labels::from([("app".into(), "a".into())]),
            json!({ "address": format!("10.2.0.{version}") }),
        ),
        7 => put(
            &mut set.endpoints,
            change,
            none(),
            json!({
                "subsets": [{ "addresses": [{ "ip": format!("10.3.0.{version}") }], "ports": [{ "name": "http", "port": 80 }] }],
            }),
        ),
        8 => {
            let labels = Labels::from([
                ("app".to_owned(), "a".to_owned()),
                (LABEL.to_owned(), if version == 2 { "disabled" } else { MUTUAL }.to_owned()),
            ]);
            let spec = json!({ "serviceAccountName": format!("account{version}") });
            put(&mut set.pods, change, labels, spec);
            let status = json!({ "phase": "Running", "podIP": format!("10.1.0.{}", version % 2) });
            let status: Status = serde_json::from_value(status).unwrap();
            // Those of other numbers may have the same address.
            for pod in set.pods.iter_mut().filter(|pod| pod.meta.name == format!("o{number}")) {
                Arc::make_mut(pod).meta.status = Some(Box::new(status.clone()));
            }
        }
        9 => {
            let mode = ["STRICT", "DISABLE", "PERMISSIVE", "UNSET"].get(version).copied().unwrap_or_default();
            let selector = (number == 2).then(|| json!({ "matchLabels": { "app": "a" } }));
            put(
                &mut set.peer_authentications,
                change,
                none(),
                json!({ "selector": selector, "mtls": { "mode": mode } }),
            );
        }
        10 => {
            // As a DestinationRule may name it.
            put_secret(set, &format!("o{number}"), change.version);
        }
        _ => put_secret(set, IDENTITY, change.version),
    }
}

/// A Secret of the gateway's namespace; each version is another certificate, and its own authority.
fn put_secret(set: &mut ResourceSet, name: &str, version: Option<usize>) {
    static MADE: LazyLock<Vec<BTreeMap<String, Vec<u8>>>> = LazyLock::new(|| {
        let make = |version| {
            let mut params = CertificateParams::default();
            let uri = format!("spiffe://td{version}/ns/default/sa/gateway").try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().pem().into_bytes();
            let data =
                [("ca.crt", certificate.clone()), ("tls.crt", certificate), ("tls.key", key.serialize_pem().into())];
            data.map(|(key, text)| (key.to_owned(), text)).into()
        };
        (0..4).map(make).collect()
    });
    set.secrets.retain(|secret| secret.meta.name != name);
    if let Some(data) = version.and_then(|version| MADE.get(version)) {
        let namespace = Settings::default().gateway.namespace;
        let meta = Meta { name: name.to_owned(), namespace, ..Meta::default() };
        let spec = Secret { kind: String::new(), data: data.clone() };
        set.secrets.push(Arc::new(Object { meta, spec, origin: Origin::default() }));
    }
}

/// Trust domains and their roots.
fn trust(version: usize) -> Settings {
    let mut settings = Settings::default();
    let trust = &mut settings.mesh.trust;
    trust.domain = format!("td{}", version % 2);
    trust.aliases = (0..version).map(|number| format!("alias{number}")).collect();
    settings
}

/// Everything that can be said of a generation. Identities of clusters tell whom they believe, and who we are.
fn shown(made: &(Snapshot, Vec<Finding>)) -> (Value, BTreeMap<Arc<str>, u64>, BTreeSet<String>) {
    let identities = made.0.clusters.iter().map(|(name, cluster)| (name.clone(), cluster.identity)).collect();
    (dump(&made.0), identities, made.1.iter().map(ToString::to_string).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_remembered_is_what_would_be_made(
        steps in prop::collection::vec((prop::collection::vec(change(), 1..8), 0..8_usize), 1..12)
    ) {
        let (mut set, mut settings, mut memory) = (ResourceSet::default(), Settings::default(), Memory::default());
        for (changes, version) in steps {
            // Rarely, because everything is made anew then.
            if version < 3 {
                settings = trust(version);
            }
            changes.into_iter().for_each(|change| apply(&mut set, change));
            let remembered = compile(&set, &settings, 1, 0, &mut memory);
            let afresh = compile(&set, &settings, 1, 0, &mut memory.afresh());
            prop_assert_eq!(shown(&remembered), shown(&afresh));
        }
    }
}

#[test]
fn only_what_a_change_touches_is_made_anew() {
    let (mut set, settings, mut memory) = (ResourceSet::default(), Settings::default(), Memory::default());
    for kind in 0..=2 {
        for number in 0..2 {
            apply(&mut set, Change { kind, number, version: Some(number) });
        }
    }
    let rules = |snapshot: &Snapshot| {
        let (_, chain) = &snapshot.listeners[0].chains.all()[0];
        ["a0.test", "a1.test", "b.test"].map(|name| chain.routes().unwrap().find(name).unwrap().clone())
    };
    let same = |a: &Snapshot, b: &Snapshot| {
        let (a, b) = (rules(a), rules(b));
        [0, 1, 2].map(|place: usize| Arc::ptr_eq(&a[place], &b[place]))
    };
    let mut make = |set: &ResourceSet| compile(set, &settings, 1, 0, &mut memory).0;
    let first = make(&set);
    let second = make(&set);
    assert_eq!(same(&first, &second), [true; 3]);
    // Of a VirtualService's two hosts one belongs to the other as well.
    apply(&mut set, Change { kind: 1, number: 1, version: Some(1) });
    let third = make(&set);
    assert_eq!(same(&second, &third), [true, false, false]);
    let name = "outbound|80||o0.default.svc.cluster.local";
    assert!(Arc::ptr_eq(&second.clusters[name], &third.clusters[name]));
    // A cluster that the rules of one VirtualService name.
    apply(&mut set, Change { kind: 5, number: 0, version: Some(0) });
    assert_eq!(same(&third, &make(&set)), [false, true, false]);
}

#[test]
fn whatever_mutual_tls_depends_on_makes_its_cluster_anew() {
    let (mut set, mut settings, mut memory) = (ResourceSet::default(), Settings::default(), Memory::default());
    const IDENTITIES: usize = 11;
    for kind in [0, 1, 2, 5, 8, IDENTITIES] {
        apply(&mut set, Change { kind, number: 0, version: Some(0) });
    }
    let mut make = |set: &ResourceSet, settings: &Settings| {
        let remembered = shown(&compile(set, settings, 1, 0, &mut memory));
        assert_eq!(remembered, shown(&compile(set, settings, 1, 0, &mut memory.afresh())));
        remembered.1["outbound|80||o0.default.svc.cluster.local"]
    };
    let mut identities = vec![make(&set, &settings)];
    let pod = |version| Change { kind: 8, number: 0, version };
    let policy = |number, version| Change { kind: 9, number, version };
    for (step, change, as_before) in [
        ("the namespace takes none", policy(0, Some(1)), None),
        ("it takes nothing else", policy(0, Some(0)), Some(0)),
        ("the workload takes none", policy(2, Some(1)), Some(1)),
        ("as its namespace", policy(2, None), Some(0)),
        ("the Pod leaves its address", pod(Some(1)), Some(1)),
        ("and comes back", pod(Some(0)), Some(0)),
        ("we are somebody else", Change { kind: IDENTITIES, number: 0, version: Some(1) }, None),
        ("we are nobody", Change { kind: IDENTITIES, number: 0, version: None }, None),
        ("we are who we were", Change { kind: IDENTITIES, number: 0, version: Some(0) }, Some(0)),
    ] {
        apply(&mut set, change);
        let made = make(&set, &settings);
        assert_eq!(identities.iter().position(|known| *known == made), as_before, "{step}");
        identities.push(made);
    }
    Arc::make_mut(&mut set.pods[0]).spec.service_account_name = "other".into();
    let other = make(&set, &settings);
    assert!(!identities.contains(&other), "another account");
    settings.mesh.trust.aliases.push("alias".into());
    assert_ne!(make(&set, &settings), other, "another trust domain");
}
