//! What does an EnvoyFilter say? Where it patches Envoy's configuration, as far as analysis looks at it.

use serde::Deserialize;
use serde_json::Value;

use super::workload::WorkloadSelector;
use crate::resource::selection::TargetRef;

/// Istio EnvoyFilter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EnvoyFilter {
    pub workload_selector: Option<WorkloadSelector>,
    pub target_refs: Vec<TargetRef>,
    pub config_patches: Vec<ConfigPatch>,
    pub priority: i32,
}

/// Istio EnvoyFilter.EnvoyConfigObjectPatch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConfigPatch {
    pub apply_to: ApplyTo,
    /// Kept as it is written: it describes Envoy's objects.
    #[serde(rename = "match")]
    pub matches: Value,
    pub patch: Option<Patch>,
}

/// Istio EnvoyFilter.ApplyTo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ApplyTo {
    #[default]
    Invalid,
    Listener,
    FilterChain,
    NetworkFilter,
    HttpFilter,
    RouteConfiguration,
    VirtualHost,
    HttpRoute,
    Cluster,
    ExtensionConfig,
    Bootstrap,
    ListenerFilter,
}

/// Istio EnvoyFilter.Patch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Patch {
    pub operation: PatchOperation,
    /// Kept as it is written: a piece of Envoy's configuration.
    pub value: Value,
    pub filter_class: FilterClass,
}

/// Istio EnvoyFilter.Patch.Operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum PatchOperation {
    #[default]
    Invalid,
    Merge,
    Add,
    Remove,
    InsertBefore,
    InsertAfter,
    InsertFirst,
    Replace,
}

/// Istio EnvoyFilter.Patch.FilterClass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum FilterClass {
    #[default]
    Unspecified,
    Authn,
    Authz,
    Stats,
}
