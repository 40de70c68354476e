//! Does a ProxyConfig keep the rules of its kind? (Istio ValidateProxyConfig)

use super::faults::{At, Faults};
use super::selection::check_match_labels;
use crate::resource::networking::ProxyConfig;

/// Checks the whole object.
pub(super) fn check(config: &ProxyConfig, faults: &mut Faults) {
    let spec = At::root("spec");
    check_match_labels(config.selector.as_ref(), spec, faults);
    let good = config.concurrency.is_none_or(|threads| threads >= 0);
    faults.require(good, spec.field("concurrency"), "the concurrency cannot be negative");
}
