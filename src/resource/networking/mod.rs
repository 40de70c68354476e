//! The kinds of `networking.istio.io`, field by field as the user writes them (v1, v1beta1 and v1alpha3 are alike).
//!
//! Every field of the API is here, also those not yet in force: `analysis` reports them, `compile` ignores them.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod load_balancer;
mod proxy_config;
mod scalars;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload;

pub(crate) use self::destination_rule::*;
pub(crate) use self::envoy_filter::*;
pub(crate) use self::gateway::*;
pub(crate) use self::load_balancer::*;
pub(crate) use self::proxy_config::*;
pub(crate) use self::scalars::*;
pub(crate) use self::service_entry::*;
pub(crate) use self::sidecar::*;
pub(crate) use self::virtual_service::*;
pub(crate) use self::workload::*;
