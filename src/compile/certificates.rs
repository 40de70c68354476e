//! Which certificate and key are in a Secret? (Istio's keys: `cert`/`key`, then `tls.crt`/`tls.key`.)

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::resource::core::Secret;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::tls::CertificateFacts;

/// The certificate chain with its key, ready to sign. Fails with a sentence that never shows the key.
pub(super) fn certified_key(secret: &Secret, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let (certificate, key) = certificate_and_key(secret)?;
    let chain = read_certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key is not a private key in PEM".to_owned())?;
    let key =
        provider.key_provider.load_private_key(key).map_err(|_| "the kind of the key is not supported".to_owned())?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err("the key does not belong to the first certificate".to_owned()),
    }
}

fn certificate_and_key(secret: &Secret) -> Result<(&[u8], &[u8]), String> {
    let value = |key: &str| secret.data.get(key).map(Vec::as_slice).filter(|value| !value.is_empty());
    for (certificate, key) in [("cert", "key"), ("tls.crt", "tls.key")] {
        if let (Some(certificate), Some(key)) = (value(certificate), value(key)) {
            return Ok((certificate, key));
        }
    }
    let present = ["cert", "key", "tls.crt", "tls.key"].into_iter().filter(|key| secret.data.contains_key(*key));
    let present: Vec<_> = present.collect();
    Err(match present.as_slice() {
        [] => "it holds no certificate and key (tls.crt and tls.key, or cert and key)".to_owned(),
        some => format!("of certificate and key it holds only {}, or one of them is empty", some.join(", ")),
    })
}

/// The CA certificates of a Secret, with its revocation lists in PEM: `cacert` and `crl`, else `ca.crt` and `ca.crl`.
pub(super) fn authorities_and_lists(secret: &Secret) -> Result<(Vec<CertificateDer<'static>>, Option<&[u8]>), String> {
    let value = |key: &str| secret.data.get(key).map(Vec::as_slice).filter(|value| !value.is_empty());
    let found = [("cacert", "crl"), ("ca.crt", "ca.crl")]
        .into_iter()
        .find_map(|(authorities, lists)| Some((value(authorities)?, value(lists))));
    let (authorities, lists) = found.ok_or_else(|| "it holds no CA (ca.crt or cacert)".to_owned())?;
    Ok((read_certificates(authorities)?, lists))
}

/// The certificates of a PEM text, in their order; at least one.
pub(super) fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err("it holds no certificate in PEM".to_owned()),
        Err(_) => Err("a certificate is not readable PEM".to_owned()),
    }
}

/// What can be told of the certificate of a key; nothing but its source if it cannot be read.
pub(super) fn facts(key: &CertifiedKey, source: String) -> CertificateFacts {
    let certificate = key.cert.first().and_then(|certificate| Certificate::read(certificate)).unwrap_or_default();
    CertificateFacts { source, certificate: Arc::new(certificate) }
}
