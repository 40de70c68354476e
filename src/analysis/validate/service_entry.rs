//! Does a ServiceEntry keep the rules of its kind? (Istio ValidateServiceEntry)

use std::collections::HashSet;

use super::faults::{At, Faults};
use super::names::{
    Protocol, check_export_to, check_fqdn, check_labels_of, check_port, check_selector, check_subnet,
    check_wildcard_domain, is_address, is_dns_label, protocol,
};
use super::workload::{check_missing_address, check_unix};
use crate::base::host::is_wildcard;
use crate::resource::networking::{Resolution, ServiceEntry, WorkloadEntry};

/// Checks a ServiceEntry.
pub(super) fn check(namespace: &str, entry: &ServiceEntry, faults: &mut Faults) {
    let spec = At::root("spec");
    check_hosts(entry, spec, faults);
    if let Some(selector) = &entry.workload_selector {
        let at = spec.field("workloadSelector");
        faults.check(at, check_selector(&selector.labels));
        faults.require(entry.endpoints.is_empty(), at, "workloadSelector and endpoints exclude each other");
        if selector.labels.is_empty() {
            faults.warn(at, "the selector names no labels");
        }
    }
    check_addresses(entry, spec, faults);
    check_ports(entry, spec, faults);
    match entry.resolution {
        Resolution::None => check_unresolved(entry, spec, faults),
        Resolution::Static => check_static(entry, spec, faults),
        Resolution::Dns | Resolution::DnsRoundRobin => check_dns(entry, spec, faults),
        Resolution::DynamicDns => check_dynamic(entry, spec, faults),
    }
    let several = entry.hosts.len() > 1 && entry.resolution != Resolution::None;
    let told_apart =
        entry.ports.iter().all(|port| matches!(protocol(&port.protocol), Some(Protocol::Http | Protocol::Tls)));
    faults.require(!several || told_apart, spec.field("hosts"), "several hosts need ports of HTTP or TLS");
    let by_name = entry.ports.iter().any(|port| protocol(&port.protocol) == Some(Protocol::Tls));
    if several && by_name && !entry.addresses.is_empty() {
        faults.warn(
            spec.field("addresses"),
            "the hosts share these addresses; a client without SNI cannot tell them apart",
        );
    }
    faults.check(spec.field("exportTo"), check_export_to(&entry.export_to, namespace, true));
}

fn check_hosts(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    faults.require(!entry.hosts.is_empty(), spec.field("hosts"), "a ServiceEntry needs at least one host");
    for (index, name) in entry.hosts.iter().enumerate() {
        let at = spec.item("hosts", index);
        if name == "*" {
            faults.error(at, "the host * is not allowed");
            continue;
        }
        faults.check(at, check_wildcard_domain(name));
        if is_wildcard(name) && !name.starts_with("*.") {
            faults.warn(at, format!("`{name}`: a wildcard is usually the whole first label"));
        }
    }
}

fn check_addresses(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    let mut ranges = false;
    for (index, address) in entry.addresses.iter().enumerate() {
        ranges |= address.contains('/');
        faults.check(spec.item("addresses", index), check_subnet(address));
    }
    let known = matches!(entry.resolution, Resolution::None | Resolution::Static);
    faults.require(!ranges || known, spec.field("addresses"), "ranges are for resolution NONE and STATIC only");
}

fn check_ports(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    for (index, port) in entry.ports.iter().enumerate() {
        let at = spec.item("ports", index);
        faults.check(at.field("number"), check_port(port.number));
        if !numbers.insert(port.number) {
            faults.error(at.field("number"), format!("the port {} stands here twice", port.number));
        }
        if !is_dns_label(&port.name) {
            faults.error(at.field("name"), format!("`{}` is no name of a port", port.name));
        } else if !names.insert(&port.name) {
            faults.error(at.field("name"), format!("the port name `{}` stands here twice", port.name));
        }
        if !port.protocol.is_empty() && protocol(&port.protocol).is_none() {
            faults.error(at.field("protocol"), format!("`{}` is no protocol", port.protocol));
        }
        if port.target_port != 0 {
            faults.check(at.field("targetPort"), check_port(port.target_port));
            if entry.resolution == Resolution::None && entry.workload_selector.is_some() {
                faults.warn(at.field("targetPort"), "targetPort does nothing with resolution NONE");
            }
        }
    }
}

fn check_unresolved(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    faults.require(entry.endpoints.is_empty(), spec.field("endpoints"), "resolution NONE has no endpoints");
    if entry.workload_selector.is_some() {
        faults.warn(spec.field("resolution"), "workloadSelector does nothing with resolution NONE");
    }
}

fn check_static(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let at = spec.item("endpoints", index);
        let unix = endpoint.address.starts_with("unix://");
        if unix {
            let one = entry.ports.len() == 1;
            faults.require(one, at.field("address"), "a unix socket serves one port");
        } else if !endpoint.address.is_empty() && !is_address(&endpoint.address) {
            faults.error(at.field("address"), "STATIC needs an address; names need resolution DNS");
        }
        check_endpoint(endpoint, entry, at, faults);
    }
}

fn check_dns(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    if entry.endpoints.is_empty() && entry.workload_selector.is_none() {
        for (index, name) in entry.hosts.iter().enumerate() {
            let message = "without endpoints the host itself is resolved; it has to be a full name";
            faults.require(check_fqdn(name).is_ok(), spec.item("hosts", index), message);
        }
    }
    let one = entry.resolution == Resolution::Dns || entry.endpoints.len() < 2;
    faults.require(one, spec.field("endpoints"), "DNS_ROUND_ROBIN has one endpoint at most");
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let at = spec.item("endpoints", index);
        if !endpoint.address.is_empty() && !is_address(&endpoint.address) {
            faults.check(at.field("address"), check_fqdn(&endpoint.address));
        }
        check_endpoint(endpoint, entry, at, faults);
    }
}

fn check_dynamic(entry: &ServiceEntry, spec: At<'_>, faults: &mut Faults) {
    let message = "DYNAMIC_DNS resolves what the client asks for; it has none of these";
    faults.require(entry.endpoints.is_empty(), spec.field("endpoints"), message);
    faults.require(entry.addresses.is_empty(), spec.field("addresses"), message);
    faults.require(entry.workload_selector.is_none(), spec.field("workloadSelector"), message);
    for (index, name) in entry.hosts.iter().enumerate() {
        faults.require(is_wildcard(name), spec.item("hosts", index), "DYNAMIC_DNS needs wildcard hosts");
    }
    for (index, port) in entry.ports.iter().enumerate() {
        let known = matches!(port.protocol.to_ascii_uppercase().as_str(), "HTTP" | "HTTP2" | "GRPC" | "TLS");
        let at = spec.item("ports", index);
        faults.require(known, at.field("protocol"), "DYNAMIC_DNS serves HTTP, HTTP2, GRPC and TLS");
    }
}

/// What endpoints of every resolution have to keep.
fn check_endpoint(endpoint: &WorkloadEntry, entry: &ServiceEntry, at: At<'_>, faults: &mut Faults) {
    if endpoint.address.is_empty() {
        check_missing_address(endpoint, at, faults);
    }
    if let Some(path) = endpoint.address.strip_prefix("unix://") {
        check_unix(endpoint, path, at, faults);
    }
    for (name, port) in &endpoint.ports {
        let at = at.key("ports", name);
        let known = entry.ports.iter().any(|of_entry| of_entry.name == *name);
        faults.require(known, at, "the ServiceEntry has no port of this name");
        faults.check(at, check_port(*port));
    }
    faults.check(at.field("labels"), check_labels_of(&endpoint.labels));
}
