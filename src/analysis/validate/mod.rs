//! Which objects break the rules of their kind? Istio's own validation, so that what its API server refuses is refused
//! here too.

mod balancing;
mod destination_rule;
mod faults;
mod gateway;
mod http_route;
mod names;
mod service_entry;
mod traffic;
mod virtual_service;

pub(crate) use self::faults::Faults;

use crate::resource::meta::{Kind, Object};
use crate::resource::networking::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};

/// A kind with rules.
pub(crate) trait Validate: Kind + Sized {
    /// Everything that is wrong or doubtful in the object alone.
    fn validate(object: &Object<Self>) -> Faults;
}

impl Validate for Gateway {
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        gateway::check(&object.meta.name, &object.spec, &mut faults);
        faults
    }
}

impl Validate for VirtualService {
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        virtual_service::check(&object.meta.namespace, &object.spec, &mut faults);
        faults
    }
}

impl Validate for DestinationRule {
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        destination_rule::check(&object.meta.namespace, &object.spec, &mut faults);
        faults
    }
}

impl Validate for ServiceEntry {
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        service_entry::check(&object.meta.namespace, &object.spec, &mut faults);
        faults
    }
}

impl Validate for WorkloadEntry {
    fn validate(object: &Object<Self>) -> Faults {
        let mut faults = Faults::default();
        service_entry::check_workload(&object.spec, &mut faults);
        faults
    }
}
