//! Which of Istio's mesh settings are in force? A MeshConfig file changes the defaults that `limani.toml` leaves open.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::decode::decode;
use super::limani_toml::Normalization;
use super::yaml;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::Origin;
use crate::resource::networking::{
    ConnectionPoolSettings, GoDuration, H2UpgradePolicy, HttpRetry, LocalityLbSetting, OutlierDetection, TcpKeepalive,
    TlsProtocol,
};
use crate::resource::settings::{
    AccessLogFormat, ExtensionProvider, FileLog, FileLogFormat, ForwardClientCert, MeshAuthority, MeshDefaults,
    MeshMtls, MeshTrust, OutboundMode, OwnHeaderSettings, PathNormalization, ProviderService, Settings,
};

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
    locality_lb_setting: Option<LocalityLbSetting>,
    default_http_retry_policy: Option<HttpRetry>,
    h2_upgrade_policy: H2UpgradePolicy,
    tls_defaults: TlsConfig,
    #[serde(rename = "meshMTLS")]
    mesh_mtls: TlsConfig,
    connect_timeout: Option<GoDuration>,
    tcp_keepalive: Option<TcpKeepalive>,
    outbound_traffic_policy: OutboundTrafficPolicy,
    access_log_file: String,
    access_log_format: String,
    access_log_encoding: AccessLogEncoding,
    disable_envoy_listener_log: bool,
    extension_providers: Vec<Provider>,
    default_providers: DefaultProviders,
    root_namespace: Option<String>,
    enable_auto_mtls: Option<bool>,
    trust_domain: String,
    trust_domain_aliases: Vec<String>,
    ca_certificates: Vec<CertificateData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CertificateData {
    pem: String,
    trust_domains: Vec<String>,
}

/// Fields that exist in Istio and do nothing here: what they steer is not part of this process, or not in force.
const IDLE: &[&str] = &[
    "ca",
    "configSources",
    "defaultConfig.availabilityZone",
    "defaultConfig.binaryPath",
    "defaultConfig.caCertificatesPem",
    "defaultConfig.concurrency",
    "defaultConfig.configPath",
    "defaultConfig.controlPlaneAuthPolicy",
    "defaultConfig.customConfigFile",
    "defaultConfig.discoveryAddress",
    "defaultConfig.drainDuration",
    "defaultConfig.envoyAccessLogService",
    "defaultConfig.envoyMetricsService",
    "defaultConfig.envoyMetricsServiceAddress",
    "defaultConfig.extraStatTags",
    "defaultConfig.fileFlushInterval",
    "defaultConfig.fileFlushMinSizeKb",
    "defaultConfig.holdApplicationUntilProxyStarts",
    "defaultConfig.image",
    "defaultConfig.interceptionMode",
    "defaultConfig.meshId",
    "defaultConfig.privateKeyProvider",
    "defaultConfig.proxyAdminPort",
    "defaultConfig.proxyBootstrapTemplatePath",
    "defaultConfig.proxyHeaders.setCurrentClientCertDetails",
    "defaultConfig.proxyHeaders.metadataExchangeHeaders",
    "defaultConfig.proxyHeaders.preserveHttp1HeaderCase",
    "defaultConfig.proxyMetadata",
    "defaultConfig.proxyStatsMatcher",
    "defaultConfig.readinessProbe",
    "defaultConfig.runtimeValues",
    "defaultConfig.serviceCluster",
    "defaultConfig.statNameLength",
    "defaultConfig.statsCompression",
    "defaultConfig.statsdUdpAddress",
    "defaultConfig.statusPort",
    "defaultConfig.terminationDrainDuration",
    "defaultConfig.tracing",
    "defaultConfig.tracingServiceName",
    "defaultConfig.zipkinAddress",
    "defaultProviders.metrics",
    "defaultProviders.tracing",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "outboundClusterStatName",
    "outboundTrafficPolicy.egressProxy",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceScopeConfigs",
    "serviceSettings",
    "verifyCertificateAtClient",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DefaultTrafficPolicy {
    connection_pool: Option<ConnectionPoolSettings>,
    outlier_detection: Option<OutlierDetection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TlsConfig {
    min_protocol_version: TlsProtocol,
    cipher_suites: Vec<String>,
    ecdh_curves: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathNormalizationPolicy {
    normalization: Option<Normalization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutboundTrafficPolicy {
    mode: Option<OutboundMode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    gateway_topology: Topology,
    connection_settings: ConnectionSettings,
    proxy_headers: ProxyHeaders,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConnectionSettings {
    profile: ConnectionProfile,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ConnectionProfile {
    #[default]
    Sidecar,
    Edge,
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
    forward_client_cert_details: ForwardClientCert,
    proxy_protocol: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DefaultProviders {
    access_logging: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Provider {
    name: String,
    envoy_file_access_log: Option<FileAccessLog>,
    prometheus: Option<Value>,
    stackdriver: Option<Value>,
    envoy_ext_authz_http: Option<Value>,
    envoy_ext_authz_grpc: Option<Value>,
    envoy_http_als: Option<Value>,
    envoy_tcp_als: Option<Value>,
    envoy_otel_als: Option<Value>,
    zipkin: Option<Value>,
    lightstep: Option<Value>,
    datadog: Option<Value>,
    opencensus: Option<Value>,
    skywalking: Option<Value>,
    opentelemetry: Option<Value>,
    sds: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FileAccessLog {
    path: String,
    log_format: LogFormat,
    omit_empty_values: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogFormat {
    text: Option<String>,
    labels: Option<Map<String, Value>>,
}

/// The MeshConfig of a file, and where in the file it stands.
struct Written {
    mesh: Value,
    /// Its path in the document.
    path: &'static str,
    /// Where the text is that `mesh` was read from: the file's own, or one within it.
    origin: Origin,
    /// How many lines of the file stand before that text.
    lines_before: u32,
}

impl Written {
    fn locate(&self, path: &str) -> Location {
        self.moved(self.origin.locate(path))
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    fn moved(&self, mut place: Location) -> Location {
        place.line += self.lines_before;
        place
    }
}

/// Writes what the file says over `settings`. The file holds a MeshConfig, or one of the objects in which Istio keeps
/// it: a ConfigMap with the key `mesh`, or an IstioOperator.
///
/// # Errors
///
/// A finding, if the file cannot be understood; `settings` are unchanged then.
pub(super) fn apply(file: &str, text: &str, settings: &mut Settings) -> Result<Vec<Finding>, Box<Finding>> {
    let origin = Origin { file: file.into(), text: text.into(), line: 1, locator: yaml::locate, ..Origin::default() };
    let written = open(origin)?;
    let decoded = decode::<MeshConfig>(&written.mesh, written.path)
        .map_err(|error| Finding::new(&codes::WRONG_TYPE, written.locate(&error.path), error.message))?;
    let mut findings = Vec::new();
    for unknown in &decoded.unknown {
        let path = unknown.path.as_str();
        let field = path.strip_prefix(written.path).unwrap_or(path).trim_start_matches('.');
        let idle =
            IDLE.contains(&field) || of_authority(field) || field.starts_with("defaultConfig.connectionSettings.");
        findings.push(match idle {
            true => {
                let message = format!("`{field}` of the mesh is not in force");
                Finding::new(&codes::MESH_NOT_IN_FORCE, written.locate(path), message)
            }
            false => {
                let message = format!("`{field}` is no field of MeshConfig");
                Finding::new(&codes::UNKNOWN_FIELD, written.locate(path), message).hint(unknown.hint(""))
            }
        });
    }
    findings.extend(bad_authorities(&decoded.value.ca_certificates, &written));
    write(decoded.value, &written, settings);
    settings.mesh.allocates_addresses = allocates_addresses(&written.mesh);
    Ok(findings)
}

fn authority(data: CertificateData) -> MeshAuthority {
    MeshAuthority { pem: data.pem, trust_domains: data.trust_domains }
}

/// Entries of caCertificates without a certificate that can be read: they vouch for nobody.
fn bad_authorities(entries: &[CertificateData], written: &Written) -> Vec<Finding> {
    let is_good = |pem: &str| {
        let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
        certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
    };
    let bad = entries.iter().enumerate().filter(|(_, entry)| !entry.pem.is_empty() && !is_good(&entry.pem));
    let finding = |(index, _): (usize, &CertificateData)| {
        let place = written.locate(&written.path_of(&format!("caCertificates[{index}].pem")));
        Finding::new(&codes::CERTIFICATE_FILE, place, "`pem` holds no readable certificates; it vouches for nobody")
    };
    bad.map(finding).collect()
}

/// What is not in force of an entry of caCertificates.
fn of_authority(field: &str) -> bool {
    let within = field.strip_prefix("caCertificates[").and_then(|rest| rest.split_once("]."));
    matches!(within, Some((_, "spiffeBundleUrl" | "certSigners")))
        || within.is_some_and(|(_, rest)| rest.starts_with("certSigners["))
}

/// Whether Istio gives ServiceEntries addresses of its own; analysis alone looks at it.
fn allocates_addresses(mesh: &Value) -> bool {
    let metadata = mesh.pointer("/defaultConfig/proxyMetadata");
    let is_on = |name: &str| metadata.and_then(|it| it.get(name)).and_then(Value::as_str) == Some("true");
    is_on("ISTIO_META_DNS_CAPTURE") && (is_on("ISTIO_META_DNS_AUTO_ALLOCATE") || is_on("PILOT_ENABLE_IP_AUTOALLOCATE"))
}

fn open(origin: Origin) -> Result<Written, Box<Finding>> {
    let mesh = parse(&origin, 0)?;
    match mesh.get("kind").and_then(Value::as_str) {
        Some("ConfigMap") => {
            let place = origin.locate("data.mesh");
            let Some(inner) = mesh.pointer("/data/mesh").and_then(Value::as_str) else {
                return Err(Box::new(Finding::new(&codes::WRONG_TYPE, place, "the ConfigMap has no text `mesh`")));
            };
            let origin = Origin { text: inner.into(), ..origin };
            Ok(Written { mesh: parse(&origin, place.line)?, path: "", origin, lines_before: place.line })
        }
        Some("IstioOperator") => {
            let inner = mesh.pointer("/spec/meshConfig").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            Ok(Written { mesh: inner, path: "spec.meshConfig", origin, lines_before: 0 })
        }
        _ => Ok(Written { mesh, path: "", origin, lines_before: 0 }),
    }
}

/// An empty text is a MeshConfig in which all is left open.
fn parse(origin: &Origin, lines_before: u32) -> Result<Value, Box<Finding>> {
    match yaml::parse(&origin.text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value) => Ok(value),
        Err(error) => {
            let mut place = origin.start();
            (place.line, place.column) = (error.line + lines_before, error.column);
            Err(Box::new(Finding::new(&codes::SYNTAX, place, error.message)))
        }
    }
}

fn write(mesh: MeshConfig, written: &Written, settings: &mut Settings) {
    if let Some(normalization) = mesh.path_normalization.normalization {
        settings.http.path_normalization = PathNormalization::from(normalization);
    }
    if mesh.default_config.connection_settings.profile == ConnectionProfile::Edge {
        // Its limits of time for a whole request and for a quiet stream are not in force.
        settings.http.path_normalization = PathNormalization::RedirectEscapedSlashes;
        settings.http.rejects_underscores = true;
        settings.http.head_timeout = Duration::from_secs(60);
        settings.http.idle_timeout = Duration::from_secs(3600);
        settings.http.max_concurrent_streams = 100;
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
        tcp_keepalive: mesh.tcp_keepalive,
        outlier: mesh.default_traffic_policy.outlier_detection,
        locality_lb: mesh.locality_lb_setting,
        h2_upgrade: mesh.h2_upgrade_policy,
        cipher_suites: mesh.tls_defaults.cipher_suites,
        ecdh_curves: mesh.tls_defaults.ecdh_curves,
        min_protocol_version: mesh.tls_defaults.min_protocol_version,
        mesh_mtls: MeshMtls {
            min_protocol_version: mesh.mesh_mtls.min_protocol_version,
            cipher_suites: mesh.mesh_mtls.cipher_suites,
            ecdh_curves: mesh.mesh_mtls.ecdh_curves,
        },
        http_retry: mesh.default_http_retry_policy,
        forward_client_cert: topology.forward_client_cert_details,
        outbound: mesh.outbound_traffic_policy.mode.unwrap_or_default(),
        allocates_addresses: false,
        no_auto_mtls: mesh.enable_auto_mtls == Some(false),
        trust: MeshTrust {
            // Istio writes an `@` so in identities.
            domain: mesh.trust_domain.replace('@', "."),
            aliases: mesh.trust_domain_aliases,
            authorities: mesh.ca_certificates.into_iter().filter(|data| !data.pem.is_empty()).map(authority).collect(),
        },
    };
    write_headers(mesh.default_config.proxy_headers, &mut settings.http.own_headers);
    if let Some(timeout) = mesh.connect_timeout {
        settings.http.connect_timeout = timeout.0;
    }
    if let Some(namespace) = mesh.root_namespace {
        settings.gateway.root_namespace = namespace;
    }
    let log = &mut settings.access_log;
    // With Istio's settings the log is off unless they turn it on.
    log.path = if mesh.access_log_file.is_empty() { None } else { Some(mesh.access_log_file.into()) };
    log.format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => AccessLogFormat::Text,
        AccessLogEncoding::Json => AccessLogFormat::Json,
    };
    log.template_place = match mesh.access_log_format.is_empty() {
        true => Location::default(),
        false => written.locate(&written.path_of("accessLogFormat")),
    };
    log.template = mesh.access_log_format;
    log.listeners = !mesh.disable_envoy_listener_log;
    log.default_providers = mesh.default_providers.access_logging;
    log.providers =
        mesh.extension_providers.into_iter().enumerate().map(|(index, one)| provider(one, index, written)).collect();
}

fn provider(read: Provider, index: usize, written: &Written) -> ExtensionProvider {
    let service = match read.envoy_file_access_log {
        Some(FileAccessLog { path, log_format, omit_empty_values }) => {
            let format = match log_format {
                LogFormat { text: Some(text), .. } => FileLogFormat::Text(text),
                LogFormat { labels: Some(labels), .. } => FileLogFormat::Labels(labels),
                LogFormat { .. } => FileLogFormat::Default,
            };
            let place = format!("extensionProviders[{index}].envoyFileAccessLog.logFormat");
            let place = written.locate(&written.path_of(&place));
            ProviderService::File(FileLog { path, format, omit_empty_values, place })
        }
        None => {
            let others = [
                ("prometheus", read.prometheus),
                ("stackdriver", read.stackdriver),
                ("envoyExtAuthzHttp", read.envoy_ext_authz_http),
                ("envoyExtAuthzGrpc", read.envoy_ext_authz_grpc),
                ("envoyHttpAls", read.envoy_http_als),
                ("envoyTcpAls", read.envoy_tcp_als),
                ("envoyOtelAls", read.envoy_otel_als),
                ("zipkin", read.zipkin),
                ("lightstep", read.lightstep),
                ("datadog", read.datadog),
                ("opencensus", read.opencensus),
                ("skywalking", read.skywalking),
                ("opentelemetry", read.opentelemetry),
                ("sds", read.sds),
            ];
            let given = others.into_iter().find(|(_, value)| value.is_some());
            ProviderService::Other(given.map_or("nothing", |(field, _)| field))
        }
    };
    ExtensionProvider { name: read.name, service }
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
    use super::*;

    fn read(text: &str) -> (Settings, Vec<String>) {
        let mut settings = Settings::default();
        let findings = apply("mesh.yaml", text, &mut settings).unwrap();
        (settings, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn known_fields_change_the_defaults_and_others_are_told() {
        let text = "pathNormalization:\n  normalization: MERGE_SLASHES\ndefaultConfig:\n  gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}\n  proxyHeaders: {server: {value: web}, attemptCount: {disabled: true}}\n  concurrency: 2\nconnectTimeout: 3s\ndefaultServiceExportTo: [.]\nh2UpgradePolicy: UPGRADE\nnone: 1\ndefaultHttpRetryPolicy: {attempts: 3}\n";
        let (settings, findings) = read(text);
        assert_eq!(settings.http.path_normalization, PathNormalization::MergeSlashes);
        assert_eq!((settings.http.num_trusted_proxies, settings.listen.proxy_protocol), (2, true));
        assert_eq!(settings.http.connect_timeout, Duration::from_secs(3));
        assert_eq!(settings.access_log.path, None);
        assert_eq!(settings.mesh.service_export_to, ["."]);
        assert_eq!(settings.mesh.h2_upgrade, H2UpgradePolicy::Upgrade);
        assert_eq!(settings.mesh.http_retry.unwrap().attempts, 3);
        let own_headers = &settings.http.own_headers;
        assert_eq!((own_headers.server.as_deref(), own_headers.attempt_count), (Some("web"), false));
        assert_eq!(
            findings,
            [
                "mesh.yaml:6: info [LIM0023] `defaultConfig.concurrency` of the mesh is not in force",
                "mesh.yaml:10: warning [LIM0013] `none` is no field of MeshConfig"
            ]
        );
        let mut unchanged = Settings::default();
        assert!(apply("mesh.yaml", "connectTimeout: [", &mut unchanged).is_err());
        assert_eq!(unchanged, Settings::default());
    }

    #[test]
    fn the_mesh_says_whom_it_trusts() {
        let text = "enableAutoMtls: false\ntrustDomain: td@one\ntrustDomainAliases: [two]\ncaCertificates:\n- pem: none\n  trustDomains: [two]\n- spiffeBundleUrl: https://two/bundle\n";
        let (settings, findings) = read(text);
        assert!(settings.mesh.no_auto_mtls);
        assert_eq!(
            (settings.trust_domain(), settings.mesh.trust.aliases.as_slice()),
            ("td.one", &["two".to_owned()][..])
        );
        assert_eq!(settings.mesh.trust.authorities.len(), 1, "an address is not fetched");
        assert_eq!(
            findings,
            [
                "mesh.yaml:7: info [LIM0023] `caCertificates[1].spiffeBundleUrl` of the mesh is not in force",
                "mesh.yaml:5: error [LIM0021] `pem` holds no readable certificates; it vouches for nobody",
            ]
        );
    }

    #[test]
    fn the_log_is_off_unless_the_mesh_turns_it_on() {
        assert_eq!(read("# nothing\n").0.access_log.path, None);
        let text = "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: '{}'\ndisableEnvoyListenerLog: true\ndefaultProviders: {accessLogging: [a]}\nextensionProviders:\n- {name: a, envoyFileAccessLog: {path: /x, logFormat: {labels: {b: '%PROTOCOL%'}}, omitEmptyValues: true}}\n- {name: b, zipkin: {service: z}}\n";
        let (settings, findings) = read(text);
        let log = settings.access_log;
        assert_eq!(log.path, Some("/dev/stdout".into()));
        assert_eq!((log.format, &*log.template, log.listeners), (AccessLogFormat::Json, "{}", false));
        assert_eq!(log.default_providers, ["a"]);
        assert_eq!(log.providers[1].service, ProviderService::Other("zipkin"));
        let ProviderService::File(file) = &log.providers[0].service else { panic!("{:?}", log.providers) };
        assert_eq!((&*file.path, file.omit_empty_values), ("/x", true));
        assert!(matches!(&file.format, FileLogFormat::Labels(labels) if labels["b"] == "%PROTOCOL%"));
        assert_eq!(findings, [""; 0]);
    }

    #[test]
    fn istios_own_objects_may_hold_the_mesh() {
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |-\n    rootNamespace: root\n    none: 1\n";
        let (settings, findings) = read(map);
        assert_eq!(settings.gateway.root_namespace, "root");
        assert_eq!(findings, ["mesh.yaml:7: warning [LIM0013] `none` is no field of MeshConfig"]);
        let operator = "kind: IstioOperator\nspec:\n  meshConfig:\n    rootNamespace: root\n    none: 1\n";
        let (settings, findings) = read(operator);
        assert_eq!(settings.gateway.root_namespace, "root");
        assert_eq!(findings, ["mesh.yaml:5: warning [LIM0013] `none` is no field of MeshConfig"]);
    }
}
