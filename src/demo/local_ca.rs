//! Which certificate does the demo show? One of a local authority that it makes once and keeps.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, Datelike, Days, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints,
};

/// The names of the server certificate.
const NAMES: [&str; 3] = ["localhost", "*.bookinfo.localhost", "*.demo.localhost"];

/// How long the authority and a server certificate live, in days.
const AUTHORITY_DAYS: u64 = 3650;
const SERVER_DAYS: u64 = 90;

/// What has less time left than this, in days, is made again.
const RENEWED_BEFORE: u64 = 30;

/// The server's certificate and its key, both PEM.
pub(super) struct ServerCertificate {
    pub certificate: String,
    pub key: String,
}

/// The authority's certificate as clients have to trust it.
pub(super) fn authority_path(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

/// The server certificate kept in `folder`, made or renewed if need be, with its authority beside it.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn server_certificate(folder: &Path, now: DateTime<Utc>) -> anyhow::Result<ServerCertificate> {
    let (certificate_path, key_path) = (folder.join("server.pem"), folder.join("server.key"));
    let (authority, authority_is_new) = authority(folder, now)?;
    let kept = read_pair(&certificate_path, &key_path, now).filter(|_| !authority_is_new);
    if let Some((certificate, key)) = kept {
        return Ok(ServerCertificate { certificate, key });
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    valid(&mut params, now, SERVER_DAYS);
    params.distinguished_name.push(DnType::CommonName, "Limani demo");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority)?.pem();
    write_public(&certificate_path, &certificate)?;
    write_secret(&key_path, &key.serialize_pem())?;
    Ok(ServerCertificate { certificate, key: key.serialize_pem() })
}

/// The kept authority, or a new one (`true`).
fn authority(folder: &Path, now: DateTime<Utc>) -> anyhow::Result<(Issuer<'static, KeyPair>, bool)> {
    let (certificate_path, key_path) = (authority_path(folder), folder.join("ca.key"));
    let kept = read_pair(&certificate_path, &key_path, now).and_then(|(_, key)| KeyPair::from_pem(&key).ok());
    if let Some(key) = kept {
        return Ok((Issuer::new(authority_params(now), key), false));
    }
    let (key, params) = (KeyPair::generate()?, authority_params(now));
    write_secret(&key_path, &key.serialize_pem())?;
    write_public(&certificate_path, &params.self_signed(&key)?.pem())?;
    Ok((Issuer::new(params, key), true))
}

/// An authority that may only speak for this machine, so that trusting it costs little.
fn authority_params(now: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, now, AUTHORITY_DAYS);
    params.distinguished_name.push(DnType::CommonName, "Limani demo authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".into()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

/// Valid from yesterday, for `days` from today.
fn valid(params: &mut CertificateParams, now: DateTime<Utc>, days: u64) {
    let date = |day: DateTime<Utc>| {
        let month_and_day = (u8::try_from(day.month()).unwrap_or(1), u8::try_from(day.day()).unwrap_or(1));
        rcgen::date_time_ymd(day.year(), month_and_day.0, month_and_day.1)
    };
    params.not_before = date(now.checked_sub_days(Days::new(1)).unwrap_or(now));
    params.not_after = date(now.checked_add_days(Days::new(days)).unwrap_or(now));
}

/// A certificate and its key, if both are there and have time left.
fn read_pair(certificate: &Path, key: &Path, now: DateTime<Utc>) -> Option<(String, String)> {
    let (certificate, key) = (fs::read_to_string(certificate).ok()?, fs::read_to_string(key).ok()?);
    let renewed_from = now.checked_add_days(Days::new(RENEWED_BEFORE))?.timestamp();
    (ends(&certificate)? > renewed_from).then_some((certificate, key))
}

/// When the first certificate of `pem` ends, in seconds since 1970.
fn ends(pem: &str) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

fn write_public(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Written with mode 0600, as a new file: an older one may be readable by others.
pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        if path.exists() {
            fs::remove_file(path)?;
        }
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_kept_and_renewed_near_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let now = Utc::now();
        let first = server_certificate(folder.path(), now).unwrap();
        let authority = fs::read_to_string(authority_path(folder.path())).unwrap();
        assert_eq!(server_certificate(folder.path(), now).unwrap().certificate, first.certificate, "kept");
        let later = now.checked_add_days(Days::new(70)).unwrap();
        assert_ne!(server_certificate(folder.path(), later).unwrap().certificate, first.certificate, "renewed");
        assert_eq!(fs::read_to_string(authority_path(folder.path())).unwrap(), authority, "the authority stays");
        for key in ["ca.key", "server.key"] {
            let mode = fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }
}
