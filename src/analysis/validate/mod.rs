//! Which objects break the rules of their kind? Istio's own validation, so that what its API server refuses is refused
//! here too.

mod annotations;
mod authorization;
mod balancing;
mod destination_rule;
mod extensions;
mod faults;
mod gateway;
mod http_route;
mod names;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod selection;
mod service_entry;
mod sidecar;
mod telemetry;
mod traffic;
mod urls;
mod virtual_service;
mod workload;

pub(crate) use self::faults::Faults;

use crate::resource::extensions::{TrafficExtension, WasmPlugin};
use crate::resource::meta::{Kind, Object};
use crate::resource::networking::{
    DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use crate::resource::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::resource::telemetry::Telemetry;

/// A kind with rules.
pub(crate) trait Validate: Kind + Sized {
    /// Finds what is wrong or doubtful in the fields of the object.
    fn check(object: &Object<Self>, faults: &mut Faults);

    /// Everything that is wrong or doubtful in the object alone.
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        annotations::check(&object.meta, None, &mut faults);
        Self::check(object, &mut faults);
        faults
    }
}

impl Validate for Gateway {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        gateway::check(&object.meta.name, &object.spec, faults);
    }
}

impl Validate for VirtualService {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        virtual_service::check(&object.meta.namespace, &object.spec, faults);
    }
}

impl Validate for DestinationRule {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        destination_rule::check(&object.meta.namespace, &object.spec, faults);
    }
}

impl Validate for ServiceEntry {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        service_entry::check(&object.meta.namespace, &object.spec, faults);
    }
}

impl Validate for WorkloadEntry {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        workload::check_entry(&object.spec, faults);
    }
}

impl Validate for WorkloadGroup {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        workload::check_group(&object.spec, faults);
    }
}

impl Validate for Sidecar {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        sidecar::check(&object.meta.namespace, &object.spec, faults);
    }
}

impl Validate for ProxyConfig {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        proxy_config::check(&object.spec, faults);
    }
}

impl Validate for PeerAuthentication {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        peer_authentication::check(&object.spec, faults);
    }
}

impl Validate for RequestAuthentication {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        request_authentication::check(&object.spec, faults);
    }
}

impl Validate for AuthorizationPolicy {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        authorization::check(&object.spec, faults);
    }

    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        annotations::check(&object.meta, Some(object.spec.action), &mut faults);
        Self::check(object, &mut faults);
        faults
    }
}

impl Validate for Telemetry {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        telemetry::check(&object.spec, faults);
    }
}

impl Validate for WasmPlugin {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        extensions::check_wasm(&object.spec, faults);
    }
}

impl Validate for TrafficExtension {
    fn check(object: &Object<Self>, faults: &mut Faults) {
        extensions::check_traffic_extension(&object.spec, faults);
    }
}
