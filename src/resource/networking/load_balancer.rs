//! What do the load balancer settings of a DestinationRule say? Algorithm, hashing, locality and warm-up.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scalars::GoDuration;

/// Istio LoadBalancerSettings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LoadBalancerSettings {
    pub simple: Option<SimpleLb>,
    pub consistent_hash: Option<ConsistentHash>,
    pub locality_lb_setting: Option<LocalityLbSetting>,
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    pub warmup_duration_secs: Option<GoDuration>,
    pub warmup: Option<Warmup>,
}

/// Istio LoadBalancerSettings.SimpleLB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum SimpleLb {
    #[default]
    Unspecified,
    LeastConn,
    Random,
    Passthrough,
    RoundRobin,
    LeastRequest,
}

/// Istio LoadBalancerSettings.ConsistentHashLB: one key, one algorithm.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConsistentHash {
    pub http_header_name: Option<String>,
    pub http_cookie: Option<HashCookie>,
    pub use_source_ip: Option<bool>,
    pub http_query_parameter_name: Option<String>,
    pub ring_hash: Option<RingHash>,
    pub maglev: Option<Maglev>,
    /// The old form of `ringHash.minimumRingSize`.
    pub minimum_ring_size: u64,
}

/// Istio ConsistentHashLB.HTTPCookie.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct HashCookie {
    pub name: String,
    pub path: String,
    /// Absent: the cookie is only read. 0s: a cookie of the session is set.
    pub ttl: Option<GoDuration>,
    pub attributes: Vec<CookieAttribute>,
}

/// Istio ConsistentHashLB.HTTPCookie.Attribute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct CookieAttribute {
    pub name: String,
    pub value: String,
}

/// Istio ConsistentHashLB.RingHash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RingHash {
    /// 0 means 1024.
    pub minimum_ring_size: u64,
}

/// Istio ConsistentHashLB.MagLev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Maglev {
    pub table_size: u64,
}

/// Istio LocalityLoadBalancerSetting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LocalityLbSetting {
    pub distribute: Vec<Distribute>,
    pub failover: Vec<Failover>,
    /// Labels in order, `name` or `name=value`.
    pub failover_priority: Vec<String>,
    pub enabled: Option<bool>,
}

/// Istio LocalityLoadBalancerSetting.Distribute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Distribute {
    pub from: String,
    /// Locality to percent.
    pub to: BTreeMap<String, u32>,
}

/// Istio LocalityLoadBalancerSetting.Failover and ZoneAwareLoadBalancerSetting.Failover.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Failover {
    pub from: String,
    pub to: String,
}

/// Istio ZoneAwareLoadBalancerSetting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ZoneAwareLbSetting {
    pub enabled: Option<bool>,
    pub failover: Vec<Failover>,
    pub failover_priority: Vec<String>,
    pub min_cluster_size: Option<u64>,
}

/// Istio WarmupConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Warmup {
    pub duration: Option<GoDuration>,
    /// 0 to 100.
    pub minimum_percent: Option<f64>,
    /// At least 1.
    pub aggression: Option<f64>,
}
