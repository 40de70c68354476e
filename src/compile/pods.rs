//! Which Pod is behind an address, and what does it say of itself: labels, identity, place?

use std::collections::{BTreeMap, HashMap};

use super::index::is_subset;
use super::spiffe;
use crate::resource::ResourceSet;
use crate::resource::core::ObjectReference;
use crate::resource::meta::{Labels, Object};
use crate::resource::workloads::{Node, Pod};

/// The Pods of one generation, with the Nodes that they run on.
pub(super) struct Pods<'a> {
    /// By namespace and name.
    by_name: HashMap<&'a str, BTreeMap<&'a str, &'a Object<Pod>>>,
    by_address: HashMap<&'a str, &'a Object<Pod>>,
    nodes: HashMap<&'a str, &'a Object<Node>>,
}

/// A Pod and its Node, if that is known.
#[derive(Clone, Copy)]
pub(super) struct PodView<'a> {
    pub pod: &'a Object<Pod>,
    pub node: Option<&'a Object<Node>>,
}

impl<'a> Pods<'a> {
    pub(super) fn new(resources: &'a ResourceSet) -> Pods<'a> {
        let mut pods = Pods {
            by_name: HashMap::new(),
            by_address: HashMap::new(),
            nodes: resources.nodes.iter().map(|node| (node.meta.name.as_str(), &**node)).collect(),
        };
        for pod in &resources.pods {
            pods.by_name.entry(&pod.meta.namespace).or_default().insert(&pod.meta.name, pod);
            // Those in the network of their host share its address.
            if let Some(address) = pod.address().filter(|_| !pod.spec.host_network) {
                pods.by_address.insert(address, pod);
            }
        }
        pods
    }

    /// The Pod that an endpoint of `namespace` names, or else the one with its address.
    pub(super) fn find(&self, target: Option<&ObjectReference>, namespace: &str, address: &str) -> Option<PodView<'a>> {
        let pod = match target.filter(|target| target.kind == "Pod") {
            Some(target) => {
                let namespace = if target.namespace.is_empty() { namespace } else { &target.namespace };
                self.by_name.get(namespace)?.get(target.name.as_str())?
            }
            None => self.by_address.get(address)?,
        };
        Some(self.view(pod))
    }

    /// Those with all of these labels that are ready and have an address, by name.
    pub(super) fn ready(&self, namespace: &str, selector: &Labels) -> Vec<PodView<'a>> {
        let all = self.by_name.get(namespace).into_iter().flat_map(BTreeMap::values).copied();
        let serves =
            |pod: &&Object<Pod>| is_subset(selector, &pod.meta.labels) && pod.is_ready() && pod.address().is_some();
        all.filter(serves).map(|pod| self.view(pod)).collect()
    }

    fn view(&self, pod: &'a Object<Pod>) -> PodView<'a> {
        PodView { pod, node: self.nodes.get(pod.spec.node_name.as_str()).copied() }
    }
}

impl PodView<'_> {
    /// The identity of its service account, if it names one.
    pub(super) fn account(&self, domain: &str) -> Option<String> {
        spiffe::of(domain, &self.pod.meta.namespace, &self.pod.spec.service_account_name)
    }

    /// `region/zone/subzone`: as its label says, or its Node; empty if nobody says.
    pub(super) fn locality(&self) -> String {
        if let Some(written) = self.pod.meta.labels.get("istio-locality") {
            // Labels hold no slashes.
            return if written.contains('/') { written.clone() } else { written.replace('.', "/") };
        }
        let Some(node) = self.node else { return String::new() };
        let label = |names: &[&str]| names.iter().find_map(|name| node.meta.labels.get(*name)).map(String::as_str);
        let parts = [
            label(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
            label(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
            label(&["topology.istio.io/subzone"]),
        ];
        parts.map(Option::unwrap_or_default).join("/").trim_end_matches('/').to_owned()
    }
}
