//! Does a Service lead to the ports of a Gateway? (Istio's gateway.IngressGatewayPortAnalyzer: IST0101, IST0162.)

use std::collections::HashSet;

use crate::analysis::report::Report;
use crate::analysis::workload::Workload;
use crate::analysis::world::{View, World, is_part, show_selector};
use crate::resource::codes;
use crate::resource::core::{IntOrString, Service, ServicePort};

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for gateway in &world.resources.gateways {
        let selector = &gateway.spec.selector;
        let workloads: Vec<&Workload<'_>> = world.chosen(selector).collect();
        if workloads.is_empty() {
            // The secrets of such a Gateway are not looked at; it is told there.
            if world.look.view == View::Cluster {
                let message = format!("no workload has the labels {}", show_selector(selector));
                report.tell(gateway, &codes::REFERENCE_MISSING, "spec.selector", message);
            }
            continue;
        }
        let services = world.resources.services.iter();
        let leading: Vec<&Service> = services
            .filter(|service| {
                workloads.iter().any(|workload| {
                    workload.namespace == service.meta.namespace && is_part(&service.spec.selector, workload.labels)
                })
            })
            .map(|service| &service.spec)
            .collect();
        // Something else may lead to the gateway, unless its Pods and Services are given.
        if world.look.view == View::Gateway && (leading.is_empty() || !world.knows_workloads()) {
            continue;
        }
        let ports: HashSet<u32> =
            leading.iter().flat_map(|service| &service.ports).flat_map(|it| ports(it, world)).collect();
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let number = server.port.number;
            if !ports.contains(&number) {
                let message = format!("no Service of the workloads {} has the port {number}", show_selector(selector));
                let hint = "add the port to the Service, or use one that it has";
                let path = format!("spec.servers[{index}].port.number");
                report.tell_with_hint(gateway, &codes::PORT_NOT_ON_SERVICE, &path, message, hint);
            }
        }
    }
}

/// The ports of a Gateway that a port of a Service leads to. Istio's analyzer takes the port of the Pod; a gateway takes
/// that of the Service, too.
fn ports(port: &ServicePort, world: &World<'_>) -> Vec<u32> {
    if !matches!(port.protocol.as_str(), "TCP" | "") {
        return Vec::new();
    }
    match port.target_port {
        Some(IntOrString::Int(target)) if target != 0 && world.look.view == View::Cluster => vec![target],
        Some(IntOrString::Int(target)) => vec![target, port.port],
        _ => vec![port.port],
    }
}
