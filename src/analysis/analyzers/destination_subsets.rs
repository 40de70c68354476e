//! Do the subsets exist that a VirtualService names? (Istio's virtualservice.DestinationRuleAnalyzer: IST0101.)

use super::destination_hosts::destinations;
use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;

pub(super) fn analyze(world: &World<'_>, service: &Object<VirtualService>, report: &mut Report<'_>) {
    for (place, destination) in destinations(&service.spec) {
        let subset = &destination.subset;
        if subset.is_empty() {
            continue;
        }
        let name = world.qualify(&destination.host, &service.meta.namespace);
        if !world.subsets().has(&name, subset) {
            let message = format!("no DestinationRule for `{name}` has a subset `{subset}`; requests to it get 503");
            report.tell(service, &codes::REFERENCE_MISSING, &format!("{place}.subset"), message);
        }
    }
}
