//! Does a Gateway keep the rules of its kind? (Istio ValidateGateway)

use std::collections::HashSet;

use super::faults::{At, Faults};
use super::names::{
    Protocol, check_port, check_selector, check_unix_path, check_wildcard_domain, is_address, is_dns_label, protocol,
};
use crate::resource::networking::{Gateway, Server, ServerTls, ServerTlsMode, TlsProtocol};

/// Checks the whole object.
pub(super) fn check(name: &str, gateway: &Gateway, faults: &mut Faults) {
    let spec = At::root("spec");
    let metadata = At::root("metadata");
    faults.require(is_dns_label(name), metadata.field("name"), "the name of a Gateway has to be a DNS label");
    faults.check(spec.field("selector"), check_selector(&gateway.selector));
    faults.require(!gateway.servers.is_empty(), spec.field("servers"), "a Gateway needs at least one server");
    let (mut ports, mut names) = (HashSet::new(), HashSet::new());
    for (index, server) in gateway.servers.iter().enumerate() {
        let at = spec.item("servers", index);
        check_server(server, at, faults);
        if !server.port.name.is_empty() && !ports.insert(&server.port.name) {
            faults.error(at.field("port").field("name"), format!("the port name `{}` is used twice", server.port.name));
        }
        if !server.name.is_empty() && !names.insert(&server.name) {
            faults.warn(at.field("name"), format!("the server name `{}` is used twice", server.name));
        }
    }
}

fn check_server(server: &Server, at: At<'_>, faults: &mut Faults) {
    faults.require(!server.hosts.is_empty(), at.field("hosts"), "a server needs at least one host");
    for (index, host) in server.hosts.iter().enumerate() {
        faults.check(at.item("hosts", index), check_host(host));
    }
    check_server_port(server, at, faults);
    check_bind(server, at, faults);
    if let Some(tls) = &server.tls {
        check_tls(tls, at.field("tls"), faults);
    }
    check_tls_fits(server, at, faults);
}

/// `[namespace/]name`; the name is complete, with a wildcard only as its whole first label.
fn check_host(host: &str) -> Result<(), String> {
    let name = match host.split_once('/') {
        None => host,
        Some(("", _) | (_, "")) => return Err(format!("`{host}`: write namespace/host or host alone")),
        Some(("*" | ".", name)) => name,
        Some((namespace, name)) if is_dns_label(namespace) => name,
        Some((namespace, _)) => return Err(format!("`{namespace}` is no namespace")),
    };
    if name != "*" && !name.contains('.') {
        return Err(format!("`{name}`: short names are not allowed in a Gateway"));
    }
    if name.starts_with('*') && name != "*" && !name.starts_with("*.") {
        return Err(format!("`{name}`: a wildcard has to be the whole first label"));
    }
    if is_address(name) { Ok(()) } else { check_wildcard_domain(name) }
}

fn check_server_port(server: &Server, at: At<'_>, faults: &mut Faults) {
    let (port, at) = (&server.port, at.field("port"));
    if protocol(&port.protocol).is_none() {
        faults.error(at.field("protocol"), format!("`{}` is no protocol", port.protocol));
    }
    if !server.bind.starts_with("unix://") {
        faults.check(at.field("number"), check_port(port.number));
    }
    faults.require(port.target_port == 0, at.field("targetPort"), "targetPort has no effect in a Gateway");
    faults.require(!port.name.is_empty(), at.field("name"), "a port needs a name");
}

fn check_bind(server: &Server, at: At<'_>, faults: &mut Faults) {
    if let Some(path) = server.bind.strip_prefix("unix://") {
        faults.check(at.field("bind"), check_unix_path(path));
        let message = "the port number has to be 0 with a unix socket";
        faults.require(server.port.number == 0, at.field("port").field("number"), message);
    } else if !server.bind.is_empty() && !is_address(&server.bind) {
        faults.error(at.field("bind"), format!("`{}` is no address", server.bind));
    }
}

fn check_tls_fits(server: &Server, at: At<'_>, faults: &mut Faults) {
    let tls_at = at.field("tls");
    match (protocol(&server.port.protocol), &server.tls) {
        (Some(Protocol::Tls), None) => faults.error(tls_at, "a server of HTTPS or TLS needs tls settings"),
        (Some(Protocol::Tls), Some(tls)) if tls.https_redirect => {
            faults.warn(tls_at.field("httpsRedirect"), "httpsRedirect belongs to a plain HTTP server");
        }
        (Some(Protocol::Http), Some(tls)) if has_certificate(tls) || tls.mode != ServerTlsMode::Passthrough => {
            faults.error(tls_at, "a plain HTTP server can only have httpsRedirect here");
        }
        (Some(Protocol::Tcp), Some(_)) => faults.error(tls_at, "only servers of HTTPS and TLS have tls settings"),
        _ => {}
    }
}

fn has_certificate(tls: &ServerTls) -> bool {
    certificate_sources(tls) > 0 || !tls.private_key.is_empty() || !tls.ca_certificates.is_empty()
}

fn certificate_sources(tls: &ServerTls) -> usize {
    let sources = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.server_certificate.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    sources.into_iter().filter(|given| *given).count()
}

pub(super) fn check_tls(tls: &ServerTls, at: At<'_>, faults: &mut Faults) {
    check_ciphers(tls, at, faults);
    let low = |version| matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    if tls.cipher_suites.is_empty() && (low(tls.min_protocol_version) || low(tls.max_protocol_version)) {
        faults.warn(at.field("minProtocolVersion"), "TLS below 1.2 needs matching cipherSuites");
    }
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            if has_certificate(tls) || !tls.ca_crl.is_empty() || !tls.ca_cert_credential_name.is_empty() {
                faults.error(at, "ISTIO_MUTUAL uses the workload certificate; no other can be named");
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if has_certificate(tls) || !tls.ca_crl.is_empty() {
                faults.warn(at, "certificates have no effect where TLS is passed through");
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            check_sources(tls, at, faults);
        }
    }
}

fn check_sources(tls: &ServerTls, at: At<'_>, faults: &mut Faults) {
    if certificate_sources(tls) > 1 {
        let message = "name one of credentialName, credentialNames, serverCertificate and tlsCertificates";
        return faults.error(at, message);
    }
    let mutual = tls.mode != ServerTlsMode::Simple;
    if !tls.credential_name.is_empty() {
        return;
    }
    if !tls.credential_names.is_empty() {
        let many = tls.credential_names.len() > 2;
        return faults.require(!many, at.field("credentialNames"), "at most two can be named: one RSA, one ECDSA");
    }
    if !tls.tls_certificates.is_empty() {
        return check_certificate_list(tls, mutual, at, faults);
    }
    let mode = if mutual { "MUTUAL" } else { "SIMPLE" };
    if tls.server_certificate.is_empty() {
        faults.error(at, format!("{mode} needs a server certificate or a credentialName"));
    }
    if tls.private_key.is_empty() {
        faults.error(at, format!("{mode} needs a private key or a credentialName"));
    }
    let has_authorities = !tls.ca_certificates.is_empty() || !tls.ca_cert_credential_name.is_empty();
    if mutual && !has_authorities {
        faults.error(at, "MUTUAL needs caCertificates to verify clients");
    }
    if !mutual && !tls.ca_crl.is_empty() {
        faults.error(at.field("caCrl"), "SIMPLE asks for no client certificate, so it has no caCrl");
    }
}

fn check_certificate_list(tls: &ServerTls, mutual: bool, at: At<'_>, faults: &mut Faults) {
    if tls.tls_certificates.len() > 2 {
        faults.warn(at.field("tlsCertificates"), "only the first two are used: one RSA, one ECDSA");
    }
    for (index, files) in tls.tls_certificates.iter().enumerate() {
        let at = at.item("tlsCertificates", index);
        let complete = !files.server_certificate.is_empty() && !files.private_key.is_empty();
        faults.require(complete, at, "a certificate and its key have to be named");
    }
    let authorities = !tls.ca_certificates.is_empty()
        || !tls.ca_cert_credential_name.is_empty()
        || tls.tls_certificates.iter().all(|files| !files.ca_certificates.is_empty());
    faults.require(!mutual || authorities, at, "MUTUAL needs caCertificates to verify clients");
}

fn check_ciphers(tls: &ServerTls, at: At<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (index, cipher) in tls.cipher_suites.iter().enumerate() {
        let at = at.item("cipherSuites", index);
        if !is_cipher(cipher) {
            faults.warn(at, format!("`{cipher}` is no cipher suite that can be used; it is ignored"));
        } else if !seen.insert(cipher) {
            faults.warn(at, format!("`{cipher}` is named twice"));
        }
    }
}

fn is_cipher(name: &str) -> bool {
    const KNOWN: [&str; 17] = [
        "ALL",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
        "PSK-AES128-CBC-SHA",
    ];
    KNOWN.contains(&name.trim_start_matches(['-', '+', '!']))
}
