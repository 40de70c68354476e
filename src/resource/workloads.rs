//! The Kubernetes kinds around what runs: Pod, Deployment, Node and their like, as far as analysis looks at them.

use serde::Deserialize;

use super::meta::{Labels, Meta, Object};
use super::selection::MatchLabels;

/// Kubernetes Pod.spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Pod {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub security_context: Option<SecurityContext>,
    pub host_network: bool,
    pub service_account_name: String,
    pub node_name: String,
}

impl Object<Pod> {
    /// Its address, once it has one and as long as it runs.
    pub(crate) fn address(&self) -> Option<&str> {
        let status = self.meta.status.as_ref()?;
        let runs = matches!(status.phase.as_str(), "" | "Pending" | "Running");
        Some(status.pod_ip.as_str()).filter(|address| runs && !address.is_empty())
    }

    /// Whether its containers said that they are ready.
    pub(crate) fn is_ready(&self) -> bool {
        let conditions = self.meta.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }

    /// The number of a named TCP port; the first container that has it counts.
    pub(crate) fn port(&self, name: &str) -> Option<u32> {
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        let named = |port: &&ContainerPort| port.name == name && matches!(port.protocol.as_str(), "" | "TCP");
        ports.filter(|port| !port.name.is_empty()).find(named).map(|port| port.container_port)
    }
}

/// Kubernetes Container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub name: String,
    pub image: String,
    pub ports: Vec<ContainerPort>,
    pub env: Vec<EnvVar>,
    pub security_context: Option<SecurityContext>,
}

/// Kubernetes ContainerPort.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    pub name: String,
    pub container_port: u32,
    pub host_port: u32,
    pub protocol: String,
}

/// Kubernetes EnvVar with a value of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EnvVar {
    pub name: String,
    pub value: String,
}

/// Kubernetes SecurityContext and PodSecurityContext.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
}

/// Kubernetes Deployment.spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Deployment {
    pub selector: Option<MatchLabels>,
    pub template: PodTemplate,
}

/// Kubernetes PodTemplateSpec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct PodTemplate {
    pub metadata: Meta,
    pub spec: Pod,
}

/// Kubernetes ConfigMap (`data` stands beside the metadata).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigMap {
    pub data: Labels,
}

/// Kubernetes Node: only its metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Node {}

/// Kubernetes CustomResourceDefinition.spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct CustomResourceDefinition {
    pub group: String,
    pub names: DefinedNames,
}

/// Kubernetes CustomResourceDefinition.spec.names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DefinedNames {
    pub kind: String,
}
