//! Does a Sidecar keep the rules of its kind? (Istio ValidateSidecar)

use std::collections::{BTreeMap, HashSet};

use super::destination_rule::check_pool;
use super::faults::{At, Faults};
use super::gateway::check_tls;
use super::names::{
    Protocol, check_fqdn, check_port, check_unix_path, check_wildcard_domain, is_address, is_dns_label, protocol,
};
use super::selection::check_labels;
use super::virtual_service::check_destination;
use crate::resource::networking::{
    CaptureMode, EgressListener, IngressListener, OutboundMode, OutboundTrafficPolicy, ServerTls, ServerTlsMode,
    Sidecar, SidecarPort,
};

/// Checks the whole object.
pub(super) fn check(namespace: &str, sidecar: &Sidecar, faults: &mut Faults) {
    let spec = At::root("spec");
    if let Some(selector) = &sidecar.workload_selector {
        let at = spec.field("workloadSelector");
        check_labels(&selector.labels, at.field("labels"), at, faults);
    }
    let says = !sidecar.ingress.is_empty()
        || !sidecar.egress.is_empty()
        || sidecar.outbound_traffic_policy.is_some()
        || sidecar.inbound_connection_pool.is_some();
    faults.require(says, spec, "a Sidecar has to say something");
    let mut ports = HashSet::new();
    for (index, listener) in sidecar.ingress.iter().enumerate() {
        check_ingress(listener, &mut ports, spec.item("ingress", index), faults);
    }
    if let Some(pool) = &sidecar.inbound_connection_pool {
        check_pool(pool, spec.field("inboundConnectionPool"), faults);
    }
    check_egress(namespace, &sidecar.egress, spec, faults);
    if let Some(policy) = &sidecar.outbound_traffic_policy {
        check_outbound(policy, spec.field("outboundTrafficPolicy"), faults);
    }
}

fn check_port_of(port: &SidecarPort, at: At<'_>, faults: &mut Faults) {
    if !port.name.is_empty() && !is_dns_label(&port.name) {
        faults.error(at.field("name"), format!("`{}` is no name of a port", port.name));
    }
    if !port.protocol.is_empty() && protocol(&port.protocol).is_none() {
        faults.error(at.field("protocol"), format!("`{}` is no protocol", port.protocol));
    }
    faults.require(port.target_port == 0, at.field("targetPort"), "targetPort has no effect in a Sidecar");
}

fn check_bind(bind: &str, at: At<'_>, faults: &mut Faults) {
    if !bind.is_empty() && !is_address(bind) {
        faults.error(at.field("bind"), format!("`{bind}` is no address"));
    }
}

// ---- ingress

fn check_ingress(listener: &IngressListener, ports: &mut HashSet<u32>, at: At<'_>, faults: &mut Faults) {
    let port_at = at.field("port");
    let Some(port) = &listener.port else {
        return faults.error(port_at, "a listener of ingress needs a port");
    };
    check_port_of(port, port_at, faults);
    faults.check(port_at.field("number"), check_port(port.number));
    check_bind(&listener.bind, at, faults);
    faults.require(ports.insert(port.number), port_at.field("number"), "the port stands here twice");
    if !listener.default_endpoint.is_empty() {
        faults.check(at.field("defaultEndpoint"), check_endpoint(&listener.default_endpoint));
    }
    if let Some(tls) = &listener.tls {
        check_ingress_tls(tls, port, at.field("tls"), faults);
    }
    if let Some(pool) = &listener.connection_pool {
        let at = at.field("connectionPool");
        check_pool(pool, at, faults);
        if pool.http.is_some() && protocol(&port.protocol) != Some(Protocol::Http) {
            faults.warn(at.field("http"), "the port does not speak HTTP; only the tcp settings apply");
        }
    }
}

/// `127.0.0.1:port`, `0.0.0.0:port`, `[::1]:port`, `[::]:port`, `:port` or `unix://path`.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return check_unix_path(path);
    }
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        return Err(format!("`{endpoint}` has no port"));
    };
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        return Err(format!("`{host}` is not 127.0.0.1, 0.0.0.0, [::1] or [::]"));
    }
    match port.parse() {
        Ok(port) => check_port(port),
        Err(_) => Err(format!("`{port}` is no port")),
    }
}

fn check_ingress_tls(tls: &ServerTls, port: &SidecarPort, at: At<'_>, faults: &mut Faults) {
    let named = [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("caCertCredentialName", !tls.ca_cert_credential_name.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    for (field, given) in named {
        faults.require(!given, at.field(field), "this is not for a Sidecar");
    }
    if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        faults.error(at.field("mode"), format!("the mode {} is not for a Sidecar", tls.mode.word()));
    }
    let fits = protocol(&port.protocol) == Some(Protocol::Tls);
    faults.require(fits, at, "only ports of HTTPS and TLS have tls settings");
    check_tls(tls, at, faults);
}

// ---- egress

fn check_egress(namespace: &str, egress: &[EgressListener], spec: At<'_>, faults: &mut Faults) {
    let (mut ports, mut sockets) = (HashSet::new(), HashSet::new());
    for (index, listener) in egress.iter().enumerate() {
        let at = spec.item("egress", index);
        match &listener.port {
            None if index + 1 < egress.len() => {
                faults.error(at.field("port"), "only the last listener of egress has no port");
            }
            None => {}
            Some(port) => {
                check_egress_port(listener, port, at, faults);
                let new = if port.number == 0 { sockets.insert(&listener.bind) } else { ports.insert(port.number) };
                faults.require(new, at.field("port"), "two listeners of egress have this port or socket");
            }
        }
        faults.require(!listener.hosts.is_empty(), at.field("hosts"), "a listener of egress needs a host");
        check_egress_hosts(namespace, &listener.hosts, at, faults);
    }
}

fn check_egress_port(listener: &EgressListener, port: &SidecarPort, at: At<'_>, faults: &mut Faults) {
    check_port_of(port, at.field("port"), faults);
    if port.number != 0 {
        faults.check(at.field("port").field("number"), check_port(port.number));
        return check_bind(&listener.bind, at, faults);
    }
    match listener.bind.strip_prefix("unix://") {
        Some(path) => faults.check(at.field("bind"), check_unix_path(path)),
        None => faults.error(at.field("port").field("number"), "a port number or a unix socket has to be given"),
    }
    let good = matches!(listener.capture_mode, CaptureMode::Default | CaptureMode::None);
    faults.require(good, at.field("captureMode"), "a unix socket captures nothing: DEFAULT or NONE");
}

fn check_egress_hosts(own: &str, hosts: &[String], at: At<'_>, faults: &mut Faults) {
    let mut seen: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        let at = at.item("hosts", index);
        faults.check(at, check_egress_host(host));
        let Some((namespace, name)) = host.split_once('/') else { continue };
        let names = seen.entry(if namespace == "." { own } else { namespace }).or_default();
        let covered = if name == "*" { !names.is_empty() } else { names.contains(name) || names.contains("*") };
        if covered {
            faults.warn(at, format!("`{host}` stands here twice"));
        }
        names.insert(name);
    }
    let all = seen.get("*").is_some_and(|names| names.contains("*"));
    let others = seen.keys().any(|namespace| *namespace != "*" && !namespace.starts_with('~'));
    if all && others {
        faults.warn(at.field("hosts"), "`*/*` imports everything; the other hosts do nothing");
    }
}

/// `namespace/name`; the namespace may be `*`, `.`, `~` for nothing or `~namespace` for an exception.
fn check_egress_host(host: &str) -> Result<(), String> {
    let (namespace, name) = match host.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => (namespace, name),
        _ => return Err(format!("`{host}`: write namespace/host")),
    };
    let label = namespace.strip_prefix('~').unwrap_or(namespace);
    if !matches!(label, "" | "*" | ".") && !is_dns_label(label) {
        return Err(format!("`{namespace}` is no namespace"));
    }
    if name != "*" && !name.contains('.') {
        return Err(format!("`{name}`: short names are not allowed in a Sidecar"));
    }
    if name.starts_with('*') && name != "*" && !name.starts_with("*.") {
        return Err(format!("`{name}`: a wildcard has to be the whole first label"));
    }
    check_wildcard_domain(name)
}

fn check_outbound(policy: &OutboundTrafficPolicy, at: At<'_>, faults: &mut Faults) {
    let Some(proxy) = &policy.egress_proxy else { return };
    let at = at.field("egressProxy");
    if policy.mode != OutboundMode::AllowAny {
        return faults.error(at, "egressProxy needs the mode ALLOW_ANY");
    }
    faults.check(at.field("host"), check_fqdn(&proxy.host));
    faults.require(proxy.port.is_some(), at.field("port"), "the port of the egress proxy has to be named");
    check_destination(proxy, at, faults);
}
