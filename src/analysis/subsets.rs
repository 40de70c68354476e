//! Which subsets do DestinationRules define for a host?

use std::collections::{HashMap, HashSet};

use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::settings::Settings;

/// The subsets of all DestinationRules by host.
pub(super) struct Subsets<'a> {
    by_host: HashMap<String, HashSet<&'a str>>,
    wildcards: Vec<String>,
}

impl<'a> Subsets<'a> {
    pub(super) fn new(resources: &'a ResourceSet, settings: &Settings) -> Self {
        let mut subsets = Subsets { by_host: HashMap::new(), wildcards: Vec::new() };
        for rule in &resources.destination_rules {
            let domain = &settings.gateway.cluster_domain;
            let name = host::fully_qualified(&rule.spec.host, &rule.meta.namespace, domain);
            if host::is_wildcard(&name) {
                subsets.wildcards.push(name.clone());
            }
            let names = rule.spec.subsets.iter().map(|subset| subset.name.as_str());
            subsets.by_host.entry(name).or_default().extend(names);
        }
        subsets
    }

    /// Whether a rule for the host, or for a wildcard that covers it, has the subset.
    pub(super) fn has(&self, name: &str, subset: &str) -> bool {
        let has = |host: &str| self.by_host.get(host).is_some_and(|names| names.contains(subset));
        has(name) || self.wildcards.iter().any(|wildcard| host::is_subset_of(name, wildcard) && has(wildcard))
    }
}
