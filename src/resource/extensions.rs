//! The kinds of `extensions.istio.io`, field by field as the user writes them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::networking::PortSelector;
use super::selection::{MatchLabels, TargetRef};
use super::telemetry::WorkloadMode;

/// Istio WasmPlugin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WasmPlugin {
    pub selector: Option<MatchLabels>,
    pub target_ref: Option<TargetRef>,
    pub target_refs: Vec<TargetRef>,
    pub url: String,
    pub sha256: String,
    pub image_pull_policy: PullPolicy,
    pub image_pull_secret: Option<String>,
    pub verification_key: String,
    pub plugin_config: Option<Map<String, Value>>,
    pub plugin_name: Option<String>,
    pub phase: PluginPhase,
    pub priority: Option<i32>,
    pub fail_strategy: FailStrategy,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    #[serde(rename = "type")]
    pub kind: PluginType,
}

/// Istio TrafficExtension.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TrafficExtension {
    pub selector: Option<MatchLabels>,
    pub target_refs: Vec<TargetRef>,
    pub phase: PluginPhase,
    pub priority: Option<i32>,
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    pub wasm: Option<WasmConfig>,
    pub lua: Option<LuaConfig>,
}

/// Istio WasmConfig of a TrafficExtension.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WasmConfig {
    pub url: String,
    pub sha256: String,
    pub image_pull_policy: PullPolicy,
    pub image_pull_secret: Option<String>,
    pub verification_key: String,
    pub plugin_config: Option<Map<String, Value>>,
    pub plugin_name: Option<String>,
    pub fail_strategy: FailStrategy,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "type")]
    pub kind: PluginType,
}

/// Istio LuaConfig of a TrafficExtension.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LuaConfig {
    pub inline_code: String,
}

/// Istio WasmPlugin.TrafficSelector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TrafficSelector {
    pub mode: WorkloadMode,
    pub ports: Vec<PortSelector>,
}

/// Istio VmConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct VmConfig {
    pub env: Vec<EnvVar>,
}

/// Istio EnvVar.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EnvVar {
    pub name: String,
    pub value_from: EnvValueSource,
    pub value: Option<String>,
}

/// Istio EnvValueSource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum EnvValueSource {
    #[default]
    Inline,
    Host,
}

/// Istio PullPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum PullPolicy {
    #[default]
    #[serde(rename = "UNSPECIFIED_POLICY")]
    Unspecified,
    IfNotPresent,
    Always,
}

/// Istio PluginPhase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum PluginPhase {
    #[default]
    #[serde(rename = "UNSPECIFIED_PHASE")]
    Unspecified,
    Authn,
    Authz,
    Stats,
}

/// Istio PluginType.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum PluginType {
    #[default]
    #[serde(rename = "UNSPECIFIED_PLUGIN_TYPE")]
    Unspecified,
    Http,
    Network,
}

/// Istio FailStrategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum FailStrategy {
    #[default]
    #[serde(rename = "FAIL_CLOSE")]
    Close,
    #[serde(rename = "FAIL_OPEN")]
    Open,
    #[serde(rename = "FAIL_RELOAD")]
    Reload,
}
