//! Are the kinds of the Gateway API new enough for Istio? (Istio's k8sgateway.CRDVersionAnalyzer: IST0176.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;

/// The release of the Gateway API that Istio needs.
const NEEDED: [(&str, [u64; 3]); 3] = [
    ("grpcroutes.gateway.networking.k8s.io", [1, 1, 0]),
    ("backendtlspolicies.gateway.networking.k8s.io", [1, 4, 0]),
    ("tlsroutes.gateway.networking.k8s.io", [1, 5, 0]),
];

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for object in &world.resources.definitions {
        let Some((_, needed)) = NEEDED.iter().find(|(name, _)| *name == object.meta.name) else { continue };
        let release = object.meta.annotations.get("gateway.networking.k8s.io/bundle-version");
        let Some((release, version)) = release.and_then(|release| Some((release, parse(release)?))) else { continue };
        if version < *needed {
            let [major, minor, patch] = needed;
            let message = format!("it is of {release}; Istio needs {major}.{minor}.{patch}");
            report.tell(object, &codes::GATEWAY_API_TOO_OLD, "metadata.annotations", message);
        }
    }
}

/// `v1.4.1-rc.1` as 1, 4, 1: what comes before a release counts as the release.
fn parse(text: &str) -> Option<[u64; 3]> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = text.split(['-', '+']).next()?.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?];
    numbers.next().is_none().then_some(version)
}
