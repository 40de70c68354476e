//! Which fields and kinds does Istio call deprecated? (Istio's deprecation.FieldAnalyzer: IST0002.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;
use crate::resource::settings::ProviderService;

/// Kinds of rbac.istio.io that Istio has removed.
const REMOVED: [&str; 4] = ["ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"];

pub(super) fn analyze_rules(_: &World<'_>, service: &Object<VirtualService>, report: &mut Report<'_>) {
    for (index, route) in service.spec.http.iter().enumerate() {
        let delay = route.fault.as_ref().and_then(|fault| fault.delay.as_ref());
        if delay.is_some_and(|delay| delay.percent > 0) {
            let path = format!("spec.http[{index}].fault.delay.percent");
            report.tell_with_hint(service, &codes::DEPRECATED, &path, "percent is deprecated", "use percentage");
        }
    }
}

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for object in &world.resources.sidecars {
        if object.spec.outbound_traffic_policy.as_ref().is_some_and(|policy| policy.egress_proxy.is_some()) {
            let path = "spec.outboundTrafficPolicy.egressProxy";
            report.tell(object, &codes::DEPRECATED, path, "egressProxy is deprecated and ignored");
        }
    }
    for object in &world.resources.definitions {
        if object.spec.group == "rbac.istio.io" && REMOVED.contains(&object.spec.names.kind.as_str()) {
            let message = format!("Istio no longer has the kind {}", object.spec.names.kind);
            report.tell(object, &codes::DEPRECATED, "spec.names.kind", message);
        }
    }
}

/// Tracing by Lightstep (Istio's telemetry.LightstepAnalyzer).
pub(super) fn analyze_tracing(world: &World<'_>, report: &mut Report<'_>) {
    let providers = world.settings.access_log.providers.iter();
    let old: Vec<&str> = providers
        .filter(|provider| matches!(provider.service, ProviderService::Other("lightstep")))
        .map(|provider| provider.name.as_str())
        .collect();
    for object in &world.resources.telemetries {
        for (index, tracing) in object.spec.tracing.iter().enumerate() {
            for provider in tracing.providers.iter().filter(|provider| old.contains(&provider.name.as_str())) {
                let path = format!("spec.tracing[{index}].providers");
                let message = format!("the Lightstep provider `{}` is deprecated", provider.name);
                report.tell_with_hint(object, &codes::DEPRECATED, &path, message, "use an OpenTelemetry provider");
            }
        }
    }
}
