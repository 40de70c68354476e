//! Does an older VirtualService of the same host take all requests of a rule? (LIM0061)
//!
//! The rules of all VirtualServices of a host are joined: the older ones first, catch-alls last of all. What happens
//! within one VirtualService is told by IST0130 and IST0131.

use std::collections::{HashMap, HashSet};

use super::match_cover::{Cover, is_catch_all};
use crate::analysis::report::Report;
use crate::analysis::world::{Name, World, full_name, identity};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{HttpMatchRequest, VirtualService};

/// A rule: the VirtualService, and the place in `spec.http`.
type Rule<'a> = (&'a Object<VirtualService>, usize);

/// One alternative of a rule: its match, or `None` if the rule has none.
type Alternative<'a> = (Rule<'a>, Option<&'a HttpMatchRequest>);

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let mut told: HashSet<(usize, usize)> = HashSet::new();
    for ((gateway, name), services) in shared_hosts(world) {
        for (rule, earlier) in shadowed(&services, gateway) {
            if told.insert((std::ptr::from_ref(rule.0).addr(), rule.1)) {
                let message = format!(
                    "it is never reached: for `{name}` at the Gateway {}/{} the older http[{}] of the VirtualService {} \
                     takes its requests",
                    gateway.0,
                    gateway.1,
                    earlier.1,
                    earlier.0.key()
                );
                let hint = "narrow the older rule, or put the rules into one VirtualService in the order you mean";
                let path = format!("spec.http[{}]", rule.1);
                report.tell_with_hint(rule.0, &codes::SHADOWED_RULE, &path, message, hint);
            }
        }
    }
}

/// A host of a Gateway, and the VirtualServices that have it.
type SharedHost<'a> = ((Name<'a>, &'a str), Vec<&'a Object<VirtualService>>);

/// The hosts of our Gateways that several VirtualServices have, with these in the order of their rules.
fn shared_hosts<'a>(world: &World<'a>) -> Vec<SharedHost<'a>> {
    let mut by_host: HashMap<_, Vec<&'a Object<VirtualService>>> = HashMap::new();
    for service in &world.resources.virtual_services {
        let namespace = service.meta.namespace.as_str();
        for name in &service.spec.gateways {
            let gateway = world.gateway(name, namespace).filter(|gateway| world.is_ours(&gateway.spec.selector));
            let Some((gateway, served)) = gateway.and_then(|it| Some((it, world.served(it)?))) else { continue };
            for host in &service.spec.hosts {
                for common in served.common(namespace, host) {
                    by_host.entry((identity(gateway), common)).or_default().push(service);
                }
            }
        }
    }
    let mut shared: Vec<_> = by_host
        .into_iter()
        .filter(|(_, services)| services.len() > 1)
        .filter_map(|(key, services)| {
            let mut ordered: Vec<(u8, &Object<VirtualService>)> =
                services.into_iter().filter_map(|service| Some((rank(world, service)?, service))).collect();
            ordered.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| Object::by_age(a.1, b.1)));
            ordered.dedup_by_key(|(_, service)| std::ptr::from_ref(*service).addr());
            (ordered.len() > 1).then(|| (key, ordered.into_iter().map(|(_, service)| service).collect()))
        })
        .collect();
    shared.sort_by(|a, b| a.0.cmp(&b.0));
    shared
}

/// Istio's order: private ones of our namespace, those exported to it by name, public ones; `None` for what we do not
/// see.
fn rank(world: &World<'_>, service: &Object<VirtualService>) -> Option<u8> {
    let ours = world.settings.gateway.namespace.as_str();
    let words = match service.spec.export_to.as_slice() {
        [] => world.settings.mesh.virtual_service_export_to.as_slice(),
        words => words,
    };
    if words.is_empty() || words.iter().any(|word| word == "*") {
        Some(2)
    } else if service.meta.namespace == ours && words.iter().any(|word| word == "." || word == ours) {
        Some(0)
    } else {
        words.iter().any(|word| word == ours).then_some(1)
    }
}

/// Rules that no request reaches, each with a rule of another VirtualService that takes its requests.
fn shadowed<'a>(services: &[&'a Object<VirtualService>], gateway: Name<'_>) -> Vec<(Rule<'a>, Rule<'a>)> {
    let alternatives = alternatives(services, gateway);
    let (all, some): (Vec<_>, Vec<_>) = alternatives.iter().partition(|(_, entry)| entry.is_none_or(is_catch_all));
    let mut cover = Cover::default();
    // By the rule: whether all alternatives so far are taken, and by whom else.
    let mut verdicts: HashMap<(usize, usize), (bool, Option<Rule<'a>>)> = HashMap::new();
    for ((service, index), entry) in some.into_iter().chain(all) {
        let taken: Option<Rule<'a>> = cover.covering(entry);
        let verdict = verdicts.entry((std::ptr::from_ref(service).addr(), index)).or_insert((true, None));
        verdict.0 &= taken.is_some();
        verdict.1 = verdict.1.or(taken.filter(|(other, _)| !std::ptr::eq(*other, service)));
        // What delegates takes no requests by itself.
        let delegates = service.spec.http.get(index).is_some_and(|route| route.delegate.is_some());
        if taken.is_none() && !delegates {
            cover.add(entry, (service, index));
        }
    }
    let mut found = Vec::new();
    let mut previous = None;
    for (rule, _) in alternatives {
        let key = (std::ptr::from_ref(rule.0).addr(), rule.1);
        if previous.replace(key) != Some(key)
            && let Some((true, Some(by))) = verdicts.get(&key)
        {
            found.push((rule, *by));
        }
    }
    found
}

/// Every alternative that this gateway looks at, in the order of the VirtualServices.
fn alternatives<'a>(services: &[&'a Object<VirtualService>], gateway: Name<'_>) -> Vec<Alternative<'a>> {
    let mut alternatives = Vec::new();
    for service in services {
        for (index, route) in service.spec.http.iter().enumerate() {
            if route.matches.is_empty() {
                alternatives.push(((*service, index), None));
            }
            let meant = route.matches.iter().filter(|entry| {
                let mut names = entry.gateways.iter();
                entry.gateways.is_empty() || names.any(|name| full_name(name, &service.meta.namespace) == gateway)
            });
            alternatives.extend(meant.map(|entry| ((*service, index), Some(entry))));
        }
    }
    alternatives
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resource::meta::{Meta, Origin};
    use crate::source::decode::decode;

    fn service(name: &str, http: serde_json::Value) -> Arc<Object<VirtualService>> {
        let spec = decode::<VirtualService>(&serde_json::json!({ "http": http }), "spec").unwrap().value;
        let meta = Meta { name: name.into(), namespace: "default".into(), ..Meta::default() };
        Arc::new(Object { meta, spec, origin: Origin::default() })
    }

    #[test]
    fn an_older_rule_takes_what_it_covers() {
        let prefix = |prefix: &str| serde_json::json!({"match": [{"uri": {"prefix": prefix}}]});
        let header = |prefix: &str| serde_json::json!({"match": [{"uri": {"prefix": prefix}, "headers": {"a": {"exact": "b"}}}]});
        let all = || serde_json::json!({});
        let two = || serde_json::json!({"match": [{"uri": {"exact": "/a/b"}}, {"uri": {"prefix": "/c"}}]});
        let elsewhere = || serde_json::json!({"match": [{"uri": {"prefix": "/a"}, "gateways": ["other"]}]});
        let delegating = || serde_json::json!({"match": [{"uri": {"prefix": "/a"}}], "delegate": {"name": "x"}});
        for (old, young, expected) in [
            // A catch-all goes behind everything, so only another catch-all is lost.
            (vec![all()], vec![prefix("/a"), all()], vec![1]),
            (vec![prefix("/")], vec![prefix("/a"), all()], vec![1]),
            (vec![prefix("/a")], vec![prefix("/a"), prefix("/ab"), prefix("/b")], vec![0, 1]),
            (vec![prefix("/a")], vec![header("/a/b")], vec![0]),
            (vec![header("/a")], vec![prefix("/a"), header("/ab")], vec![1]),
            (vec![prefix("/a")], vec![two()], vec![]),
            (vec![prefix("/a"), prefix("/c")], vec![two()], vec![0]),
            (vec![elsewhere()], vec![prefix("/a")], vec![]),
            (vec![delegating()], vec![prefix("/a")], vec![]),
        ] {
            let shown = format!("{old:?} {young:?}");
            let (old, young) = (service("old", old.into()), service("young", young.into()));
            let found = shadowed(&[&old, &young], ("default", "gw"));
            let found: Vec<_> = found.iter().map(|((object, index), _)| (object.meta.name.as_str(), *index)).collect();
            let expected: Vec<_> = expected.into_iter().map(|index| ("young", index)).collect();
            assert_eq!(found, expected, "{shown}");
        }
    }
}
