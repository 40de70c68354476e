//! Which endpoints are near, and which places are favoured? (Istio localityLbSetting, traffic distribution.)

use std::collections::BTreeMap;

use crate::resource::meta::Labels;
use crate::resource::networking::{Distribute, LoadBalancerSettings, LocalityLbSetting};
use crate::resource::settings::Settings;
use crate::snapshot::cluster::{Places, Spot};

/// What shares of places are counted in.
const SCALE: u64 = 1000;

/// One endpoint, as far as its place counts.
pub(super) struct Placed<'a> {
    /// `region/zone/subzone`; empty if nobody says.
    pub locality: &'a str,
    pub labels: &'a Labels,
    pub weight: u32,
}

/// What decides on a cluster's places.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub load_balancer: Option<&'a LoadBalancerSettings>,
    /// Others take over only from endpoints that can be found to be ill.
    pub has_outlier: bool,
    /// The service asks for near endpoints (PreferClose).
    pub prefers_close: bool,
}

/// The places of endpoints in their order; `None` if they do not matter.
pub(super) fn places(settings: &Settings, wanted: Wanted<'_>, endpoints: &[Placed<'_>]) -> Option<Places> {
    let own = settings.gateway.locality.as_str();
    let written = wanted.load_balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref());
    if written.is_none() && wanted.prefers_close {
        let level = |endpoint: &Placed<'_>| u32::from(distance(own, endpoint.locality).saturating_sub(1));
        return levels(endpoints, level).filter(|_| !own.is_empty());
    }
    let of_mesh = LocalityLbSetting::default();
    let setting = written.or(settings.mesh.locality_lb.as_ref()).unwrap_or(&of_mesh);
    if setting.enabled == Some(false) {
        return None;
    }
    if !setting.distribute.is_empty() {
        let rule = setting.distribute.iter().find(|rule| !own.is_empty() && is_in(own, &rule.from))?;
        return Some(shares(rule, endpoints));
    }
    if !wanted.has_outlier {
        return None;
    }
    if !setting.failover_priority.is_empty() {
        let most = setting.failover_priority.len();
        let gateway = &settings.gateway.labels;
        let level = |endpoint: &Placed<'_>| {
            let agrees = |label: &&String| agrees(label, (gateway, own), (endpoint.labels, endpoint.locality));
            let leading = setting.failover_priority.iter().take_while(agrees).count();
            u32::try_from(most - leading).unwrap_or(u32::MAX)
        };
        return levels(endpoints, level);
    }
    let region = part(own, 0);
    let to = setting.failover.iter().find(|rule| rule.from == region).map(|rule| rule.to.as_str());
    let level = |endpoint: &Placed<'_>| match distance(own, endpoint.locality) {
        3 if to.is_some_and(|to| part(endpoint.locality, 0) != to) => 4,
        near => u32::from(near),
    };
    levels(endpoints, level).filter(|_| !own.is_empty())
}

/// `None` if all are at the same level.
fn levels(endpoints: &[Placed<'_>], level: impl Fn(&Placed<'_>) -> u32) -> Option<Places> {
    let spots: Vec<Spot> = endpoints.iter().map(|endpoint| Spot { level: level(endpoint), place: 0 }).collect();
    let differ = spots.windows(2).any(|pair| matches!(pair, [a, b] if a != b));
    differ.then(|| Places { spots, shares: Vec::new() })
}

/// Each place has a part of the weight of its pattern, as its endpoints weigh; others have none.
fn shares(rule: &Distribute, endpoints: &[Placed<'_>]) -> Places {
    let mut weights: BTreeMap<&str, u64> = BTreeMap::new();
    for endpoint in endpoints {
        *weights.entry(endpoint.locality).or_default() += u64::from(endpoint.weight.max(1));
    }
    let share = |locality: &str, weight: u64| {
        let (pattern, percent) = rule.to.iter().find(|(pattern, _)| is_in(locality, pattern))?;
        let all: u64 = weights.iter().filter(|(other, _)| is_in(other, pattern)).map(|(_, weight)| weight).sum();
        Some((u64::from(*percent) * SCALE * weight).div_ceil(all.max(1)))
    };
    let shares = weights.iter().map(|(locality, weight)| share(locality, *weight).unwrap_or_default()).collect();
    let place = |endpoint: &Placed<'_>| {
        let place = weights.keys().position(|locality| *locality == endpoint.locality).unwrap_or_default();
        Spot { level: 0, place }
    };
    Places { spots: endpoints.iter().map(place).collect(), shares }
}

fn part(locality: &str, number: usize) -> &str {
    locality.split('/').nth(number).unwrap_or_default()
}

/// 0: the same subzone, 1: the same zone, 2: the same region, 3: elsewhere.
fn distance(own: &str, other: &str) -> u8 {
    let same = |number| part(own, number) == part(other, number);
    match (same(0), same(1), same(2)) {
        (false, ..) => 3,
        (true, false, _) => 2,
        (true, true, false) => 1,
        (true, true, true) => 0,
    }
}

/// Whether a locality is one of those that `region/zone/*` or the like means.
fn is_in(locality: &str, pattern: &str) -> bool {
    for (number, wanted) in pattern.split('/').enumerate() {
        if wanted == "*" {
            return true;
        }
        if wanted != part(locality, number) {
            return false;
        }
    }
    true
}

/// Whether an endpoint has the gateway's own value of a label, or the one that is written (`name=value`).
fn agrees(label: &str, gateway: (&Labels, &str), endpoint: (&Labels, &str)) -> bool {
    let (name, written) = label.split_once('=').map_or((label, None), |(name, value)| (name, Some(value)));
    let theirs = value(name, endpoint);
    theirs.is_some() && theirs == written.or_else(|| value(name, gateway))
}

/// The labels of places follow from the place.
fn value<'a>(name: &str, (labels, locality): (&'a Labels, &'a str)) -> Option<&'a str> {
    let place = match name {
        "topology.kubernetes.io/region" => Some(part(locality, 0)),
        "topology.kubernetes.io/zone" => Some(part(locality, 1)),
        "topology.istio.io/subzone" => Some(part(locality, 2)),
        _ => None,
    };
    labels.get(name).map(String::as_str).or(place.filter(|place| !place.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [&str; 5] = ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", ""];

    fn asked(setting: &str, has_outlier: bool, prefers_close: bool) -> Option<Places> {
        let mut settings = Settings::default();
        settings.gateway.locality = "r1/z1/s1".into();
        settings.gateway.labels = Labels::from([("app".to_owned(), "gateway".to_owned())]);
        let balancer: LoadBalancerSettings = serde_json::from_str(setting).unwrap();
        let labels = Labels::from([("app".to_owned(), "gateway".to_owned())]);
        let none = Labels::new();
        let placed =
            |(number, locality): (usize, &&'static str)| (*locality, if number == 3 { &labels } else { &none });
        let endpoints: Vec<Placed<'_>> = PLACES
            .iter()
            .enumerate()
            .map(placed)
            .map(|(locality, labels)| Placed { locality, labels, weight: 1 })
            .collect();
        places(&settings, Wanted { load_balancer: Some(&balancer), has_outlier, prefers_close }, &endpoints)
    }

    #[test]
    fn near_places_come_first_where_illness_is_noticed() {
        let levels = |setting: &str, outlier: bool, close: bool| {
            let places = asked(setting, outlier, close)?;
            Some(places.spots.iter().map(|spot| spot.level).collect::<Vec<_>>())
        };
        assert_eq!(levels("{}", false, false), None);
        assert_eq!(levels("{}", true, false), Some(vec![0, 1, 2, 3, 3]));
        assert_eq!(levels("{}", false, true), Some(vec![0, 0, 1, 2, 2]));
        assert_eq!(levels(r#"{"localityLbSetting": {"enabled": false}}"#, true, false), None);
        let failover = r#"{"localityLbSetting": {"failover": [{"from": "r1", "to": "r2"}]}}"#;
        assert_eq!(levels(failover, true, false), Some(vec![0, 1, 2, 3, 4]));
        for (labels, expected) in [
            (r#"["app"]"#, vec![1, 1, 1, 0, 1]),
            (r#"["topology.kubernetes.io/region", "app"]"#, vec![1, 1, 1, 2, 2]),
            (r#"["topology.kubernetes.io/region=r2", "app=gateway"]"#, vec![2, 2, 2, 0, 2]),
        ] {
            let setting = format!(r#"{{"localityLbSetting": {{"failoverPriority": {labels}}}}}"#);
            assert_eq!(levels(&setting, true, false), Some(expected), "{labels}");
        }
    }

    #[test]
    fn shares_are_divided_among_places() {
        let distribute = |from: &str| {
            let to = r#"{"r1/z1/*": 70, "r2/*": 30}"#;
            asked(
                &format!(r#"{{"localityLbSetting": {{"distribute": [{{"from": "{from}", "to": {to}}}]}}}}"#),
                false,
                false,
            )
        };
        let places = distribute("r1/*").unwrap();
        let share = |number: usize| places.shares[places.spots[number].place];
        assert_eq!([0, 1, 2, 3, 4].map(share), [35_000, 35_000, 0, 30_000, 0]);
        assert_eq!(distribute("r2/*"), None);
    }
}
