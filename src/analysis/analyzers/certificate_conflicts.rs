//! Has one host different certificates on one port? (LIM0063)

use std::collections::HashMap;

use crate::analysis::report::Report;
use crate::analysis::tls_servers::{TlsServer, by_address};
use crate::analysis::world::World;
use crate::resource::codes;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for servers in by_address(world).values() {
        let mut first: HashMap<&str, TlsServer<'_>> = HashMap::new();
        for server in servers.iter().filter(|server| !server.passes_through()) {
            for (at, name) in server.hosts() {
                let earlier = first.entry(name).or_insert(*server);
                let (theirs, ours) = (shown(*earlier), shown(*server));
                if theirs != ours {
                    let message = format!(
                        "`{name}` has the certificate {ours} here, and {theirs} in the Gateway {}, which is the first",
                        earlier.gateway.key()
                    );
                    let hint = "the first is shown; give the host one certificate, or name both in credentialNames";
                    report.tell_with_hint(
                        server.gateway,
                        &codes::CERTIFICATE_CONFLICT,
                        &server.place(at),
                        message,
                        hint,
                    );
                }
            }
        }
    }
}

/// The certificate as the user named it.
fn shown(server: TlsServer<'_>) -> String {
    let tls = server.tls;
    let files = tls.tls_certificates.iter().map(|files| files.server_certificate.as_str());
    let named = [tls.credential_name.as_str(), tls.server_certificate.as_str()].into_iter();
    let names: Vec<&str> = named.chain(tls.credential_names.iter().map(String::as_str)).chain(files).collect();
    let names: Vec<String> =
        names.into_iter().filter(|name| !name.is_empty()).map(|name| format!("`{name}`")).collect();
    names.join(" and ")
}
