//! Which certificates are to be got, and from whom? Said by the configuration, obeyed by certs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Where a CA looks for http-01, with a token behind it (RFC 8555 section 8.3).
pub(crate) const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// The file with the certificate of our own authority, in its folder.
pub(crate) const LOCAL_AUTHORITY: &str = "ca.crt";

/// All that is to be issued and renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Issuance {
    /// The folder with accounts, certificates and challenges. Processes that share it share the work.
    pub storage: PathBuf,
    /// Every certificate once, by its folder.
    pub certificates: Vec<Arc<Wanted>>,
    pub issuers: Vec<Arc<Issuer>>,
    pub on_demand: Option<Arc<OnDemand>>,
}

impl Issuance {
    /// Whether anything is got from anybody.
    pub(crate) fn orders_any(&self) -> bool {
        !self.certificates.is_empty() || self.on_demand.is_some()
    }
}

/// A certificate that has to be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// Its folder below the storage, such as `hosts/web.example.com` or `secrets/web-tls`; in it are `tls.crt` and
    /// `tls.key`.
    pub folder: String,
    /// What it has to be valid for, at least one.
    pub identifiers: Vec<Identifier>,
    /// Names of the issuers, in the order in which they are tried; at least one.
    pub issuers: Vec<String>,
    pub key: KeyKind,
    /// The CA's profile, in place of the issuer's (draft-ietf-acme-profiles).
    pub profile: Option<String>,
}

/// What a certificate is valid for (RFC 8555 section 9.7.7, RFC 8738).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identifier {
    /// In lower case; `*.` in front stands for one label.
    Dns(String),
    Ip(IpAddr),
}

/// The kind of a new private key. Each renewal makes another key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    #[default]
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Ed25519,
}

/// Who issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuer {
    /// Unique; a folder of the storage is named so.
    pub name: String,
    pub kind: IssuerKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IssuerKind {
    Acme(Box<AcmeIssuer>),
    /// Our own authority, for development; its certificate and key are in this folder.
    Local {
        folder: PathBuf,
    },
}

/// A CA that speaks RFC 8555.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeIssuer {
    /// The URL of its directory.
    pub directory: String,
    /// Where the CA's web server is verified: a file of roots in PEM; `None` means the system's.
    pub root: Option<PathBuf>,
    /// For the CA's messages; empty if none.
    pub email: String,
    /// Asked for if the CA offers it; see `Wanted::profile`.
    pub profile: Option<String>,
    /// Of several chains the one whose last certificate was issued under this common name.
    pub preferred_chain: Option<String>,
    pub external_account: Option<ExternalAccount>,
    /// The kinds that may be used, best first.
    pub challenges: Vec<ChallengeKind>,
    /// How dns-01 records are made.
    pub dns: Option<DnsSolver>,
}

/// An account that the CA knows already (RFC 8555 section 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalAccount {
    pub key_id: String,
    /// A file with the HMAC key in base64url.
    pub hmac_file: PathBuf,
}

/// How control over a name is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChallengeKind {
    /// RFC 8555 section 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 section 8.4.
    Dns01,
    /// draft-ietf-acme-dns-persist: a record that stays.
    DnsPersist01,
}

impl ChallengeKind {
    /// As RFCs write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
            ChallengeKind::Dns01 => "dns-01",
            ChallengeKind::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Whether it can show that the name is ours: wildcards need DNS, and addresses have none.
    pub(crate) fn can_prove(self, identifier: &Identifier) -> bool {
        let by_dns = matches!(self, ChallengeKind::Dns01 | ChallengeKind::DnsPersist01);
        match identifier {
            Identifier::Ip(_) => !by_dns,
            Identifier::Dns(name) => by_dns || !name.starts_with("*."),
        }
    }
}

/// Who writes TXT records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DnsSolver {
    /// Dynamic updates, signed with TSIG if there is a key (RFC 2136, RFC 8945).
    Rfc2136 {
        server: SocketAddr,
        /// The zone to update; `None`: found by asking the server for its SOA.
        zone: Option<String>,
        key: Option<TsigKey>,
    },
    /// A program: `COMMAND present NAME VALUE`, later `COMMAND cleanup NAME VALUE`.
    Exec { command: PathBuf },
    /// A POST of `{"action": "present", "name": .., "value": ..}`, later with `cleanup`.
    Webhook { url: String },
}

/// RFC 8945.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TsigKey {
    pub name: String,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub algorithm: String,
    /// A file with the secret in base64.
    pub secret_file: PathBuf,
}

/// Certificates for names that nobody wrote down, got at their first handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnDemand {
    /// Asked with `?domain=NAME`; only an answer of 2xx lets the name be ordered.
    pub ask: String,
    /// Names of the issuers, as in `Wanted`.
    pub issuers: Vec<String>,
}
