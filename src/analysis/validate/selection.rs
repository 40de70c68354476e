//! Can a policy attach to what it names? (Istio validateOneOfSelectorType, validatePolicyTargetReference)

use super::faults::{At, Faults};
use super::names::check_selector;
use crate::resource::meta::Labels;
use crate::resource::selection::{MatchLabels, TargetRef};

/// All ways in which a policy says where it attaches.
pub(super) struct Attachment<'a> {
    pub selector: Option<&'a MatchLabels>,
    pub target_ref: Option<&'a TargetRef>,
    pub target_refs: &'a [TargetRef],
}

const MAX_TARGETS: usize = 16;

/// Checks the selector or the targets, of which one is given at most.
pub(super) fn check_attachment(attachment: &Attachment<'_>, spec: At<'_>, faults: &mut Faults) {
    let Attachment { selector, target_ref, target_refs } = *attachment;
    let ways = [selector.is_some(), target_ref.is_some(), !target_refs.is_empty()];
    let one = ways.iter().filter(|given| **given).count() <= 1;
    faults.require(one, spec, "selector, targetRef and targetRefs exclude each other");
    check_match_labels(selector, spec, faults);
    if let Some(target) = target_ref {
        check_target(target, spec.field("targetRef"), faults);
    }
    faults.require(target_refs.len() <= MAX_TARGETS, spec.field("targetRefs"), "at most 16 targets can be named");
    for (index, target) in target_refs.iter().enumerate() {
        check_target(target, spec.item("targetRefs", index), faults);
    }
}

/// Checks `selector.matchLabels`.
pub(super) fn check_match_labels(selector: Option<&MatchLabels>, spec: At<'_>, faults: &mut Faults) {
    if let Some(selector) = selector {
        let at = spec.field("selector");
        check_labels(&selector.match_labels, at.field("matchLabels"), at, faults);
    }
}

/// Checks the labels of a selector that is there; one without labels selects everything.
pub(super) fn check_labels(labels: &Labels, at: At<'_>, whole: At<'_>, faults: &mut Faults) {
    faults.check(at, check_selector(labels));
    if labels.is_empty() {
        faults.warn(whole, "the selector names no labels; it selects every workload");
    }
}

/// The kinds that a policy can attach to.
const TARGETS: [(&str, &str); 4] = [
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
];

fn check_target(target: &TargetRef, at: At<'_>, faults: &mut Faults) {
    faults.require(!target.name.is_empty(), at.field("name"), "the target has to be named");
    faults.require(target.namespace.is_empty(), at.field("namespace"), "a target is in the namespace of its policy");
    let group = if target.group.is_empty() { "core" } else { target.group.as_str() };
    let known_group = TARGETS.iter().any(|(known, _)| *known == group);
    if !known_group {
        faults.error(at.field("group"), format!("no policy can attach to a kind of `{group}`"));
    } else if !TARGETS.contains(&(group, target.kind.as_str())) {
        faults.error(at.field("kind"), format!("no policy can attach to {group}/{}", target.kind));
    }
}
