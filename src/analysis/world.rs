//! What exists, by name? Built once for a run; every analyzer looks here instead of going through all objects.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::hosts::Hosts;
use super::served::Served;
use super::subsets::Subsets;
use super::workload::{Workload, workloads};
use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::gateway_api::KubernetesGateway;
use crate::resource::meta::{Labels, Meta, Object};
use crate::resource::networking::{Gateway, VirtualService};
use crate::resource::settings::Settings;

/// How are the manifests to be taken?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum View {
    /// As what one gateway was given: what it does not need may be missing, and what is of no concern to it is not
    /// told.
    #[default]
    Gateway,
    /// As a whole cluster: what is not there does not exist, as istioctl analyze takes them.
    Cluster,
}

/// How and when it is looked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub view: View,
    /// In seconds since 1970; certificates are judged by it.
    pub now: i64,
}

/// The objects of one run by the names under which they are looked up; what nobody asks for is not gathered.
pub(super) struct World<'a> {
    pub look: Look,
    pub resources: &'a ResourceSet,
    pub settings: &'a Settings,
    /// Every Pod, and this gateway.
    pub workloads: Vec<Workload<'a>>,
    hosts: OnceCell<Hosts<'a>>,
    subsets: OnceCell<Subsets<'a>>,
    gateways: OnceCell<HashMap<Name<'a>, &'a Arc<Object<Gateway>>>>,
    kubernetes_gateways: OnceCell<HashMap<Name<'a>, &'a Object<KubernetesGateway>>>,
    served: OnceCell<HashMap<Name<'a>, Served<'a>>>,
}

/// Namespace and name.
pub(super) type Name<'a> = (&'a str, &'a str);

impl<'a> World<'a> {
    pub(super) fn new(resources: &'a ResourceSet, settings: &'a Settings, look: Look) -> Self {
        World {
            look,
            resources,
            settings,
            workloads: workloads(resources, settings),
            hosts: OnceCell::new(),
            subsets: OnceCell::new(),
            gateways: OnceCell::new(),
            kubernetes_gateways: OnceCell::new(),
            served: OnceCell::new(),
        }
    }

    /// The hosts that exist.
    pub(super) fn hosts(&self) -> &Hosts<'a> {
        self.hosts.get_or_init(|| Hosts::new(self.resources, self.settings))
    }

    /// The subsets that exist.
    pub(super) fn subsets(&self) -> &Subsets<'a> {
        self.subsets.get_or_init(|| Subsets::new(self.resources, self.settings))
    }

    /// The Gateway of that name, which may be `namespace/name`.
    pub(super) fn gateway(&self, name: &str, namespace: &str) -> Option<&'a Arc<Object<Gateway>>> {
        let gather = || self.resources.gateways.iter().map(|gateway| (identity(gateway), gateway)).collect();
        self.gateways.get_or_init(gather).get(&full_name(name, namespace)).copied()
    }

    /// The Gateway of the Gateway API of that name.
    pub(super) fn kubernetes_gateway(&self, name: &str, namespace: &str) -> Option<&'a Object<KubernetesGateway>> {
        let all = self.resources.kubernetes_gateways.iter();
        let gathered = self.kubernetes_gateways.get_or_init(|| all.map(|it| (identity(it), &**it)).collect());
        gathered.get(&full_name(name, namespace)).copied()
    }

    /// The hosts of a Gateway.
    pub(super) fn served(&self, gateway: &'a Object<Gateway>) -> Option<&Served<'a>> {
        let all = self.resources.gateways.iter();
        self.served.get_or_init(|| all.map(|it| (identity(it), Served::new(it))).collect()).get(&identity(gateway))
    }

    /// The Gateways that a VirtualService names and that exist.
    pub(super) fn gateways_of(&self, service: &Object<VirtualService>) -> Vec<&'a Arc<Object<Gateway>>> {
        let names = service.spec.gateways.iter();
        names.filter_map(|name| self.gateway(name, &service.meta.namespace)).collect()
    }

    /// Whether a workload that is not there does not exist: a gateway is usually given no Pods at all.
    pub(super) fn knows_workloads(&self) -> bool {
        self.look.view == View::Cluster || !self.resources.pods.is_empty()
    }

    /// The workloads that a selector chooses, in every namespace.
    pub(super) fn chosen(&self, selector: &Labels) -> impl Iterator<Item = &Workload<'a>> {
        self.workloads.iter().filter(|workload| is_part(selector, workload.labels))
    }

    /// Whether a selector chooses this gateway.
    pub(super) fn is_ours(&self, selector: &Labels) -> bool {
        is_part(selector, &self.settings.gateway.labels)
    }

    /// A host with its domain: short names are those of the object's namespace.
    pub(super) fn qualify(&self, name: &str, namespace: &str) -> String {
        host::fully_qualified(name, namespace, &self.settings.gateway.cluster_domain)
    }
}

/// Namespace and name, as objects are looked up.
pub(super) fn identity<T>(object: &Object<T>) -> Name<'_> {
    (&object.meta.namespace, &object.meta.name)
}

/// `namespace/name`, or the name in the namespace of whoever says it.
pub(super) fn full_name<'n>(name: &'n str, namespace: &'n str) -> Name<'n> {
    name.split_once('/').unwrap_or((namespace, name))
}

/// Whether every label of `selector` is among `labels`; an empty selector chooses everything.
pub(super) fn is_part(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// A selector as messages show it: `a=b,c=d`.
pub(super) fn show_selector(selector: &Labels) -> String {
    let pairs: Vec<String> = selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

/// Names of several objects as messages show them, in alphabetic order.
pub(super) fn show_names<'n>(objects: impl IntoIterator<Item = &'n Meta>) -> String {
    let mut names: Vec<String> = objects.into_iter().map(|meta| format!("{}/{}", meta.namespace, meta.name)).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}
