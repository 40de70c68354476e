//! Does a DestinationRule say by which authority its servers are verified? (Istio's
//! destinationrule.CaCertificateAnalyzer: IST0128, IST0129.)
//!
//! Without one the authorities of the system decide here, so this is told on request alone.

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::networking::{ClientTls, ClientTlsMode};

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for rule in &world.resources.destination_rules {
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        let selects = rule.spec.workload_selector.is_some();
        let hint = "name caCertificates; without them the authorities of the system decide";
        if policy.tls.as_ref().is_some_and(|tls| names_no_authority(tls, selects)) {
            let message = "no authority is named by which servers are verified";
            report.tell_with_hint(rule, &codes::NO_AUTHORITY, "spec.trafficPolicy.tls", message, hint);
        }
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            if port.tls.as_ref().is_some_and(|tls| names_no_authority(tls, selects)) {
                let path = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
                let message = "no authority is named by which servers of this port are verified";
                report.tell_with_hint(rule, &codes::NO_AUTHORITY_FOR_PORT, &path, message, hint);
            }
        }
    }
}

/// The credential of a rule that selects workloads holds the authority.
fn names_no_authority(tls: &ClientTls, selects_workloads: bool) -> bool {
    matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
        && tls.ca_certificates.is_empty()
        && (!selects_workloads || tls.credential_name.is_empty())
}
