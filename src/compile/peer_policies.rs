//! Which mutual TLS does a workload take? PeerAuthentications of the mesh, its namespace and itself, the nearest first.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{is_subset, sorted};
use crate::resource::meta::{Labels, Object};
use crate::resource::security::{MutualTlsMode, PeerAuthentication};

/// All PeerAuthentications by what they are for; of several for the same the oldest counts.
pub(super) struct PeerPolicies<'a> {
    mesh: Option<&'a Object<PeerAuthentication>>,
    namespaces: HashMap<&'a str, &'a Object<PeerAuthentication>>,
    /// Those with a selector, oldest first.
    workloads: HashMap<&'a str, Vec<&'a Object<PeerAuthentication>>>,
}

impl<'a> PeerPolicies<'a> {
    pub(super) fn new(policies: &'a [Arc<Object<PeerAuthentication>>], root_namespace: &str) -> PeerPolicies<'a> {
        let mut by_reach = PeerPolicies { mesh: None, namespaces: HashMap::new(), workloads: HashMap::new() };
        for policy in sorted(policies) {
            let namespace = policy.meta.namespace.as_str();
            match (selector(policy).is_some(), namespace == root_namespace) {
                (false, true) => by_reach.mesh = by_reach.mesh.or(Some(policy)),
                (false, false) => {
                    by_reach.namespaces.entry(namespace).or_insert(policy);
                }
                (true, false) => by_reach.workloads.entry(namespace).or_default().push(policy),
                // A selector in the root namespace chooses nobody (Istio).
                (true, true) => {}
            }
        }
        by_reach
    }

    /// The policies that can matter to workloads of a namespace.
    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = &'a Object<PeerAuthentication>> {
        let workloads = self.workloads.get(namespace).map(Vec::as_slice).unwrap_or_default();
        self.mesh.into_iter().chain(self.namespaces.get(namespace).copied()).chain(workloads.iter().copied())
    }

    /// What holds for a namespace as a whole.
    pub(super) fn of_namespace(&self, namespace: &str) -> MutualTlsMode {
        let own = self.namespaces.get(namespace).map(|policy| mode(policy));
        let of_mesh = self.mesh.map(mode);
        nearest([own, of_mesh]).unwrap_or(MutualTlsMode::Permissive)
    }

    /// What holds for one port of a workload.
    pub(super) fn of_port(&self, namespace: &str, labels: &Labels, port: u16) -> MutualTlsMode {
        let policies = self.workloads.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let chooses =
            |policy: &&&Object<PeerAuthentication>| selector(policy).is_some_and(|wanted| is_subset(wanted, labels));
        let own = policies.iter().find(chooses);
        let of_port = own.and_then(|policy| policy.spec.port_level_mtls.get(&port.to_string())).map(|port| port.mode);
        nearest([of_port, own.map(|policy| mode(policy))]).unwrap_or_else(|| self.of_namespace(namespace))
    }
}

fn selector(policy: &Object<PeerAuthentication>) -> Option<&Labels> {
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

fn mode(policy: &Object<PeerAuthentication>) -> MutualTlsMode {
    policy.spec.mtls.unwrap_or_default().mode
}

fn nearest(modes: [Option<MutualTlsMode>; 2]) -> Option<MutualTlsMode> {
    modes.into_iter().flatten().find(|mode| *mode != MutualTlsMode::Unset)
}

#[cfg(test)]
mod tests {
    use super::MutualTlsMode::{Disable, Permissive, Strict, Unset};
    use super::*;
    use crate::resource::meta::{Meta, Origin};
    use crate::resource::security::MutualTls;
    use crate::resource::selection::MatchLabels;

    fn labels(app: &str) -> Labels {
        Labels::from([("app".to_owned(), app.to_owned())])
    }

    fn policy(app: &str, mode: MutualTlsMode, port: Option<MutualTlsMode>) -> PeerAuthentication {
        let selector = (!app.is_empty()).then(|| MatchLabels { match_labels: labels(app) });
        PeerAuthentication {
            selector,
            mtls: Some(MutualTls { mode }),
            port_level_mtls: port.map(|mode| ("80".to_owned(), MutualTls { mode })).into_iter().collect(),
        }
    }

    #[test]
    fn the_nearest_policy_counts() {
        type Written = (&'static str, &'static str, &'static str, MutualTlsMode, Option<MutualTlsMode>);
        let cases: [(&str, &[Written], [MutualTlsMode; 3]); 7] = [
            ("none", &[], [Permissive, Permissive, Permissive]),
            ("mesh", &[("a", "root", "", Strict, None)], [Strict, Strict, Strict]),
            ("namespace", &[("a", "root", "", Strict, None), ("b", "app", "", Disable, None)], [Disable; 3]),
            ("unset", &[("a", "root", "", Strict, None), ("b", "app", "", Unset, None)], [Strict; 3]),
            (
                "workload",
                &[("a", "app", "", Disable, None), ("b", "app", "web", Strict, Some(Permissive))],
                [Disable, Permissive, Strict],
            ),
            ("port unset", &[("b", "app", "web", Strict, Some(Unset))], [Permissive, Strict, Strict]),
            (
                "the oldest, and no selector of the root",
                &[
                    ("b", "app", "web", Disable, None),
                    ("a", "app", "web", Strict, None),
                    ("c", "root", "web", Disable, None),
                ],
                [Permissive, Strict, Strict],
            ),
        ];
        for (case, written, expected) in cases {
            let object = |(name, namespace, app, mode, port): &Written| {
                let meta = Meta { name: (*name).to_owned(), namespace: (*namespace).to_owned(), ..Meta::default() };
                Arc::new(Object { meta, spec: policy(app, *mode, *port), origin: Origin::default() })
            };
            let objects: Vec<_> = written.iter().map(object).collect();
            let policies = PeerPolicies::new(&objects, "root");
            let of_port = |port| policies.of_port("app", &labels("web"), port);
            assert_eq!([policies.of_namespace("app"), of_port(80), of_port(81)], expected, "{case}");
        }
    }
}
