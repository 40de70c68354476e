//! Which DestinationRule holds for a service, and what does it say for one port and subset?

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{is_subset, or_default};
use crate::base::host;
use crate::resource::meta::Object;
use crate::resource::networking::{
    ClientTls, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection, ProxyProtocol,
    RetryBudget, Subset, TcpPool, TrafficPolicy, TunnelSettings,
};
use crate::resource::settings::Settings;

/// All rules by namespace and host.
pub(super) struct Rules<'a> {
    settings: &'a Settings,
    by_namespace: HashMap<&'a str, HostRules<'a>>,
}

/// The rules of one namespace, oldest first under each host.
#[derive(Default)]
struct HostRules<'a> {
    exact: HashMap<String, Vec<&'a Object<DestinationRule>>>,
    wildcards: HashMap<String, Vec<&'a Object<DestinationRule>>>,
}

/// The rules of one host that are merged: subsets are united, the first trafficPolicy counts.
pub(super) struct MergedRule<'a>(Vec<&'a Object<DestinationRule>>);

/// What is in force for one port and subset.
#[derive(Clone, Copy, Default)]
pub(super) struct Policy<'a> {
    pub load_balancer: Option<&'a LoadBalancerSettings>,
    pub connection_pool: Option<&'a ConnectionPoolSettings>,
    pub tls: Option<&'a ClientTls>,
    pub outlier: Option<&'a OutlierDetection>,
    pub tunnel: Option<&'a TunnelSettings>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(rules: &'a [Arc<Object<DestinationRule>>], settings: &'a Settings) -> Rules<'a> {
        let mut by_namespace: HashMap<&'a str, HostRules<'a>> = HashMap::new();
        for rule in super::index::sorted(rules) {
            let name = host::fully_qualified(&rule.spec.host, &rule.meta.namespace, &settings.gateway.cluster_domain);
            let hosts = by_namespace.entry(&rule.meta.namespace).or_default();
            let list = if host::is_wildcard(&name) { &mut hosts.wildcards } else { &mut hosts.exact };
            list.entry(name).or_default().push(rule);
        }
        Rules { settings, by_namespace }
    }

    /// The rule of a service: the first namespace that has one decides (the gateway's, the service's, the root).
    pub(super) fn find(&self, service_host: &str, service_namespace: &str) -> Option<MergedRule<'a>> {
        let (ours, root) = (self.settings.gateway.namespace.as_str(), self.settings.gateway.root_namespace.as_str());
        let private = |rule: &Object<DestinationRule>| {
            let words = self.export_to(rule);
            rule.spec.workload_selector.is_some() || matches!(words, [word] if word == "." || word == root)
        };
        let own = match ours == root {
            true => self.find_in(ours, service_host, |rule| self.reaches_us(rule) && private(rule)),
            false => self.find_in(ours, service_host, |rule| self.reaches_us(rule)),
        };
        own.or_else(|| self.find_in(service_namespace, service_host, |rule| self.reaches_us(rule)))
            .or_else(|| self.find_in(root, service_host, |rule| self.reaches_us(rule)))
    }

    fn export_to<'r>(&'r self, rule: &'r Object<DestinationRule>) -> &'r [String] {
        or_default(&rule.spec.export_to, &self.settings.mesh.destination_rule_export_to)
    }

    fn reaches_us(&self, rule: &Object<DestinationRule>) -> bool {
        let ours = &self.settings.gateway.namespace;
        if let Some(selector) = &rule.spec.workload_selector {
            return rule.meta.namespace == *ours && is_subset(&selector.match_labels, &self.settings.gateway.labels);
        }
        let words = self.export_to(rule);
        let named = |word: &String| word == "*" || word == ours || (word == "." && rule.meta.namespace == *ours);
        words.is_empty() || words.iter().any(named)
    }

    fn find_in(
        &self,
        namespace: &str,
        service_host: &str,
        usable: impl Fn(&Object<DestinationRule>) -> bool,
    ) -> Option<MergedRule<'a>> {
        let hosts = self.by_namespace.get(namespace)?;
        let merged = |rules: &Vec<&'a Object<DestinationRule>>| {
            let usable: Vec<_> = rules.iter().copied().filter(|rule| usable(rule)).collect();
            merge(&usable)
        };
        if let Some(found) = hosts.exact.get(service_host).and_then(merged) {
            return Some(found);
        }
        let mut wildcards: Vec<_> =
            hosts.wildcards.iter().filter(|(name, _)| host::is_subset_of(service_host, name)).collect();
        wildcards.sort_by(|a, b| host::by_specificity(a.0, b.0));
        wildcards.into_iter().find_map(|(_, rules)| merged(rules))
    }
}

/// A rule with a workloadSelector stands alone and comes first; others merge with those of the same `exportTo`.
fn merge<'a>(rules: &[&'a Object<DestinationRule>]) -> Option<MergedRule<'a>> {
    if let Some(selected) = rules.iter().find(|rule| rule.spec.workload_selector.is_some()) {
        return Some(MergedRule(vec![selected]));
    }
    let first = rules.first()?;
    let alike = rules.iter().filter(|rule| rule.spec.export_to == first.spec.export_to).copied().collect();
    Some(MergedRule(alike))
}

impl<'a> MergedRule<'a> {
    /// The rules that are merged.
    pub(super) fn objects(&self) -> impl Iterator<Item = &'a Object<DestinationRule>> {
        self.0.iter().copied()
    }

    /// The rule and the first definition of a subset.
    pub(super) fn subset(&self, name: &str) -> Option<(&'a Object<DestinationRule>, &'a Subset)> {
        let all = self.0.iter().flat_map(|rule| rule.spec.subsets.iter().map(move |subset| (*rule, subset)));
        all.into_iter().find(|(_, subset)| subset.name == name)
    }

    /// Every subset's name once.
    pub(super) fn subset_names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for subset in self.0.iter().flat_map(|rule| &rule.spec.subsets) {
            if !names.contains(&subset.name.as_str()) {
                names.push(&subset.name);
            }
        }
        names
    }

    /// `connectionPool.tcp` of the top level, which is all that counts for how long a connection may last.
    pub(super) fn tcp_pool(&self) -> Option<&'a TcpPool> {
        self.traffic_policy()?.connection_pool.as_ref()?.tcp.as_ref()
    }

    /// The trafficPolicy that counts.
    pub(super) fn traffic_policy(&self) -> Option<&'a TrafficPolicy> {
        self.0.iter().find_map(|rule| rule.spec.traffic_policy.as_ref())
    }

    /// The rule whose trafficPolicy counts, for findings.
    pub(super) fn object(&self) -> Option<&'a Object<DestinationRule>> {
        let with_policy = self.0.iter().find(|rule| rule.spec.traffic_policy.is_some());
        with_policy.or(self.0.first()).copied()
    }

    /// Port settings replace the whole top level; a subset replaces block by block.
    pub(super) fn policy(&self, port: u16, subset: Option<&'a Subset>) -> Policy<'a> {
        let top = self.traffic_policy();
        let mut policy = Policy::default();
        if let Some(top) = top {
            policy = match top.port_level_settings.iter().find(|p| p.port.is_some_and(|p| p.number == u32::from(port)))
            {
                Some(own) => Policy {
                    load_balancer: own.load_balancer.as_ref(),
                    connection_pool: own.connection_pool.as_ref(),
                    tls: own.tls.as_ref(),
                    outlier: own.outlier_detection.as_ref(),
                    ..Policy::default()
                },
                None => Policy {
                    load_balancer: top.load_balancer.as_ref(),
                    connection_pool: top.connection_pool.as_ref(),
                    tls: top.tls.as_ref(),
                    outlier: top.outlier_detection.as_ref(),
                    tunnel: top.tunnel.as_ref(),
                    proxy_protocol: top.proxy_protocol,
                    retry_budget: top.retry_budget.as_ref(),
                },
            };
        }
        let Some(special) = subset.and_then(|subset| subset.traffic_policy.as_ref()) else { return policy };
        policy.tunnel = special.tunnel.as_ref().or(policy.tunnel);
        policy.proxy_protocol = special.proxy_protocol.or(policy.proxy_protocol);
        policy.retry_budget = special.retry_budget.as_ref().or(policy.retry_budget);
        match special.port_level_settings.iter().find(|p| p.port.is_some_and(|p| p.number == u32::from(port))) {
            Some(own) => Policy {
                load_balancer: own.load_balancer.as_ref(),
                connection_pool: own.connection_pool.as_ref(),
                tls: own.tls.as_ref(),
                outlier: own.outlier_detection.as_ref(),
                ..policy
            },
            None => Policy {
                load_balancer: special.load_balancer.as_ref().or(policy.load_balancer),
                connection_pool: special.connection_pool.as_ref().or(policy.connection_pool),
                tls: special.tls.as_ref().or(policy.tls),
                outlier: special.outlier_detection.as_ref().or(policy.outlier),
                ..policy
            },
        }
    }
}
