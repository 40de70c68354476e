//! May a browser reuse a connection for a host with other rules for clients' certificates? (LIM0064, RFC 9113 9.1.1)

use std::collections::HashMap;

use crate::analysis::certificate;
use crate::analysis::report::Report;
use crate::analysis::tls_servers::{TlsServer, by_address};
use crate::analysis::world::{World, full_name, identity};
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::resource::networking::{ServerTls, ServerTlsMode};
use crate::resource::settings::acme::asks_issuer;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let secrets: HashMap<(&str, &str), &Object<Secret>> =
        world.resources.secrets.iter().map(|secret| (identity(secret), &**secret)).collect();
    let mut names: HashMap<&str, Vec<String>> = HashMap::new();
    for servers in by_address(world).values() {
        let ending: Vec<TlsServer<'_>> = servers.iter().filter(|server| !server.passes_through()).copied().collect();
        // Where all ask alike there is nothing to find, and no certificate has to be read.
        if ending.windows(2).all(|pair| matches!(pair, [a, b] if policy(a.tls) == policy(b.tls))) {
            continue;
        }
        let mut covering: HashMap<String, Vec<TlsServer<'_>>> = HashMap::new();
        for server in &ending {
            let credential = server.tls.credential_name.as_str();
            if asks_issuer(credential) {
                for (_, host) in server.hosts() {
                    covering.entry(host.to_ascii_lowercase()).or_default().push(*server);
                }
                continue;
            }
            let covered = names.entry(credential).or_insert_with(|| {
                let secret = secrets.get(&full_name(credential, &world.settings.gateway.namespace));
                secret.map(|secret| certificate::names(&secret.spec)).unwrap_or_default()
            });
            for name in covered.iter() {
                covering.entry(name.clone()).or_default().push(*server);
            }
        }
        for server in &ending {
            check(*server, &covering, report);
        }
    }
}

/// Tells of the first host that another server's certificate covers.
fn check(server: TlsServer<'_>, covering: &HashMap<String, Vec<TlsServer<'_>>>, report: &mut Report<'_>) {
    for (at, name) in server.hosts() {
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let names = [Some(name.to_ascii_lowercase()), wildcard];
        let others = names.iter().flatten().filter_map(|name| covering.get(name)).flatten();
        let Some(other) = others.into_iter().find(|other| policy(other.tls) != policy(server.tls)) else { continue };
        let first = other.hosts().map(|(_, name)| name).next().unwrap_or_default();
        let message = format!(
            "the certificate of `{first}` in the Gateway {} covers `{name}`, but clients' certificates are asked for by \
             other rules there: a reused connection gets 421",
            other.gateway.key()
        );
        let hint = "use certificates that do not cover each other's hosts, another address, or the same TLS mode";
        return report.tell_with_hint(server.gateway, &codes::COALESCED_POLICY, &server.place(at), message, hint);
    }
}

/// What a client has to show: the mode, and by which authorities it is verified.
fn policy(tls: &ServerTls) -> Option<(ServerTlsMode, &str, &str, &[String])> {
    let own = match tls.ca_cert_credential_name.as_str() {
        "" => tls.credential_name.as_str(),
        named => named,
    };
    match tls.mode {
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            Some((tls.mode, own, &tls.ca_certificates, &tls.subject_alt_names))
        }
        ServerTlsMode::IstioMutual => Some((tls.mode, "", "", &tls.subject_alt_names)),
        _ => None,
    }
}
