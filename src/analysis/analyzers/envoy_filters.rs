//! Do the patches of EnvoyFilters do what they say, in whatever order they are applied? (Istio's
//! envoyfilter.EnvoyPatchAnalyzer: IST0151 to IST0155.)

use std::collections::HashSet;

use serde_json::Value;

use crate::analysis::report::Report;
use crate::analysis::world::{World, identity};
use crate::resource::codes::{self, Code};
use crate::resource::networking::{ApplyTo, ConfigPatch, EnvoyFilter, PatchOperation};

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let mut filters: Vec<_> = world.resources.envoy_filters.iter().collect();
    filters.sort_by_key(|filter| identity(filter));
    // Names of filters that an earlier patch has for a version of the proxy.
    let mut versioned: HashSet<String> = HashSet::new();
    for filter in filters {
        for (index, patch) in filter.spec.config_patches.iter().enumerate() {
            let Some(operation) = patch.patch.as_ref().map(|patch| patch.operation) else { break };
            let name = filter_name(patch);
            if let Some((code, message)) = judge(&filter.spec, patch, operation, versioned.contains(&name)) {
                let path = format!("spec.configPatches[{index}].patch.operation");
                report.tell(filter, code, &path, message);
            }
            let version = patch.matches.pointer("/proxy/proxyVersion").and_then(Value::as_str);
            if version.is_some_and(|version| !version.is_empty()) {
                versioned.insert(name);
            }
        }
    }
}

fn judge(
    filter: &EnvoyFilter,
    patch: &ConfigPatch,
    operation: PatchOperation,
    versioned: bool,
) -> Option<(&'static Code, &'static str)> {
    let of_routes = matches!(patch.apply_to, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute);
    let of_filters = matches!(patch.apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter);
    match operation {
        PatchOperation::Add if of_routes => Some((&codes::PATCH_ADD, "ADD is ignored for routes")),
        PatchOperation::Remove if of_routes => Some((&codes::PATCH_REMOVE, "REMOVE is ignored for routes")),
        PatchOperation::Replace if !of_filters => {
            Some((&codes::PATCH_REPLACE, "REPLACE is for HTTP_FILTER and NETWORK_FILTER alone"))
        }
        PatchOperation::Remove
        | PatchOperation::Replace
        | PatchOperation::InsertBefore
        | PatchOperation::InsertAfter
            if filter.priority == 0 =>
        {
            Some(match versioned {
                true => (
                    &codes::PATCH_ORDER_AND_VERSION,
                    "the place is relative and no priority is set; another patch of the filter is for one proxy version",
                ),
                false => (&codes::PATCH_ORDER, "the place is relative and no priority is set"),
            })
        }
        _ => None,
    }
}

/// The name of the filter that is put in, else of the one that is matched.
fn filter_name(patch: &ConfigPatch) -> String {
    let Some(Value::Object(value)) = patch.patch.as_ref().map(|patch| &patch.value) else { return String::new() };
    let matched = || patch.matches.pointer("/listener/filterChain/filter/name");
    value.get("name").or_else(matched).and_then(Value::as_str).unwrap_or_default().to_owned()
}
