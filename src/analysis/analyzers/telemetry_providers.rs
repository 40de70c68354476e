//! Does the access log of a Telemetry go anywhere? (Istio's telemetry.ProviderAnalyzer: IST0157.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    if !world.settings.access_log.default_providers.is_empty() {
        return;
    }
    for object in &world.resources.telemetries {
        for (index, log) in object.spec.access_logging.iter().enumerate() {
            if !log.disabled.unwrap_or(false) && log.providers.is_empty() {
                let message = "it names no provider, and the mesh has no default";
                let hint = "name a provider, or set defaultProviders.accessLogging in the mesh file";
                let path = format!("spec.accessLogging[{index}]");
                report.tell_with_hint(object, &codes::NO_LOG_PROVIDER, &path, message, hint);
            }
        }
    }
}
