//! Are there workloads and namespaces that an AuthorizationPolicy is about? (Istio's
//! authz.AuthorizationPoliciesAnalyzer: IST0101, IST0127.)

use crate::analysis::report::Report;
use crate::analysis::workload::Mode;
use crate::analysis::world::{View, World, is_part, show_selector};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::security::AuthorizationPolicy;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let knows_namespaces = world.look.view == View::Cluster || !world.resources.namespaces.is_empty();
    for policy in &world.resources.authorization_policies {
        if world.knows_workloads() {
            check_workloads(world, policy, report);
        }
        if knows_namespaces {
            check_namespaces(world, policy, report);
        }
    }
}

fn check_workloads(world: &World<'_>, policy: &Object<AuthorizationPolicy>, report: &mut Report<'_>) {
    let for_the_mesh = policy.meta.namespace == world.settings.gateway.root_namespace;
    let selector = policy.spec.selector.as_ref().map(|selector| &selector.match_labels);
    let targeted = policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty();
    if targeted || for_the_mesh && selector.is_none() {
        return;
    }
    let mut members = world.workloads.iter().filter(|workload| workload.mode != Mode::Outside);
    let found = members.any(|workload| {
        (for_the_mesh || workload.namespace == policy.meta.namespace)
            && selector.is_none_or(|selector| is_part(selector, workload.labels))
    });
    if !found {
        let message = match selector {
            Some(selector) => format!("no workload of the mesh has the labels {}", show_selector(selector)),
            None => "the namespace has no workload of the mesh".to_owned(),
        };
        report.tell(policy, &codes::NO_WORKLOAD, "spec.selector", message);
    }
}

fn check_namespaces(world: &World<'_>, policy: &Object<AuthorizationPolicy>, report: &mut Report<'_>) {
    for (rule, from) in policy.spec.rules.iter().enumerate() {
        for (at, from) in from.from.iter().flatten().enumerate() {
            let Some(source) = &from.source else { continue };
            for (field, names) in [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)] {
                for (index, pattern) in names.iter().enumerate() {
                    let mut known = world.resources.namespaces.iter();
                    if pattern != "*" && !known.any(|namespace| matches(pattern, &namespace.meta.name)) {
                        let path = format!("spec.rules[{rule}].from[{at}].source.{field}[{index}]");
                        let message = format!("there is no namespace `{pattern}`");
                        report.tell(policy, &codes::REFERENCE_MISSING, &path, message);
                    }
                }
            }
        }
    }
}

/// Istio's patterns: a `*` at one end.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(tail), _) => name.ends_with(tail),
        (None, Some(head)) => name.starts_with(head),
        (None, None) => pattern.eq_ignore_ascii_case(name),
    }
}
