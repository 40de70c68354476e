//! Which object does a document hold? Its kind decides the type; everything else about it becomes a finding.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::decode::{DecodeError, decode, push_key};
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::core::{EndpointSlice, Endpoints, Namespace, Secret, Service};
use crate::resource::finding::Finding;
use crate::resource::meta::{Kind, Meta, Object, Origin};
use crate::resource::networking::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};

/// What makes two objects the same: kind, namespace and name, whatever the API version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// `Kind namespace/name`.
    pub(super) fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

macro_rules! resources {
    ($($kind:ident $list:ident),*) => {
        /// An object of a kind that is in force.
        #[derive(Clone, Debug)]
        pub(super) enum Resource {
            $($kind(Arc<Object<$kind>>),)*
        }

        impl Resource {
            pub(super) fn key(&self) -> Key {
                let (kind, meta) = match self {
                    $(Resource::$kind(object) => ($kind::NAME, &object.meta),)*
                };
                Key { kind, namespace: meta.namespace.clone(), name: meta.name.clone() }
            }

            pub(super) fn origin(&self) -> &Origin {
                match self {
                    $(Resource::$kind(object) => &object.origin,)*
                }
            }

            /// Puts the object beside those of its kind.
            pub(super) fn add_to(&self, set: &mut ResourceSet) {
                match self {
                    $(Resource::$kind(object) => set.$list.push(object.clone()),)*
                }
            }
        }
    };
}

resources!(
    Gateway gateways,
    VirtualService virtual_services,
    DestinationRule destination_rules,
    ServiceEntry service_entries,
    WorkloadEntry workload_entries,
    Service services,
    EndpointSlice endpoint_slices,
    Endpoints endpoints,
    Secret secrets,
    Namespace namespaces
);

/// What the documents of a file gave.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    pub resources: Vec<Resource>,
    /// Objects that were meant but are unusable; `None` if not even their name could be read.
    pub failed: Vec<Option<Key>>,
    pub findings: Vec<Finding>,
}

/// The kind of a document, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    InForce(&'static str),
    List,
    /// Known to Istio or the Gateway API, and would change traffic, but does nothing here yet.
    NotYet,
    /// As `NotYet`, and meant to protect something.
    NotProtecting,
    /// Means nothing to a gateway.
    Foreign,
    Unknown,
}

/// Sorts a document by its `apiVersion` and `kind`.
pub(super) fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let istio_version = matches!(version, "v1" | "v1beta1" | "v1alpha3");
    match (group, kind) {
        ("networking.istio.io", "Gateway") if istio_version => Class::InForce(Gateway::NAME),
        ("networking.istio.io", "VirtualService") if istio_version => Class::InForce(VirtualService::NAME),
        ("networking.istio.io", "DestinationRule") if istio_version => Class::InForce(DestinationRule::NAME),
        ("networking.istio.io", "ServiceEntry") if istio_version => Class::InForce(ServiceEntry::NAME),
        ("networking.istio.io", "WorkloadEntry") if istio_version => Class::InForce(WorkloadEntry::NAME),
        ("", "Service") if version == "v1" => Class::InForce(Service::NAME),
        ("", "Endpoints") if version == "v1" => Class::InForce(Endpoints::NAME),
        ("", "Secret") if version == "v1" => Class::InForce(Secret::NAME),
        ("", "Namespace") if version == "v1" => Class::InForce(Namespace::NAME),
        ("discovery.k8s.io", "EndpointSlice") if matches!(version, "v1" | "v1beta1") => {
            Class::InForce(EndpointSlice::NAME)
        }
        ("", _) if version == "v1" && kind.ends_with("List") => Class::List,
        ("networking.istio.io" | "discovery.k8s.io", _) if kind.ends_with("List") => Class::List,
        ("security.istio.io", "AuthorizationPolicy" | "RequestAuthentication" | "PeerAuthentication") => {
            Class::NotProtecting
        }
        ("networking.istio.io", "EnvoyFilter" | "Sidecar" | "WorkloadGroup" | "ProxyConfig" | "ServiceEntryStatus")
        | ("telemetry.istio.io", "Telemetry")
        | ("extensions.istio.io", "WasmPlugin" | "TrafficExtension") => Class::NotYet,
        ("gateway.networking.k8s.io", _) | ("gateway.networking.x-k8s.io", _) => Class::NotYet,
        ("networking.k8s.io", "Ingress" | "IngressClass") => Class::NotYet,
        ("" | "apps" | "batch" | "autoscaling" | "policy" | "extensions", _) => Class::Foreign,
        ("install.istio.io", _) => Class::Foreign,
        (group, _) if group.ends_with(".k8s.io") || group.ends_with("cert-manager.io") => Class::Foreign,
        _ => Class::Unknown,
    }
}

/// Takes the object of one document into `harvest`.
pub(super) fn harvest(value: &Value, origin: &Origin, default_namespace: &str, harvest: &mut Harvest) {
    let Value::Object(document) = value else {
        harvest.failed.push(None);
        let finding = Finding::new(&codes::WRONG_TYPE, origin.locate(""), "a document has to be a mapping");
        return harvest.findings.push(finding);
    };
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        harvest.failed.push(None);
        let finding = Finding::new(&codes::UNKNOWN_KIND, origin.locate(""), "`apiVersion` and `kind` are not named")
            .hint("the document is no manifest; it is ignored");
        return harvest.findings.push(finding);
    }
    let class = classify(api_version, kind);
    match class {
        Class::InForce(kind) => Document { value, document, origin, default_namespace }.read(kind, harvest),
        Class::List => unpack(document, origin, default_namespace, harvest),
        class => harvest.findings.push(other_kind(class, api_version, kind, document, origin, default_namespace)),
    }
}

fn other_kind(
    class: Class,
    api_version: &str,
    kind: &str,
    document: &Map<String, Value>,
    origin: &Origin,
    default_namespace: &str,
) -> Finding {
    let (code, message) = match class {
        Class::NotYet => (&codes::KIND_NOT_IN_FORCE, format!("{kind} is not in force yet; it does nothing here")),
        Class::NotProtecting => {
            (&codes::KIND_NOT_IN_FORCE, format!("{kind} is not in force yet: traffic is NOT protected by it"))
        }
        Class::Foreign => (&codes::KIND_IGNORED, format!("{kind} means nothing to a gateway")),
        _ => (&codes::UNKNOWN_KIND, format!("the kind {kind} of {api_version} is not known")),
    };
    let metadata = |name: &str| {
        document.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str).unwrap_or_default()
    };
    let namespace = Some(metadata("namespace")).filter(|name| !name.is_empty()).unwrap_or(default_namespace);
    Finding::new(code, origin.locate("kind"), message).about(format!("{kind} {namespace}/{}", metadata("name")))
}

fn unpack(document: &Map<String, Value>, origin: &Origin, default_namespace: &str, out: &mut Harvest) {
    let items = document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let own = match origin.within.as_str() {
            "" => format!("items[{index}]"),
            within => format!("{within}.items[{index}]"),
        };
        harvest(item, &Origin { within: own, ..origin.clone() }, default_namespace, out);
    }
}

/// The fields that stand beside `spec` in every kind.
const COMMON_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// A document of a kind that is in force.
struct Document<'a> {
    value: &'a Value,
    document: &'a Map<String, Value>,
    origin: &'a Origin,
    default_namespace: &'a str,
}

impl Document<'_> {
    fn read(&self, kind: &'static str, harvest: &mut Harvest) {
        let (meta, key) = match self.meta(kind) {
            Ok(known) => known,
            Err((key, error)) => return self.fail(key, error, "", harvest),
        };
        let object = key.title();
        let unknown_before = harvest.findings.len();
        let resource = match kind {
            Gateway::NAME => self.istio(meta, harvest).map(Resource::Gateway),
            VirtualService::NAME => self.istio(meta, harvest).map(Resource::VirtualService),
            DestinationRule::NAME => self.istio(meta, harvest).map(Resource::DestinationRule),
            ServiceEntry::NAME => self.istio(meta, harvest).map(Resource::ServiceEntry),
            WorkloadEntry::NAME => self.istio(meta, harvest).map(Resource::WorkloadEntry),
            Service::NAME => self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::Service),
            EndpointSlice::NAME => self.whole().map(|spec| self.object(meta, spec)).map(Resource::EndpointSlice),
            Endpoints::NAME => self.whole().map(|spec| self.object(meta, spec)).map(Resource::Endpoints),
            Namespace::NAME => Ok(Resource::Namespace(self.object(meta, Namespace {}))),
            _ => self.secret().map(|secret| Resource::Secret(self.object(meta, secret))),
        };
        for finding in harvest.findings.iter_mut().skip(unknown_before) {
            finding.object.clone_from(&object);
        }
        match resource {
            Ok(resource) => harvest.resources.push(resource),
            Err(error) => self.fail(Some(key), error, &object, harvest),
        }
    }

    fn fail(&self, key: Option<Key>, error: DecodeError, object: &str, harvest: &mut Harvest) {
        harvest.failed.push(key);
        let message = match error.path.as_str() {
            "" => error.message,
            path => format!("{path}: {}", error.message),
        };
        let code = if error.path.starts_with("data") { &codes::SECRET_VALUE } else { &codes::WRONG_TYPE };
        harvest.findings.push(Finding::new(code, self.origin.locate(&error.path), message).about(object));
    }

    fn meta(&self, kind: &'static str) -> Result<(Meta, Key), (Option<Key>, DecodeError)> {
        let metadata = self.document.get("metadata").unwrap_or(&Value::Null);
        let text = |name: &str| metadata.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(name) = text("name") else {
            let message = "the object has to have a name".to_owned();
            return Err((None, DecodeError { path: "metadata.name".into(), message }));
        };
        let namespace = match kind {
            Namespace::NAME => "",
            _ => text("namespace").unwrap_or(self.default_namespace),
        };
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        match decode::<Meta>(metadata, "metadata") {
            Ok(decoded) => Ok((Meta { namespace: namespace.to_owned(), ..decoded.value }, key)),
            Err(error) => Err((Some(key), error)),
        }
    }

    fn object<T>(&self, meta: Meta, spec: T) -> Arc<Object<T>> {
        Arc::new(Object { meta, spec, origin: self.origin.clone() })
    }

    /// A kind of Istio: every field that its type does not have is a finding.
    fn istio<T: DeserializeOwned + Default>(
        &self,
        meta: Meta,
        harvest: &mut Harvest,
    ) -> Result<Arc<Object<T>>, DecodeError> {
        let mut unknown: Vec<String> = self
            .document
            .keys()
            .filter(|key| *key != "spec" && !COMMON_FIELDS.contains(&key.as_str()))
            .cloned()
            .collect();
        let spec = match self.document.get("spec") {
            None | Some(Value::Null) => T::default(),
            Some(spec) => {
                let decoded = decode::<T>(spec, "spec")?;
                unknown.extend(decoded.unknown);
                decoded.value
            }
        };
        harvest.findings.extend(unknown.iter().take(MAX_UNKNOWN).map(|path| {
            Finding::new(&codes::UNKNOWN_FIELD, self.origin.locate(path), format!("{path}: there is no such field"))
                .hint("check its spelling and its indentation; it is ignored")
        }));
        Ok(self.object(meta, spec))
    }

    fn part<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, DecodeError> {
        match self.document.get(name) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => decode(value, name).map(|decoded| decoded.value),
        }
    }

    fn whole<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        decode(self.value, "").map(|decoded| decoded.value)
    }

    fn secret(&self) -> Result<Secret, DecodeError> {
        let kind = self.document.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut data = BTreeMap::new();
        for (name, text) in self.part::<BTreeMap<String, Option<String>>>("data").map_err(hide_value)? {
            let text: String = text.unwrap_or_default().split_ascii_whitespace().collect();
            match STANDARD.decode(text) {
                Ok(bytes) => {
                    data.insert(name, bytes);
                }
                Err(_) => {
                    let mut path = "data".to_owned();
                    push_key(&mut path, &name);
                    return Err(DecodeError { path, message: "the value is not base64".into() });
                }
            }
        }
        for (name, text) in self.part::<BTreeMap<String, Option<String>>>("stringData").map_err(hide_value)? {
            data.insert(name, text.unwrap_or_default().into_bytes());
        }
        Ok(Secret { kind, data })
    }
}

/// Most unknown fields of one object that are told.
const MAX_UNKNOWN: usize = 20;

/// Values of a Secret appear in no message.
fn hide_value(error: DecodeError) -> DecodeError {
    DecodeError { message: "the values of a Secret have to be text".into(), ..error }
}
