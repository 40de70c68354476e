//! Which cluster does a destination mean, and how are its endpoints spoken to?

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::auto_mtls;
use super::destination_rules::{MergedRule, Policy};
use super::endpoints;
use super::hashing;
use super::limits;
use super::locality::Wanted;
use super::memory::Made;
use super::protocol::Protocol;
use super::services::{PortView, ServiceView};
use super::tls_client;
use super::trail::{Answer, Question};
use super::work::Work;
use crate::resource::codes;
use crate::resource::meta::Labels;
use crate::resource::networking::{
    Destination, H2UpgradePolicy, LoadBalancerSettings, ProxyProtocolVersion, SimpleLb, TunnelSettings,
};
use crate::snapshot::cluster::{
    Balancing, Cluster, EndpointSource, Places, ProxyHeader, ServiceFacts, Tunnel, TunnelMethod, UpstreamProtocol,
    Warmup,
};
use crate::snapshot::route::ClusterReference;
use crate::snapshot::tls::TlsClient;

/// Upstream connections idle for this long are closed unless a rule says otherwise (Envoy's default).
const IDLE: Duration = Duration::from_secs(3600);

/// Where a destination is written: short names are completed by `namespace`; a service of `namespace` settles the
/// port before others.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub namespace: &'a str,
    pub server_port: u16,
}

/// The cluster of a destination, built once for all rules that name it.
pub(super) fn reference(work: &mut Work<'_>, destination: &Destination, place: Place<'_>) -> ClusterReference {
    let qualified = work.index.qualify(&destination.host, place.namespace);
    let host = work.index.resolve_alias(&qualified);
    let port = destination_port(work, destination, &host, place);
    let subset = destination.subset.as_str();
    named(work, format!("outbound|{port}|{subset}|{host}").into())
}

/// The cluster of a service that clients of the mesh name themselves (AUTO_PASSTHROUGH): its endpoints that speak
/// mesh TLS, which is not ended or begun here.
pub(super) fn mesh_reference(work: &mut Work<'_>, host: &str, port: u16, subset: &str) -> ClusterReference {
    named(work, format!("outbound_.{port}_.{subset}_.{host}").into())
}

/// The cluster with Istio's name, known or not.
pub(super) fn named(work: &mut Work<'_>, name: Arc<str>) -> ClusterReference {
    let cluster = by_name(work, &name);
    let answer = Answer::of(cluster.as_deref().into_iter());
    work.index.note(answer, || Question::Cluster { name: name.clone() });
    match cluster {
        Some(cluster) => ClusterReference::Known(cluster),
        None => ClusterReference::Missing(name),
    }
}

/// The cluster with one of Istio's names: of this generation, or of the last one if nothing
/// that it depends on has changed.
pub(super) fn by_name(work: &mut Work<'_>, name: &Arc<str>) -> Option<Arc<Cluster>> {
    if let Some(built) = work.clusters.get(name) {
        return built.clone();
    }
    let made = match work.memory.clusters.get(name) {
        Some(made) if work.objects_hold(&made) => work.again(made),
        _ => {
            let made = work.make(|work| build(work, name).map(Arc::new));
            work.memory.clusters.insert(name.clone(), made)
        }
    };
    work.clusters.insert(name.clone(), made.value.clone());
    made.value
}

/// Whether the objects and the clusters that earlier rules depended on are as they were. Clusters are asked for last:
/// only when the objects are the same do the rules name the same ones.
pub(super) fn still_hold<T>(work: &mut Work<'_>, made: &Made<T>) -> bool {
    if !work.objects_hold(made) {
        return false;
    }
    made.trail.iter().all(|(question, known)| match question {
        Question::Cluster { name } => Answer::of(by_name(work, name).as_deref().into_iter()) == *known,
        _ => true,
    })
}

/// The port written, else the only one of the service, else the Gateway server's.
pub(super) fn destination_port(work: &Work<'_>, destination: &Destination, host: &str, place: Place<'_>) -> u16 {
    let written = destination.port.map(|port| port.number).filter(|number| *number > 0);
    if let Some(number) = written {
        return u16::try_from(number).unwrap_or_default();
    }
    let services = work.index.services(host);
    let own = services.iter().find(|view| view.namespace == place.namespace).or(services.first());
    own.and_then(ServiceView::single_port).unwrap_or(place.server_port)
}

/// What a cluster is for, as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// `outbound|<port>|<subset>|<host>`
    Route,
    /// `outbound_.<port>_.<subset>_.<host>`
    MeshTls,
}

/// `None`: no such service, port or subset.
fn build(work: &mut Work<'_>, name: &Arc<str>) -> Option<Cluster> {
    let (purpose, parts) = match name.strip_prefix("outbound_.") {
        Some(parts) => (Purpose::MeshTls, parts.splitn(3, "_.")),
        None => (Purpose::Route, name.strip_prefix("outbound|")?.splitn(3, "|")),
    };
    let [port, subset, host] = parts.collect::<Vec<_>>().try_into().ok()?;
    let port = port.parse().ok()?;
    let index = work.index;
    let view = index.services(host).first()?;
    let port = view.port(port)?;
    let rule = index.rule(host, view.namespace);
    let chosen = match subset {
        "" => None,
        subset => Some(rule.as_ref()?.subset(subset)?),
    };
    let mut labels = chosen.map(|(_, subset)| subset.labels.clone()).unwrap_or_default();
    let mut policy = rule.as_ref().map(|rule| rule.policy(port.number, chosen.map(|(_, s)| s))).unwrap_or_default();
    policy.connection_pool = policy.connection_pool.or(index.settings.mesh.connection_pool.as_ref());
    policy.outlier = policy.outlier.or(index.settings.mesh.outlier.as_ref());
    if purpose == Purpose::MeshTls {
        labels.insert(auto_mtls::LABEL.into(), auto_mtls::MUTUAL.into());
        policy.tls = None;
        policy.proxy_protocol = None;
        policy.tunnel = None;
    }
    let Selected { endpoints, places, automatic, demanded } = select_endpoints(work, view, port, &labels, policy)?;
    if let (EndpointSource::Static(none), Some((object, subset))) = (&endpoints, chosen)
        && none.is_empty()
        && purpose == Purpose::Route
    {
        let position = object.spec.subsets.iter().position(|other| std::ptr::eq(other, subset)).unwrap_or_default();
        let message = format!("no endpoint of {host} has the labels of the subset `{}`", subset.name);
        work.problems.report(object, &codes::SUBSET_WITHOUT_ENDPOINTS, &format!("spec.subsets[{position}]"), message);
    }
    let (tls, fingerprint) = match (policy.tls, rule.as_ref().and_then(MergedRule::object)) {
        (Some(settings), Some(object)) => tls_client::build(work, name, settings, object, view),
        _ if automatic && purpose == Purpose::Route => tls_client::automatic(work, name, view, demanded),
        _ => (None, 0),
    };
    let cluster = finish(work, name, view, port, policy, (tls, fingerprint), endpoints);
    Some(Cluster { places: places.map(Box::new), ..cluster })
}

/// The endpoints of one cluster.
struct Selected {
    endpoints: EndpointSource,
    places: Option<Places>,
    /// Whether some of them want mutual TLS.
    automatic: bool,
    /// Whether some of them take nothing else.
    demanded: bool,
}

fn select_endpoints(
    work: &mut Work<'_>,
    view: &ServiceView<'_>,
    port: PortView<'_>,
    labels: &Labels,
    policy: Policy<'_>,
) -> Option<Selected> {
    if policy.load_balancer.and_then(|lb| lb.simple) == Some(SimpleLb::Passthrough) {
        // A gateway has no original destination.
        let endpoints = EndpointSource::Static(Vec::new());
        return Some(Selected { endpoints, places: None, automatic: false, demanded: false });
    }
    let mut found = endpoints::find(work, view, port);
    let automatic = auto_mtls::decide(work, view, &policy, &mut found) && found.has_encrypted(labels);
    let selected = found.select(labels);
    let is_empty = matches!(&selected, EndpointSource::Static(none) if none.is_empty());
    // Istio has no cluster for a subset that none of the looked-up names belongs to.
    let is_void = is_empty && found.dns && !found.is_empty() && !labels.is_empty();
    if is_void {
        return None;
    }
    let wanted = Wanted {
        load_balancer: policy.load_balancer,
        has_outlier: policy.outlier.is_some(),
        prefers_close: view.prefers_close(),
    };
    let places = found.places(labels, work.index.settings, wanted);
    Some(Selected { endpoints: selected, places, automatic, demanded: found.demands_tls(labels) })
}

fn finish(
    work: &mut Work<'_>,
    name: &Arc<str>,
    view: &ServiceView<'_>,
    port: PortView<'_>,
    policy: Policy<'_>,
    (tls, fingerprint): (Option<TlsClient>, u64),
    endpoints: EndpointSource,
) -> Cluster {
    let tcp = policy.connection_pool.and_then(|pool| pool.tcp.as_ref());
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    let upgrade = http.map(|http| http.h2_upgrade_policy).unwrap_or_default();
    let mesh_upgrades = work.index.settings.mesh.h2_upgrade == H2UpgradePolicy::Upgrade;
    let protocol = match port.protocol {
        _ if http.is_some_and(|http| http.use_client_protocol) => UpstreamProtocol::AsClient,
        _ if upgrade == H2UpgradePolicy::Upgrade => UpstreamProtocol::Http2,
        Protocol::Http if upgrade == H2UpgradePolicy::Default && mesh_upgrades => UpstreamProtocol::Http2,
        Protocol::Http2 => UpstreamProtocol::Http2,
        _ => UpstreamProtocol::Http1,
    };
    let idle = http.and_then(|http| http.idle_timeout).or(tcp.and_then(|tcp| tcp.idle_timeout));
    let mut identity = DefaultHasher::new();
    let proxy_header = policy.proxy_protocol.map(|header| match header.version {
        ProxyProtocolVersion::V1 => ProxyHeader::V1,
        ProxyProtocolVersion::V2 => ProxyHeader::V2,
    });
    let tunnel = policy.tunnel.map(tunnel);
    let limits = limits::limits(policy, work.index.settings.mesh.tcp_keepalive.as_ref());
    (protocol as u8, fingerprint, proxy_header, &tunnel, limits.keepalive, limits.pings).hash(&mut identity);
    Cluster {
        name: name.clone(),
        service: ServiceFacts {
            host: view.host.to_string(),
            name: view.short_name().to_owned(),
            namespace: view.namespace.to_owned(),
            port: port.number,
        },
        protocol,
        endpoints,
        balancing: balancing(policy.load_balancer),
        warmup: policy.load_balancer.and_then(warmup),
        tls,
        proxy_header,
        tunnel,
        connect_timeout: tcp
            .and_then(|tcp| tcp.connect_timeout)
            .map_or(work.index.settings.http.connect_timeout, |timeout| timeout.0),
        idle_timeout: Some(idle.map_or(IDLE, |idle| idle.0)).filter(|idle| !idle.is_zero()),
        max_requests_per_connection: http
            .and_then(|http| u32::try_from(http.max_requests_per_connection).ok())
            .unwrap_or_default(),
        limits,
        outlier: policy.outlier.map(|written| Box::new(limits::outlier(written))),
        places: None,
        identity: identity.finish(),
    }
}

fn balancing(settings: Option<&LoadBalancerSettings>) -> Balancing {
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        return hashing::table(hash);
    }
    match settings.and_then(|settings| settings.simple).unwrap_or_default() {
        SimpleLb::RoundRobin => Balancing::RoundRobin,
        SimpleLb::Random => Balancing::Random,
        _ => Balancing::LeastRequest,
    }
}

/// Nothing else than round robin and least request warms up (Istio).
fn warmup(settings: &LoadBalancerSettings) -> Option<Box<Warmup>> {
    if !matches!(balancing(Some(settings)), Balancing::RoundRobin | Balancing::LeastRequest) {
        return None;
    }
    let written = settings.warmup.as_ref();
    let window = written.and_then(|warmup| warmup.duration).or(settings.warmup_duration_secs)?.0;
    Some(Box::new(Warmup {
        window,
        least: written.and_then(|warmup| warmup.minimum_percent).unwrap_or(10.0) / 100.0,
        aggression: written.and_then(|warmup| warmup.aggression).unwrap_or(1.0),
    }))
}

fn tunnel(written: &TunnelSettings) -> Box<Tunnel> {
    let (host, port) = (&written.target_host, written.target_port);
    let method = if written.protocol == "POST" { TunnelMethod::Post } else { TunnelMethod::Connect };
    let is_v6 = host.parse::<Ipv6Addr>().is_ok();
    let authority = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Box::new(Tunnel { method, authority: authority.into() })
}
