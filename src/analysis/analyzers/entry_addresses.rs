//! Do TCP ports of ServiceEntries have addresses? (Istio's serviceentry.ProtocolAddressesAnalyzer: IST0134.)
//!
//! Only sidecars need them, so this is told on request alone.

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    if world.settings.mesh.allocates_addresses {
        return;
    }
    for entry in &world.resources.service_entries {
        let allocated = entry.meta.status.as_ref().is_some_and(|status| !status.addresses.is_empty());
        if allocated || !entry.spec.addresses.is_empty() {
            continue;
        }
        for (index, port) in entry.spec.ports.iter().enumerate() {
            if port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP") {
                let message = format!("port {} is TCP, and the entry has no addresses", port.number);
                let hint = "add addresses; without them a sidecar takes all traffic of the port for this host";
                let path = format!("spec.ports[{index}]");
                report.tell_with_hint(entry, &codes::ADDRESSES_NEEDED, &path, message, hint);
            }
        }
    }
}
