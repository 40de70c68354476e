//! What does a workload see of the mesh? The services and VirtualServices of each of its egress listeners (Istio
//! Sidecar.egress); without a Sidecar there is one listener for everything.

use std::collections::{HashMap, HashSet};

use super::super::index::{Index, is_subset, sorted};
use super::super::protocol::Protocol;
use super::super::services::{PortView, ServiceView};
use crate::base::host;
use crate::resource::ResourceSet;
use crate::resource::meta::{Labels, Object};
use crate::resource::networking::{Destination, EgressListener, OutboundMode, Sidecar, VirtualService};
use crate::resource::settings::{self, Settings};

/// Everything that the workload may ask for.
pub(super) struct Scope<'a> {
    pub listeners: Vec<Egress<'a>>,
    pub strangers: Strangers<'a>,
}

/// What becomes of requests that no service is known for (Istio outboundTrafficPolicy).
#[derive(Clone, Copy)]
pub(super) enum Strangers<'a> {
    /// They reach the address that was asked for.
    Pass,
    Refuse,
    /// All of them go to one destination, named in an object of this namespace.
    Send(&'a Destination, &'a str),
}

/// One egress listener with what was imported for it.
pub(super) struct Egress<'a> {
    /// `None` where no Sidecar says anything.
    pub written: Option<&'a EgressListener>,
    /// One for each host name.
    pub services: Vec<Imported<'a>>,
    /// Bound to `mesh`, in the order of precedence.
    pub virtual_services: Vec<&'a Object<VirtualService>>,
}

/// A service, with the names of ExternalName Services that stand for it.
pub(super) struct Imported<'a> {
    pub view: &'a ServiceView<'a>,
    pub aliases: Vec<String>,
    /// Only this port is imported.
    only: Option<u16>,
}

impl<'a> Imported<'a> {
    pub(super) fn host(&self) -> &'a str {
        &self.view.host
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = PortView<'a>> + '_ {
        let mut seen = HashSet::new();
        let wanted = move |port: &PortView<'_>| self.only.is_none_or(|only| only == port.number);
        self.view.ports().filter(wanted).filter(move |port| seen.insert(port.number))
    }
}

impl Egress<'_> {
    /// The listener's own port; `None` for the one that takes every port of its services.
    pub(super) fn port(&self) -> Option<u16> {
        let number = self.written?.port.as_ref()?.number;
        u16::try_from(number).ok().filter(|number| *number > 0)
    }

    /// Whether clients speak to it as to an HTTP proxy.
    pub(super) fn is_http_proxy(&self) -> bool {
        let port = self.written.and_then(|written| written.port.as_ref());
        port.is_some_and(|port| port.protocol.eq_ignore_ascii_case("HTTP_PROXY"))
    }

    /// The protocol that the listener's port names.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        Some(Protocol::parse(&self.written?.port.as_ref()?.protocol))
    }
}

/// The scope of the workload that `settings.gateway` describes.
pub(super) fn of_workload<'a>(index: &'a Index<'a>, resources: &'a ResourceSet) -> Scope<'a> {
    let settings = index.settings;
    let sidecar = select(resources, settings);
    let written = sidecar.map(|sidecar| sidecar.spec.egress.as_slice()).unwrap_or_default();
    let world = World::new(index);
    let listeners = match written {
        [] => vec![world.egress(None)],
        written => written.iter().map(|listener| world.egress(Some(listener))).collect(),
    };
    Scope { listeners, strangers: strangers(sidecar, settings) }
}

/// The Sidecar's word, else the mesh's.
fn strangers<'a>(sidecar: Option<&'a Object<Sidecar>>, settings: &Settings) -> Strangers<'a> {
    let own = sidecar.and_then(|sidecar| Some((sidecar, sidecar.spec.outbound_traffic_policy.as_ref()?)));
    match (own, settings.mesh.outbound) {
        (Some((sidecar, policy)), _) if policy.mode == OutboundMode::AllowAny => match &policy.egress_proxy {
            Some(proxy) => Strangers::Send(proxy, &sidecar.meta.namespace),
            None => Strangers::Pass,
        },
        (Some(_), _) | (None, settings::OutboundMode::RegistryOnly) => Strangers::Refuse,
        (None, settings::OutboundMode::AllowAny) => Strangers::Pass,
    }
}

/// The oldest Sidecar of the workload's namespace that selects it, else the oldest that selects all, else that of the
/// root namespace.
fn select<'a>(resources: &'a ResourceSet, settings: &Settings) -> Option<&'a Object<Sidecar>> {
    let all = sorted(&resources.sidecars);
    let of = |namespace: &str, wanted: &dyn Fn(Option<&Labels>) -> bool| {
        all.iter().copied().find(|sidecar| {
            let selector = sidecar.spec.workload_selector.as_ref().map(|selector| &selector.labels);
            sidecar.meta.namespace == namespace && wanted(selector)
        })
    };
    let ours = &settings.gateway;
    of(&ours.namespace, &|selector| selector.is_some_and(|wanted| is_subset(wanted, &ours.labels)))
        .or_else(|| of(&ours.namespace, &|selector| selector.is_none()))
        .or_else(|| of(&ours.root_namespace, &|selector| selector.is_none()))
}

/// What is exported to the workload's namespace.
struct World<'a> {
    index: &'a Index<'a>,
    services: Vec<&'a ServiceView<'a>>,
    /// By the service that they stand for.
    aliases: HashMap<String, Vec<String>>,
}

impl<'a> World<'a> {
    fn new(index: &'a Index<'a>) -> World<'a> {
        let mut world = World { index, services: Vec::new(), aliases: HashMap::new() };
        for view in index.all_services() {
            let target = index.resolve_alias(&view.host);
            if target == *view.host {
                world.services.push(view);
            } else if !index.services(&target).is_empty() {
                world.aliases.entry(target).or_default().push(view.host.to_string());
            }
        }
        world
    }

    fn egress(&self, written: Option<&'a EgressListener>) -> Egress<'a> {
        let ours = self.index.settings.gateway.namespace.as_str();
        let imports = written.map(|written| Imports::new(&written.hosts, ours));
        let mut egress = Egress { written, services: Vec::new(), virtual_services: Vec::new() };
        egress.services = self.services(imports.as_ref(), &egress);
        let bound = self.index.bound_to("mesh").iter().map(|object| &***object);
        egress.virtual_services = bound
            .filter(|object: &&Object<VirtualService>| {
                imports.as_ref().is_none_or(|imports| {
                    object.spec.hosts.iter().any(|name| {
                        let name = self.index.qualify(name, &object.meta.namespace);
                        imports.hold_virtual_service(&object.meta.namespace, &name)
                    })
                })
            })
            .collect();
        egress
    }

    /// One service for each host: that of the workload's namespace, else the first.
    fn services(&self, imports: Option<&Imports<'_>>, egress: &Egress<'_>) -> Vec<Imported<'a>> {
        let ours = self.index.settings.gateway.namespace.as_str();
        let only = egress.port().filter(|_| !egress.is_http_proxy());
        let holds = |namespace: &str, host: &str| imports.is_none_or(|imports| imports.hold_service(namespace, host));
        let mut chosen: Vec<&'a ServiceView<'a>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for view in self.services.iter().copied() {
            let has_port = only.is_none_or(|only| view.port(only).is_some());
            if !has_port || !holds(view.namespace, &view.host) {
                continue;
            }
            match places.get(&*view.host).and_then(|place| chosen.get_mut(*place)) {
                Some(other) if view.namespace == ours && other.namespace != ours => *other = view,
                Some(_) => {}
                None => {
                    places.insert(&view.host, chosen.len());
                    chosen.push(view);
                }
            }
        }
        let aliases = |view: &ServiceView<'_>| -> Vec<String> {
            let all = self.aliases.get(&*view.host).into_iter().flatten();
            all.filter(|alias| holds(view.namespace, alias)).cloned().collect()
        };
        chosen.into_iter().map(|view| Imported { view, aliases: aliases(view), only }).collect()
    }
}

/// `hosts` of an egress listener, as namespace and name.
struct Imports<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Imports<'a> {
    fn new(hosts: &'a [String], ours: &'a str) -> Imports<'a> {
        let split = |host: &'a String| {
            let (namespace, name) = host.split_once('/')?;
            Some((if namespace == "." { ours } else { namespace }, name))
        };
        Imports(hosts.iter().filter_map(split).collect())
    }

    /// A service is imported if its whole name is meant.
    fn hold_service(&self, namespace: &str, host: &str) -> bool {
        self.hold(namespace, |name| name == "*" || host::is_subset_of(host, name))
    }

    /// A VirtualService is imported if one of its hosts and an imported one can mean the same name.
    fn hold_virtual_service(&self, namespace: &str, host: &str) -> bool {
        self.hold(namespace, |name| name == "*" || host::matches(host, name))
    }

    /// `~name` takes away what others give.
    fn hold(&self, namespace: &str, means: impl Fn(&str) -> bool) -> bool {
        let excluded = self.0.iter().any(|(of, name)| of.strip_prefix('~') == Some(namespace) && means(name));
        !excluded && self.0.iter().any(|(of, name)| (*of == "*" || *of == namespace) && means(name))
    }
}

/// For each service that a wildcard host of a VirtualService means: the VirtualService that it belongs to. An exact
/// host comes before wildcards, the longer one before the shorter, the older object before the younger.
pub(super) fn owners<'a>(
    virtual_services: &[(&'a Object<VirtualService>, Vec<String>)],
    services: &[&str],
) -> HashMap<String, &'a Object<VirtualService>> {
    let mut owners = HashMap::new();
    for service in services {
        let claims = virtual_services.iter().flat_map(|(object, hosts)| {
            let meant = hosts.iter().filter(|name| host::matches(name, service));
            meant.map(move |name| (name, *object))
        });
        // The first of equals stays.
        if let Some((_, object)) = claims.min_by(|a, b| host::by_specificity(a.0, b.0)) {
            owners.insert((*service).to_owned(), object);
        }
    }
    owners
}

/// The objects that mean one of the services at all.
pub(super) fn concerning<'v, 'a>(
    virtual_services: &'v [(&'a Object<VirtualService>, Vec<String>)],
    services: &'v [&str],
) -> impl Iterator<Item = &'v (&'a Object<VirtualService>, Vec<String>)> {
    virtual_services
        .iter()
        .filter(move |(_, hosts)| hosts.iter().any(|name| services.iter().any(|service| host::matches(name, service))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_exact_for_services_and_wide_for_virtual_services() {
        let hosts = ["./*", "shop/a.shop.svc.cluster.local", "*/*.example.com", "~bad/*"].map(str::to_owned);
        let imports = Imports::new(&hosts, "home");
        for (namespace, name, service, virtual_service) in [
            ("home", "x.home.svc.cluster.local", true, true),
            ("shop", "a.shop.svc.cluster.local", true, true),
            ("shop", "b.shop.svc.cluster.local", false, false),
            ("shop", "*.shop.svc.cluster.local", false, true),
            ("other", "www.example.com", true, true),
            ("bad", "www.example.com", false, false),
            ("other", "*.com", false, true),
        ] {
            assert_eq!(imports.hold_service(namespace, name), service, "{namespace}/{name}");
            assert_eq!(imports.hold_virtual_service(namespace, name), virtual_service, "{namespace}/{name}");
        }
    }
}
