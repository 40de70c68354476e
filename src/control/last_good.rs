//! Which version of a refused object stays in force? The last one that was good.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::resource::ResourceSet;
use crate::resource::finding::{Finding, Location, Severity};
use crate::resource::meta::Object;

/// The code of the finding that tells of an older version in force.
pub(crate) const LAST_GOOD_STAYS: &str = "LIM0009";

/// Puts the last good version of every object that analysis refused back into `accepted`.
///
/// `gathered` is what was read, `accepted` what analysis left of it, `before` what was accepted the last time. An
/// object that is no longer written anywhere is not brought back.
pub(crate) fn keep(gathered: &ResourceSet, accepted: &mut ResourceSet, before: &ResourceSet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut kind = Keeper { findings: &mut findings };
    kind.keep("Gateway", &gathered.gateways, &mut accepted.gateways, &before.gateways);
    kind.keep("VirtualService", &gathered.virtual_services, &mut accepted.virtual_services, &before.virtual_services);
    kind.keep(
        "DestinationRule",
        &gathered.destination_rules,
        &mut accepted.destination_rules,
        &before.destination_rules,
    );
    kind.keep("ServiceEntry", &gathered.service_entries, &mut accepted.service_entries, &before.service_entries);
    kind.keep("WorkloadEntry", &gathered.workload_entries, &mut accepted.workload_entries, &before.workload_entries);
    kind.keep("Service", &gathered.services, &mut accepted.services, &before.services);
    kind.keep("EndpointSlice", &gathered.endpoint_slices, &mut accepted.endpoint_slices, &before.endpoint_slices);
    kind.keep("Endpoints", &gathered.endpoints, &mut accepted.endpoints, &before.endpoints);
    kind.keep("Secret", &gathered.secrets, &mut accepted.secrets, &before.secrets);
    kind.keep("Namespace", &gathered.namespaces, &mut accepted.namespaces, &before.namespaces);
    findings
}

struct Keeper<'a> {
    findings: &'a mut Vec<Finding>,
}

/// Namespace and name.
type Key<'a> = (&'a str, &'a str);

fn key<T>(object: &Object<T>) -> Key<'_> {
    (&object.meta.namespace, &object.meta.name)
}

impl Keeper<'_> {
    fn keep<T>(
        &mut self,
        kind: &str,
        gathered: &[Arc<Object<T>>],
        accepted: &mut Vec<Arc<Object<T>>>,
        before: &[Arc<Object<T>>],
    ) {
        if accepted.len() >= gathered.len() || before.is_empty() {
            return;
        }
        let in_force: HashSet<Key<'_>> = accepted.iter().map(|object| key(object)).collect();
        let older: HashMap<Key<'_>, &Arc<Object<T>>> = before.iter().map(|object| (key(object), object)).collect();
        let refused = gathered.iter().filter(|object| !in_force.contains(&key(object)));
        let kept: Vec<_> = refused.filter_map(|object| Some((object, Arc::clone(older.get(&key(object))?)))).collect();
        for (refused, old) in kept {
            self.findings.push(Finding {
                code: LAST_GOOD_STAYS,
                severity: Severity::Warning,
                object: format!("{kind} {}", refused.key()),
                location: Location { file: refused.origin.file.to_string(), line: refused.origin.line, column: 0 },
                message: "is refused; its last good version stays in force".into(),
                hint: String::new(),
            });
            accepted.push(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::core::Namespace;
    use crate::resource::meta::{Meta, Origin};

    fn namespace(name: &str, file: &str) -> Arc<Object<Namespace>> {
        let meta = Meta { name: name.into(), ..Meta::default() };
        let origin = Origin { file: file.into(), line: 3, ..Origin::default() };
        Arc::new(Object { meta, spec: Namespace::default(), origin })
    }

    fn set(namespaces: &[&Arc<Object<Namespace>>]) -> ResourceSet {
        ResourceSet {
            namespaces: namespaces.iter().map(|object| Arc::clone(object)).collect(),
            ..ResourceSet::default()
        }
    }

    #[test]
    fn a_refused_object_is_replaced_by_its_last_good_version() {
        let (good, bad, other) = (namespace("a", "old"), namespace("a", "new"), namespace("b", "b"));
        let removed = namespace("gone", "old");
        let mut accepted = set(&[&other]);
        let findings = keep(&set(&[&bad, &other]), &mut accepted, &set(&[&good, &removed, &other]));
        assert_eq!(accepted.namespaces.len(), 2);
        assert!(Arc::ptr_eq(&accepted.namespaces[1], &good));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].object, "Namespace /a");
        assert_eq!(findings[0].location.to_string(), "new:3");
    }

    #[test]
    fn a_refused_object_without_a_past_stays_out() {
        let (bad, other) = (namespace("a", "new"), namespace("b", "b"));
        let mut accepted = set(&[&other]);
        assert!(keep(&set(&[&bad, &other]), &mut accepted, &set(&[&other])).is_empty());
        assert_eq!(accepted.namespaces.len(), 1);
    }
}
