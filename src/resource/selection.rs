//! What does a policy attach to? Labels of workloads, or objects that it names.

use serde::Deserialize;

use super::meta::Labels;

/// Istio WorkloadSelector of type.istio.io (`matchLabels`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MatchLabels {
    pub match_labels: Labels,
}

/// Istio PolicyTargetReference; an empty namespace is that of the policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}
