//! Is there something that a DestinationRule and its subsets are for? (Istio's
//! destinationrule.PodNotSelectedAnalyzer: IST0173, IST0174.)

use std::collections::HashMap;

use crate::analysis::hosts::Host;
use crate::analysis::report::Report;
use crate::analysis::workload::Workload;
use crate::analysis::world::World;
use crate::base::host;
use crate::resource::codes;
use crate::resource::meta::{Labels, Object};
use crate::resource::networking::{DestinationRule, Subset};

/// Labels that a workload has from its node.
const OF_THE_NODE: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
const HOST_NAME: &str = "kubernetes.io/hostname";

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let nodes: HashMap<&str, &Labels> =
        world.resources.nodes.iter().map(|node| (node.meta.name.as_str(), &node.meta.labels)).collect();
    for rule in &world.resources.destination_rules {
        match world.hosts().find(&rule.spec.host, &rule.meta.namespace, &rule.spec.export_to) {
            Some(known) => check_subsets(world, rule, known, &nodes, report),
            None if host::is_wildcard(&rule.spec.host) && world.hosts().has_some(&rule.spec.host) => {}
            None => {
                let name = world.qualify(&rule.spec.host, &rule.meta.namespace);
                let message = format!("there is no Service or ServiceEntry for the host `{name}`");
                report.tell(rule, &codes::UNKNOWN_RULE_HOST, "spec.host", message);
            }
        }
    }
}

fn check_subsets(
    world: &World<'_>,
    rule: &Object<DestinationRule>,
    known: Host<'_>,
    nodes: &HashMap<&str, &Labels>,
    report: &mut Report<'_>,
) {
    if !world.knows_workloads() {
        return;
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        if !world.workloads.iter().any(|workload| chooses(subset, known.workload_labels, workload, nodes)) {
            let message = format!("the subset `{}` chooses no Pod; requests to it get 503", subset.name);
            let hint = "compare the labels of the subset with those of the Pods";
            let path = format!("spec.subsets[{index}].labels");
            report.tell_with_hint(rule, &codes::SUBSET_WITHOUT_PODS, &path, message, hint);
        }
    }
}

/// Whether a workload has the labels of a subset, and those of the ServiceEntry that the rule is for.
fn chooses(
    subset: &Subset,
    of_entry: Option<&Labels>,
    workload: &Workload<'_>,
    nodes: &HashMap<&str, &Labels>,
) -> bool {
    let has = |name: &String, value: &String| match nodes.get(workload.node) {
        Some(_) if name == HOST_NAME => workload.node == value,
        Some(node) if OF_THE_NODE.contains(&name.as_str()) && node.contains_key(name) => node.get(name) == Some(value),
        _ => workload.labels.get(name) == Some(value),
    };
    let mut wanted: HashMap<&String, &String> = of_entry.into_iter().flatten().collect();
    wanted.extend(&subset.labels);
    wanted.into_iter().all(|(name, value)| has(name, value))
}
