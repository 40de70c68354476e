//! Which virtual hosts do the requests of a workload find on a port, and which rules do they have? (Istio's outbound
//! route tables of sidecars.)

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::services::{PortView, ServiceSource};
use super::super::virtual_service::{self, ServerPlace};
use super::super::work::Work;
use super::domains::{self, Domain};
use super::rules;
use super::scope::{self, Egress, Imported, Strangers};
use crate::base::host;
use crate::resource::meta::Object;
use crate::resource::networking::VirtualService;
use crate::snapshot::route::{RouteRule, RouteTable, VirtualHost};

/// The port that hosts of VirtualServices have where no service says one.
const PLAIN: u16 = 80;

/// The table of every service of a port; `port` is 0 for an HTTP proxy, whose clients name hosts of port 80.
pub(super) fn of_port<'a>(work: &mut Work<'a>, egress: &Egress<'a>, port: u16, strangers: Strangers<'_>) -> RouteTable {
    let mut table = RouteTable { name: port.to_string(), port, ..RouteTable::default() };
    for (host, names) in hosts(work, egress, port) {
        for name in names {
            table.insert_under(name.into(), host.clone());
        }
    }
    table.insert(Arc::new(rules::for_strangers(work, strangers)));
    table
}

/// The table of one service whose port names no protocol: every host is the service's.
pub(super) fn of_service<'a>(
    work: &mut Work<'a>,
    egress: &Egress<'a>,
    service: &Imported<'a>,
    port: u16,
) -> RouteTable {
    let name = format!("{}:{port}", service.host());
    let mut table = RouteTable { name, port, ..RouteTable::default() };
    let own = hosts(work, egress, port).into_iter().find(|(_, names)| names.iter().any(|name| *name == service.host()));
    if let Some((host, _)) = own {
        table.insert_under("*".into(), host);
    }
    table
}

/// Hosts in the making: those of services and names that one VirtualService, or none, has rules for.
struct Group<'e, 'a> {
    rules: Vec<Arc<RouteRule>>,
    /// Hosts of the VirtualService that are no services.
    names: Vec<String>,
    services: Vec<&'e Imported<'a>>,
    port: u16,
}

/// Virtual hosts with the names that they are found under. Of two that ask for a name the first has it.
fn hosts<'a>(work: &mut Work<'a>, egress: &Egress<'a>, port: u16) -> Vec<(Arc<VirtualHost>, Vec<String>)> {
    let groups = groups(work, egress, port);
    let known: HashSet<String> =
        groups.iter().flat_map(|group| &group.services).map(|service| service.host().to_ascii_lowercase()).collect();
    let (mut taken, mut named) = (HashSet::new(), HashSet::new());
    let mut hosts = Vec::new();
    for group in &groups {
        let of_names = group
            .names
            .iter()
            .map(|name| (name.as_str(), vec![Domain { name: domains::bracketed(name), is_short: false }]));
        let of_services = group.services.iter().map(|service| (service.host(), domains_of(work, service)));
        for (name, domains) in of_names.chain(of_services) {
            if !named.insert((name.to_ascii_lowercase(), group.port)) {
                continue;
            }
            // A service of that very name comes before one that is so called in short.
            let free = domains.into_iter().map(|domain| (domain.name.to_ascii_lowercase(), domain.is_short));
            let free = free.filter(|(name, is_short)| !(*is_short && known.contains(name)));
            let mut free: Vec<String> = free.map(|(name, _)| name).filter(|name| taken.insert(name.clone())).collect();
            if port == 0 && group.port != PLAIN {
                free.clear();
            }
            if !free.is_empty() {
                let host = VirtualHost::new(&name.to_ascii_lowercase(), false, group.rules.clone());
                hosts.push((Arc::new(host), free));
            }
        }
    }
    hosts
}

/// The first address of each service, by all its names.
pub(super) fn addresses(work: &Work<'_>, listeners: &[Egress<'_>]) -> HashMap<Box<str>, IpAddr> {
    let mut addresses = HashMap::new();
    for service in listeners.iter().flat_map(|egress| &egress.services) {
        let first = super::addresses(service.view).iter().find_map(|address| address.parse::<IpAddr>().ok());
        let Some(first) = first else { continue };
        for domain in domains_of(work, service) {
            addresses.entry(domain.name.to_ascii_lowercase().into()).or_insert(first);
        }
    }
    addresses
}

fn domains_of(work: &Work<'_>, service: &Imported<'_>) -> Vec<Domain> {
    let gateway = &work.index.settings.gateway;
    let home = format!("{}.svc.{}", gateway.namespace, gateway.cluster_domain);
    let is_headless = match &service.view.source {
        ServiceSource::Kubernetes(service) => service.spec.cluster_ip == "None",
        _ => false,
    };
    let mut domains = domains::of_service(service.host(), &service.aliases, is_headless, &home);
    let addresses = super::addresses(service.view).into_iter().filter(|address| !address.contains('/'));
    domains.extend(addresses.map(|address| Domain { name: domains::bracketed(&address), is_short: false }));
    domains
}

fn groups<'e, 'a>(work: &mut Work<'a>, egress: &'e Egress<'a>, port: u16) -> Vec<Group<'e, 'a>> {
    let on_port = |view: &PortView<'_>| port == 0 || view.number == port;
    let services: Vec<&Imported<'a>> =
        egress.services.iter().filter(|service| service.ports().any(|view| on_port(&view))).collect();
    let names: Vec<&str> = services.iter().map(|service| service.host()).collect();
    let qualified = |object: &&'a Object<VirtualService>| {
        let name = |name: &String| work.index.qualify(name, &object.meta.namespace);
        (*object, object.spec.hosts.iter().map(name).collect::<Vec<String>>())
    };
    let all: Vec<(&'a Object<VirtualService>, Vec<String>)> = egress.virtual_services.iter().map(qualified).collect();
    let every: Vec<&str> = egress.services.iter().map(Imported::host).collect();
    let owners = scope::owners(&all, &every);
    let concerned: Vec<_> = match port {
        PLAIN => all.iter().collect(),
        _ => scope::concerning(&all, &names).collect(),
    };
    let by_name: HashMap<&str, &Imported<'a>> = services.iter().map(|service| (service.host(), *service)).collect();
    let mut groups = Vec::new();
    for (object, hosts) in concerned {
        groups.extend(claimed(work, object, hosts, port, &services, &by_name, &owners));
    }
    let claimed: HashSet<&str> =
        groups.iter().flat_map(|group| &group.services).map(|service| service.host()).collect();
    let mut rest = Vec::new();
    for service in services.iter().copied().filter(|service| !claimed.contains(service.host())) {
        for view in service.ports().filter(|view| on_port(view) && view.protocol.may_be_http()) {
            let rules = vec![Arc::new(rules::of_service(work, service, view.number))];
            rest.push(Group { rules, names: Vec::new(), services: vec![service], port: view.number });
        }
    }
    groups.extend(rest);
    groups
}

/// What a VirtualService has rules for on a port: services, by port, and names that are none.
#[allow(clippy::too_many_arguments)] // one object against everything that is known of a port
fn claimed<'e, 'a>(
    work: &mut Work<'a>,
    object: &'a Object<VirtualService>,
    hosts: &[String],
    port: u16,
    services: &[&'e Imported<'a>],
    by_name: &HashMap<&str, &'e Imported<'a>>,
    owners: &HashMap<String, &'a Object<VirtualService>>,
) -> Vec<Group<'e, 'a>> {
    let place = ServerPlace { gateway: "mesh", port, tls: false };
    let rules = virtual_service::rules(work, object, place);
    if rules.is_empty() {
        return Vec::new();
    }
    let (mut names, mut own): (Vec<String>, Vec<&'e Imported<'a>>) = (Vec::new(), Vec::new());
    let (wildcards, exact): (Vec<&String>, Vec<&String>) = hosts.iter().partition(|name| host::is_wildcard(name));
    for name in exact {
        match by_name.get(name.as_str()) {
            Some(service) => own.push(service),
            None => names.push(name.clone()),
        }
    }
    for name in wildcards {
        let meant: Vec<_> = services.iter().copied().filter(|service| host::matches(name, service.host())).collect();
        if meant.is_empty() {
            names.push(name.clone());
        }
        let is_ours =
            |service: &&Imported<'a>| owners.get(service.host()).is_some_and(|owner| std::ptr::eq(*owner, object));
        own.extend(meant.into_iter().filter(is_ours));
    }
    let mut by_port: Vec<(u16, Vec<&'e Imported<'a>>)> = Vec::new();
    for service in own {
        for view in service.ports().filter(|view| (port == 0 || view.number == port) && view.protocol.may_be_http()) {
            match by_port.iter_mut().find(|(number, _)| *number == view.number) {
                Some((_, services)) => services.push(service),
                None => by_port.push((view.number, vec![service])),
            }
        }
    }
    if by_port.is_empty() && port == PLAIN {
        by_port.push((PLAIN, Vec::new()));
    }
    let group = |(port, services)| Group { rules: rules.clone(), names: names.clone(), services, port };
    by_port.into_iter().map(group).collect()
}
