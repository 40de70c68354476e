//! Does an application run as the user of Istio's sidecar? (Istio's deployment.ApplicationUIDAnalyzer: IST0144.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::meta::Meta;
use crate::resource::workloads::{Pod, SecurityContext};

/// The user of Istio's sidecar, whose traffic is not captured.
const SIDECAR: i64 = 1337;

const HINT: &str = "run it as another user; traffic of this one passes the sidecar by";

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for object in world.resources.pods.iter().filter(|object| !is_control_plane(&object.meta)) {
        for place in places(&object.spec) {
            let path = format!("spec.{place}");
            report.tell_with_hint(object, &codes::SIDECAR_USER, &path, "it runs as user 1337", HINT);
        }
    }
    for object in world.resources.deployments.iter().filter(|object| !is_control_plane(&object.meta)) {
        for place in places(&object.spec.template.spec) {
            let path = format!("spec.template.spec.{place}");
            report.tell_with_hint(object, &codes::SIDECAR_USER, &path, "it runs as user 1337", HINT);
        }
    }
}

fn is_control_plane(meta: &Meta) -> bool {
    meta.labels.contains_key("istio") || meta.labels.get("release").is_some_and(|release| release == "istio")
}

/// Where the user is named, for the Pod as a whole or for containers other than Istio's own.
fn places(pod: &Pod) -> Vec<String> {
    let is_sidecar =
        |context: &Option<SecurityContext>| context.as_ref().is_some_and(|it| it.run_as_user == Some(SIDECAR));
    let whole = is_sidecar(&pod.security_context).then(|| "securityContext.runAsUser".to_owned());
    let containers = pod.containers.iter().enumerate();
    let own = containers.filter(|(_, it)| !matches!(it.name.as_str(), "istio-proxy" | "istio-operator"));
    let named = own.filter(|(_, it)| is_sidecar(&it.security_context));
    whole.into_iter().chain(named.map(|(at, _)| format!("containers[{at}].securityContext.runAsUser"))).collect()
}
