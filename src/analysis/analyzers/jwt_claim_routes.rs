//! Does somebody verify the tokens whose claims routes look at? (Istio's virtualservice.JWTClaimRouteAnalyzer:
//! IST0149.)

use crate::analysis::report::Report;
use crate::analysis::workload::Workload;
use crate::analysis::world::{World, is_part};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;

pub(super) fn analyze(world: &World<'_>, service: &Object<VirtualService>, report: &mut Report<'_>) {
    let Some((path, claim)) = first_claim(&service.spec) else { return };
    for gateway in world.gateways_of(service) {
        for workload in world.chosen(&gateway.spec.selector).filter(|workload| !verifies(world, workload)) {
            let message = format!(
                "a rule looks at `{claim}`, but no RequestAuthentication is for {}/{}, which serves the Gateway {}",
                workload.namespace,
                workload.name,
                gateway.key()
            );
            let hint = "without one the claim is never there and the rule never matches";
            report.tell_with_hint(service, &codes::CLAIMS_WITHOUT_AUTHENTICATION, &path, message, hint);
        }
    }
}

/// The first match that looks at a claim.
fn first_claim(spec: &VirtualService) -> Option<(String, &str)> {
    let routes = spec.http.iter().enumerate();
    let mut matches = routes.flat_map(|(rule, route)| route.matches.iter().enumerate().map(move |it| (rule, it)));
    matches.find_map(|(rule, (at, entry))| {
        let mut names = entry.headers.keys().chain(entry.without_headers.keys());
        let claim = names.find(|name| name.starts_with("@request.auth.claims"))?;
        Some((format!("spec.http[{rule}].match[{at}]"), claim.as_str()))
    })
}

fn verifies(world: &World<'_>, workload: &Workload<'_>) -> bool {
    world.resources.request_authentications.iter().any(|policy| {
        let namespace = policy.meta.namespace.as_str();
        let selects = policy.spec.selector.as_ref().is_none_or(|it| is_part(&it.match_labels, workload.labels));
        selects && (namespace == workload.namespace || namespace == world.settings.gateway.root_namespace)
    })
}
