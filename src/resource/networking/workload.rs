//! What do a WorkloadEntry and a WorkloadGroup say, and how are workloads selected?

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::resource::meta::Labels;

/// Istio WorkloadEntry, also as ServiceEntry.endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WorkloadEntry {
    pub address: String,
    /// Port name to port number.
    pub ports: BTreeMap<String, u32>,
    pub labels: Labels,
    pub network: String,
    pub locality: String,
    /// 0 and absent mean 1.
    pub weight: u32,
    pub service_account: String,
}

/// Istio WorkloadSelector of networking.istio.io (`labels`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadSelector {
    pub labels: Labels,
}

/// Istio WorkloadGroup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadGroup {
    pub metadata: GroupMeta,
    pub template: Option<WorkloadEntry>,
    pub probe: Option<ReadinessProbe>,
}

/// Istio WorkloadGroup.ObjectMeta: what the entries of the group get.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct GroupMeta {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
}

/// Istio ReadinessProbe: one of the four ways to ask.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ReadinessProbe {
    pub initial_delay_seconds: i32,
    pub timeout_seconds: i32,
    pub period_seconds: i32,
    pub success_threshold: i32,
    pub failure_threshold: i32,
    pub http_get: Option<HttpProbe>,
    pub tcp_socket: Option<TcpProbe>,
    pub exec: Option<ExecProbe>,
    pub grpc: Option<GrpcProbe>,
}

/// Istio HTTPHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HttpProbe {
    pub path: String,
    pub port: u32,
    pub host: String,
    pub scheme: String,
    pub http_headers: Vec<ProbeHeader>,
}

/// Istio HTTPHeader of a probe.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ProbeHeader {
    pub name: String,
    pub value: String,
}

/// Istio TCPHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TcpProbe {
    pub host: String,
    pub port: u32,
}

/// Istio ExecHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ExecProbe {
    pub command: Vec<String>,
}

/// Istio GrpcHealthCheckConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct GrpcProbe {
    pub port: u32,
    pub service: String,
}
