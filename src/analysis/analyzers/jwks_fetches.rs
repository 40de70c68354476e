//! May istiod fetch keys of tokens from any address? (Istio's authn.BlockedCIDRsAnalyzer: IST0175.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    if world.resources.request_authentications.is_empty() {
        return;
    }
    for object in &world.resources.deployments {
        let is_istiod = object.meta.labels.get("app").is_some_and(|app| app == "istiod");
        let mut variables = object.spec.template.spec.containers.iter().flat_map(|container| &container.env);
        if is_istiod && !variables.any(|it| it.name == "BLOCKED_CIDRS_IN_JWKS_URIS" && !it.value.is_empty()) {
            let message = "istiod fetches the keys that RequestAuthentications name from any address";
            let hint = "set BLOCKED_CIDRS_IN_JWKS_URIS";
            report.tell_with_hint(object, &codes::KEYS_FROM_ANYWHERE, "spec.template.spec.containers", message, hint);
        }
    }
}
