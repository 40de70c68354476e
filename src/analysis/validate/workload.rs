//! Do a WorkloadEntry and a WorkloadGroup keep the rules of their kinds? (Istio ValidateWorkloadEntry,
//! ValidateWorkloadGroup)

use super::faults::{At, Faults};
use super::names::{
    check_fqdn, check_header_name, check_labels_of, check_port, check_unix_path, is_address, is_dns_label,
};
use crate::resource::networking::{HttpProbe, ReadinessProbe, WorkloadEntry, WorkloadGroup};

pub(super) fn check_missing_address(endpoint: &WorkloadEntry, at: At<'_>, faults: &mut Faults) {
    if endpoint.network.is_empty() {
        faults.error(at.field("address"), "an address or a network has to be named");
    } else {
        faults.warn(at.field("address"), "without an address the endpoint is reached by its network's gateway only");
    }
}

pub(super) fn check_unix(endpoint: &WorkloadEntry, path: &str, at: At<'_>, faults: &mut Faults) {
    faults.check(at.field("address"), check_unix_path(path));
    faults.require(endpoint.ports.is_empty(), at.field("ports"), "a unix socket has no ports");
}

/// Checks a WorkloadEntry.
pub(super) fn check_entry(entry: &WorkloadEntry, faults: &mut Faults) {
    let spec = At::root("spec");
    if entry.address.is_empty() {
        check_missing_address(entry, spec, faults);
    } else if let Some(path) = entry.address.strip_prefix("unix://") {
        check_unix(entry, path, spec, faults);
    } else if !is_address(&entry.address) {
        faults.check(spec.field("address"), check_fqdn(&entry.address));
    }
    for (name, port) in &entry.ports {
        let at = spec.key("ports", name);
        faults.require(is_dns_label(name), at, "the name of a port has to be a DNS label");
        faults.check(at, check_port(*port));
    }
    faults.check(spec.field("labels"), check_labels_of(&entry.labels));
}

/// Checks a WorkloadGroup. Its template is filled in when a workload joins, so it may lack an address.
pub(super) fn check_group(group: &WorkloadGroup, faults: &mut Faults) {
    let spec = At::root("spec");
    let labels_at = spec.field("metadata");
    faults.check(labels_at.field("labels"), check_labels_of(&group.metadata.labels));
    match &group.template {
        None => faults.error(spec.field("template"), "a WorkloadGroup needs a template"),
        Some(template) => {
            if let Some(path) = template.address.strip_prefix("unix://") {
                check_unix(template, path, spec.field("template"), faults);
            }
        }
    }
    if let Some(probe) = &group.probe {
        check_probe(probe, spec.field("probe"), faults);
    }
}

fn check_probe(probe: &ReadinessProbe, at: At<'_>, faults: &mut Faults) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        faults.require(number >= 0, at.field(field), "the number cannot be negative");
    }
    let ways = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    let one = ways.iter().filter(|given| **given).count() == 1;
    faults.require(one, at, "a probe asks by one of httpGet, tcpSocket, exec and grpc");
    if let Some(http) = &probe.http_get {
        check_http_probe(http, at.field("httpGet"), faults);
    }
    if let Some(tcp) = &probe.tcp_socket {
        faults.check(at.field("tcpSocket").field("port"), check_port(tcp.port));
    }
    if let Some(exec) = &probe.exec {
        faults.require(!exec.command.is_empty(), at.field("exec").field("command"), "the command has to be given");
    }
    if let Some(grpc) = &probe.grpc {
        faults.check(at.field("grpc").field("port"), check_port(grpc.port));
    }
}

fn check_http_probe(http: &HttpProbe, at: At<'_>, faults: &mut Faults) {
    faults.check(at.field("port"), check_port(http.port));
    let known = matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS");
    faults.require(known, at.field("scheme"), "the scheme is HTTP or HTTPS");
    for (index, header) in http.http_headers.iter().enumerate() {
        faults.check(at.item("httpHeaders", index).field("name"), check_header_name(&header.name));
    }
}
