//! Can the certificates of a Gateway be used by the workloads that serve it? (Istio's gateway.SecretAnalyzer:
//! IST0101, IST0161.)
//!
//! For this gateway itself `compile` tells it, which looks at the key, too.

use std::collections::HashMap;

use crate::analysis::certificate;
use crate::analysis::report::Report;
use crate::analysis::world::{View, World, full_name, identity, show_selector};
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::resource::settings::acme::asks_issuer;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let secrets: HashMap<(&str, &str), &Object<Secret>> =
        world.resources.secrets.iter().map(|secret| (identity(secret), &**secret)).collect();
    for gateway in &world.resources.gateways {
        if world.look.view == View::Gateway && (world.is_ours(&gateway.spec.selector) || !world.knows_workloads()) {
            continue;
        }
        let Some(workload) = world.chosen(&gateway.spec.selector).next() else {
            let selector = show_selector(&gateway.spec.selector);
            let message = format!("no workload has the labels {selector}");
            report.tell(gateway, &codes::REFERENCE_MISSING, "spec.selector", message);
            continue;
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = server.tls.as_ref().filter(|tls| !tls.credential_name.is_empty()) else { continue };
            let name = &tls.credential_name;
            if asks_issuer(name) || world.settings.acme.certificates.iter().any(|ordered| ordered.secret == *name) {
                continue;
            }
            let path = format!("spec.servers[{index}].tls.credentialName");
            match secrets.get(&full_name(name, workload.namespace)) {
                None => {
                    let message = format!("there is no Secret `{name}` in {}", workload.namespace);
                    let hint = "it has to be in the namespace of the workload that serves the Gateway";
                    report.tell_with_hint(gateway, &codes::REFERENCE_MISSING, &path, message, hint);
                }
                Some(secret) => {
                    if let Err(reason) = certificate::usable(&secret.spec, world.look.now) {
                        let message = format!("the Secret {}: {reason}", secret.key());
                        report.tell(gateway, &codes::GATEWAY_CREDENTIAL, &path, message);
                    }
                }
            }
        }
    }
}
