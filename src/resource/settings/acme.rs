//! `[acme]`: which certificates does the gateway get by itself, and from whom?

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::base::kept_name;

/// `[acme]`, with every default filled in. Servers that say `credentialName: acme://` use it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeSettings {
    /// The folder with accounts, certificates and challenges. Default `acme` beside the settings file; `None` if there
    /// is no such file.
    pub storage: Option<PathBuf>,
    /// In the order in which they are tried. Default Let's Encrypt alone.
    pub issuers: Vec<AcmeIssuer>,
    /// The key of certificates that say nothing else.
    pub key: CertificateKey,
    /// `[[acme.certificate]]`
    pub certificates: Vec<AcmeCertificate>,
    pub on_demand: Option<OnDemandSettings>,
    /// Whether port 80 is opened for challenges alone, where no server has it. `None`: if nothing else can prove that a
    /// name is ours.
    pub listen_http: Option<bool>,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        AcmeSettings {
            storage: None,
            issuers: vec![AcmeIssuer::default()],
            key: CertificateKey::default(),
            certificates: Vec::new(),
            on_demand: None,
            listen_http: None,
        }
    }
}

impl AcmeSettings {
    /// The issuer of that name.
    pub(crate) fn issuer(&self, name: &str) -> Option<&AcmeIssuer> {
        self.issuers.iter().find(|issuer| issuer.name == name)
    }
}

/// `[[acme.issuer]]`, or the one issuer that `[acme]` describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeIssuer {
    /// Unique. `credentialName: acme://NAME` means this issuer alone.
    pub name: String,
    /// The URL of its directory.
    pub directory: String,
    /// Roots in PEM for the CA's web server; `None` means the system's.
    pub root: Option<PathBuf>,
    /// Empty if none.
    pub email: String,
    /// Asked for if the CA offers it.
    pub profile: Option<String>,
    /// Of several chains the one whose last certificate was issued under this common name.
    pub preferred_chain: Option<String>,
    pub external_account: Option<ExternalAccount>,
    /// Best first.
    pub challenges: Vec<Challenge>,
    pub dns: Option<DnsSettings>,
}

impl Default for AcmeIssuer {
    fn default() -> Self {
        let (name, directory) = LETS_ENCRYPT;
        AcmeIssuer {
            name: name.into(),
            directory: directory.into(),
            root: None,
            email: String::new(),
            profile: default_profile(directory),
            preferred_chain: None,
            external_account: None,
            challenges: Challenge::usual(false),
            dns: None,
        }
    }
}

/// Whether a credentialName stands for certificates of each host, got from an issuer: `acme://`, `acme://ISSUER` or
/// `local-ca://`.
pub(crate) fn asks_issuer(credential: &str) -> bool {
    credential.starts_with("acme://") || credential == "local-ca://"
}

const LETS_ENCRYPT: (&str, &str) = ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory");

/// CAs that can be named in place of the URL of their directory.
pub(crate) const KNOWN_CAS: [(&str, &str); 4] = [
    LETS_ENCRYPT,
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
    ("google", "https://dv.acme-v02.api.pki.goog/directory"),
];

/// What is asked for where nothing is written: Let's Encrypt's profile for servers, which leaves out what nobody needs.
pub(crate) fn default_profile(directory: &str) -> Option<String> {
    directory.contains(".api.letsencrypt.org/").then(|| "tlsserver".to_owned())
}

/// `eab`: an account that the CA knows already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalAccount {
    pub key_id: String,
    /// A file with the HMAC key in base64url.
    pub hmac_file: PathBuf,
}

/// How it is shown that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    TlsAlpn01,
    Http01,
    Dns01,
    DnsPersist01,
}

impl Challenge {
    pub(crate) const ALL: [Challenge; 4] =
        [Challenge::TlsAlpn01, Challenge::Http01, Challenge::Dns01, Challenge::DnsPersist01];

    /// As RFCs write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Challenge::TlsAlpn01 => "tls-alpn-01",
            Challenge::Http01 => "http-01",
            Challenge::Dns01 => "dns-01",
            Challenge::DnsPersist01 => "dns-persist-01",
        }
    }

    /// What is tried where nothing is written. Who can write DNS records wants them to be used.
    pub(crate) fn usual(with_dns: bool) -> Vec<Challenge> {
        match with_dns {
            true => vec![Challenge::Dns01, Challenge::TlsAlpn01, Challenge::Http01],
            false => vec![Challenge::TlsAlpn01, Challenge::Http01, Challenge::DnsPersist01],
        }
    }
}

/// `dns`: who writes TXT records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DnsSettings {
    /// Dynamic updates of a name server.
    Rfc2136 { server: SocketAddr, zone: Option<String>, key: Option<TsigKey> },
    /// A program.
    Exec(PathBuf),
    /// A URL that is posted to.
    Webhook(String),
}

/// `dns.rfc2136.key`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TsigKey {
    pub name: String,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub algorithm: String,
    /// A file with the secret in base64.
    pub secret_file: PathBuf,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CertificateKey {
    #[default]
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Ed25519,
}

/// `[[acme.certificate]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeCertificate {
    /// The name of the Secret that it becomes.
    pub secret: String,
    pub identifiers: Vec<CertificateName>,
    /// Names of issuers; empty means all, in their order.
    pub issuers: Vec<String>,
    pub profile: Option<String>,
    pub key: Option<CertificateKey>,
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CertificateName {
    /// In lower case; `*.` in front stands for one label.
    Dns(String),
    Ip(IpAddr),
}

/// `[acme.on_demand]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnDemandSettings {
    /// Asked with `?domain=NAME` before a name is ordered.
    pub ask: String,
    /// Names of issuers; empty means all.
    pub issuers: Vec<String>,
}

impl FromStr for CertificateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(CertificateName::Ip(address));
        }
        if !text.is_ascii() {
            return Err("names are written in ASCII here, such as xn--bcher-kva.example for bücher.example".to_owned());
        }
        let name = text.to_ascii_lowercase();
        match kept_name::of_host(&name).is_some() {
            true => Ok(CertificateName::Dns(name)),
            false => Err("it is neither a host name, nor one behind `*.`, nor an IP address".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_wildcards_and_addresses() {
        let read = |text: &str| match text.parse::<CertificateName>() {
            Ok(CertificateName::Dns(name)) => name,
            Ok(CertificateName::Ip(address)) => format!("ip {address}"),
            Err(_) => "-".to_owned(),
        };
        for (text, expected) in [
            ("Web.Example.com", "web.example.com"),
            ("*.example.com", "*.example.com"),
            ("192.0.2.1", "ip 192.0.2.1"),
            ("[2001:db8::1]", "ip 2001:db8::1"),
            ("*", "-"),
            ("*.*.example.com", "-"),
            ("*example.com", "-"),
            ("a..b", "-"),
            ("a.com.", "-"),
            ("a.123", "-"),
            ("../../etc", "-"),
            ("-a.example.com", "-"),
            ("bücher.example", "-"),
            ("", "-"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
