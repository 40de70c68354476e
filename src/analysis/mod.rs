//! What is wrong, doubtful or not yet in force in what the user wrote? One analyzer per question.

#[cfg(test)]
pub(crate) mod analyze_conformance;
mod analyzers;
mod certificate;
mod changes;
#[cfg(test)]
pub(crate) mod conformance;
mod hosts;
mod not_in_force;
#[cfg(test)]
mod properties;
mod reachability;
mod report;
mod rounds;
mod served;
mod subsets;
mod tls_servers;
mod validate;
mod workload;
mod world;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use self::report::is_suppressed;
use self::rounds::Rounds;
use self::validate::Validate;
use self::world::World;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::{Finding, Severity};
use crate::resource::meta::{Meta, Object};
use crate::resource::settings::Settings;

pub(crate) use self::world::{Look, View};

/// What analysis keeps between generations: the verdicts on unchanged objects, and the last good versions.
#[derive(Default)]
pub(crate) struct Memory {
    /// By the address of the object, which the verdict keeps alive.
    verdicts: HashMap<usize, Verdict>,
    rounds: Rounds,
    /// What the last run accepted.
    accepted: ResourceSet,
    /// What was looked at as a whole the last time.
    seen: ResourceSet,
}

/// What is to say about one object alone.
struct Verdict {
    _object: Arc<dyn Any + Send + Sync>,
    refused: bool,
    findings: Vec<Finding>,
}

/// The objects that may be compiled, and everything there is to say: `judge` and `survey` in one.
pub(crate) fn analyze(
    resources: &ResourceSet,
    settings: &Settings,
    look: Look,
    memory: &mut Memory,
) -> (ResourceSet, Vec<Finding>) {
    let (accepted, mut findings) = judge(resources, memory);
    findings.extend(survey(settings, look, memory));
    (accepted, findings)
}

/// What there is to say about the objects together that `judge` accepted last. It decides nothing, so nothing has to
/// wait for it.
pub(crate) fn survey(settings: &Settings, look: Look, memory: &mut Memory) -> Vec<Finding> {
    let findings = memory.rounds.analyze(&World::new(&memory.accepted, settings, look), &memory.seen);
    memory.seen = memory.accepted.clone();
    findings
}

/// The objects that may be compiled, and what there is to say about each alone. An object that breaks a rule of its
/// kind is left out, or stands there as it was when it was last accepted.
pub(crate) fn judge(resources: &ResourceSet, memory: &mut Memory) -> (ResourceSet, Vec<Finding>) {
    let last = std::mem::take(&mut memory.accepted);
    let mut desk = Desk { earlier: std::mem::take(&mut memory.verdicts), now: memory, findings: Vec::new() };
    let accepted = ResourceSet {
        gateways: desk.judge_all(&resources.gateways, &last.gateways, not_in_force::of_gateway),
        virtual_services: desk.judge_all(&resources.virtual_services, &last.virtual_services, |object| {
            let mut findings = reachability::analyze(object);
            findings.extend(not_in_force::of_virtual_service(object));
            findings
        }),
        destination_rules: desk.judge_all(
            &resources.destination_rules,
            &last.destination_rules,
            not_in_force::of_destination_rule,
        ),
        service_entries: desk.judge_all(
            &resources.service_entries,
            &last.service_entries,
            not_in_force::of_service_entry,
        ),
        workload_entries: desk.judge_all(&resources.workload_entries, &last.workload_entries, nothing),
        workload_groups: desk.judge_all(&resources.workload_groups, &last.workload_groups, nothing),
        sidecars: desk.judge_all(&resources.sidecars, &last.sidecars, nothing),
        proxy_configs: desk.judge_all(&resources.proxy_configs, &last.proxy_configs, nothing),
        peer_authentications: desk.judge_all(&resources.peer_authentications, &last.peer_authentications, nothing),
        request_authentications: desk.judge_all(
            &resources.request_authentications,
            &last.request_authentications,
            nothing,
        ),
        authorization_policies: desk.judge_all(
            &resources.authorization_policies,
            &last.authorization_policies,
            nothing,
        ),
        telemetries: desk.judge_all(&resources.telemetries, &last.telemetries, not_in_force::of_telemetry),
        wasm_plugins: desk.judge_all(&resources.wasm_plugins, &last.wasm_plugins, nothing),
        traffic_extensions: desk.judge_all(&resources.traffic_extensions, &last.traffic_extensions, nothing),
        ..resources.clone()
    };
    let findings = desk.findings;
    memory.accepted = accepted.clone();
    (accepted, findings)
}

/// Of these kinds there is no more to say than whether they keep their rules.
fn nothing<T>(_: &Object<T>) -> Vec<Finding> {
    Vec::new()
}

/// Judges objects one by one; those that were judged before are not judged again.
struct Desk<'a> {
    earlier: HashMap<usize, Verdict>,
    now: &'a mut Memory,
    findings: Vec<Finding>,
}

impl Desk<'_> {
    fn judge_all<T: Validate + Send + Sync + 'static>(
        &mut self,
        objects: &[Arc<Object<T>>],
        last: &[Arc<Object<T>>],
        more: impl Fn(&Object<T>) -> Vec<Finding>,
    ) -> Vec<Arc<Object<T>>> {
        let mut accepted = Vec::with_capacity(objects.len());
        for object in objects {
            let address = Arc::as_ptr(object).addr();
            let verdict = self.earlier.remove(&address).unwrap_or_else(|| verdict(object, &more));
            self.findings.extend(verdict.findings.iter().cloned());
            if !verdict.refused {
                accepted.push(object.clone());
            } else if let Some(good) = last.iter().find(|last| is_same(&last.meta, &object.meta)) {
                let message = "its last good version stays in force until its faults are corrected";
                self.findings.push(object.finding(&codes::KEPT_LAST_GOOD, "metadata.name", message));
                accepted.push(good.clone());
            }
            self.now.verdicts.insert(address, verdict);
        }
        accepted
    }
}

fn is_same(a: &Meta, b: &Meta) -> bool {
    a.name == b.name && a.namespace == b.namespace
}

fn verdict<T: Validate + Send + Sync + 'static>(
    object: &Arc<Object<T>>,
    more: impl Fn(&Object<T>) -> Vec<Finding>,
) -> Verdict {
    let faults = T::validate(object);
    let refused = !faults.errors.is_empty();
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(
        faults
            .errors
            .iter()
            .map(|fault| object.finding(&codes::SCHEMA, &fault.path, format!("{}: {}", fault.path, fault.message))),
    );
    findings.extend(faults.warnings.iter().map(|fault| {
        object.finding(&codes::SCHEMA_WARNING, &fault.path, format!("{}: {}", fault.path, fault.message))
    }));
    if !refused {
        findings.extend(more(object));
    }
    findings.retain(|finding| finding.severity == Severity::Error || !is_suppressed(&object.meta, finding.code));
    Verdict { _object: object.clone(), refused, findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::meta::Origin;
    use crate::resource::networking::{Gateway, WorkloadEntry};

    #[test]
    fn a_bad_object_is_left_out_and_an_unchanged_one_is_judged_once() {
        let meta = Meta { name: "gw".into(), namespace: "default".into(), ..Meta::default() };
        let object = Arc::new(Object { meta, spec: Gateway::default(), origin: Origin::default() });
        let resources = ResourceSet { gateways: vec![object.clone()], ..ResourceSet::default() };
        let mut memory = Memory::default();
        for _ in 0..2 {
            let (accepted, findings) = analyze(&resources, &Settings::default(), Look::default(), &mut memory);
            assert!(accepted.gateways.is_empty());
            let text: Vec<_> = findings.iter().map(ToString::to_string).collect();
            assert_eq!(text, ["error [IST0106] Gateway default/gw: spec.servers: a Gateway needs at least one server"]);
        }
        assert_eq!(memory.verdicts.len(), 1);
        analyze(&ResourceSet::default(), &Settings::default(), Look::default(), &mut memory);
        assert!(memory.verdicts.is_empty());
    }

    #[test]
    fn a_bad_version_leaves_the_last_good_one_in_force() {
        let version = |address: &str| {
            let meta = Meta { name: "vm".into(), namespace: "default".into(), ..Meta::default() };
            let spec = WorkloadEntry { address: address.into(), ..WorkloadEntry::default() };
            ResourceSet {
                workload_entries: vec![Arc::new(Object { meta, spec, origin: Origin::default() })],
                ..ResourceSet::default()
            }
        };
        let mut memory = Memory::default();
        for (written, in_force, kept) in [
            ("", None, 0),
            ("10.0.0.1", Some("10.0.0.1"), 0),
            ("", Some("10.0.0.1"), 1),
            ("", Some("10.0.0.1"), 1),
            ("10.0.0.2", Some("10.0.0.2"), 0),
        ] {
            let (accepted, findings) = analyze(&version(written), &Settings::default(), Look::default(), &mut memory);
            assert_eq!(accepted.workload_entries.first().map(|entry| entry.spec.address.as_str()), in_force);
            assert_eq!(findings.iter().filter(|found| found.code == codes::KEPT_LAST_GOOD.id).count(), kept);
        }
        analyze(&ResourceSet::default(), &Settings::default(), Look::default(), &mut memory);
        let (accepted, _) = analyze(&version(""), &Settings::default(), Look::default(), &mut memory);
        assert!(accepted.workload_entries.is_empty(), "what was removed does not come back");
    }
}
