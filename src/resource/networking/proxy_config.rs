//! What does a ProxyConfig say? How the proxies of workloads are started.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::resource::selection::MatchLabels;

/// Istio ProxyConfig.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ProxyConfig {
    pub selector: Option<MatchLabels>,
    pub concurrency: Option<i32>,
    pub environment_variables: BTreeMap<String, String>,
    pub image: Option<ProxyImage>,
}

/// Istio ProxyImage.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ProxyImage {
    pub image_type: String,
}
