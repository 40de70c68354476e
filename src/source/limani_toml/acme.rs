//! What does `[acme]` say, and what of it cannot be meant?

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use http::Uri;
use serde::Deserialize;

use super::keys::{OneOrMany, Parsed};
use crate::resource::settings::acme::{
    self, AcmeCertificate, AcmeIssuer, AcmeSettings, CertificateKey, CertificateName, Challenge, DnsSettings,
    ExternalAccount, KNOWN_CAS, OnDemandSettings, TsigKey,
};

/// Where a fault is, as a path such as `acme.issuer[0].dns`, and what it is.
pub(super) type Fault = (String, String);

/// `[acme]`. Keys of an issuer that stand here are for the one issuer, or for all that say nothing else.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::source) struct Acme {
    storage: Option<String>,
    listen_http: Option<bool>,
    key: Option<Key>,
    directory: Option<Parsed<Directory>>,
    root: Option<String>,
    email: Option<String>,
    profile: Option<String>,
    preferred_chain: Option<String>,
    eab: Option<Eab>,
    challenges: Option<Vec<Parsed<Kind>>>,
    dns: Option<Dns>,
    issuer: Vec<Issuer>,
    certificate: Vec<Certificate>,
    on_demand: Option<OnDemand>,
}

/// `[[acme.issuer]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Issuer {
    name: Option<Parsed<PlainName>>,
    directory: Option<Parsed<Directory>>,
    root: Option<String>,
    email: Option<String>,
    profile: Option<String>,
    preferred_chain: Option<String>,
    eab: Option<Eab>,
    challenges: Option<Vec<Parsed<Kind>>>,
    dns: Option<Dns>,
}

/// `[[acme.certificate]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Certificate {
    secret: Option<Parsed<PlainName>>,
    identifiers: OneOrMany<Parsed<CertificateName>>,
    issuers: OneOrMany<String>,
    profile: Option<String>,
    key: Option<Key>,
}

/// `[acme.on_demand]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OnDemand {
    ask: Option<Parsed<WebAddress>>,
    issuers: OneOrMany<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Eab {
    key_id: String,
    hmac_file: String,
}

/// One of the three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Dns {
    rfc2136: Option<Rfc2136>,
    exec: Option<String>,
    webhook: Option<Parsed<WebAddress>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Rfc2136 {
    server: Parsed<NameServer>,
    zone: Option<String>,
    key: Option<Tsig>,
}

#[derive(Clone, Debug, Deserialize)]
struct Tsig {
    name: String,
    algorithm: Option<Algorithm>,
    secret_file: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Algorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Key {
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    #[serde(rename = "ed25519")]
    Ed25519,
}

impl From<Key> for CertificateKey {
    fn from(written: Key) -> Self {
        match written {
            Key::EcdsaP256 => CertificateKey::EcdsaP256,
            Key::EcdsaP384 => CertificateKey::EcdsaP384,
            Key::Rsa2048 => CertificateKey::Rsa2048,
            Key::Ed25519 => CertificateKey::Ed25519,
        }
    }
}

/// One of the challenges by its word.
#[derive(Clone, Copy, Debug)]
struct Kind(Challenge);

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Challenge::ALL.into_iter().find(|challenge| challenge.word() == text);
        known.map(Kind).ok_or("a challenge is one of tls-alpn-01, http-01, dns-01 and dns-persist-01")
    }
}

/// The URL of a directory, or the name of a known CA.
#[derive(Clone, Debug)]
struct Directory {
    url: String,
    /// What an issuer without a name is called.
    name: String,
}

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((name, url)) = KNOWN_CAS.iter().find(|(name, url)| [name, url].contains(&&text)) {
            return Ok(Directory { url: (*url).to_owned(), name: (*name).to_owned() });
        }
        let uri: Option<Uri> = text.parse().ok();
        match uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16()))) {
            Some(("https", host, port)) => {
                let host = host.trim_matches(['[', ']']).replace(':', "-").to_ascii_lowercase();
                let name = port.map_or_else(|| host.clone(), |port| format!("{host}-{port}"));
                Ok(Directory { url: text.to_owned(), name })
            }
            _ => {
                let names: Vec<&str> = KNOWN_CAS.iter().map(|(name, _)| *name).collect();
                Err(format!("a directory is an https:// URL, or one of {}", names.join(", ")))
            }
        }
    }
}

/// An `http://` or `https://` URL.
#[derive(Clone, Debug)]
struct WebAddress(String);

impl FromStr for WebAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Option<Uri> = text.parse().ok();
        match uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?))) {
            Some(("http" | "https", _)) => Ok(WebAddress(text.to_owned())),
            _ => Err("it has to be an http:// or https:// URL"),
        }
    }
}

/// An address, with port 53 if it names none.
#[derive(Clone, Copy, Debug)]
struct NameServer(SocketAddr);

impl FromStr for NameServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse().ok();
        let with_port = || Some(SocketAddr::new(text.trim_matches(['[', ']']).parse::<IpAddr>().ok()?, 53));
        address.or_else(with_port).map(NameServer).ok_or("a server is an IP address, with or without a port")
    }
}

/// A name that can be the name of a folder.
#[derive(Clone, Debug)]
struct PlainName(String);

impl FromStr for PlainName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match (1..=200).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            true => Ok(PlainName(text.to_owned())),
            false => Err("a name is made of letters, digits, `-`, `_` and `.`, and begins with no `.`"),
        }
    }
}

impl Acme {
    /// What is written for a key and cannot be meant with the others.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut tell = |path: String, message: String| faults.push((path, message));
        for (key, is_written) in [
            ("directory", self.directory.is_some()),
            ("root", self.root.is_some()),
            ("profile", self.profile.is_some()),
            ("preferred_chain", self.preferred_chain.is_some()),
            ("eab", self.eab.is_some()),
        ] {
            if is_written && !self.issuer.is_empty() {
                tell(format!("acme.{key}"), format!("with [[acme.issuer]], `{key}` belongs to one of the issuers"));
            }
        }
        let own = self.dns.iter().map(|dns| ("acme".to_owned(), dns));
        let solvers = self.issuer.iter().enumerate();
        let solvers =
            solvers.filter_map(|(index, issuer)| Some((format!("acme.issuer[{index}]"), issuer.dns.as_ref()?)));
        for (path, dns) in own.chain(solvers) {
            if [dns.rfc2136.is_some(), dns.exec.is_some(), dns.webhook.is_some()].into_iter().filter(|is| *is).count()
                != 1
            {
                tell(format!("{path}.dns"), "`dns` is one of rfc2136, exec and webhook".to_owned());
            }
        }
        let issuers = self.issuers(Path::new(""));
        let mut names = HashSet::new();
        for (index, issuer) in issuers.iter().enumerate() {
            let path = if self.issuer.is_empty() { "acme".to_owned() } else { format!("acme.issuer[{index}]") };
            if issuer.challenges.is_empty() {
                tell(format!("{path}.challenges"), "at least one challenge is needed".to_owned());
            }
            if issuer.challenges.contains(&Challenge::Dns01) && issuer.dns.is_none() {
                tell(format!("{path}.challenges"), "dns-01 needs `dns`, which says who writes the records".to_owned());
            }
            if !names.insert(issuer.name.as_str()) {
                tell(path, format!("an earlier issuer is named `{}`; give each a `name` of its own", issuer.name));
            }
        }
        let known: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let unknown = |written: &OneOrMany<String>| {
            let unknown = written.items().iter().find(|name| !known.contains(&name.as_str()))?;
            Some(format!("no issuer is named `{unknown}`; there is {}", known.join(", ")))
        };
        let mut secrets = HashSet::new();
        for (index, certificate) in self.certificate.iter().enumerate() {
            let path = format!("acme.certificate[{index}]");
            match &certificate.secret {
                None => tell(path.clone(), "`secret` has to name the certificate, as credentialName does".to_owned()),
                Some(Parsed(PlainName(name))) if !secrets.insert(name.as_str()) => {
                    tell(format!("{path}.secret"), format!("an earlier certificate is named `{name}`"));
                }
                Some(_) => {}
            }
            if certificate.identifiers.items().is_empty() {
                tell(path.clone(), "`identifiers` have to say what the certificate is for".to_owned());
            }
            if let Some(message) = unknown(&certificate.issuers) {
                tell(format!("{path}.issuers"), message);
            }
        }
        if let Some(on_demand) = &self.on_demand {
            if on_demand.ask.is_none() {
                let reason = "anybody could have certificates ordered, so `ask` has to name a URL that decides";
                tell("acme.on_demand".to_owned(), reason.to_owned());
            }
            if let Some(message) = unknown(&on_demand.issuers) {
                tell("acme.on_demand.issuers".to_owned(), message);
            }
        }
        faults
    }

    /// The settings; relative paths start at `folder`.
    pub(super) fn settings(&self, folder: &Path) -> AcmeSettings {
        let certificates = self.certificate.iter().filter_map(|certificate| {
            Some(AcmeCertificate {
                secret: certificate.secret.as_ref()?.0.0.clone(),
                identifiers: certificate.identifiers.items().iter().map(|name| name.0.clone()).collect(),
                issuers: certificate.issuers.items().to_vec(),
                profile: certificate.profile.clone(),
                key: certificate.key.map(CertificateKey::from),
            })
        });
        let on_demand = self.on_demand.as_ref().and_then(|on_demand| {
            let ask = on_demand.ask.as_ref()?.0.0.clone();
            Some(OnDemandSettings { ask, issuers: on_demand.issuers.items().to_vec() })
        });
        AcmeSettings {
            storage: Some(folder.join(self.storage.as_deref().unwrap_or("acme"))),
            issuers: self.issuers(folder),
            key: self.key.map(CertificateKey::from).unwrap_or_default(),
            certificates: certificates.collect(),
            on_demand,
            listen_http: self.listen_http,
        }
    }

    fn issuers(&self, folder: &Path) -> Vec<AcmeIssuer> {
        if !self.issuer.is_empty() {
            return self.issuer.iter().map(|issuer| self.issuer(issuer, folder)).collect();
        }
        let only = Issuer {
            name: None,
            directory: self.directory.clone(),
            root: self.root.clone(),
            profile: self.profile.clone(),
            preferred_chain: self.preferred_chain.clone(),
            eab: self.eab.clone(),
            ..Issuer::default()
        };
        vec![self.issuer(&only, folder)]
    }

    fn issuer(&self, written: &Issuer, folder: &Path) -> AcmeIssuer {
        let usual = AcmeIssuer::default();
        let directory = written.directory.as_ref().map(|directory| &directory.0);
        let name = written.name.as_ref().map(|name| name.0.0.clone());
        let name = name.or_else(|| directory.map(|directory| directory.name.clone())).unwrap_or(usual.name);
        let directory = directory.map_or(usual.directory, |directory| directory.url.clone());
        let dns = written.dns.as_ref().or(self.dns.as_ref()).and_then(|dns| dns.settings(folder));
        let challenges = match written.challenges.as_ref().or(self.challenges.as_ref()) {
            Some(kinds) => kinds.iter().map(|kind| kind.0.0).collect(),
            None => Challenge::usual(dns.is_some()),
        };
        AcmeIssuer {
            name,
            root: written.root.as_ref().map(|root| folder.join(root)),
            email: written.email.as_ref().or(self.email.as_ref()).cloned().unwrap_or_default(),
            profile: written.profile.clone().or_else(|| acme::default_profile(&directory)),
            preferred_chain: written.preferred_chain.clone(),
            directory,
            external_account: written
                .eab
                .as_ref()
                .map(|eab| ExternalAccount { key_id: eab.key_id.clone(), hmac_file: folder.join(&eab.hmac_file) }),
            challenges,
            dns,
        }
    }
}

impl Dns {
    fn settings(&self, folder: &Path) -> Option<DnsSettings> {
        if let Some(update) = &self.rfc2136 {
            let key = update.key.as_ref().map(|key| TsigKey {
                name: key.name.clone(),
                algorithm: match key.algorithm {
                    None | Some(Algorithm::HmacSha256) => "hmac-sha256".to_owned(),
                    Some(Algorithm::HmacSha384) => "hmac-sha384".to_owned(),
                    Some(Algorithm::HmacSha512) => "hmac-sha512".to_owned(),
                },
                secret_file: folder.join(&key.secret_file),
            });
            return Some(DnsSettings::Rfc2136 { server: update.server.0.0, zone: update.zone.clone(), key });
        }
        let program = self.exec.as_ref().map(|path| DnsSettings::Exec(folder.join(path)));
        program.or_else(|| self.webhook.as_ref().map(|url| DnsSettings::Webhook(url.0.0.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn settings(text: &str) -> AcmeSettings {
        read("l.toml", text).unwrap().keys.acme.settings(Path::new("/etc/limani"))
    }

    #[test]
    fn one_issuer_has_a_short_form() {
        let nothing = settings("");
        assert_eq!(nothing, AcmeSettings { storage: Some("/etc/limani/acme".into()), ..AcmeSettings::default() });
        let short =
            settings("[acme]\nemail = \"a@b.c\"\ndirectory = \"https://localhost:14000/dir\"\nroot = \"ca.pem\"\n");
        let [issuer] = short.issuers.as_slice() else { panic!("{short:?}") };
        assert_eq!((issuer.name.as_str(), issuer.email.as_str()), ("localhost-14000", "a@b.c"));
        assert_eq!((issuer.root.as_deref(), &issuer.profile), (Some(Path::new("/etc/limani/ca.pem")), &None));
        let staging = settings("[acme]\ndirectory = \"letsencrypt-staging\"\n");
        assert!(staging.issuers[0].directory.starts_with("https://acme-staging"), "{staging:?}");
    }

    #[test]
    fn issuers_say_only_what_differs() {
        let read = settings(
            r#"
            [acme]
            storage = "/var/lib/limani"
            email = "a@b.c"
            key = "rsa-2048"
            dns = { rfc2136 = { server = "10.0.0.1", key = { name = "k", secret_file = "k.b64" } } }
            [[acme.issuer]]
            directory = "letsencrypt"
            [[acme.issuer]]
            name = "inside"
            directory = "https://ca.internal/dir"
            email = "x@y.z"
            eab = { key_id = "1", hmac_file = "hmac" }
            challenges = ["http-01"]
            [[acme.certificate]]
            secret = "web-tls"
            identifiers = ["*.Example.com", "192.0.2.1"]
            issuers = "inside"
            [acme.on_demand]
            ask = "http://127.0.0.1:9000/ask"
            "#,
        );
        let [first, second] = read.issuers.as_slice() else { panic!("{read:?}") };
        let Some(DnsSettings::Rfc2136 { server, key: Some(key), .. }) = &first.dns else { panic!("{first:?}") };
        assert_eq!((server.port(), key.algorithm.as_str()), (53, "hmac-sha256"));
        assert_eq!(first.challenges, Challenge::usual(true));
        assert_eq!((first.email.as_str(), second.email.as_str()), ("a@b.c", "x@y.z"));
        assert_eq!(second.challenges, [Challenge::Http01]);
        assert_eq!(read.certificates[0].identifiers[0], CertificateName::Dns("*.example.com".into()));
        assert_eq!((read.key, read.certificates[0].issuers.len()), (CertificateKey::Rsa2048, 1));
    }

    #[test]
    fn faults_name_their_line() {
        for (text, wanted) in [
            (
                "[acme]\ndirectory = \"http://ca\"\n",
                "l.toml:2: error [LIM0001] `http://ca`: a directory is an https:// URL",
            ),
            ("[acme]\n\nchallenges = [\"dns-01\"]\n", "l.toml:3: error [LIM0001] dns-01 needs `dns`"),
            ("[acme]\nchallenges = [\"http\"]\n", "l.toml:2: error [LIM0001] `http`: a challenge is one of"),
            ("[acme]\nkey = \"dsa\"\n", "l.toml:2: error [LIM0001]"),
            ("[acme.on_demand]\n", "l.toml:1: error [LIM0001] anybody could have certificates ordered"),
            (
                "[acme.on_demand]\nask = \"ftp://x\"\n",
                "l.toml:2: error [LIM0001] `ftp://x`: it has to be an http:// or https:// URL",
            ),
            ("[acme]\ndns = { exec = \"a\", webhook = \"http://b\" }\n", "l.toml:2: error [LIM0001] `dns` is one of"),
            (
                "[[acme.issuer]]\ndirectory = \"letsencrypt\"\n[[acme.issuer]]\nname = \"letsencrypt\"\n",
                "l.toml:3: error [LIM0001] an earlier issuer is named `letsencrypt`",
            ),
            ("[[acme.certificate]]\nsecret = \"a/b\"\n", "l.toml:2: error [LIM0001] `a/b`: a name is made of"),
            (
                "[[acme.certificate]]\nsecret = \"a\"\nidentifiers = \"a.b\"\nissuers = \"x\"\n",
                "l.toml:4: error [LIM0001] no issuer is named `x`; there is letsencrypt",
            ),
            (
                "[acme]\nroot = \"r\"\n[[acme.issuer]]\nname = \"a\"\n",
                "l.toml:2: error [LIM0001] with [[acme.issuer]], `root` belongs to one of the issuers",
            ),
        ] {
            let faults = read("l.toml", text).map(|_| ()).unwrap_err();
            assert!(faults[0].to_string().starts_with(wanted), "{text}: {}", faults[0]);
        }
    }
}
