//! Do the load balancer settings of a DestinationRule keep the rules? (Istio validateLoadBalancer)

use std::collections::HashSet;

use serde_json::Value;

use super::faults::{At, Faults};
use super::names::check_duration;
use crate::resource::networking::{GoDuration, LoadBalancerSettings, parse_duration};

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
        check_locality(locality, has_outlier_detection, Scope::Locality, at.field("localityLbSetting"), faults);
    }
    if let Some(zone) = &settings.zone_aware_lb_setting {
        check_locality(zone, has_outlier_detection, Scope::Zone, at.field("zoneAwareLbSetting"), faults);
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

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// protojson writes 64-bit numbers as text too.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn check_hash(hash: &Value, at: At<'_>, faults: &mut Faults) {
    let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    let given = keys.iter().filter(|key| hash.get(key).is_some()).count();
    faults.require(given <= 1, at, "name one hash key");
    if let Some(cookie) = hash.get("httpCookie") {
        check_cookie(cookie, at.field("httpCookie"), faults);
    }
    let old_size = hash.get("minimumRingSize").and_then(number).unwrap_or(0);
    let algorithms = ["ringHash", "maglev"].iter().filter(|name| hash.get(name).is_some()).count();
    if old_size > 0 {
        let message = "minimumRingSize is an old form; it excludes ringHash and maglev";
        if algorithms > 0 {
            faults.error(at.field("minimumRingSize"), message);
        } else {
            faults.warn(at.field("minimumRingSize"), message);
        }
    }
    faults.require(algorithms <= 1, at, "ringHash and maglev exclude each other");
    if let Some(maglev) = hash.get("maglev") {
        let size = maglev.get("tableSize").and_then(number).unwrap_or(0);
        let good = size < 5_000_011 && is_prime(size);
        let message = "the table size has to be a prime below 5000011";
        faults.require(good, at.field("maglev").field("tableSize"), message);
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn check_cookie(cookie: &Value, at: At<'_>, faults: &mut Faults) {
    faults.require(!text(cookie, "name").is_empty(), at.field("name"), "a cookie needs a name");
    let mut names = HashSet::new();
    for (index, attribute) in list(cookie, "attributes").iter().enumerate() {
        let name = text(attribute, "name");
        let at = at.item("attributes", index);
        faults.require(!name.is_empty(), at, "an attribute of a cookie needs a name");
        faults.require(names.insert(name), at, "the attribute stands here twice");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Locality,
    Zone,
}

fn check_locality(setting: &Value, has_outlier_detection: bool, scope: Scope, at: At<'_>, faults: &mut Faults) {
    let (distribute, failover) = (list(setting, "distribute"), list(setting, "failover"));
    let priority = list(setting, "failoverPriority");
    let ways = [distribute, failover, priority].iter().filter(|way| !way.is_empty()).count();
    // A failover with label priorities is one way, unless the labels are places themselves.
    let is_place = |label: &Value| matches!(label.as_str(), Some(REGION | ZONE | SUBZONE));
    let places = priority.iter().any(is_place);
    let combined = distribute.is_empty() && !failover.is_empty() && !priority.is_empty() && !places;
    faults.require(ways <= 1 || combined, at, "distribute, failover and failoverPriority exclude each other");
    if !has_outlier_detection && (!failover.is_empty() || !priority.is_empty()) {
        faults.warn(at, "failover does nothing without outlierDetection");
    }
    if scope == Scope::Zone {
        faults.require(!places, at.field("failoverPriority"), "zone-aware failover goes by zones already");
    }
    check_distribute(distribute, at, faults);
    for (index, step) in failover.iter().enumerate() {
        let (from, to) = (text(step, "from"), text(step, "to"));
        let at = at.item("failover", index);
        faults.require(from != to, at, "from and to are the same region");
        let plain = |region: &str| !region.contains(['*', '/']);
        faults.require(plain(from) && plain(to), at, "from and to are regions, without zones and wildcards");
    }
}

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

fn check_distribute(distribute: &[Value], at: At<'_>, faults: &mut Faults) {
    let mut sources: Vec<&str> = Vec::new();
    for (index, rule) in distribute.iter().enumerate() {
        let at = at.item("distribute", index);
        sources.push(text(rule, "from"));
        let Some(to) = rule.get("to").and_then(Value::as_object) else {
            faults.error(at.field("to"), "the shares have to be given");
            continue;
        };
        let weights: Vec<u64> = to.values().map(|weight| number(weight).unwrap_or(0)).collect();
        faults.require(weights.iter().all(|weight| *weight > 0), at.field("to"), "a share has to be above 0");
        let total = weights.iter().fold(0u64, |sum, weight| sum.saturating_add(*weight));
        faults.require(total == 100, at.field("to"), &format!("the shares make {total} percent, not 100"));
        let targets: Vec<&str> = to.keys().map(String::as_str).collect();
        check_overlap(&targets, at.field("to"), faults);
    }
    check_overlap(&sources, at.field("distribute"), faults);
}

/// No place may be inside another: `a/*` and `a/b`.
fn check_overlap(places: &[&str], at: At<'_>, faults: &mut Faults) {
    for (index, place) in places.iter().enumerate() {
        let wildcard = place.find('*').is_some_and(|position| position + 1 != place.len());
        faults.require(!wildcard, at, "a wildcard stands at the end of a place");
        let inside =
            |other: &str| other.strip_suffix('*').is_some_and(|prefix| place.starts_with(prefix)) || other == *place;
        let overlaps = places.iter().enumerate().any(|(other, name)| other != index && inside(name));
        faults.require(!overlaps, at, &format!("`{place}` is inside another place"));
    }
}

fn check_warmup(warmup: &Value, at: At<'_>, faults: &mut Faults) {
    let duration = warmup.get("duration").and_then(Value::as_str).and_then(parse_duration);
    match duration {
        None => faults.error(at.field("duration"), "warmup needs duration"),
        Some(duration) => faults.check(at.field("duration"), check_duration(GoDuration(duration))),
    }
    let float = |name: &str| warmup.get(name).and_then(Value::as_f64);
    let percent = float("minimumPercent").is_none_or(|percent| (0.0..=100.0).contains(&percent));
    faults.require(percent, at.field("minimumPercent"), "a percentage is between 0 and 100");
    let aggression = float("aggression").is_none_or(|aggression| aggression >= 1.0);
    faults.require(aggression, at.field("aggression"), "aggression is at least 1");
}
