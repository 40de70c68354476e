//! What the user wrote: the words of Istio, Kubernetes and `limani.toml` as plain data, without behaviour.

pub(crate) mod codes;
pub(crate) mod core;
pub(crate) mod finding;
pub(crate) mod meta;
pub(crate) mod networking;
pub(crate) mod settings;

use std::sync::Arc;

use self::core::{EndpointSlice, Endpoints, Namespace, Secret, Service};
use self::meta::{Kind, Object};
use self::networking::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};

/// Everything that is in force by the configuration, kind by kind, in no particular order.
///
/// An object stands here once: of two with the same kind, namespace and name the source keeps the last good one.
/// Objects are shared between generations, so an unchanged file costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResourceSet {
    pub gateways: Vec<Arc<Object<Gateway>>>,
    pub virtual_services: Vec<Arc<Object<VirtualService>>>,
    pub destination_rules: Vec<Arc<Object<DestinationRule>>>,
    pub service_entries: Vec<Arc<Object<ServiceEntry>>>,
    pub workload_entries: Vec<Arc<Object<WorkloadEntry>>>,
    pub services: Vec<Arc<Object<Service>>>,
    pub endpoint_slices: Vec<Arc<Object<EndpointSlice>>>,
    pub endpoints: Vec<Arc<Object<Endpoints>>>,
    pub secrets: Vec<Arc<Object<Secret>>>,
    pub namespaces: Vec<Arc<Object<Namespace>>>,
}

macro_rules! kinds {
    ($($kind:ident),*) => { $(impl Kind for $kind { const NAME: &'static str = stringify!($kind); })* };
}

kinds!(
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    Service,
    EndpointSlice,
    Endpoints,
    Secret,
    Namespace
);
