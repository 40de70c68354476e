//! What of a request or connection decides its endpoint? (Istio trafficPolicy.loadBalancer.consistentHash.)

use http::HeaderName;

use super::clusters::Place;
use super::destination_rules::MergedRule;
use super::work::Work;
use crate::resource::networking::{ConsistentHash, Destination, LoadBalancerSettings, PortTrafficPolicy};
use crate::snapshot::cluster::Balancing;
use crate::snapshot::hash_policy::{Cookie, HashPolicy};

/// Istio's numbers for rules that name none.
const RING: u64 = 1024;
const MAGLEV: u64 = 65537;
/// Envoy takes no more.
const LARGEST_RING: u64 = 8_388_608;
const LARGEST_MAGLEV: u64 = 5_000_011;

/// The table of a cluster whose rule hashes.
pub(super) fn table(hash: &ConsistentHash) -> Balancing {
    let written = |number: u64| Some(number).filter(|number| *number > 0);
    match (&hash.maglev, &hash.ring_hash) {
        (Some(maglev), _) => {
            Balancing::Maglev { size: written(maglev.table_size).unwrap_or(MAGLEV).min(LARGEST_MAGLEV) }
        }
        (None, ring) => {
            let minimum = ring.and_then(|ring| written(ring.minimum_ring_size));
            let minimum = minimum.or(written(hash.minimum_ring_size)).unwrap_or(RING);
            Balancing::Ring { minimum: minimum.min(LARGEST_RING) }
        }
    }
}

/// What a route's destination hashes: the settings of its subset come before the rule's, and in both those of the port
/// that the route writes before the others.
pub(super) fn of_destination(work: &Work<'_>, destination: &Destination, place: Place<'_>) -> Option<HashPolicy> {
    let rule = rule(work, destination, place)?;
    let top = rule.traffic_policy();
    let subset = rule.subset(&destination.subset).and_then(|(_, subset)| subset.traffic_policy.as_ref());
    let number = destination.port.map(|port| port.number).unwrap_or_default();
    let of_port = |ports: &'_ [PortTrafficPolicy]| {
        let port = ports.iter().find(|port| port.port.is_some_and(|port| port.number == number));
        port.and_then(|port| hash(port.load_balancer.as_ref())).cloned()
    };
    let written = subset
        .and_then(|policy| of_port(&policy.port_level_settings))
        .or_else(|| hash(subset?.load_balancer.as_ref()).cloned())
        .or_else(|| of_port(&top?.port_level_settings))
        .or_else(|| hash(top?.load_balancer.as_ref()).cloned());
    policy(&written?)
}

/// Whether the connections of a client go to one endpoint: TCP knows no other hash, and no port's own settings.
pub(super) fn of_connections(work: &Work<'_>, destination: &Destination, place: Place<'_>) -> bool {
    let Some(rule) = rule(work, destination, place) else { return false };
    let subset = rule.subset(&destination.subset).and_then(|(_, subset)| subset.traffic_policy.as_ref());
    let settings = subset.and_then(|policy| policy.load_balancer.as_ref());
    let settings = settings.or_else(|| rule.traffic_policy()?.load_balancer.as_ref());
    hash(settings).is_some_and(|hash| hash.use_source_ip == Some(true))
}

fn rule<'a>(work: &Work<'a>, destination: &Destination, place: Place<'_>) -> Option<MergedRule<'a>> {
    let qualified = work.index.qualify(&destination.host, place.namespace);
    let host = work.index.resolve_alias(&qualified);
    let namespace = work.index.services(&host).first().map_or(place.namespace, |view| view.namespace);
    work.index.rule(&host, namespace)
}

fn hash(settings: Option<&LoadBalancerSettings>) -> Option<&ConsistentHash> {
    settings?.consistent_hash.as_ref()
}

fn policy(hash: &ConsistentHash) -> Option<HashPolicy> {
    if let Some(name) = &hash.http_header_name {
        return match name.to_ascii_lowercase().as_str() {
            ":authority" | "host" => Some(HashPolicy::Authority),
            name => HeaderName::try_from(name).ok().map(HashPolicy::Header),
        };
    }
    if let Some(cookie) = &hash.http_cookie {
        let attributes = cookie.attributes.iter();
        return Some(HashPolicy::Cookie(Box::new(Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_str().into(),
            ttl: cookie.ttl.map(|ttl| ttl.0),
            attributes: attributes.map(|one| (one.name.as_str().into(), one.value.as_str().into())).collect(),
        })));
    }
    if hash.use_source_ip == Some(true) {
        return Some(HashPolicy::SourceIp);
    }
    hash.http_query_parameter_name.as_deref().map(|name| HashPolicy::Query(name.into()))
}
