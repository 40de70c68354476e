//! What the user wrote: the words of Istio, Kubernetes and `limani.toml` as plain data, without behaviour.

pub(crate) mod codes;
pub(crate) mod core;
pub(crate) mod extensions;
pub(crate) mod finding;
pub(crate) mod gateway_api;
pub(crate) mod meta;
pub(crate) mod networking;
pub(crate) mod security;
pub(crate) mod selection;
pub(crate) mod settings;
pub(crate) mod telemetry;
pub(crate) mod workloads;

use std::sync::Arc;

use self::core::{EndpointSlice, Endpoints, Namespace, Secret, Service};
use self::extensions::{TrafficExtension, WasmPlugin};
use self::gateway_api::{GrpcRoute, HttpRoute, KubernetesGateway};
use self::meta::{Kind, Object};
use self::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use self::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use self::telemetry::Telemetry;
use self::workloads::{ConfigMap, CustomResourceDefinition, Deployment, Node, Pod};

/// Everything that is in force by the configuration, kind by kind, in no particular order.
///
/// An object stands here once: of two with the same kind, namespace and name the source keeps the last good one.
/// Objects are shared between generations, so an unchanged file costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResourceSet {
    pub gateways: Vec<Arc<Object<Gateway>>>,
    pub virtual_services: Vec<Arc<Object<VirtualService>>>,
    pub destination_rules: Vec<Arc<Object<DestinationRule>>>,
    pub service_entries: Vec<Arc<Object<ServiceEntry>>>,
    pub workload_entries: Vec<Arc<Object<WorkloadEntry>>>,
    pub workload_groups: Vec<Arc<Object<WorkloadGroup>>>,
    pub sidecars: Vec<Arc<Object<Sidecar>>>,
    pub proxy_configs: Vec<Arc<Object<ProxyConfig>>>,
    pub envoy_filters: Vec<Arc<Object<EnvoyFilter>>>,
    pub peer_authentications: Vec<Arc<Object<PeerAuthentication>>>,
    pub request_authentications: Vec<Arc<Object<RequestAuthentication>>>,
    pub authorization_policies: Vec<Arc<Object<AuthorizationPolicy>>>,
    pub telemetries: Vec<Arc<Object<Telemetry>>>,
    pub wasm_plugins: Vec<Arc<Object<WasmPlugin>>>,
    pub traffic_extensions: Vec<Arc<Object<TrafficExtension>>>,
    pub services: Vec<Arc<Object<Service>>>,
    pub endpoint_slices: Vec<Arc<Object<EndpointSlice>>>,
    pub endpoints: Vec<Arc<Object<Endpoints>>>,
    pub secrets: Vec<Arc<Object<Secret>>>,
    pub namespaces: Vec<Arc<Object<Namespace>>>,
    pub pods: Vec<Arc<Object<Pod>>>,
    pub deployments: Vec<Arc<Object<Deployment>>>,
    pub config_maps: Vec<Arc<Object<ConfigMap>>>,
    pub nodes: Vec<Arc<Object<Node>>>,
    pub definitions: Vec<Arc<Object<CustomResourceDefinition>>>,
    pub kubernetes_gateways: Vec<Arc<Object<KubernetesGateway>>>,
    pub http_routes: Vec<Arc<Object<HttpRoute>>>,
    pub grpc_routes: Vec<Arc<Object<GrpcRoute>>>,
}

macro_rules! kinds {
    ($($kind:ident),*) => { $(impl Kind for $kind { const NAME: &'static str = stringify!($kind); })* };
}

kinds!(
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    Sidecar,
    ProxyConfig,
    EnvoyFilter,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
    TrafficExtension,
    Service,
    EndpointSlice,
    Endpoints,
    Secret,
    Namespace,
    Pod,
    Deployment,
    ConfigMap,
    Node,
    CustomResourceDefinition
);
