//! Does a PeerAuthentication keep the rules of its kind? (Istio ValidatePeerAuthentication)

use super::faults::{At, Faults};
use super::names::check_port;
use super::selection::check_match_labels;
use crate::resource::security::PeerAuthentication;

/// Checks the whole object.
pub(super) fn check(policy: &PeerAuthentication, faults: &mut Faults) {
    let spec = At::root("spec");
    check_match_labels(policy.selector.as_ref(), spec, faults);
    let selects = policy.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    let message = "modes by port need a selector with labels";
    faults.require(selects || policy.port_level_mtls.is_empty(), spec.field("portLevelMtls"), message);
    for port in policy.port_level_mtls.keys() {
        let at = spec.key("portLevelMtls", port);
        match port.parse() {
            Ok(number) => faults.check(at, check_port(number)),
            Err(_) => faults.error(at, format!("`{port}` is no port")),
        }
    }
}
