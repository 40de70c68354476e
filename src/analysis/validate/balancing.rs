//! Do the load balancer settings of a DestinationRule keep the rules? (Istio validateLoadBalancer)

use std::collections::HashSet;

use super::faults::{At, Faults};
use super::names::check_duration;
use crate::resource::networking::{ConsistentHash, Distribute, Failover, HashCookie, LoadBalancerSettings, Warmup};

/// Checks the block; `has_outlier_detection` tells whether its policy can fail over.
pub(super) fn check(settings: &LoadBalancerSettings, has_outlier_detection: bool, at: At<'_>, faults: &mut Faults) {
    let both = settings.simple.is_some() && settings.consistent_hash.is_some();
    faults.require(!both, at, "simple and consistentHash exclude each other");
    if let Some(hash) = &settings.consistent_hash {
        check_hash(hash, at.field("consistentHash"), faults);
    }
    let zones = settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some();
    faults.require(
        !zones,
        at.field("zoneAwareLbSetting"),
        "localityLbSetting and zoneAwareLbSetting exclude each other",
    );
    if let Some(locality) = &settings.locality_lb_setting {
        let places = Places {
            distribute: &locality.distribute,
            failover: &locality.failover,
            priority: &locality.failover_priority,
        };
        check_places(&places, has_outlier_detection, at.field("localityLbSetting"), faults);
    }
    if let Some(zone) = &settings.zone_aware_lb_setting {
        let at = at.field("zoneAwareLbSetting");
        let places = Places { distribute: &[], failover: &zone.failover, priority: &zone.failover_priority };
        check_places(&places, has_outlier_detection, at, faults);
        let by_place = names_places(&zone.failover_priority);
        faults.require(!by_place, at.field("failoverPriority"), "zone-aware failover goes by zones already");
    }
    if let Some(warmup) = &settings.warmup {
        check_warmup(warmup, at.field("warmup"), faults);
    }
    if let Some(duration) = settings.warmup_duration_secs {
        faults.check(at.field("warmupDurationSecs"), check_duration(duration));
        faults.require(
            settings.warmup.is_none(),
            at.field("warmup"),
            "warmup and warmupDurationSecs exclude each other",
        );
    }
}

fn check_hash(hash: &ConsistentHash, at: At<'_>, faults: &mut Faults) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    faults.require(keys.iter().filter(|given| **given).count() <= 1, at, "name one hash key");
    if let Some(cookie) = &hash.http_cookie {
        check_cookie(cookie, at.field("httpCookie"), faults);
    }
    if hash.minimum_ring_size > 0 {
        let message = "minimumRingSize is an old form; it excludes ringHash and maglev";
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            faults.error(at.field("minimumRingSize"), message);
        } else {
            faults.warn(at.field("minimumRingSize"), message);
        }
    }
    faults.require(hash.ring_hash.is_none() || hash.maglev.is_none(), at, "ringHash and maglev exclude each other");
    if let Some(maglev) = hash.maglev {
        let good = maglev.table_size < 5_000_011 && is_prime(maglev.table_size);
        let message = "the table size has to be a prime below 5000011";
        faults.require(good, at.field("maglev").field("tableSize"), message);
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn check_cookie(cookie: &HashCookie, at: At<'_>, faults: &mut Faults) {
    faults.require(!cookie.name.is_empty(), at.field("name"), "a cookie needs a name");
    let mut names = HashSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let at = at.item("attributes", index);
        faults.require(!attribute.name.is_empty(), at, "an attribute of a cookie needs a name");
        faults.require(names.insert(&attribute.name), at, "the attribute stands here twice");
    }
}

/// What the settings of localities and of zones share.
struct Places<'a> {
    distribute: &'a [Distribute],
    failover: &'a [Failover],
    priority: &'a [String],
}

fn check_places(places: &Places<'_>, has_outlier_detection: bool, at: At<'_>, faults: &mut Faults) {
    let Places { distribute, failover, priority } = *places;
    faults.require(distribute.is_empty() || failover.is_empty(), at, "distribute and failover exclude each other");
    let by_place = !failover.is_empty() && names_places(priority);
    faults.require(!by_place, at, "failover goes by regions already; failoverPriority cannot name places beside it");
    if !distribute.is_empty() && !priority.is_empty() {
        faults.warn(at.field("failoverPriority"), "failoverPriority does nothing beside distribute");
    }
    if !has_outlier_detection && (!failover.is_empty() || !priority.is_empty()) {
        faults.warn(at, "failover does nothing without outlierDetection");
    }
    check_distribute(distribute, at, faults);
    for (index, Failover { from, to }) in failover.iter().enumerate() {
        let at = at.item("failover", index);
        faults.require(from != to, at, "from and to are the same region");
        let plain = |region: &str| !region.contains(['*', '/']);
        faults.require(plain(from) && plain(to), at, "from and to are regions, without zones and wildcards");
    }
}

fn names_places(priority: &[String]) -> bool {
    priority.iter().any(|label| matches!(label.as_str(), REGION | ZONE | SUBZONE))
}

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

fn check_distribute(distribute: &[Distribute], at: At<'_>, faults: &mut Faults) {
    for (index, rule) in distribute.iter().enumerate() {
        let at = at.item("distribute", index);
        faults.require(rule.to.values().all(|weight| *weight > 0), at.field("to"), "a share has to be above 0");
        let total: u64 = rule.to.values().map(|weight| u64::from(*weight)).sum();
        faults.require(total == 100, at.field("to"), &format!("the shares make {total} percent, not 100"));
        check_overlap(rule.to.keys(), at.field("to"), faults);
    }
    check_overlap(distribute.iter().map(|rule| &rule.from), at.field("distribute"), faults);
}

/// Each place is `region`, `region/zone` or `region/zone/subzone`, may end with `*`, and is outside all before it.
fn check_overlap<'a>(places: impl Iterator<Item = &'a String>, at: At<'_>, faults: &mut Faults) {
    let mut seen: Vec<Vec<&str>> = Vec::new();
    for place in places {
        let parts: Vec<&str> = place.splitn(3, '/').collect();
        let wildcard = place.find('*').is_some_and(|position| position + 1 != place.len());
        if wildcard {
            faults.error(at, format!("`{place}`: a wildcard stands at the end of a place"));
        } else if parts.iter().any(|part| part.is_empty()) {
            faults.error(at, format!("`{place}`: a part of the place is empty"));
        } else if seen.iter().any(|earlier| overlap(earlier, &parts)) {
            faults.error(at, format!("`{place}` overlaps another place"));
        }
        seen.push(parts);
    }
}

/// Whether one of two places is the other or lies in it. A later wildcard is for what is left by earlier places.
fn overlap(earlier: &[&str], later: &[&str]) -> bool {
    for (level, part) in earlier.iter().enumerate() {
        match later.get(level) {
            // What ends here takes all below it.
            None => return true,
            Some(_) if *part == "*" => return true,
            Some(other) if part != other => return false,
            Some(_) => {}
        }
    }
    true
}

fn check_warmup(warmup: &Warmup, at: At<'_>, faults: &mut Faults) {
    match warmup.duration {
        None => faults.error(at.field("duration"), "warmup needs duration"),
        Some(duration) => faults.check(at.field("duration"), check_duration(duration)),
    }
    let percent = warmup.minimum_percent.is_none_or(|percent| (0.0..=100.0).contains(&percent));
    faults.require(percent, at.field("minimumPercent"), "a percentage is between 0 and 100");
    let aggression = warmup.aggression.is_none_or(|aggression| aggression >= 1.0);
    faults.require(aggression, at.field("aggression"), "aggression is at least 1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_list_lie_apart() {
        let overlaps = |places: &[&str]| {
            let (places, mut faults) = (places.iter().map(|place| (*place).to_owned()), Faults::default());
            check_overlap(places.collect::<Vec<_>>().iter(), At::root("to"), &mut faults);
            !faults.errors.is_empty()
        };
        for good in [&["a/b", "a/c"][..], &["a/b/c", "a/b/*"], &["a", "b"], &["a/b", "*"], &["a/b*", "a/b1"]] {
            assert!(!overlaps(good), "{good:?}");
        }
        for bad in
            [&["a", "a/b"][..], &["a/b", "a"], &["a/*", "a/b"], &["*", "a"], &["a/*/c"], &["a//c"], &[""], &["a", "a"]]
        {
            assert!(overlaps(bad), "{bad:?}");
        }
    }
}
