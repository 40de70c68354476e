//! Do policies choose gateways of the Gateway API by labels? (Istio's k8sgateway.SelectorAnalyzer: IST0166.)

use std::sync::Arc;

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::{Kind, Object};
use crate::resource::selection::{MatchLabels, TargetRef};

/// The label of what runs for a Gateway of the Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let resources = world.resources;
    check(world, &resources.authorization_policies, |it| (&it.selector, &it.target_ref, &it.target_refs), report);
    check(world, &resources.request_authentications, |it| (&it.selector, &it.target_ref, &it.target_refs), report);
    check(world, &resources.telemetries, |it| (&it.selector, &it.target_ref, &it.target_refs), report);
    check(world, &resources.wasm_plugins, |it| (&it.selector, &it.target_ref, &it.target_refs), report);
}

type Attachment<'s> = (&'s Option<MatchLabels>, &'s Option<TargetRef>, &'s Vec<TargetRef>);

fn check<T: Kind>(
    world: &World<'_>,
    objects: &[Arc<Object<T>>],
    attachment: impl Fn(&T) -> Attachment<'_>,
    report: &mut Report<'_>,
) {
    for object in objects {
        let (Some(selector), None, []) = with_slice(attachment(&object.spec)) else { continue };
        for workload in world.chosen(&selector.match_labels) {
            if workload.namespace != object.meta.namespace {
                continue;
            }
            if let Some(gateway) = workload.labels.get(GATEWAY_NAME) {
                let message = format!("it chooses the gateway `{gateway}` of the Gateway API by its labels");
                let hint = "name the Gateway in targetRefs instead";
                report.tell_with_hint(object, &codes::SELECTOR_WITHOUT_EFFECT, "spec.selector", message, hint);
            }
        }
    }
}

fn with_slice<'s>(attachment: Attachment<'s>) -> (Option<&'s MatchLabels>, Option<&'s TargetRef>, &'s [TargetRef]) {
    (attachment.0.as_ref(), attachment.1.as_ref(), attachment.2)
}
