//! What does a service offer: which ports, with which protocols?

use std::borrow::Cow;

use super::protocol::Protocol;
use crate::resource::core::{IntOrString, Service};
use crate::resource::meta::Object;
use crate::resource::networking::{Location, ServiceEntry};
use crate::resource::settings::HostAddress;

/// One service as clusters see it, whatever kind it was written as.
pub(super) struct ServiceView<'a> {
    pub host: Cow<'a, str>,
    pub namespace: &'a str,
    pub source: ServiceSource<'a>,
    /// The place in the order of all services.
    pub place: usize,
}

/// Where a service was written.
pub(super) enum ServiceSource<'a> {
    Kubernetes(&'a Object<Service>),
    /// All ServiceEntries of one namespace with this host, oldest first.
    Entries(Vec<&'a Object<ServiceEntry>>),
    /// Only `[hosts]` of the settings knows it: it has every port.
    Named(&'a [HostAddress]),
}

/// One port of a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PortView<'a> {
    pub number: u16,
    pub name: &'a str,
    pub protocol: Protocol,
    /// The port of endpoints that name none.
    pub target: u16,
}

impl<'a> ServiceView<'a> {
    /// `web` of `web.shop.svc.cluster.local`; the whole host of others.
    pub(super) fn short_name(&self) -> &str {
        match &self.source {
            ServiceSource::Kubernetes(service) => &service.meta.name,
            _ => &self.host,
        }
    }

    /// The target of an ExternalName Service.
    pub(super) fn external_name(&self) -> Option<&'a str> {
        match &self.source {
            ServiceSource::Kubernetes(service) if service.spec.kind == "ExternalName" => {
                Some(&service.spec.external_name)
            }
            _ => None,
        }
    }

    /// Whether its clients are to use near endpoints.
    pub(super) fn prefers_close(&self) -> bool {
        let annotations = match &self.source {
            ServiceSource::Kubernetes(service) => Some(&service.meta.annotations),
            ServiceSource::Entries(entries) => entries.first().map(|entry| &entry.meta.annotations),
            ServiceSource::Named(_) => None,
        };
        let word = annotations.and_then(|annotations| annotations.get("networking.istio.io/traffic-distribution"));
        word.is_some_and(|word| word == "PreferClose" || word == "PreferSameZone")
    }

    /// Whether it belongs to the mesh (ServiceEntry.location); what only the settings know does not.
    pub(super) fn is_in_mesh(&self) -> bool {
        match &self.source {
            ServiceSource::Kubernetes(_) => true,
            ServiceSource::Entries(entries) => {
                entries.first().is_some_and(|entry| entry.spec.location == Location::MeshInternal)
            }
            ServiceSource::Named(_) => false,
        }
    }

    pub(super) fn entries_mut(&mut self) -> Option<&mut Vec<&'a Object<ServiceEntry>>> {
        match &mut self.source {
            ServiceSource::Entries(entries) => Some(entries),
            _ => None,
        }
    }

    /// The addresses of the objects that it is made of.
    pub(super) fn addresses(&self) -> Vec<usize> {
        match &self.source {
            ServiceSource::Kubernetes(service) => vec![std::ptr::from_ref(*service).addr()],
            ServiceSource::Entries(entries) => entries.iter().map(|entry| std::ptr::from_ref(*entry).addr()).collect(),
            ServiceSource::Named(_) => vec![0],
        }
    }

    /// The port with a number.
    pub(super) fn port(&self, number: u16) -> Option<PortView<'a>> {
        match &self.source {
            ServiceSource::Named(_) => {
                Some(PortView { number, name: "http", protocol: Protocol::Http, target: number })
            }
            _ => self.ports().find(|port| port.number == number),
        }
    }

    /// The number of the only port.
    pub(super) fn single_port(&self) -> Option<u16> {
        if let ServiceSource::Named([address, ..]) = &self.source {
            return address.port;
        }
        let mut ports = self.ports();
        let first = ports.next()?;
        ports.all(|other| other.number == first.number).then_some(first.number)
    }

    pub(super) fn ports(&self) -> Box<dyn Iterator<Item = PortView<'a>> + '_> {
        match &self.source {
            ServiceSource::Kubernetes(service) => Box::new(service.spec.ports.iter().filter_map(kubernetes_port)),
            ServiceSource::Entries(entries) => Box::new(entries.iter().flat_map(|entry| {
                entry.spec.ports.iter().filter_map(|port| {
                    let number = u16::try_from(port.number).ok()?;
                    let target = u16::try_from(port.target_port).ok().filter(|target| *target > 0).unwrap_or(number);
                    Some(PortView { number, name: &port.name, protocol: Protocol::parse(&port.protocol), target })
                })
            })),
            ServiceSource::Named(_) => Box::new(std::iter::empty()),
        }
    }
}

fn kubernetes_port(port: &crate::resource::core::ServicePort) -> Option<PortView<'_>> {
    let number = u16::try_from(port.port).ok()?;
    let target = match &port.target_port {
        Some(IntOrString::Int(target)) => u16::try_from(*target).ok().filter(|target| *target > 0).unwrap_or(number),
        Some(IntOrString::String(text)) => text.parse().unwrap_or(number),
        None => number,
    };
    let protocol = Protocol::of_service_port(&port.app_protocol, &port.name, &port.protocol);
    Some(PortView { number, name: &port.name, protocol, target })
}
