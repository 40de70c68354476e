//! The Kubernetes kinds that matter to a gateway: Service, EndpointSlice, Endpoints, Secret, Namespace.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::meta::Labels;

/// Kubernetes Service.spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Service {
    #[serde(rename = "type")]
    pub kind: String,
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub external_name: String,
}

/// Kubernetes ServicePort.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub app_protocol: String,
    pub port: u32,
    pub target_port: Option<IntOrString>,
    pub node_port: u32,
}

/// Kubernetes IntOrString: a port number or the name of a container port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum IntOrString {
    Int(u32),
    String(String),
}

/// Kubernetes discovery.k8s.io EndpointSlice (its fields stand beside the metadata, not under `spec`).
/// It belongs to the Service named by its label `kubernetes.io/service-name`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub address_type: String,
    pub endpoints: Vec<SliceEndpoint>,
    pub ports: Vec<EndpointPort>,
}

/// Kubernetes EndpointSlice.endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SliceEndpoint {
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    pub hostname: String,
    pub node_name: String,
    pub zone: String,
    pub target_ref: Option<ObjectReference>,
    /// Kept for slices written before v1; Istio's files never use it.
    pub topology: Labels,
}

/// Kubernetes EndpointConditions; an absent `ready` counts as true.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// Kubernetes ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectReference {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// Kubernetes EndpointPort, of slices and of Endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointPort {
    pub name: String,
    pub port: u32,
    pub protocol: String,
    pub app_protocol: String,
}

/// Kubernetes Endpoints (`subsets` stands beside the metadata). It has the name of its Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    pub subsets: Vec<EndpointSubset>,
}

/// Kubernetes EndpointSubset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointSubset {
    pub addresses: Vec<EndpointAddress>,
    pub ports: Vec<EndpointPort>,
}

/// Kubernetes EndpointAddress.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointAddress {
    pub ip: String,
    pub hostname: String,
    pub node_name: String,
    pub target_ref: Option<ObjectReference>,
}

/// Kubernetes Secret; `data` already decoded from base64, `stringData` merged over it by the source.
/// Its values never appear in Debug output.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Secret {
    pub kind: String,
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &self.data.keys()).finish()
    }
}

/// Kubernetes Namespace: only its metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Namespace {}
