//! The manifests that most tests begin with.

use std::net::SocketAddr;

use super::gateway::{HTTP, HTTPS};

/// A Gateway `edge` in istio-system that serves every host on the plaintext port.
pub fn http_gateway() -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: edge, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTP}, name: http, protocol: HTTP }}
    hosts: ["*"]
"#
    )
}

/// A Gateway with one HTTPS server of mode SIMPLE.
pub fn https_gateway(name: &str, host: &str, credential: &str) -> String {
    tls_gateway(name, host, &format!("mode: SIMPLE, credentialName: {credential}"))
}

/// A Gateway with one HTTPS server; `tls` as YAML writes its fields.
pub fn tls_gateway(name: &str, host: &str, tls: &str) -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: {name}, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTPS}, name: https-{name}, protocol: HTTPS }}
    hosts: ["{host}"]
    tls: {{ {tls} }}
"#
    )
}

/// A ServiceEntry for `host` port 80 with one fixed endpoint; `protocol` as Istio names it.
pub fn service(host: &str, endpoint: SocketAddr, protocol: &str) -> String {
    let name = host.replace('.', "-");
    let (address, port) = (endpoint.ip(), endpoint.port());
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{ name: {name}, namespace: default }}
spec:
  hosts: [{host}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{ number: 80, name: main, protocol: {protocol}, targetPort: {port} }}
  endpoints:
  - address: {address}
"#
    )
}

/// A VirtualService of `host` on the Gateway `edge`; `rules` are the lines under `http:`, without indentation.
pub fn route(name: &str, host: &str, rules: &str) -> String {
    route_on("istio-system/edge", name, host, rules)
}

/// The same on another Gateway.
pub fn route_on(gateway: &str, name: &str, host: &str, rules: &str) -> String {
    let rules: String = rules.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: {name}, namespace: default }}
spec:
  hosts: ["{host}"]
  gateways: [{gateway}]
  http:
{rules}"#
    )
}

/// Everything to `service`.
pub fn all_to(service: &str) -> String {
    format!("- route: [{{ destination: {{ host: {service} }} }}]")
}

/// One host in front of one backend: Gateway, ServiceEntry `web.test` and VirtualService.
pub fn simple(host: &str, endpoint: SocketAddr) -> String {
    [http_gateway(), service("web.test", endpoint, "HTTP"), route("web", host, &all_to("web.test"))].concat()
}
