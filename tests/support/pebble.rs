//! Pebble, the ACME server of Let's Encrypt for tests, with a DNS of its own that sends every name to one address.
//!
//! It looks for http-01 and tls-alpn-01 at the ports where a gateway of the tests listens, and for dns-01 in the records
//! that the test writes into its DNS.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::address;
use super::certificate::Authority;
use super::curl::{Answer, curl};
use super::gateway::{HTTP, HTTPS};
use super::server::Server;
use super::tool;

const API: u16 = 14_000;
const MANAGEMENT: u16 = 15_500;
const DNS: u16 = 8053;
const DNS_MANAGEMENT: u16 = 8055;

/// A Pebble that is to be started.
pub struct PebblePlan {
    gateway: Ipv4Addr,
    settings: Value,
    environment: Vec<(&'static str, String)>,
    resolver: Option<SocketAddr>,
}

/// A running Pebble and its DNS.
pub struct Pebble {
    /// The URL to begin with.
    pub directory: String,
    /// Who signed the certificate of its web server, in PEM.
    pub api_root: PathBuf,
    address: Ipv4Addr,
    folder: TempDir,
    server: Server,
    _dns: Server,
}

impl PebblePlan {
    /// One that looks for challenges at this address.
    pub fn new(gateway: Ipv4Addr) -> Self {
        let settings = json!({"httpPort": HTTP, "tlsPort": HTTPS, "ocspResponderURL": "", "keyAlgorithm": "ecdsa"});
        let environment = vec![("PEBBLE_VA_NOSLEEP", "1".into()), ("PEBBLE_AUTHZREUSE", "0".into())];
        PebblePlan { gateway, settings, environment, resolver: None }
    }

    /// A key of the top level of its settings.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.settings[key] = value;
        self
    }

    /// Its profiles, each with the seconds that its certificates are valid; `default` is what it takes by itself.
    pub fn profiles(self, profiles: &[(&str, u32)]) -> Self {
        let entry =
            |&(name, seconds): &(&str, u32)| (name.to_owned(), json!({"description": name, "validityPeriod": seconds}));
        let profiles: serde_json::Map<_, _> = profiles.iter().map(entry).collect();
        self.set("profiles", profiles.into())
    }

    /// Only accounts that know this key may register (RFC 8555 section 7.3.4).
    pub fn external_account(self, key_id: &str, hmac: &str) -> Self {
        self.set("externalAccountBindingRequired", true.into()).set("externalAccountMACKeys", json!({key_id: hmac}))
    }

    /// One of the variables that its README lists, such as `PEBBLE_WFE_NONCEREJECT`.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Ask this DNS server instead of the one that comes with it.
    pub fn resolver(mut self, server: SocketAddr) -> Self {
        self.resolver = Some(server);
        self
    }

    /// Starts it; `None`, and a word that the test is skipped, where it is not installed.
    pub fn start(self) -> Option<Pebble> {
        let program = tool::needed("pebble")?;
        let dns_program = tool::needed("pebble-challtestsrv")?;
        let (folder, address) = (tempfile::tempdir().expect("a folder for Pebble"), address::fresh());
        let file = |name: &str| folder.path().join(name);
        let at = |port: u16| SocketAddr::from((address, port));

        let authority = Authority::new();
        let api_root = PathBuf::from(authority.write(folder.path()));
        let identity = authority.identity(&[&address.to_string(), "localhost"]);
        fs::write(file("api.crt"), identity.certificate).expect("a certificate is written");
        fs::write(file("api.key"), identity.key).expect("a key is written");
        let mut settings = self.settings;
        settings["listenAddress"] = at(API).to_string().into();
        settings["managementListenAddress"] = at(MANAGEMENT).to_string().into();
        settings["certificate"] = "api.crt".into();
        settings["privateKey"] = "api.key".into();
        fs::write(file("pebble.json"), json!({ "pebble": settings }).to_string()).expect("settings are written");

        let flags = Command::new(&dns_program).arg("-help").output().expect("the program runs").stderr;
        let is_recent = String::from_utf8_lossy(&flags).contains("-dnsserver");
        let mut dns = Command::new(dns_program);
        dns.args([if is_recent { "-dnsserver" } else { "-dns01" }, &at(DNS).to_string()]);
        dns.args(if is_recent { &["-doh", ""][..] } else { &[] });
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &at(DNS_MANAGEMENT).to_string()]);
        dns.args(["-defaultIPv4", &self.gateway.to_string(), "-defaultIPv6", ""]);
        let dns = Server::start(dns, file("dns.log"), &[at(DNS), at(DNS_MANAGEMENT)]);

        let resolver = self.resolver.unwrap_or_else(|| at(DNS)).to_string();
        let mut pebble = Command::new(program);
        pebble.args(["-strict", "-config", "pebble.json", "-dnsserver", &resolver]);
        pebble.envs(self.environment).current_dir(folder.path());
        let server = Server::start(pebble, file("pebble.log"), &[at(API), at(MANAGEMENT)]);
        let directory = format!("https://{}/dir", at(API));
        Some(Pebble { directory, api_root, address, folder, server, _dns: dns })
    }
}

impl Pebble {
    /// The root of what it issues, for curl's `--cacert`.
    pub fn root(&self) -> String {
        self.alternate_root(0)
    }

    /// The root of the chain with this number; more than 0 need `PEBBLE_ALTERNATE_ROOTS`.
    pub fn alternate_root(&self, number: u32) -> String {
        let path = self.folder.path().join(format!("root-{number}.pem"));
        fs::write(&path, self.manage(&format!("/roots/{number}"), &[]).body.trim_start()).expect("a root is written");
        path.to_string_lossy().into_owned()
    }

    /// Whether it has renewal information, profiles and dns-persist-01; if not, a word that the test is skipped.
    pub fn is_recent(&self) -> bool {
        let directory = curl(&self.directory, &["--cacert", &self.api_root.to_string_lossy()]).json();
        let recent = directory["renewalInfo"].is_string() && directory["meta"]["profiles"].is_object();
        if !recent {
            tool::skip("this Pebble has no renewal information, no profiles and no dns-persist-01");
        }
        recent
    }

    /// When this certificate (PEM) should be renewed, from now on: the body of RFC 9773 section 4.2.
    pub fn set_renewal_info(&self, certificate: &str, body: &Value) {
        let request = json!({"certificate": certificate, "ariResponse": body.to_string()}).to_string();
        let answer = self.manage("/set-renewal-info/", &["--data-binary", &request]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Its DNS answers with this TXT record too.
    pub fn add_txt(&self, name: &str, value: &str) {
        self.dns("set-txt", &json!({"host": format!("{name}."), "value": value}));
    }

    /// Its DNS fails for this name from now on.
    pub fn break_name(&self, name: &str) {
        self.dns("set-servfail", &json!({"host": format!("{name}.")}));
    }

    /// Where its DNS is changed: `set-txt` and `clear-txt`, by POST of JSON.
    pub fn dns_management(&self) -> String {
        format!("http://{}:{DNS_MANAGEMENT}", self.address)
    }

    /// What it was asked, in its own words.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// How many certificates it issued.
    pub fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    /// Its folder, for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn dns(&self, what: &str, body: &Value) {
        let url = format!("{}/{what}", self.dns_management());
        let answer = curl(&url, &["--data-binary", &body.to_string()]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn manage(&self, path: &str, arguments: &[&str]) -> Answer {
        let root = self.api_root.to_string_lossy();
        let url = format!("https://{}:{MANAGEMENT}{path}", self.address);
        curl(&url, &[&["--cacert", &root], arguments].concat())
    }
}
