//! Does the name of a Service's port say its protocol? (Istio's service.PortNameAnalyzer: IST0118, IST0150.)

use crate::analysis::report::Report;
use crate::analysis::world::World;
use crate::resource::codes;
use crate::resource::core::ServicePort;
use crate::resource::meta::Meta;

/// Namespaces of Kubernetes itself.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Ports whose protocol is known without a name: SMTP, DNS, MySQL, MongoDB.
const WELL_KNOWN: [u32; 4] = [25, 53, 3306, 27017];

/// What a name or an appProtocol may begin with.
const PROTOCOLS: [&str; 12] =
    ["tcp", "udp", "grpc", "http", "http_proxy", "http2", "https", "tls", "mongo", "redis", "mysql", "hbone"];

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for service in &world.resources.services {
        if SYSTEM.contains(&service.meta.namespace.as_str()) || is_control_plane(&service.meta) {
            continue;
        }
        let external = service.spec.kind == "ExternalName";
        for (index, port) in service.spec.ports.iter().enumerate() {
            let path = format!("spec.ports[{index}]");
            if external && (port.name == "tcp" || !says_protocol(port)) {
                let message = format!("the name `{}` of a port of an ExternalName Service says no protocol", port.name);
                report.tell(service, &codes::EXTERNAL_PORT_NAME, &path, message);
            } else if !says_protocol(port) {
                let message = format!("the name `{}` of port {} says no protocol", port.name, port.port);
                let hint = "begin it with http, http2, grpc, https, tls or tcp, or set appProtocol";
                report.tell_with_hint(service, &codes::PORT_NAME, &path, message, hint);
            }
        }
    }
}

fn is_control_plane(meta: &Meta) -> bool {
    meta.labels.contains_key("istio") || meta.labels.get("release").is_some_and(|release| release == "istio")
}

fn says_protocol(port: &ServicePort) -> bool {
    if port.protocol == "UDP" || WELL_KNOWN.contains(&port.port) {
        return true;
    }
    let name = match port.app_protocol.as_str() {
        "kubernetes.io/h2c" | "kubernetes.io/ws" | "kubernetes.io/wss" => return true,
        "" => port.name.to_ascii_lowercase(),
        named => named.to_ascii_lowercase(),
    };
    name.starts_with("grpc-web") || PROTOCOLS.contains(&name.split('-').next().unwrap_or_default())
}
