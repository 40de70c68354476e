//! Which object does a document hold? Its kind decides the type; everything else about it becomes a finding.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::decode::{DecodeError, Unknown, decode, push_key};
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::core::{EndpointSlice, Endpoints, Namespace, Secret, Service};
use crate::resource::extensions::{TrafficExtension, WasmPlugin};
use crate::resource::finding::Finding;
use crate::resource::gateway_api::{GrpcRoute, HttpRoute, KubernetesGateway};
use crate::resource::meta::{Kind, Meta, Object, Origin, Status};
use crate::resource::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use crate::resource::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::resource::telemetry::Telemetry;
use crate::resource::workloads::{ConfigMap, CustomResourceDefinition, Deployment, Node, Pod};

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
        /// An object of a kind that is read.
        #[derive(Clone, Debug)]
        pub(super) enum Resource {
            $($kind(Arc<Object<$kind>>),)*
        }

        impl Resource {
            /// Whether it can do something; the others are looked at by analysis alone.
            pub(super) fn matters(&self) -> bool {
                !matches!(self, Resource::Deployment(_) | Resource::ConfigMap(_))
            }

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
    WorkloadGroup workload_groups,
    Sidecar sidecars,
    ProxyConfig proxy_configs,
    EnvoyFilter envoy_filters,
    PeerAuthentication peer_authentications,
    RequestAuthentication request_authentications,
    AuthorizationPolicy authorization_policies,
    Telemetry telemetries,
    WasmPlugin wasm_plugins,
    TrafficExtension traffic_extensions,
    Service services,
    EndpointSlice endpoint_slices,
    Endpoints endpoints,
    Secret secrets,
    Namespace namespaces,
    Pod pods,
    Deployment deployments,
    ConfigMap config_maps,
    Node nodes,
    CustomResourceDefinition definitions,
    KubernetesGateway kubernetes_gateways,
    HttpRoute http_routes,
    GrpcRoute grpc_routes
);

/// What the documents of a file gave.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    pub resources: Vec<Resource>,
    /// Objects that were meant but are unusable; `None` if not even their name could be read.
    pub failed: Vec<Option<Key>>,
    pub findings: Vec<Finding>,
}

impl Harvest {
    /// Adds what another document gave.
    pub(super) fn append(&mut self, other: &Harvest) {
        self.resources.extend(other.resources.iter().cloned());
        self.failed.extend(other.failed.iter().cloned());
        self.findings.extend(other.findings.iter().cloned());
    }
}

/// The kind of a document, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A kind that is read and checked.
    Known(&'static str, Effect),
    List,
    /// Known to Istio or the Gateway API, and would change traffic, but is not even read yet.
    NotRead,
    /// Means nothing to a gateway.
    Foreign,
    Unknown,
}

/// What an object of a known kind does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    InForce,
    /// Nothing yet.
    NotYet,
    /// Nothing yet, and it is meant to protect something.
    NotProtecting,
    /// Nothing yet; analysis looks at it. What cannot be read of it does not matter.
    NotYetLookedAt,
    /// Nothing ever; analysis looks at it. What cannot be read of it does not matter.
    LookedAt,
}

/// Sorts a document by its `apiVersion` and `kind`.
pub(super) fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match (group, kind) {
        (group, kind) if kind.ends_with("List") && has_lists(group, version) => Class::List,
        ("networking.istio.io", kind) if matches!(version, "v1" | "v1beta1" | "v1alpha3") => networking(kind),
        ("security.istio.io", kind) if matches!(version, "v1" | "v1beta1") => security(kind),
        ("telemetry.istio.io", "Telemetry") if matches!(version, "v1" | "v1alpha1") => {
            Class::Known(Telemetry::NAME, Effect::InForce)
        }
        ("extensions.istio.io", "WasmPlugin") if matches!(version, "v1" | "v1alpha1") => {
            Class::Known(WasmPlugin::NAME, Effect::NotYet)
        }
        ("extensions.istio.io", "TrafficExtension") if matches!(version, "v1" | "v1alpha1") => {
            Class::Known(TrafficExtension::NAME, Effect::NotYet)
        }
        ("", kind) if version == "v1" => core(kind),
        ("apps", "Deployment") if version == "v1" => Class::Known(Deployment::NAME, Effect::LookedAt),
        ("discovery.k8s.io", "EndpointSlice") if matches!(version, "v1" | "v1beta1") => {
            Class::Known(EndpointSlice::NAME, Effect::InForce)
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Class::Known(CustomResourceDefinition::NAME, Effect::LookedAt)
        }
        ("gateway.networking.k8s.io", kind) => gateway_api(kind),
        ("gateway.networking.x-k8s.io", _) => Class::NotRead,
        ("networking.k8s.io", "Ingress" | "IngressClass") => Class::NotRead,
        ("" | "apps" | "batch" | "autoscaling" | "policy" | "extensions", _) => Class::Foreign,
        ("install.istio.io", _) => Class::Foreign,
        (group, _) if group.ends_with(".k8s.io") || group.ends_with("cert-manager.io") => Class::Foreign,
        _ => Class::Unknown,
    }
}

/// Whether a kind of the group that ends in `List` is a list of objects.
fn has_lists(group: &str, version: &str) -> bool {
    group.is_empty() && version == "v1"
        || group == "apps"
        || group == "discovery.k8s.io"
        || matches!(group, "networking.istio.io" | "security.istio.io" | "telemetry.istio.io" | "extensions.istio.io")
}

fn networking(kind: &str) -> Class {
    match kind {
        "Gateway" => Class::Known(Gateway::NAME, Effect::InForce),
        "VirtualService" => Class::Known(VirtualService::NAME, Effect::InForce),
        "DestinationRule" => Class::Known(DestinationRule::NAME, Effect::InForce),
        "ServiceEntry" => Class::Known(ServiceEntry::NAME, Effect::InForce),
        "WorkloadEntry" => Class::Known(WorkloadEntry::NAME, Effect::InForce),
        "WorkloadGroup" => Class::Known(WorkloadGroup::NAME, Effect::NotYet),
        "Sidecar" => Class::Known(Sidecar::NAME, Effect::NotYet),
        "ProxyConfig" => Class::Known(ProxyConfig::NAME, Effect::NotYet),
        "EnvoyFilter" => Class::Known(EnvoyFilter::NAME, Effect::NotYet),
        "ServiceEntryStatus" => Class::NotRead,
        _ => Class::Unknown,
    }
}

fn security(kind: &str) -> Class {
    match kind {
        // What servers ask of clients is said by the Gateway; this is for the way to endpoints.
        "PeerAuthentication" => Class::Known(PeerAuthentication::NAME, Effect::InForce),
        "RequestAuthentication" => Class::Known(RequestAuthentication::NAME, Effect::NotProtecting),
        "AuthorizationPolicy" => Class::Known(AuthorizationPolicy::NAME, Effect::NotProtecting),
        _ => Class::Unknown,
    }
}

fn gateway_api(kind: &str) -> Class {
    match kind {
        "Gateway" => Class::Known(KubernetesGateway::NAME, Effect::NotYetLookedAt),
        "HTTPRoute" => Class::Known(HttpRoute::NAME, Effect::NotYetLookedAt),
        "GRPCRoute" => Class::Known(GrpcRoute::NAME, Effect::NotYetLookedAt),
        _ => Class::NotRead,
    }
}

fn core(kind: &str) -> Class {
    match kind {
        "Service" => Class::Known(Service::NAME, Effect::InForce),
        "Endpoints" => Class::Known(Endpoints::NAME, Effect::InForce),
        "Secret" => Class::Known(Secret::NAME, Effect::InForce),
        "Namespace" => Class::Known(Namespace::NAME, Effect::InForce),
        "Pod" => Class::Known(Pod::NAME, Effect::InForce),
        "ConfigMap" => Class::Known(ConfigMap::NAME, Effect::LookedAt),
        "Node" => Class::Known(Node::NAME, Effect::InForce),
        _ => Class::Foreign,
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
    let read = Document { value, document, origin, default_namespace };
    let class = classify(api_version, kind);
    match class {
        Class::List => unpack(document, origin, default_namespace, harvest),
        // Of what is only looked at, nothing can be wrong.
        Class::Known(kind, Effect::LookedAt | Effect::NotYetLookedAt) => {
            let mut own = Harvest::default();
            read.read(kind, &mut own);
            harvest.resources.append(&mut own.resources);
        }
        Class::Known(kind, _) => read.read(kind, harvest),
        _ => {}
    }
    if let Some((code, message)) = effect(class, api_version, kind) {
        harvest.findings.push(about_kind(code, message, kind, document, origin, default_namespace));
    }
}

/// What is to say about a kind as such, if it does not do its work.
fn effect(class: Class, api_version: &str, kind: &str) -> Option<(&'static codes::Code, String)> {
    Some(match class {
        Class::Known(_, Effect::InForce) | Class::List => return None,
        Class::NotRead | Class::Known(_, Effect::NotYet | Effect::NotYetLookedAt) => {
            (&codes::KIND_NOT_IN_FORCE, format!("{kind} is not in force yet; it does nothing here"))
        }
        Class::Known(_, Effect::NotProtecting) => {
            (&codes::KIND_NOT_IN_FORCE, format!("{kind} is not in force yet: traffic is NOT protected by it"))
        }
        Class::Foreign | Class::Known(_, Effect::LookedAt) => {
            (&codes::KIND_IGNORED, format!("{kind} means nothing to a gateway"))
        }
        Class::Unknown => (&codes::UNKNOWN_KIND, format!("the kind {kind} of {api_version} is not known")),
    })
}

fn about_kind(
    code: &'static codes::Code,
    message: String,
    kind: &str,
    document: &Map<String, Value>,
    origin: &Origin,
    default_namespace: &str,
) -> Finding {
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

/// A document of a known kind.
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
            WorkloadGroup::NAME => self.istio(meta, harvest).map(Resource::WorkloadGroup),
            Sidecar::NAME => self.istio(meta, harvest).map(Resource::Sidecar),
            ProxyConfig::NAME => self.istio(meta, harvest).map(Resource::ProxyConfig),
            EnvoyFilter::NAME => self.istio(meta, harvest).map(Resource::EnvoyFilter),
            PeerAuthentication::NAME => self.istio(meta, harvest).map(Resource::PeerAuthentication),
            RequestAuthentication::NAME => self.istio(meta, harvest).map(Resource::RequestAuthentication),
            AuthorizationPolicy::NAME => self.istio(meta, harvest).map(Resource::AuthorizationPolicy),
            Telemetry::NAME => self.istio(meta, harvest).map(Resource::Telemetry),
            WasmPlugin::NAME => self.istio(meta, harvest).map(Resource::WasmPlugin),
            TrafficExtension::NAME => self.istio(meta, harvest).map(Resource::TrafficExtension),
            Service::NAME => self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::Service),
            EndpointSlice::NAME => self.whole().map(|spec| self.object(meta, spec)).map(Resource::EndpointSlice),
            Endpoints::NAME => self.whole().map(|spec| self.object(meta, spec)).map(Resource::Endpoints),
            Pod::NAME => self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::Pod),
            Deployment::NAME => self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::Deployment),
            ConfigMap::NAME => self.whole().map(|spec| self.object(meta, spec)).map(Resource::ConfigMap),
            Namespace::NAME => Ok(Resource::Namespace(self.object(meta, Namespace {}))),
            Node::NAME => Ok(Resource::Node(self.object(meta, Node {}))),
            HttpRoute::NAME => Ok(Resource::HttpRoute(self.object(meta, HttpRoute {}))),
            GrpcRoute::NAME => Ok(Resource::GrpcRoute(self.object(meta, GrpcRoute {}))),
            KubernetesGateway::NAME => {
                self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::KubernetesGateway)
            }
            CustomResourceDefinition::NAME => {
                self.part("spec").map(|spec| self.object(meta, spec)).map(Resource::CustomResourceDefinition)
            }
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
            Namespace::NAME | Node::NAME | CustomResourceDefinition::NAME => "",
            _ => text("namespace").unwrap_or(self.default_namespace),
        };
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        match decode::<Meta>(metadata, "metadata") {
            Ok(decoded) => {
                let meta = Meta { namespace: namespace.to_owned(), status: self.status(), ..decoded.value };
                Ok((meta, key))
            }
            Err(error) => Err((Some(key), error)),
        }
    }

    /// What of the status is of interest; what controllers write is not the user's fault.
    fn status(&self) -> Option<Box<Status>> {
        let status = decode::<Status>(self.document.get("status")?, "status").ok()?.value;
        (status != Status::default()).then(|| Box::new(status))
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
        let mut unknown: Vec<Unknown> = self
            .document
            .keys()
            .filter(|key| *key != "spec" && !COMMON_FIELDS.contains(&key.as_str()))
            .map(|key| Unknown { path: key.clone(), meant: None })
            .collect();
        let spec = match self.document.get("spec") {
            None | Some(Value::Null) => T::default(),
            Some(spec) => {
                let decoded = decode::<T>(spec, "spec")?;
                unknown.extend(decoded.unknown);
                decoded.value
            }
        };
        harvest.findings.extend(unknown.iter().take(MAX_UNKNOWN).map(|field| {
            let Unknown { path, .. } = field;
            Finding::new(&codes::UNKNOWN_FIELD, self.origin.locate(path), format!("{path}: there is no such field"))
                .hint(field.hint("check its spelling and its indentation; it is ignored"))
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
