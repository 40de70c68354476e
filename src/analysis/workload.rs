//! Which workloads are there? The Pods of the manifests, and this gateway itself.

use std::collections::HashMap;

use crate::resource::ResourceSet;
use crate::resource::meta::{Labels, Object};
use crate::resource::settings::Settings;
use crate::resource::workloads::Pod;

/// Something that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a Labels,
    /// The node it runs on; may be empty.
    pub node: &'a str,
    pub mode: Mode,
}

/// How a workload takes part in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It has a proxy of its own, or is one.
    Proxied,
    /// The node's proxy takes its traffic.
    Ambient,
    Outside,
}

/// This gateway, then every Pod.
pub(super) fn workloads<'a>(resources: &'a ResourceSet, settings: &'a Settings) -> Vec<Workload<'a>> {
    let namespaces: HashMap<&str, &Labels> =
        resources.namespaces.iter().map(|object| (object.meta.name.as_str(), &object.meta.labels)).collect();
    let gateway = &settings.gateway;
    let own = Workload {
        namespace: &gateway.namespace,
        name: &gateway.workload,
        labels: &gateway.labels,
        node: "",
        mode: Mode::Proxied,
    };
    let pods = resources.pods.iter().map(|pod| Workload {
        namespace: &pod.meta.namespace,
        name: &pod.meta.name,
        labels: &pod.meta.labels,
        node: &pod.spec.node_name,
        mode: mode(pod, namespaces.get(pod.meta.namespace.as_str()).copied()),
    });
    std::iter::once(own).chain(pods).collect()
}

fn mode(pod: &Object<Pod>, namespace: Option<&Labels>) -> Mode {
    let is = |labels: &Labels, name: &str, value: &str| labels.get(name).is_some_and(|it| it == value);
    if is(&pod.meta.annotations, "ambient.istio.io/redirection", "enabled") {
        return Mode::Ambient;
    }
    let mut containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let proxied = containers.any(|container| container.name == "istio-proxy" && !container.image.is_empty());
    let wished = [&pod.meta.labels, &pod.meta.annotations].into_iter().find_map(|it| it.get("sidecar.istio.io/inject"));
    let injected = match wished {
        Some(wish) => wish == "true",
        None => namespace.is_some_and(|labels| is(labels, "istio-injection", "enabled")),
    };
    if proxied || injected { Mode::Proxied } else { Mode::Outside }
}

/// Whether a namespace is in ambient mode: its label says so, and no label asks for sidecars.
pub(super) fn is_ambient_namespace(labels: &Labels) -> bool {
    labels.get("istio-injection").is_none_or(|value| value != "enabled")
        && labels.get("istio.io/rev").is_none_or(String::is_empty)
        && labels.get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient")
}
