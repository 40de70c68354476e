//! The kinds of `gateway.networking.k8s.io`, as far as analysis looks at them.

use serde::Deserialize;

use super::meta::Kind;

/// Gateway API Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct KubernetesGateway {
    pub listeners: Vec<Listener>,
}

/// Gateway API Gateway.listeners.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Listener {
    /// Empty for every host.
    pub hostname: String,
}

/// Gateway API HTTPRoute: its status alone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct HttpRoute {}

/// Gateway API GRPCRoute: its status alone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct GrpcRoute {}

impl Kind for KubernetesGateway {
    const NAME: &'static str = "KubernetesGateway";
    const WRITTEN: &'static str = "Gateway";
}

impl Kind for HttpRoute {
    const NAME: &'static str = "HTTPRoute";
}

impl Kind for GrpcRoute {
    const NAME: &'static str = "GRPCRoute";
}
