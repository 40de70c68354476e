//! Is there one Telemetry for each workload? (Istio's telemetry.SelectorAnalyzer and telemetry.DefaultSelectorAnalyzer:
//! IST0101, IST0159, IST0160.)

use super::selectors::{Selecting, choose, of_namespaces, tell_overlaps, tell_several};
use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::telemetry::Telemetry;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let chosen = choose(world, &telemetries(world), "spec.selector", report);
    tell_overlaps(&chosen, &codes::TELEMETRY_OVERLAP, report);
}

/// The Telemetries that are for a whole namespace.
pub(super) fn analyze_defaults(world: &World<'_>, report: &mut Report<'_>) {
    for (namespace, objects) in of_namespaces(&telemetries(world)) {
        tell_several(namespace, &objects, &codes::TELEMETRY_TWICE, report);
    }
}

/// All but those that name their target.
fn telemetries<'a>(world: &World<'a>) -> Selecting<'a, Telemetry> {
    let all = world.resources.telemetries.iter();
    all.filter(|object| object.spec.target_ref.is_none() && object.spec.target_refs.is_empty())
        .map(|object| (&**object, object.spec.selector.as_ref().map(|selector| &selector.match_labels)))
        .collect()
}
