//! What `limani.toml` says, with every default filled in. Keys and their meaning stand in conf/limani.toml.

pub(crate) mod acme;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use self::acme::AcmeSettings;
use super::finding::Location;
use super::meta::Labels;
use super::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpRetry, LocalityLbSetting, OutlierDetection, TcpKeepalive, TlsProtocol,
};
use crate::base::cidr::Cidr;

/// The process settings. The parts marked *start* need a restart; the others follow a reload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub gateway: GatewaySettings,
    pub identity: IdentitySettings,
    pub tls: TlsSettings,
    pub acme: AcmeSettings,
    pub listen: ListenSettings,
    pub source: SourceSettings,
    /// Fixed addresses for hosts, in place of DNS: host name to endpoints.
    pub hosts: BTreeMap<String, Vec<HostAddress>>,
    pub http: HttpSettings,
    pub mesh: MeshDefaults,
    pub access_log: AccessLogSettings,
    /// *start*
    pub runtime: RuntimeSettings,
    /// *start*
    pub admin: AdminSettings,
    pub shutdown: ShutdownSettings,
}

/// `[gateway]`: who we are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewaySettings {
    /// The namespace of this gateway; Secrets named by credentialName are looked up here. Default `istio-system`.
    pub namespace: String,
    /// Our labels; a Gateway's selector has to be a part of them. Default `istio: ingressgateway`.
    pub labels: Labels,
    /// Istio's `source_workload`. Default `istio-ingressgateway`.
    pub workload: String,
    /// Namespace of objects that name none. Default `default`.
    pub default_namespace: String,
    /// Default `istio-system`.
    pub root_namespace: String,
    /// Default `cluster.local`.
    pub cluster_domain: String,
    /// Istio's `source_cluster`. Default `Kubernetes`.
    pub cluster: String,
    /// Our place, `region/zone/subzone`; empty: places do not matter.
    pub locality: String,
}

/// `[identity]`: our own certificate in the mesh, which ISTIO_MUTUAL and `credentialName: builtin://` need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdentitySettings {
    /// `None`: the files that are named, if any.
    pub source: Option<IdentityKind>,
    /// PEM, here and below; relative to `base`. Our certificate, with its intermediates behind it.
    pub certificate: String,
    pub key: String,
    /// The roots of the mesh; of `Istiod` also those of the CA. Empty: where Istio mounts them.
    pub root: String,
    /// Revocation lists.
    pub crl: String,
    /// A folder with all of them, under the names that Istio, GKE or csi-driver-spiffe give them.
    pub folder: String,
    /// The Workload API's socket; `None`: as SPIFFE_ENDPOINT_SOCKET says.
    pub socket: Option<String>,
    /// Which identity of several; `None`: the first.
    pub spiffe_id: Option<String>,
    /// The CA of `Istiod`. Default `istiod.istio-system.svc:15012`.
    pub address: Option<String>,
    /// The name in its certificate; `None`: the host of `address`.
    pub server_name: Option<String>,
    /// The file with our token. Default where Istio mounts it.
    pub token: String,
    /// Default `cluster.local`.
    pub trust_domain: Option<String>,
    /// Default `[gateway] namespace`.
    pub namespace: Option<String>,
    /// Default `[gateway] workload`.
    pub service_account: Option<String>,
    /// Which signer of several the CA should take; `None`: its own choice.
    pub signer: Option<String>,
    /// Default 24 h.
    pub ttl: Option<Duration>,
    /// The folder of the settings file.
    pub base: PathBuf,
}

/// Who gives us our identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IdentityKind {
    Files,
    WorkloadApi,
    /// istiod or istio-csr.
    Istiod,
    /// Our own authority, that of `[tls] local_ca`.
    LocalCa,
}

impl IdentitySettings {
    /// Whether it is read from files, as other certificates are.
    pub(crate) fn is_from_files(&self) -> bool {
        matches!(self.source, None | Some(IdentityKind::Files))
    }

    /// Whether we are to have one at all.
    pub(crate) fn is_wanted(&self) -> bool {
        let files = [&self.certificate, &self.key, &self.root, &self.folder];
        self.source.is_some() || files.into_iter().any(|file| !file.is_empty())
    }
}

/// `[tls]`: certificates that stand in no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// Folders of PEM, absolute or relative to the settings file. A folder with `tls.crt` and `tls.key` is a Secret of
    /// its own name; a folder of folders is a tree of them.
    pub secrets: Vec<PathBuf>,
    /// The folder of our own authority, for `local-ca://`; `None`: there is none.
    pub local_ca: Option<PathBuf>,
    /// Whether clients may resume sessions. Default true.
    pub session_tickets: bool,
    /// A file with the secrets of which the keys of tickets are made, relative to the settings file, one in each line, the
    /// newest first; empty: each process throws keys of its own.
    pub session_ticket_keys: String,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings { secrets: Vec::new(), local_ca: None, session_tickets: true, session_ticket_keys: String::new() }
    }
}

/// `[listen]`: where servers are bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenSettings {
    /// For servers without `bind`. Default `0.0.0.0`.
    pub address: IpAddr,
    /// A Gateway's port to the port that is bound; ports not named are bound as they are.
    pub ports: BTreeMap<u16, u16>,
    /// Whether connections begin with a PROXY protocol header, v1 or v2 (MeshConfig gatewayTopology.proxyProtocol).
    pub proxy_protocol: bool,
}

/// `[source]`: where manifests are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SourceSettings {
    /// Files and folders of YAML, relative to the settings file. Folders are read with all their subfolders.
    pub manifests: Vec<PathBuf>,
    /// A MeshConfig file (Istio's `mesh` settings); `None` if there is none.
    pub mesh: Option<PathBuf>,
    /// What `${NAME}` stands for in manifests.
    pub variables: BTreeMap<String, String>,
    /// Whether changed files are read again by themselves. Default true.
    pub watch: bool,
    /// How long files have to be quiet before they are read. Default 200 ms.
    pub debounce: Duration,
}

/// One address of a host in `[hosts]`; without a port the service's own is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostAddress {
    pub address: IpAddr,
    pub port: Option<u16>,
    pub labels: Labels,
}

/// What the mesh says for objects that say nothing (MeshConfig).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MeshDefaults {
    /// defaultServiceExportTo; empty means everyone, here and below.
    pub service_export_to: Vec<String>,
    /// defaultVirtualServiceExportTo
    pub virtual_service_export_to: Vec<String>,
    /// defaultDestinationRuleExportTo
    pub destination_rule_export_to: Vec<String>,
    /// defaultTrafficPolicy.connectionPool
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// tcpKeepalive, for connections to endpoints; a rule changes single numbers of it.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// defaultTrafficPolicy.outlierDetection
    pub outlier: Option<OutlierDetection>,
    /// localityLbSetting
    pub locality_lb: Option<LocalityLbSetting>,
    /// h2UpgradePolicy, for HTTP ports.
    pub h2_upgrade: H2UpgradePolicy,
    /// tlsDefaults.cipherSuites, for servers.
    pub cipher_suites: Vec<String>,
    /// tlsDefaults.ecdhCurves, for servers.
    pub ecdh_curves: Vec<String>,
    /// tlsDefaults.minProtocolVersion, for servers.
    pub min_protocol_version: TlsProtocol,
    /// meshMTLS, for connections with a workload certificate.
    pub mesh_mtls: MeshMtls,
    /// defaultHttpRetryPolicy, for routes without `retries`.
    pub http_retry: Option<HttpRetry>,
    /// defaultConfig.gatewayTopology.forwardClientCertDetails
    pub forward_client_cert: ForwardClientCert,
    /// outboundTrafficPolicy.mode
    pub outbound: OutboundMode,
    /// Whether sidecars are told to give ServiceEntries addresses (defaultConfig.proxyMetadata).
    pub allocates_addresses: bool,
    /// Whether endpoints of the mesh are spoken to in plaintext unless a rule says otherwise (enableAutoMtls: false).
    pub no_auto_mtls: bool,
    pub trust: MeshTrust,
}

/// Who belongs to the mesh (MeshConfig trustDomain, trustDomainAliases, caCertificates).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct MeshTrust {
    /// As the mesh file says; see [`Settings::trust_domain`].
    pub domain: String,
    pub aliases: Vec<String>,
    pub authorities: Vec<MeshAuthority>,
}

/// MeshConfig caCertificates, as far as it holds the certificates itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct MeshAuthority {
    pub pem: String,
    /// Whom it vouches for; empty means everyone.
    pub trust_domains: Vec<String>,
}

/// MeshConfig meshMTLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeshMtls {
    pub min_protocol_version: TlsProtocol,
    pub cipher_suites: Vec<String>,
    pub ecdh_curves: Vec<String>,
}

/// What becomes of x-forwarded-client-cert (gatewayTopology.forwardClientCertDetails).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ForwardClientCert {
    /// As `SanitizeSet`.
    #[default]
    Undefined,
    /// Never sent.
    Sanitize,
    /// Kept as it came, if the connection is mutual TLS.
    ForwardOnly,
    /// Kept with the client's certificate behind it, if the connection is mutual TLS.
    AppendForward,
    /// The client's certificate alone, if the connection is mutual TLS.
    SanitizeSet,
    /// Kept as it came, always.
    AlwaysForwardOnly,
}

/// Where a sidecar sends what no service is known for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OutboundMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// `[http]`: limits and trust of client connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpSettings {
    /// Largest request head in bytes. Default 61440 (60 KiB).
    pub max_head_bytes: usize,
    /// Most header fields of a request. Default 100.
    pub max_headers: usize,
    /// From the first byte of a head to its end. Default 15 s.
    pub head_timeout: Duration,
    /// A TLS handshake, and everything before it, has to be done in this time. Default 15 s.
    pub handshake_timeout: Duration,
    /// Connections without a request are closed after this time. Default 1 h.
    pub idle_timeout: Duration,
    /// Opening a connection to an endpoint; a DestinationRule may say otherwise. Default 10 s.
    pub connect_timeout: Duration,
    /// Peers whose x-forwarded-for is believed. Default none.
    pub trusted_proxies: Vec<Cidr>,
    /// Number of trusted proxies in front (MeshConfig gatewayTopology.numTrustedProxies). Default 0.
    pub num_trusted_proxies: u32,
    /// MeshConfig pathNormalization.normalization. Default BASE.
    pub path_normalization: PathNormalization,
    /// HTTP/2 streams that a client may open at once. Default 1024.
    pub max_concurrent_streams: u32,
    /// Whether a request with `_` in a header name is refused (MeshConfig connectionSettings, profile EDGE).
    pub rejects_underscores: bool,
    /// MeshConfig defaultConfig.proxyHeaders.
    pub own_headers: OwnHeaderSettings,
}

/// Which headers the proxy adds by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnHeaderSettings {
    /// `server`; `None` leaves what the endpoint says. Default `istio-envoy`.
    pub server: Option<String>,
    /// Default true.
    pub request_id: bool,
    /// Default true.
    pub attempt_count: bool,
    /// Envoy's debug headers. Default true.
    pub debug: bool,
    /// Default false.
    pub forwarded_host: bool,
    /// Default false.
    pub forwarded_port: bool,
}

impl Default for OwnHeaderSettings {
    fn default() -> Self {
        OwnHeaderSettings {
            server: Some("istio-envoy".into()),
            request_id: true,
            attempt_count: true,
            debug: true,
            forwarded_host: false,
            forwarded_port: false,
        }
    }
}

/// MeshConfig pathNormalization.normalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
    /// MERGE_SLASHES, and who writes an escaped slash is redirected to the decoded path (profile EDGE).
    RedirectEscapedSlashes,
}

/// `[access_log]`, and what MeshConfig says of access logs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccessLogSettings {
    /// A file, or `/dev/stdout`; `None` turns the log off, unless a Telemetry turns it on. Default `/dev/stdout`.
    pub path: Option<PathBuf>,
    /// What stands for `/dev/stdout` in `path` and in Istio's objects. Default `/dev/stdout` itself.
    pub stdout: PathBuf,
    pub format: AccessLogFormat,
    /// MeshConfig accessLogFormat: a line of operators, or the text of a JSON object. Empty means Istio's default.
    pub template: String,
    /// Where `template` was written.
    pub template_place: Location,
    /// Whether connections that no server takes are logged too (not MeshConfig disableEnvoyListenerLog).
    pub listeners: bool,
    /// MeshConfig extensionProviders, in their order.
    pub providers: Vec<ExtensionProvider>,
    /// MeshConfig defaultProviders.accessLogging
    pub default_providers: Vec<String>,
}

/// MeshConfig extensionProviders: something that a Telemetry can name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExtensionProvider {
    pub name: String,
    pub service: ProviderService,
}

/// What a provider does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProviderService {
    /// envoyFileAccessLog
    File(FileLog),
    /// Another one, by its field in MeshConfig.
    Other(&'static str),
}

/// MeshConfig envoyFileAccessLog.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FileLog {
    /// Empty means `/dev/stdout`.
    pub path: String,
    pub format: FileLogFormat,
    /// Absent values are nothing in place of `-`, and absent keys in JSON.
    pub omit_empty_values: bool,
    /// Where the format was written.
    pub place: Location,
}

/// MeshConfig envoyFileAccessLog.logFormat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum FileLogFormat {
    /// None was given.
    #[default]
    Default,
    Text(String),
    Labels(serde_json::Map<String, serde_json::Value>),
}

/// How an access log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessLogFormat {
    /// Envoy's default text format, as Istio configures it.
    #[default]
    Text,
    /// One JSON object a line, with Istio's keys.
    Json,
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuntimeSettings {
    /// Threads that carry traffic; 0 means one for each core. Default 0.
    pub workers: usize,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdminSettings {
    /// Status, dumps, log level, reload. Default 127.0.0.1:15000.
    pub address: SocketAddr,
    /// `/healthz/ready` for load balancers. Default 0.0.0.0:15021.
    pub ready: SocketAddr,
    /// `/stats/prometheus`. Default 0.0.0.0:15020.
    pub metrics: SocketAddr,
    /// How many requests that ended lately are kept for `limani explain --request-id`; 0 keeps none. Default 1000.
    pub recent_requests: usize,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShutdownSettings {
    /// How long listeners stay open after SIGTERM while readiness already fails. Default 5 s.
    pub grace: Duration,
    /// How long requests may take to finish after that. Default 45 s.
    pub drain: Duration,
}

impl Settings {
    /// The trust domain of the mesh: as `[identity]` says, or else the mesh file.
    pub(crate) fn trust_domain(&self) -> &str {
        match (self.identity.trust_domain.as_deref(), self.mesh.trust.domain.as_str()) {
            (Some(own), _) => own,
            (None, "") => "cluster.local",
            (None, of_mesh) => of_mesh,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Settings {
            gateway: GatewaySettings {
                namespace: "istio-system".into(),
                labels: Labels::from([("istio".into(), "ingressgateway".into())]),
                workload: "istio-ingressgateway".into(),
                default_namespace: "default".into(),
                root_namespace: "istio-system".into(),
                cluster_domain: "cluster.local".into(),
                cluster: "Kubernetes".into(),
                locality: String::new(),
            },
            identity: IdentitySettings::default(),
            tls: TlsSettings::default(),
            acme: AcmeSettings::default(),
            listen: ListenSettings { address: anywhere, ports: BTreeMap::new(), proxy_protocol: false },
            source: SourceSettings { watch: true, debounce: Duration::from_millis(200), ..SourceSettings::default() },
            hosts: BTreeMap::new(),
            http: HttpSettings {
                max_head_bytes: 60 * 1024,
                max_headers: 100,
                head_timeout: Duration::from_secs(15),
                handshake_timeout: Duration::from_secs(15),
                idle_timeout: Duration::from_secs(3600),
                connect_timeout: Duration::from_secs(10),
                trusted_proxies: Vec::new(),
                num_trusted_proxies: 0,
                path_normalization: PathNormalization::Base,
                max_concurrent_streams: 1024,
                rejects_underscores: false,
                own_headers: OwnHeaderSettings::default(),
            },
            mesh: MeshDefaults::default(),
            access_log: AccessLogSettings {
                path: Some("/dev/stdout".into()),
                stdout: "/dev/stdout".into(),
                format: AccessLogFormat::Text,
                template: String::new(),
                template_place: Location::default(),
                listeners: true,
                providers: Vec::new(),
                default_providers: Vec::new(),
            },
            runtime: RuntimeSettings { workers: 0 },
            admin: AdminSettings {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 15000)),
                ready: SocketAddr::new(anywhere, 15021),
                metrics: SocketAddr::new(anywhere, 15020),
                recent_requests: 1000,
            },
            shutdown: ShutdownSettings { grace: Duration::from_secs(5), drain: Duration::from_secs(45) },
        }
    }
}
