//! Do several Gateways show one certificate? (Istio's gateway.CertificateAnalyzer: IST0138.)
//!
//! Browsers reuse the connection of one host for the other. Here that is answered rightly, so it is told on request
//! alone; what goes wrong nevertheless is LIM0045.

use std::collections::HashMap;

use crate::analysis::report::Report;
use crate::analysis::world::{World, identity, is_part};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{Gateway, ServerTls};
use crate::resource::settings::acme::asks_issuer;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let mut by_certificate: HashMap<Certificate<'_>, Vec<&Object<Gateway>>> = HashMap::new();
    for gateway in &world.resources.gateways {
        for tls in gateway.spec.servers.iter().filter_map(|server| server.tls.as_ref()) {
            // Such a name stands for a certificate of each host.
            if asks_issuer(&tls.credential_name) {
                continue;
            }
            by_certificate.entry(certificate(tls)).or_default().push(gateway);
        }
    }
    for gateway in &world.resources.gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let others = by_certificate.get(&certificate(tls)).into_iter().flatten();
            let others = others.filter(|other| identity(other) != identity(gateway));
            for other in others.filter(|other| is_part(&gateway.spec.selector, &other.spec.selector)).take(ENOUGH) {
                let message = format!("the Gateway {} shows the same certificate", other.key());
                let hint = "put the servers into one Gateway, or give each its own certificate";
                let path = format!("spec.servers[{index}].tls");
                report.tell_with_hint(gateway, &codes::SHARED_CERTIFICATE, &path, message, hint);
            }
        }
    }
}

/// Others that are looked at for one server.
const ENOUGH: usize = 20;

type Certificate<'a> = (&'a str, &'a str, &'a str);

fn certificate(tls: &ServerTls) -> Certificate<'_> {
    (&tls.credential_name, &tls.server_certificate, &tls.private_key)
}
