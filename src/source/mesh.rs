//! Which of Istio's mesh settings are in force? A MeshConfig file changes the defaults that `limani.toml` leaves open.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::decode::decode;
use super::limani_toml::Normalization;
use super::yaml;
use crate::resource::codes;
use crate::resource::finding::Finding;
use crate::resource::meta::Origin;
use crate::resource::networking::{ConnectionPoolSettings, GoDuration, H2UpgradePolicy};
use crate::resource::settings::{AccessLogFormat, MeshDefaults, OwnHeaderSettings, PathNormalization, Settings};

/// The fields of MeshConfig that are in force.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MeshConfig {
    path_normalization: PathNormalizationPolicy,
    default_config: ProxyConfig,
    default_service_export_to: Vec<String>,
    default_virtual_service_export_to: Vec<String>,
    default_destination_rule_export_to: Vec<String>,
    default_traffic_policy: DefaultTrafficPolicy,
    h2_upgrade_policy: H2UpgradePolicy,
    tls_defaults: TlsDefaults,
    connect_timeout: Option<GoDuration>,
    access_log_file: Option<String>,
    access_log_encoding: Option<AccessLogEncoding>,
    root_namespace: Option<String>,
    /// A gateway without workload certificates has no use for it.
    #[serde(rename = "trustDomain")]
    _trust_domain: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DefaultTrafficPolicy {
    connection_pool: Option<ConnectionPoolSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TlsDefaults {
    cipher_suites: Vec<String>,
    ecdh_curves: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathNormalizationPolicy {
    normalization: Option<Normalization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    gateway_topology: Topology,
    proxy_headers: ProxyHeaders,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyHeaders {
    server: ServerHeader,
    request_id: Switch,
    attempt_count: Switch,
    envoy_debug_headers: Switch,
    x_forwarded_host: Extra,
    x_forwarded_port: Extra,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerHeader {
    disabled: Option<bool>,
    value: String,
}

/// A header that can be turned off.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Switch {
    disabled: Option<bool>,
}

/// A header that can be turned on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extra {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Topology {
    num_trusted_proxies: Option<u32>,
    proxy_protocol: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AccessLogEncoding {
    Text,
    Json,
}

/// Writes what the file says over `settings`.
///
/// # Errors
///
/// A finding, if the file cannot be understood; `settings` are unchanged then.
pub(super) fn apply(file: &str, text: &str, settings: &mut Settings) -> Result<Vec<Finding>, Box<Finding>> {
    let origin =
        Origin { file: file.into(), text: Arc::from(text), line: 1, locator: yaml::locate, ..Origin::default() };
    let value = yaml::parse(text).map_err(|error| {
        let mut place = origin.start();
        (place.line, place.column) = (error.line, error.column);
        Finding::new(&codes::SYNTAX, place, error.message)
    })?;
    if value.is_null() {
        return Ok(Vec::new());
    }
    let decoded = decode::<MeshConfig>(&value, "")
        .map_err(|error| Finding::new(&codes::WRONG_TYPE, origin.locate(&error.path), error.message))?;
    write(decoded.value, settings);
    let not_in_force = |path: &String| {
        Finding::new(&codes::MESH_NOT_IN_FORCE, origin.locate(path), format!("`{path}` of the mesh is not in force"))
    };
    Ok(decoded.unknown.iter().map(not_in_force).collect())
}

fn write(mesh: MeshConfig, settings: &mut Settings) {
    if let Some(normalization) = mesh.path_normalization.normalization {
        settings.http.path_normalization = PathNormalization::from(normalization);
    }
    let topology = mesh.default_config.gateway_topology;
    if let Some(number) = topology.num_trusted_proxies {
        settings.http.num_trusted_proxies = number;
    }
    if topology.proxy_protocol.is_some() {
        settings.listen.proxy_protocol = true;
    }
    settings.mesh = MeshDefaults {
        service_export_to: mesh.default_service_export_to,
        virtual_service_export_to: mesh.default_virtual_service_export_to,
        destination_rule_export_to: mesh.default_destination_rule_export_to,
        connection_pool: mesh.default_traffic_policy.connection_pool,
        h2_upgrade: mesh.h2_upgrade_policy,
        cipher_suites: mesh.tls_defaults.cipher_suites,
        ecdh_curves: mesh.tls_defaults.ecdh_curves,
    };
    write_headers(mesh.default_config.proxy_headers, &mut settings.http.own_headers);
    if let Some(timeout) = mesh.connect_timeout {
        settings.http.connect_timeout = timeout.0;
    }
    if let Some(path) = mesh.access_log_file {
        settings.access_log.path = if path.is_empty() { None } else { Some(path.into()) };
    }
    match mesh.access_log_encoding {
        Some(AccessLogEncoding::Text) => settings.access_log.format = AccessLogFormat::Text,
        Some(AccessLogEncoding::Json) => settings.access_log.format = AccessLogFormat::Json,
        None => {}
    }
    if let Some(namespace) = mesh.root_namespace {
        settings.gateway.root_namespace = namespace;
    }
}

fn write_headers(written: ProxyHeaders, headers: &mut OwnHeaderSettings) {
    match written.server {
        ServerHeader { disabled: Some(true), .. } => headers.server = None,
        ServerHeader { value, .. } if !value.is_empty() => headers.server = Some(value),
        ServerHeader { .. } => {}
    }
    headers.request_id = written.request_id.disabled != Some(true);
    headers.attempt_count = written.attempt_count.disabled != Some(true);
    headers.debug = written.envoy_debug_headers.disabled != Some(true);
    headers.forwarded_host = written.x_forwarded_host.enabled == Some(true);
    headers.forwarded_port = written.x_forwarded_port.enabled == Some(true);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_fields_change_the_defaults_and_others_are_told() {
        let text = "pathNormalization:\n  normalization: MERGE_SLASHES\ndefaultConfig:\n  gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}\n  proxyHeaders: {server: {value: web}, attemptCount: {disabled: true}}\n  concurrency: 2\nconnectTimeout: 3s\naccessLogFile: ''\ndefaultServiceExportTo: [.]\nh2UpgradePolicy: UPGRADE\n";
        let mut settings = Settings::default();
        let findings = apply("mesh.yaml", text, &mut settings).unwrap();
        assert_eq!(settings.http.path_normalization, PathNormalization::MergeSlashes);
        assert_eq!((settings.http.num_trusted_proxies, settings.listen.proxy_protocol), (2, true));
        assert_eq!(settings.http.connect_timeout, Duration::from_secs(3));
        assert_eq!(settings.access_log.path, None);
        assert_eq!(settings.mesh.service_export_to, ["."]);
        assert_eq!(settings.mesh.h2_upgrade, H2UpgradePolicy::Upgrade);
        let own_headers = &settings.http.own_headers;
        assert_eq!((own_headers.server.as_deref(), own_headers.attempt_count), (Some("web"), false));
        assert_eq!(
            findings[0].to_string(),
            "mesh.yaml:6: info [LIM0023] `defaultConfig.concurrency` of the mesh is not in force"
        );
        let mut unchanged = Settings::default();
        assert_eq!(apply("mesh.yaml", "# nothing\n", &mut unchanged), Ok(Vec::new()));
        assert!(apply("mesh.yaml", "connectTimeout: [", &mut unchanged).is_err());
        assert_eq!(unchanged, Settings::default());
    }
}
