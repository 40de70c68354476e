//! Is there one Sidecar for each workload? (Istio's sidecar.SelectorAnalyzer: IST0101, IST0110, IST0111, IST0167.)

use std::collections::{HashMap, HashSet};

use super::selectors::{Selecting, choose, of_namespaces, tell_overlaps, tell_several};
use crate::analysis::report::Report;
use crate::analysis::workload::{Mode, is_ambient_namespace};
use crate::analysis::world::{World, identity};
use crate::resource::codes;
use crate::resource::meta::Labels;
use crate::resource::networking::Sidecar;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let sidecars: Selecting<'_, Sidecar> = world
        .resources
        .sidecars
        .iter()
        .map(|object| {
            let selector = object.spec.workload_selector.as_ref().map(|selector| &selector.labels);
            (&**object, selector.filter(|labels| !labels.is_empty()))
        })
        .collect();
    let mut told = HashSet::new();
    let chosen = choose(world, &sidecars, "spec.workloadSelector", report);
    let (ambient, proxied): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(it, _)| it.mode == Mode::Ambient);
    for object in ambient.iter().flat_map(|(_, objects)| objects) {
        if told.insert(identity(object)) {
            let message = "the workload that it chooses is in ambient mode and has no sidecar";
            report.tell(object, &codes::POLICY_WITHOUT_EFFECT, "spec.workloadSelector", message);
        }
    }
    tell_overlaps(&proxied, &codes::SIDECAR_OVERLAP, report);
    let namespaces: HashMap<&str, &Labels> =
        world.resources.namespaces.iter().map(|object| (object.meta.name.as_str(), &object.meta.labels)).collect();
    for (namespace, objects) in of_namespaces(&sidecars) {
        if !namespaces.get(namespace).is_some_and(|labels| is_ambient_namespace(labels)) {
            tell_several(namespace, &objects, &codes::SIDECAR_TWICE, report);
            continue;
        }
        for object in objects.into_iter().filter(|object| told.insert(identity(object))) {
            let message = "its namespace is in ambient mode and has no sidecars";
            report.tell(object, &codes::POLICY_WITHOUT_EFFECT, "metadata.namespace", message);
        }
    }
}
