//! Which keys has `limani.toml`, and which settings do they become?

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::acme::Acme;
use crate::base::cidr::Cidr;
use crate::resource::meta::Labels;
use crate::resource::networking::GoDuration;
use crate::resource::settings::{AccessLogFormat, HostAddress, IdentityKind, PathNormalization, Settings};

/// All keys of `limani.toml`, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Keys {
    pub gateway: Gateway,
    pub identity: Identity,
    pub tls: Tls,
    pub acme: Acme,
    pub listen: Listen,
    pub source: Source,
    pub hosts: BTreeMap<String, OneOrMany<Host>>,
    pub http: Http,
    pub access_log: AccessLog,
    pub runtime: Runtime,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub route: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Gateway {
    namespace: Option<String>,
    labels: Option<Labels>,
    workload: Option<String>,
    default_namespace: Option<String>,
    root_namespace: Option<String>,
    cluster_domain: Option<String>,
    cluster: Option<String>,
    locality: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Identity {
    source: Option<IdentityKind>,
    certificate: Option<String>,
    key: Option<String>,
    root: Option<String>,
    crl: Option<String>,
    folder: Option<String>,
    socket: Option<String>,
    spiffe_id: Option<String>,
    address: Option<String>,
    server_name: Option<String>,
    token: Option<String>,
    trust_domain: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    signer: Option<String>,
    ttl: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Tls {
    local_ca: Option<LocalCa>,
    secrets: OneOrMany<String>,
    session_tickets: Option<bool>,
    session_ticket_keys: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Listen {
    address: Option<Parsed<IpAddr>>,
    ports: BTreeMap<Parsed<u16>, u16>,
    proxy_protocol: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Source {
    manifests: OneOrMany<String>,
    pub mesh: Option<String>,
    variables: BTreeMap<String, Variable>,
    watch: Option<bool>,
    debounce: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Http {
    max_head_bytes: Option<u32>,
    max_headers: Option<u32>,
    head_timeout: Option<GoDuration>,
    handshake_timeout: Option<GoDuration>,
    idle_timeout: Option<GoDuration>,
    connect_timeout: Option<GoDuration>,
    trusted_proxies: Option<Vec<Parsed<Cidr>>>,
    num_trusted_proxies: Option<u32>,
    path_normalization: Option<Normalization>,
    max_concurrent_streams: Option<u32>,
}

/// MeshConfig pathNormalization.normalization, as written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::source) enum Normalization {
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

impl From<Normalization> for PathNormalization {
    fn from(written: Normalization) -> Self {
        match written {
            Normalization::None => PathNormalization::None,
            Normalization::Default | Normalization::Base => PathNormalization::Base,
            Normalization::MergeSlashes => PathNormalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct AccessLog {
    path: Option<String>,
    stdout: Option<String>,
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Runtime {
    workers: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Admin {
    address: Option<Parsed<SocketAddr>>,
    ready: Option<Parsed<SocketAddr>>,
    metrics: Option<Parsed<SocketAddr>>,
    recent_requests: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Shutdown {
    grace: Option<GoDuration>,
    drain: Option<GoDuration>,
}

/// `[[route]]`: a host and path, and where its requests go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Route {
    /// Names that are served; `*` serves all.
    pub host: OneOrMany<String>,
    /// Default `/`.
    pub path: Option<String>,
    /// `http://`, `https://` or `h2c://` URLs; several take turns.
    pub to: OneOrMany<String>,
    /// A URL to which clients are sent instead.
    pub redirect: Option<String>,
    pub tls: Option<RouteTls>,
    /// Default 80, with `tls` 443.
    pub port: Option<u16>,
    /// Whether port 80 redirects to HTTPS. Default true with `tls`, unless a plain route has the host on port 80.
    pub http_to_https: Option<bool>,
    pub timeout: Option<GoDuration>,
    /// Headers of the request.
    pub headers: RouteHeaders,
}

/// `[[route]] headers`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct RouteHeaders {
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

/// `[tls] local_ca`: whether there is an authority of our own, or its folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum LocalCa {
    Switch(bool),
    Folder(String),
}

/// `[[route]] tls`: who issues the certificate (`"acme"`, `"acme://ISSUER"`, `"local-ca"`), files, or `false`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(in crate::source) enum RouteTls {
    Switch(bool),
    Issued(String),
    Files { certificate: String, key: String },
}

/// `"10.0.0.1"`, `"10.0.0.1:80"` or `{ address = "10.0.0.1:80", labels = { version = "v1" } }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::source) enum Host {
    Plain(Parsed<Endpoint>),
    Labelled {
        address: Parsed<Endpoint>,
        #[serde(default)]
        labels: Labels,
    },
}

/// An address with or without a port.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct Endpoint(IpAddr, Option<u16>);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(Endpoint(address, None));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Endpoint(address.ip(), Some(address.port()))),
            Err(_) => Err(format!("`{text}` is no address; write one such as 10.0.0.1 or 10.0.0.1:8080")),
        }
    }
}

/// A list, or its single item.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::source) enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// The items in their order.
    pub(in crate::source) fn items(&self) -> &[T] {
        match self {
            OneOrMany::Many(items) => items,
            OneOrMany::One(item) => std::slice::from_ref(item),
        }
    }
}

/// The value of a variable, as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Variable {
    Text(String),
    Number(i64),
    Switch(bool),
}

impl Variable {
    fn text(&self) -> String {
        match self {
            Variable::Text(text) => text.clone(),
            Variable::Number(number) => number.to_string(),
            Variable::Switch(word) => word.to_string(),
        }
    }
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::source) struct Parsed<T>(pub T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Parsed).map_err(|error| de::Error::custom(format_args!("`{text}`: {error}")))
    }
}

/// Writes what the file says over `settings`; relative paths start at `folder`.
///
/// # Errors
///
/// The name of a variable with several lines: it would move the lines of the manifests.
pub(in crate::source) fn apply(keys: &Keys, folder: &Path, settings: &mut Settings) -> Result<(), String> {
    apply_gateway(&keys.gateway, settings);
    apply_identity(&keys.identity, folder, settings);
    set(&mut settings.tls.session_tickets, keys.tls.session_tickets);
    set(&mut settings.tls.session_ticket_keys, keys.tls.session_ticket_keys.clone());
    settings.tls.local_ca = match &keys.tls.local_ca {
        None | Some(LocalCa::Switch(false)) => None,
        Some(LocalCa::Switch(true)) => Some(folder.join("local-ca")),
        Some(LocalCa::Folder(path)) => Some(folder.join(path)),
    };
    settings.tls.secrets = keys.tls.secrets.items().iter().map(|path| folder.join(path)).collect();
    settings.acme = keys.acme.settings(folder);
    apply_source(&keys.source, folder, settings)?;
    apply_http(&keys.http, settings);
    if let Some(address) = keys.listen.address {
        settings.listen.address = address.0;
    }
    settings.listen.ports.extend(keys.listen.ports.iter().map(|(from, to)| (from.0, *to)));
    set(&mut settings.listen.proxy_protocol, keys.listen.proxy_protocol);
    for (name, hosts) in &keys.hosts {
        settings.hosts.insert(name.clone(), hosts.items().iter().map(host_address).collect());
    }
    match keys.access_log.path.as_deref() {
        Some("off" | "") => settings.access_log.path = None,
        Some(path) => settings.access_log.path = Some(folder.join(path)),
        None => {}
    }
    set(&mut settings.access_log.stdout, keys.access_log.stdout.as_ref().map(|path| folder.join(path)));
    match keys.access_log.format {
        Some(Format::Text) => settings.access_log.format = AccessLogFormat::Text,
        Some(Format::Json) => settings.access_log.format = AccessLogFormat::Json,
        None => {}
    }
    set(&mut settings.runtime.workers, keys.runtime.workers.map(usize::from));
    set(&mut settings.admin.address, keys.admin.address.map(|address| address.0));
    set(&mut settings.admin.ready, keys.admin.ready.map(|address| address.0));
    set(&mut settings.admin.metrics, keys.admin.metrics.map(|address| address.0));
    set(&mut settings.admin.recent_requests, keys.admin.recent_requests.and_then(|n| usize::try_from(n).ok()));
    set(&mut settings.shutdown.grace, keys.shutdown.grace.map(|time| time.0));
    set(&mut settings.shutdown.drain, keys.shutdown.drain.map(|time| time.0));
    Ok(())
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn apply_gateway(keys: &Gateway, settings: &mut Settings) {
    let gateway = &mut settings.gateway;
    set(&mut gateway.namespace, keys.namespace.clone());
    set(&mut gateway.labels, keys.labels.clone());
    set(&mut gateway.workload, keys.workload.clone());
    set(&mut gateway.default_namespace, keys.default_namespace.clone());
    set(&mut gateway.root_namespace, keys.root_namespace.clone());
    set(&mut gateway.cluster_domain, keys.cluster_domain.clone());
    set(&mut gateway.cluster, keys.cluster.clone());
    set(&mut gateway.locality, keys.locality.clone());
}

fn apply_identity(keys: &Identity, folder: &Path, settings: &mut Settings) {
    let identity = &mut settings.identity;
    identity.base = folder.to_owned();
    identity.source = keys.source;
    set(&mut identity.certificate, keys.certificate.clone());
    set(&mut identity.key, keys.key.clone());
    set(&mut identity.root, keys.root.clone());
    set(&mut identity.crl, keys.crl.clone());
    set(&mut identity.folder, keys.folder.clone());
    set(&mut identity.token, keys.token.clone());
    identity.socket.clone_from(&keys.socket);
    identity.spiffe_id.clone_from(&keys.spiffe_id);
    identity.address.clone_from(&keys.address);
    identity.server_name.clone_from(&keys.server_name);
    identity.trust_domain.clone_from(&keys.trust_domain);
    identity.namespace.clone_from(&keys.namespace);
    identity.service_account.clone_from(&keys.service_account);
    identity.signer.clone_from(&keys.signer);
    identity.ttl = keys.ttl.map(|time| time.0);
}

fn apply_source(keys: &Source, folder: &Path, settings: &mut Settings) -> Result<(), String> {
    let source = &mut settings.source;
    source.manifests = keys.manifests.items().iter().map(|path| folder.join(path)).collect::<Vec<PathBuf>>();
    source.mesh = keys.mesh.as_ref().map(|path| folder.join(path));
    set(&mut source.watch, keys.watch);
    set(&mut source.debounce, keys.debounce.map(|time| time.0));
    for (name, value) in &keys.variables {
        let text = value.text();
        if text.contains(['\n', '\r']) {
            return Err(name.clone());
        }
        source.variables.insert(name.clone(), text);
    }
    Ok(())
}

fn apply_http(keys: &Http, settings: &mut Settings) {
    let http = &mut settings.http;
    let size = |number: Option<u32>| number.and_then(|n| usize::try_from(n).ok());
    set(&mut http.max_head_bytes, size(keys.max_head_bytes));
    set(&mut http.max_headers, size(keys.max_headers));
    set(&mut http.head_timeout, keys.head_timeout.map(|time| time.0));
    set(&mut http.handshake_timeout, keys.handshake_timeout.map(|time| time.0));
    set(&mut http.idle_timeout, keys.idle_timeout.map(|time| time.0));
    set(&mut http.connect_timeout, keys.connect_timeout.map(|time| time.0));
    set(
        &mut http.trusted_proxies,
        keys.trusted_proxies.as_ref().map(|list| list.iter().map(|range| range.0).collect()),
    );
    set(&mut http.num_trusted_proxies, keys.num_trusted_proxies);
    set(&mut http.path_normalization, keys.path_normalization.map(PathNormalization::from));
    set(&mut http.max_concurrent_streams, keys.max_concurrent_streams);
}

fn host_address(host: &Host) -> HostAddress {
    let (Parsed(Endpoint(address, port)), labels) = match host {
        Host::Plain(endpoint) => (*endpoint, Labels::new()),
        Host::Labelled { address, labels } => (*address, labels.clone()),
    };
    HostAddress { address, port, labels }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::read;
    use super::*;

    fn settings(text: &str) -> Settings {
        let mut settings = Settings::default();
        apply(&read("limani.toml", text).unwrap().keys, Path::new("/etc/limani"), &mut settings).unwrap();
        settings
    }

    #[test]
    fn keys_become_settings() {
        let settings = settings(
            r#"
            [gateway]
            labels = { istio = "egress" }
            [listen]
            ports = { 80 = 8080, 443 = 8443 }
            [source]
            manifests = ["manifests", "/abs.yaml"]
            variables = { INGRESS_DOMAIN = "example.com", PORT = 80 }
            debounce = "1s"
            [hosts]
            "a.default.svc.cluster.local" = ["127.0.0.1:9080", { address = "10.0.0.1", labels = { version = "v2" } }]
            b = "::1"
            [http]
            trusted_proxies = ["10.0.0.0/8"]
            path_normalization = "MERGE_SLASHES"
            [tls]
            secrets = "certs/"
            [identity]
            root = "root.pem"
            [access_log]
            path = "off"
            format = "json"
            "#,
        );
        assert_eq!(settings.gateway.labels["istio"], "egress");
        assert_eq!(settings.listen.ports[&443], 8443);
        assert_eq!(settings.source.manifests, [Path::new("/etc/limani/manifests"), Path::new("/abs.yaml")]);
        assert_eq!(settings.tls.secrets, [Path::new("/etc/limani/certs")]);
        assert_eq!(settings.source.variables["PORT"], "80");
        assert_eq!(settings.source.debounce, Duration::from_secs(1));
        let hosts = &settings.hosts["a.default.svc.cluster.local"];
        assert_eq!((hosts[0].port, hosts[1].labels["version"].as_str()), (Some(9080), "v2"));
        assert_eq!(settings.hosts["b"][0].port, None);
        assert_eq!(settings.http.path_normalization, PathNormalization::MergeSlashes);
        assert_eq!((settings.identity.root.as_str(), settings.identity.key.as_str()), ("root.pem", ""));
        assert_eq!((settings.access_log.path, settings.access_log.format), (None, AccessLogFormat::Json));
    }
}
