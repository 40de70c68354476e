//! What does a Sidecar say? What the proxies of a namespace take in and may reach.

use serde::Deserialize;

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTls;
use super::virtual_service::Destination;
use super::workload::WorkloadSelector;

/// Istio Sidecar.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Sidecar {
    pub workload_selector: Option<WorkloadSelector>,
    pub ingress: Vec<IngressListener>,
    pub egress: Vec<EgressListener>,
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// Istio IstioIngressListener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IngressListener {
    pub port: Option<SidecarPort>,
    pub bind: String,
    pub capture_mode: CaptureMode,
    pub default_endpoint: String,
    pub tls: Option<ServerTls>,
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// Istio IstioEgressListener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EgressListener {
    pub port: Option<SidecarPort>,
    pub bind: String,
    pub capture_mode: CaptureMode,
    /// `namespace/dnsName`; the namespace may be `.`, `*` or `~`.
    pub hosts: Vec<String>,
}

/// Istio SidecarPort.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SidecarPort {
    pub number: u32,
    pub protocol: String,
    pub name: String,
    pub target_port: u32,
}

/// Istio CaptureMode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum CaptureMode {
    #[default]
    Default,
    Iptables,
    None,
}

/// Istio OutboundTrafficPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct OutboundTrafficPolicy {
    pub mode: OutboundMode,
    pub egress_proxy: Option<Destination>,
}

/// Istio OutboundTrafficPolicy.Mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OutboundMode {
    #[default]
    RegistryOnly,
    AllowAny,
}
