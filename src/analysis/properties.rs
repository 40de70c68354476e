//! Can a bad object do harm? It is refused or taken, but nothing panics and no other object is judged differently.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::conformance::own_cases;
use super::{Look, Memory, analyze};
use crate::resource::ResourceSet;
use crate::resource::meta::{Kind, Object};
use crate::resource::settings::Settings;
use crate::source::{Cache, gather_manifests};

/// The good objects of tests/validation, each under a name of its own, in namespaces of their own.
fn good_objects() -> Vec<Value> {
    let good = own_cases().into_iter().filter(|(_, case)| case.get("fault").is_none());
    good.enumerate()
        .map(|(index, (kind, case))| {
            let mut metadata = case["metadata"].clone();
            metadata["name"] = json!(format!("o{index}"));
            metadata["namespace"] = json!(format!("n{index}"));
            json!({"apiVersion": api_version(&kind), "kind": kind, "metadata": metadata, "spec": case["spec"]})
        })
        .collect()
}

fn api_version(kind: &str) -> &'static str {
    match kind {
        "AuthorizationPolicy" | "RequestAuthentication" | "PeerAuthentication" => "security.istio.io/v1",
        "Telemetry" => "telemetry.istio.io/v1",
        "WasmPlugin" | "TrafficExtension" => "extensions.istio.io/v1alpha1",
        "ProxyConfig" => "networking.istio.io/v1beta1",
        _ => "networking.istio.io/v1",
    }
}

fn title_of(document: &Value) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// What is accepted of these documents, each as its title and its whole content.
fn accepted(documents: &[Value]) -> BTreeSet<(String, String)> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    // JSON is YAML.
    let text: Vec<String> = documents.iter().map(Value::to_string).collect();
    fs::write(file.path(), text.join("\n---\n")).unwrap();
    let mut settings = Settings::default();
    settings.source.manifests = vec![file.path().to_owned()];
    let gathered = gather_manifests(settings, &mut Cache::default());
    let (accepted, _) = analyze(&gathered.resources, &gathered.settings, Look::default(), &mut Memory::default());
    titles(&accepted)
}

fn titles(set: &ResourceSet) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    add(&set.gateways, &mut all);
    add(&set.virtual_services, &mut all);
    add(&set.destination_rules, &mut all);
    add(&set.service_entries, &mut all);
    add(&set.workload_entries, &mut all);
    add(&set.workload_groups, &mut all);
    add(&set.sidecars, &mut all);
    add(&set.proxy_configs, &mut all);
    add(&set.peer_authentications, &mut all);
    add(&set.request_authentications, &mut all);
    add(&set.authorization_policies, &mut all);
    add(&set.telemetries, &mut all);
    add(&set.wasm_plugins, &mut all);
    add(&set.traffic_extensions, &mut all);
    all
}

fn add<T: Kind + std::fmt::Debug>(objects: &[std::sync::Arc<Object<T>>], all: &mut BTreeSet<(String, String)>) {
    all.extend(objects.iter().map(|object| (object.title(), format!("{:?}", object.spec))));
}

/// Any JSON, with a taste for what fields of the API look like.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "*",
            "~",
            "1s",
            "%",
            "unix://",
            "a.com",
            "SIMPLE",
            "10.0.0.0/8",
            "/{**}",
            "\u{0}é"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,6}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The pointers (RFC 6901) to all values below `value`.
fn places(value: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{path}/{index}"), all));
        }
        Value::Object(map) => {
            for (key, item) in map {
                places(item, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_object_harms_no_other(
        which in any::<prop::sample::Index>(),
        places_spoilt in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..4),
    ) {
        let mut documents = good_objects();
        let index = which.index(documents.len());
        let mut spoilt = documents.remove(index);
        let title = title_of(&spoilt);
        let others = accepted(&documents);
        let lost = |document: &&Value| !others.iter().any(|(title, _)| *title == title_of(document));
        prop_assert_eq!(documents.iter().filter(lost).collect::<Vec<_>>(), Vec::<&Value>::new());
        for (place, value) in places_spoilt {
            let mut all = Vec::new();
            places(&spoilt["spec"], "/spec", &mut all);
            if let Some(target) = spoilt.pointer_mut(&all[place.index(all.len())]) {
                *target = value;
            }
        }
        documents.insert(index, spoilt);
        let mut now = accepted(&documents);
        now.retain(|(accepted, _)| *accepted != title);
        prop_assert_eq!(now, others);
    }

    #[test]
    fn any_spec_is_read_or_refused(spec in anything()) {
        let mut kinds: Vec<String> = own_cases().into_iter().map(|(kind, _)| kind).collect();
        kinds.dedup();
        kinds.extend(["EnvoyFilter".to_owned()]);
        let document = |kind: &String| {
            json!({"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": "a"}, "spec": spec})
        };
        let documents: Vec<Value> = kinds.iter().map(document).collect();
        prop_assert!(accepted(&documents).len() <= documents.len());
    }
}
