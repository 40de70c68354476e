//! Which servers of all Gateways share an address, and which are left out? (Istio's merge of Gateways.)

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::index::{is_subset, sorted};
use super::problems::Problems;
use super::protocol::Protocol;
use super::services::{ServiceSource, ServiceView};
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::core::Service;
use crate::resource::meta::{Meta, Object};
use crate::resource::networking::{Gateway, Server, ServerTlsMode, ServiceEntry};
use crate::resource::settings::Settings;

/// One server that is in force on one address.
#[derive(Clone, Debug)]
pub(super) struct BoundServer<'a> {
    pub gateway: &'a Object<Gateway>,
    pub server: &'a Server,
    /// The place in the gateway's `spec.servers`.
    pub number: usize,
    pub address: SocketAddr,
    /// Istio's name of the route table; empty for servers that are not HTTP.
    pub route_name: String,
    /// Hosts as `namespace/name` or `name`; `.` is already the gateway's namespace.
    pub hosts: Vec<Cow<'a, str>>,
    pub kind: ServerKind,
}

/// How a server reads its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    /// HTTP without TLS.
    Http,
    /// HTTP behind TLS that is ended here.
    Https,
    /// Bytes as they come.
    Tcp,
    /// Bytes behind TLS that is ended here.
    TlsTcp,
    /// TLS that is not ended here, by server name.
    Passthrough,
    /// TLS of the mesh that is not ended here; the server name is the cluster.
    AutoPassthrough,
    /// Nothing is bound for it.
    Nothing,
}

impl ServerKind {
    pub(super) fn is_tls(self) -> bool {
        !matches!(self, ServerKind::Http | ServerKind::Tcp | ServerKind::Nothing)
    }
}

/// The servers of the Gateways that select us, in the order of merging.
pub(super) fn merge<'a>(
    resources: &'a ResourceSet,
    settings: &Settings,
    problems: &mut Problems,
) -> Vec<BoundServer<'a>> {
    let fronts = Fronts::new(resources, settings);
    let mut ports: HashMap<u16, PortState> = HashMap::new();
    let mut bound = Vec::new();
    for gateway in sorted(&resources.gateways) {
        if named_services(gateway).is_none() && !is_subset(&gateway.spec.selector, &settings.gateway.labels) {
            continue;
        }
        for (number, server) in gateway.spec.servers.iter().enumerate() {
            for port in fronts.bound_ports(gateway, server.port.number) {
                match admit(gateway, server, number, port, settings, ports.entry(port).or_default()) {
                    Ok(admitted) => bound.extend(admitted),
                    Err((code, reason)) => problems.report(gateway, code, &format!("spec.servers[{number}]"), reason),
                }
            }
        }
    }
    bound
}

/// What is bound for a port that no server has: as for a Gateway without a selector of its own.
pub(super) fn address_of(number: u16, resources: &ResourceSet, settings: &Settings) -> SocketAddr {
    let port = Fronts::new(resources, settings).bound_port(number);
    SocketAddr::new(settings.listen.address, port)
}

/// What earlier servers made of a bound port.
#[derive(Default)]
struct PortState {
    taken: bool,
    /// `bind` and protocol of the first plaintext server.
    plaintext: Option<(String, Protocol)>,
    /// `bind` and host of servers with TLS settings.
    tls_hosts: HashSet<(String, String)>,
    route_names: HashSet<String>,
}

type Refusal = (&'static codes::Code, String);

fn admit<'a>(
    gateway: &'a Object<Gateway>,
    server: &'a Server,
    number: usize,
    port: u16,
    settings: &Settings,
    state: &mut PortState,
) -> Result<Option<BoundServer<'a>>, Refusal> {
    let protocol = Protocol::parse(&server.port.protocol);
    let kind = kind_of(server, protocol);
    let route_name = route_name(gateway, server, port, protocol);
    let hosts = server_hosts(gateway, server);
    let address = bind_address(server, port, settings)?;
    if server.tls.is_some() {
        register_hosts(&hosts, &server.bind, state)?;
    }
    let taken = std::mem::replace(&mut state.taken, true);
    match &state.plaintext {
        Some((bind, owner)) if *bind == server.bind => {
            let mergeable = protocol.is_http() && owner.is_http();
            if !mergeable {
                let message =
                    format!("port {port} already belongs to an earlier plaintext server; this one is left out");
                return Err((&codes::SERVER_SKIPPED, message));
            }
        }
        Some(_) => {}
        None if !kind.is_tls() => state.plaintext = Some((server.bind.clone(), protocol)),
        None if taken && !route_name.is_empty() && state.route_names.contains(&route_name) => {
            let message = format!(
                "an earlier server has the same port and port name `{}`; this one is left out",
                server.port.name
            );
            return Err((&codes::SERVER_SKIPPED, message));
        }
        None => {}
    }
    state.route_names.insert(route_name.clone());
    if kind == ServerKind::Nothing {
        let message = format!("nothing is bound for a server of protocol {}", server.port.protocol);
        return Err((&codes::SERVER_NOT_IN_FORCE, message));
    }
    Ok(Some(BoundServer { gateway, server, number, address, route_name, hosts, kind }))
}

fn kind_of(server: &Server, protocol: Protocol) -> ServerKind {
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    match (protocol, mode) {
        (Protocol::Http | Protocol::Http2, _) => ServerKind::Http,
        (Protocol::Udp | Protocol::Unknown, _) | (Protocol::Https | Protocol::Tls, None) => ServerKind::Nothing,
        (Protocol::Tcp, None) => ServerKind::Tcp,
        (_, Some(ServerTlsMode::Passthrough)) => ServerKind::Passthrough,
        (_, Some(ServerTlsMode::AutoPassthrough)) => ServerKind::AutoPassthrough,
        (Protocol::Https, Some(_)) => ServerKind::Https,
        (Protocol::Tls | Protocol::Tcp, Some(_)) => ServerKind::TlsTcp,
    }
}

/// The host strings are compared as written, with their namespace: one that is known leaves the whole server out.
fn register_hosts(hosts: &[Cow<'_, str>], bind: &str, state: &mut PortState) -> Result<(), Refusal> {
    let keys: Vec<_> = hosts.iter().map(|host| (bind.to_owned(), host.to_string())).collect();
    if let Some((_, host)) = keys.iter().find(|key| state.tls_hosts.contains(*key)) {
        let message =
            format!("an earlier server of the port has the host {host}; this one is left out with all its hosts");
        return Err((&codes::DUPLICATE_HOST, message));
    }
    state.tls_hosts.extend(keys);
    Ok(())
}

fn bind_address(server: &Server, port: u16, settings: &Settings) -> Result<SocketAddr, Refusal> {
    if server.bind.is_empty() {
        return Ok(SocketAddr::new(settings.listen.address, port));
    }
    match server.bind.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, port)),
        Err(_) => Err((&codes::SERVER_NOT_IN_FORCE, format!("`{}` cannot be bound; an IP address can", server.bind))),
    }
}

/// `http.<port>[.<bind>]`, or `https.<port>.<port name>.<gateway>.<namespace>[.<bind>]`.
fn route_name(gateway: &Object<Gateway>, server: &Server, port: u16, protocol: Protocol) -> String {
    let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    let ends_tls = !matches!(mode, None | Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough));
    match protocol {
        Protocol::Http | Protocol::Http2 => format!("http.{port}{bind}"),
        Protocol::Https if ends_tls => {
            let meta = &gateway.meta;
            format!("https.{}.{}.{}.{}{bind}", server.port.number, server.port.name, meta.name, meta.namespace)
        }
        _ => String::new(),
    }
}

/// `*/*` makes the whole list `*`; `./` is the gateway's namespace.
fn server_hosts<'a>(gateway: &Object<Gateway>, server: &'a Server) -> Vec<Cow<'a, str>> {
    if server.hosts.iter().any(|host| host == "*/*") {
        return vec![Cow::Borrowed("*")];
    }
    let complete = |host: &'a String| match host.strip_prefix("./") {
        Some(name) => Cow::Owned(format!("{}/{name}", gateway.meta.namespace)),
        None => Cow::Borrowed(host.as_str()),
    };
    server.hosts.iter().map(complete).collect()
}

/// The Services in front of this gateway, with what their ports lead to.
struct Fronts<'a> {
    /// `[listen]` of the settings; it comes before the Services.
    fixed: &'a BTreeMap<u16, u16>,
    services: Vec<Front<'a>>,
}

struct Front<'a> {
    hosts: Vec<Cow<'a, str>>,
    /// Gateways that select by labels are bound as they are written.
    is_only_named: bool,
    /// A port and what it leads to.
    ports: Vec<(u16, u16)>,
}

impl Front<'_> {
    fn target(&self, number: u16) -> Option<u16> {
        self.ports.iter().find(|(port, _)| *port == number).map(|(_, target)| *target)
    }
}

impl<'a> Fronts<'a> {
    fn new(resources: &'a ResourceSet, settings: &'a Settings) -> Fronts<'a> {
        let ours = &settings.gateway;
        let in_front = |service: &&Object<Service>| {
            service.meta.namespace == ours.namespace
                && !service.spec.selector.is_empty()
                && is_subset(&service.spec.selector, &ours.labels)
        };
        let host = |meta: &Meta| format!("{}.{}.svc.{}", meta.name, meta.namespace, ours.cluster_domain);
        let services = sorted(&resources.services).into_iter().filter(in_front);
        let services = services
            .map(|service| (&service.meta, vec![Cow::Owned(host(&service.meta))], ServiceSource::Kubernetes(service)));
        let has_us = |entry: &&Object<ServiceEntry>| {
            entry.meta.namespace == ours.namespace
                && !ours.labels.is_empty()
                && entry.spec.endpoints.iter().any(|endpoint| is_subset(&ours.labels, &endpoint.labels))
        };
        let entries = sorted(&resources.service_entries).into_iter().filter(has_us).map(|entry| {
            let hosts = entry.spec.hosts.iter().map(|host| Cow::Borrowed(host.as_str())).collect();
            (&entry.meta, hosts, ServiceSource::Entries(vec![entry]))
        });
        let front = |(meta, hosts, source): (&Meta, Vec<Cow<'a, str>>, ServiceSource<'a>)| {
            let view = ServiceView { host: Cow::Borrowed(""), namespace: "", source, place: 0 };
            let ports = view.ports().map(|port| (port.number, port.target)).collect();
            let is_only_named = meta.labels.contains_key("experimental.istio.io/disable-gateway-port-translation");
            Front { hosts, is_only_named, ports }
        };
        Fronts { fixed: &settings.listen.ports, services: services.chain(entries).map(front).collect() }
    }

    /// What is bound for a server's port: the target of the first Service with that port, else the port itself. A
    /// Gateway that names its Services is bound to all their targets, and to nothing else.
    fn bound_ports(&self, gateway: &Object<Gateway>, number: u32) -> Vec<u16> {
        let Some(number) = u16::try_from(number).ok().filter(|number| *number > 0) else { return Vec::new() };
        let target = |front: &Front<'_>| front.target(number);
        match (self.fixed.get(&number), named_services(gateway)) {
            (Some(bound), _) => vec![*bound],
            (None, Some(names)) => {
                let is_named = |front: &&Front<'_>| front.hosts.iter().any(|host| names.contains(&&**host));
                let mut targets: Vec<u16> = self.services.iter().filter(is_named).filter_map(target).collect();
                targets.sort_unstable();
                targets.dedup();
                targets
            }
            (None, None) => vec![self.bound_port(number)],
        }
    }

    /// What is bound for a port of a Gateway that names no Services.
    fn bound_port(&self, number: u16) -> u16 {
        let mut all = self.services.iter().filter(|front| !front.is_only_named);
        let fixed = self.fixed.get(&number).copied();
        fixed.or_else(|| all.find_map(|front| front.target(number))).unwrap_or(number)
    }
}

/// The hosts of the Services that a Gateway is for, if it names them; then its selector does not count.
fn named_services(gateway: &Object<Gateway>) -> Option<Vec<&str>> {
    let names = gateway.meta.annotations.get("internal.istio.io/gateway-service")?;
    Some(names.split(',').map(str::trim).collect())
}
