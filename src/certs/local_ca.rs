//! Who issues certificates without anybody else? An authority of our own, made once, for development and closed networks.
//!
//! Its certificate says for which names it may speak, so that trusting it costs little: this machine, and what was ever
//! asked of it. When more is asked, its certificate is made anew for the same key; certificates that it issued stay good.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Datelike};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, RsaKeySize, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::durable;
use super::issue::{FailureKind, Issue, IssueError, Issued, Order, RenewalWindow};
use super::lock::{self, Lock};
use crate::base::clock;
use crate::snapshot::issuance::{Identifier, KeyKind, LOCAL_AUTHORITY, Wanted};

/// Its private key, beside its certificate.
const KEY: &str = "ca.key";
const LOCK: &str = "ca.lock";
/// How long the authority and what it issues live.
const AUTHORITY_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 90;
/// Its certificate is made anew when it has less left.
const AUTHORITY_RENEWED_DAYS: i64 = 365;
const DAY: i64 = 86_400;
/// How long another process may take to do the same.
const PATIENCE: (Duration, u32) = (Duration::from_millis(50), 200);

/// The authority in a folder.
pub(crate) struct LocalCa {
    folder: PathBuf,
}

impl LocalCa {
    /// Makes nothing before something is asked of it.
    pub(crate) fn new(folder: PathBuf) -> LocalCa {
        LocalCa { folder }
    }
}

#[async_trait]
impl Issue for LocalCa {
    async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError> {
        let (folder, wanted) = (self.folder.clone(), order.wanted.clone());
        let work = tokio::task::spawn_blocking(move || issue(&folder, &wanted, clock::now()));
        let issued = work.await.unwrap_or_else(|error| Err(error.to_string()));
        issued.map_err(|reason| IssueError {
            kind: FailureKind::Local,
            message: format!("our own authority in {}: {reason}", self.folder.display()),
            retry_after: None,
        })
    }

    async fn renewal_window(&self, _certificate: &[u8]) -> Result<Option<RenewalWindow>, IssueError> {
        Ok(None)
    }
}

/// Issues at `now`, in seconds since 1970; makes the authority, if there is none. Fails with a sentence.
fn issue(folder: &Path, wanted: &Wanted, now: i64) -> Result<Issued, String> {
    let names = wanted.identifiers.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let authority = authority(folder, &wanted.identifiers, now)?;
    let key = generate(wanted.key).map_err(|error| format!("no key could be made: {error}"))?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    dates(&mut params, now, CERTIFICATE_DAYS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Limani local certificate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority).map_err(|error| format!("nothing was signed: {error}"))?;
    Ok(Issued { chain: certificate.pem(), key: key.serialize_pem() })
}

fn name(identifier: &Identifier) -> Result<SanType, String> {
    match identifier {
        Identifier::Ip(address) => Ok(SanType::IpAddress(*address)),
        Identifier::Dns(name) => match name.as_str().try_into() {
            Ok(name) => Ok(SanType::DnsName(name)),
            Err(_) => Err(format!("`{name}` can be in no certificate")),
        },
    }
}

fn generate(kind: KeyKind) -> Result<KeyPair, rcgen::Error> {
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyKind::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

/// Whether the authority of the folder did not sign this leaf (DER): it was made anew since, or is gone. One that cannot
/// be read tells nothing.
pub(super) fn disowns(folder: &Path, leaf: &[u8]) -> bool {
    let pem = match fs::read(folder.join(LOCAL_AUTHORITY)) {
        Ok(pem) => pem,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let Ok(authority) = CertificateDer::from_pem_slice(&pem) else { return false };
    let (Ok((_, authority)), Ok((_, leaf))) = (X509Certificate::from_der(&authority), X509Certificate::from_der(leaf))
    else {
        return false;
    };
    let names_itself = authority.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(name) => Some(name.0),
        _ => None,
    });
    let names_issuer = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => named.key_identifier.as_ref().map(|name| name.0),
        _ => None,
    });
    names_itself.zip(names_issuer).is_some_and(|(itself, issuer)| itself != issuer)
}

/// The authority of the folder, which may speak for `identifiers` when this returns.
pub(super) fn authority(
    folder: &Path,
    identifiers: &[Identifier],
    now: i64,
) -> Result<Issuer<'static, KeyPair>, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    durable::make_folder(folder).map_err(told("the folder cannot be made"))?;
    let _lock = lock(&folder.join(LOCK)).map_err(told("its lock cannot be had"))?;
    let key = kept_key(&folder.join(KEY))?;
    let path = folder.join(LOCAL_AUTHORITY);
    let kept = match fs::read(&path) {
        Ok(pem) => Scope::of(&pem, &key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("its certificate cannot be read: {error}")),
    };
    let mut scope = kept.clone().unwrap_or_default();
    identifiers.iter().for_each(|identifier| scope.widen(identifier));
    let is_late = kept.as_ref().is_none_or(|kept| kept.not_after < now + AUTHORITY_RENEWED_DAYS * DAY);
    let params = scope.params(now)?;
    if is_late || kept.is_some_and(|kept| kept.trees != scope.trees) {
        let certificate = params.self_signed(&key).map_err(|error| format!("it cannot be made: {error}"))?;
        let write = || {
            durable::replace(&path, certificate.pem().as_bytes())?;
            // For everybody who is to trust it.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        };
        write().map_err(told("its certificate cannot be written"))?;
        tracing::info!(
            path = %path.display(),
            names = scope.trees.iter().map(Tree::to_string).collect::<Vec<_>>().join(" "),
            "our own authority was made for these names; `limani trust` lets this machine trust it"
        );
    }
    Ok(Issuer::new(params, key))
}

/// Waits for the lock; other processes may share the folder.
fn lock(path: &Path) -> io::Result<Lock> {
    let (pause, most) = PATIENCE;
    for _ in 0..most {
        if let Some(lock) = lock::try_lock(path, SystemTime::now())? {
            return Ok(lock);
        }
        std::thread::sleep(pause);
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The key, made once. One that cannot be read is never replaced: somebody trusts it.
fn kept_key(path: &Path) -> Result<KeyPair, String> {
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| format!("{} is no usable key: {error}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(|error| format!("no key could be made: {error}"))?;
            // As a whole: half a key would stay for good.
            let written = durable::replace(path, key.serialize_pem().as_bytes());
            written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Whom an authority may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    trees: Vec<Tree>,
    /// When its certificate ends, in seconds since 1970.
    not_after: i64,
}

/// A domain with all below it, or addresses with the bits that count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    Domain(String),
    Addresses(IpAddr, u8),
}

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tree::Domain(domain) => f.write_str(domain),
            Tree::Addresses(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

impl Default for Scope {
    /// This machine.
    fn default() -> Scope {
        let addresses = [("127.0.0.0", 8), ("::1", 128)];
        let addresses =
            addresses.into_iter().filter_map(|(text, bits)| Some(Tree::Addresses(text.parse().ok()?, bits)));
        Scope { trees: [Tree::Domain("localhost".to_owned())].into_iter().chain(addresses).collect(), not_after: 0 }
    }
}

impl Scope {
    /// Of a certificate in PEM; `None` if it is not that of the key, or says nothing of names.
    fn of(pem: &[u8], key: &KeyPair) -> Option<Scope> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(key) {
            return None;
        }
        let constraints = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => constraints.permitted_subtrees.as_ref(),
            _ => None,
        });
        let trees = constraints?.iter().filter_map(|tree| match &tree.base {
            GeneralName::DNSName(domain) => Some(Tree::Domain((*domain).to_owned())),
            GeneralName::IPAddress(bytes) => addresses(bytes),
            _ => None,
        });
        Some(Scope { trees: trees.collect(), not_after: parsed.validity().not_after.timestamp() })
    }

    fn covers(&self, identifier: &Identifier) -> bool {
        self.trees.iter().any(|tree| match (tree, identifier) {
            (Tree::Domain(domain), Identifier::Dns(name)) => {
                let name = name.strip_prefix("*.").unwrap_or(name);
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Tree::Addresses(net, bits), Identifier::Ip(address)) => {
                let (net, address) = (octets(*net), octets(*address));
                let whole = usize::from(bits / 8);
                net.len() == address.len() && net.get(..whole) == address.get(..whole)
            }
            _ => false,
        })
    }

    /// A name lets the authority speak for the domain that it is in, so that its neighbours need no new certificate.
    fn widen(&mut self, identifier: &Identifier) {
        if self.covers(identifier) {
            return;
        }
        self.trees.push(match identifier {
            Identifier::Ip(address) => Tree::Addresses(*address, if address.is_ipv4() { 32 } else { 128 }),
            Identifier::Dns(name) => {
                let name = name.strip_prefix("*.").unwrap_or(name);
                let above = name.split_once('.').map(|(_, above)| above).filter(|above| above.contains('.'));
                Tree::Domain(above.unwrap_or(name).to_owned())
            }
        });
    }

    fn params(&self, now: i64) -> Result<CertificateParams, String> {
        let mut params = CertificateParams::default();
        dates(&mut params, now, AUTHORITY_DAYS);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Limani local authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let permitted_subtrees = self.trees.iter().map(|tree| match tree {
            Tree::Domain(domain) => GeneralSubtree::DnsName(domain.clone()),
            Tree::Addresses(IpAddr::V4(address), bits) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address.octets(), *bits))
            }
            Tree::Addresses(IpAddr::V6(address), bits) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(address.octets(), *bits))
            }
        });
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: permitted_subtrees.collect(), excluded_subtrees: Vec::new() });
        Ok(params)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address with its mask behind it (RFC 5280 section 4.2.1.10).
fn addresses(bytes: &[u8]) -> Option<Tree> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    Some(Tree::Addresses(address, u8::try_from(bits).ok()?))
}

/// Valid from the day before `now`, for `days`.
fn dates(params: &mut CertificateParams, now: i64, days: i64) {
    let date = |seconds: i64| {
        let day = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        let part = |number: u32| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(day.year(), part(day.month()), part(day.day()))
    };
    params.not_before = date(now - DAY);
    params.not_after = date(now + days * DAY);
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::verify_server_name;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::ParsedCertificate;

    use super::*;

    fn wanted(names: &[&str], key: KeyKind) -> Wanted {
        let identifier = |name: &&str| match name.parse() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns((*name).to_owned()),
        };
        Wanted {
            folder: String::new(),
            identifiers: names.iter().map(identifier).collect(),
            issuers: Vec::new(),
            key,
            profile: None,
        }
    }

    /// Whether a client that trusts the authority accepts the certificate for a name.
    fn is_believed(folder: &Path, issued: &Issued, name: &str, now: i64) -> bool {
        let root = CertificateDer::from_pem_slice(&fs::read(folder.join(LOCAL_AUTHORITY)).unwrap()).unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let parsed = ParsedCertificate::try_from(&leaf).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now as u64));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms).is_ok()
            && verify_server_name(&parsed, &ServerName::try_from(name.to_owned()).unwrap()).is_ok()
    }

    #[test]
    fn an_authority_is_made_once_and_speaks_for_what_was_asked_of_it() {
        let home = tempfile::tempdir().unwrap();
        let (folder, now) = (home.path().join("ca"), clock::now());
        let root = || fs::read_to_string(folder.join(LOCAL_AUTHORITY)).unwrap();
        let here = issue(&folder, &wanted(&["localhost", "*.demo.localhost", "127.0.0.1"], KeyKind::EcdsaP256), now);
        let (here, first) = (here.unwrap(), root());
        for name in ["localhost", "a.demo.localhost", "127.0.0.1"] {
            assert!(is_believed(&folder, &here, name, now), "{name}");
        }
        for kind in [KeyKind::EcdsaP384, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let more = issue(&folder, &wanted(&["b.localhost"], kind), now).unwrap();
            assert!(is_believed(&folder, &more, "b.localhost", now), "{kind:?}");
        }
        assert_eq!(root(), first, "nothing new was asked of it");
        let leaf = CertificateDer::from_pem_slice(here.chain.as_bytes()).unwrap();
        let other = home.path().join("other");
        assert!(!disowns(&folder, &leaf) && disowns(&other, &leaf));
        issue(&other, &wanted(&["localhost"], KeyKind::EcdsaP256), now).unwrap();
        assert!(disowns(&other, &leaf), "it has another key");
        fs::write(other.join(LOCAL_AUTHORITY), "nonsense").unwrap();
        assert!(!disowns(&other, &leaf), "nobody can tell");
        let web = issue(&folder, &wanted(&["web.dev.example.com", "10.0.0.1"], KeyKind::EcdsaP256), now).unwrap();
        assert_ne!(root(), first);
        assert!(is_believed(&folder, &web, "web.dev.example.com", now));
        assert!(is_believed(&folder, &here, "localhost", now), "what it issued before stays good");
        let wide = root();
        let neighbour = issue(&folder, &wanted(&["api.dev.example.com"], KeyKind::EcdsaP256), now).unwrap();
        assert!(is_believed(&folder, &neighbour, "api.dev.example.com", now));
        assert_eq!(root(), wide);
        let mode = |file: &str| fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode(LOCAL_AUTHORITY)), (0o600, 0o644));
        let late = now + (AUTHORITY_DAYS - 300) * DAY;
        let last = issue(&folder, &wanted(&["localhost"], KeyKind::EcdsaP256), late).unwrap();
        assert!(is_believed(&folder, &last, "localhost", late), "its certificate was made anew in time");
        fs::write(folder.join(KEY), "broken").unwrap();
        let error = issue(&folder, &wanted(&["localhost"], KeyKind::EcdsaP256), now).map(|_| ()).unwrap_err();
        assert!(error.contains("ca.key is no usable key"), "{error}");
        assert_eq!(fs::read_to_string(folder.join(KEY)).unwrap(), "broken", "never replaced");
    }
}
