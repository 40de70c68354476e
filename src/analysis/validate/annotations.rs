//! Do the annotations of an object fit its kind? (Istio checkDryRunAnnotation)

use super::faults::{At, Faults};
use crate::resource::meta::Meta;
use crate::resource::security::Action;

/// Evaluates a policy without enforcing it.
const DRY_RUN: &str = "istio.io/dry-run";

/// Made to be refused: istiod asks with it whether its webhook works.
const ALWAYS_REJECT: [&str; 2] = ["internal.istio.io/webhook-always-reject", "istio.io/always-reject"];

/// Checks the annotations; `action` is given for an AuthorizationPolicy.
pub(super) fn check(meta: &Meta, action: Option<Action>, faults: &mut Faults) {
    let metadata = At::root("metadata");
    for name in ALWAYS_REJECT {
        if meta.annotations.contains_key(name) {
            faults.error(metadata.key("annotations", name), "an object with this annotation is always refused");
        }
    }
    let Some(value) = meta.annotations.get(DRY_RUN) else { return };
    let at = metadata.key("annotations", DRY_RUN);
    match action {
        None => faults.error(at, "only an AuthorizationPolicy can be run dry"),
        Some(Action::Audit | Action::Custom) => faults.error(at, "only the actions ALLOW and DENY can be run dry"),
        Some(Action::Allow | Action::Deny) if !is_bool(value) => {
            faults.error(at, format!("`{value}` is neither true nor false"));
        }
        Some(_) => {}
    }
}

/// Go's strconv.ParseBool.
fn is_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False")
}
