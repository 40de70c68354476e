//! What does the certificate of a Secret say? Whether it can be used, and for which hosts.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::resource::core::Secret;

/// Whether a server can show the certificate at `now`, in seconds since 1970; else why not.
pub(super) fn usable(secret: &Secret, now: i64) -> Result<(), &'static str> {
    let der = leaf(secret)?;
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Err("its certificate cannot be read") };
    let validity = certificate.validity();
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        Ok(())
    } else {
        Err("its certificate is outside its dates")
    }
}

/// The DNS names that the certificate is for; none if it cannot be read.
pub(super) fn names(secret: &Secret) -> Vec<String> {
    let Ok(der) = leaf(secret) else { return Vec::new() };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn leaf(secret: &Secret) -> Result<CertificateDer<'static>, &'static str> {
    let value = |key: &str| secret.data.get(key).filter(|value| !value.is_empty());
    let mut pairs = [("cert", "key"), ("tls.crt", "tls.key")].into_iter();
    let pem = pairs.find_map(|(certificate, key)| value(certificate).filter(|_| value(key).is_some()));
    let pem = pem.ok_or("it holds no certificate with its key")?;
    CertificateDer::from_pem_slice(pem).map_err(|_| "its certificate is not readable PEM")
}
