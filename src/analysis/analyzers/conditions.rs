//! Does the status of an object say that something is wrong with it? (Istio's conditions.ConditionAnalyzer: IST0171.)

use std::sync::Arc;

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::{Kind, Object, StatusCondition};

/// Conditions of Services and ServiceEntries that should not be false, and so on.
const OF_SERVICES: [&str; 1] = ["istio.io/WaypointBound"];
const OF_POLICIES: [&str; 2] = ["ZtunnelAccepted", "WaypointAccepted"];
const OF_THE_GATEWAY_API: [&str; 3] = ["Accepted", "Programmed", "ResolvedRefs"];

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let resources = world.resources;
    check(&resources.services, is_false(&OF_SERVICES), report);
    check(&resources.service_entries, is_false(&OF_SERVICES), report);
    let of_policies = is_false(&OF_POLICIES);
    let invalid_in_part = |it: &StatusCondition| it.kind == "WaypointAccepted" && it.reason == "PartiallyInvalid";
    check(&resources.authorization_policies, |it| of_policies(it) || invalid_in_part(it), report);
    check(&resources.kubernetes_gateways, is_false(&OF_THE_GATEWAY_API), report);
    check(&resources.http_routes, is_false(&OF_THE_GATEWAY_API), report);
    check(&resources.grpc_routes, is_false(&OF_THE_GATEWAY_API), report);
}

fn is_false(kinds: &'static [&'static str]) -> impl Fn(&StatusCondition) -> bool {
    move |it| it.status == "False" && kinds.contains(&it.kind.as_str())
}

fn check<T: Kind>(objects: &[Arc<Object<T>>], is_bad: impl Fn(&StatusCondition) -> bool, report: &mut Report<'_>) {
    for object in objects {
        let Some(status) = &object.meta.status else { continue };
        let of_parents = status.parents.iter().flat_map(|parent| &parent.conditions);
        for condition in status.conditions.iter().chain(of_parents).filter(|condition| is_bad(condition)) {
            let message = format!(
                "its condition {} is {}: {} {}",
                condition.kind, condition.status, condition.reason, condition.message
            );
            report.tell(object, &codes::NEGATIVE_CONDITION, "status.conditions", message.trim_end());
        }
    }
}
