//! Which certificate and key are in a Secret? (Istio's keys: `cert`/`key`, then `tls.crt`/`tls.key`.)

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::{any_ecdsa_type, any_supported_type};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::certificate_fault::{Fault, Half};
use super::chain::order;
use crate::resource::core::Secret;
use crate::snapshot::certificate::Certificate;

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Pair {
    /// The chain as it is to be sent, and its key.
    pub key: Arc<CertifiedKey>,
    /// Of the first certificate.
    pub facts: Arc<Certificate>,
    /// What there is to say about it nevertheless.
    pub faults: Vec<Fault>,
    /// The issuer of a leaf that stands alone.
    pub lone: Option<String>,
}

impl Pair {
    /// What is wrong with its dates at `now`, in seconds since 1970.
    pub(super) fn wrong_date(&self, now: i64) -> Option<Fault> {
        Fault::of_dates(&self.facts, now)
    }
}

/// The certificate chain of a Secret with its key, ready to sign. What fails never shows the key.
pub(super) fn certified_key(secret: &Secret) -> Result<Pair, Fault> {
    let (certificate, key) = certificate_and_key(secret)?;
    let chain = read_chain(certificate)?;
    let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| Fault::NotReadable);
    let parsed = chain.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    let first = parsed.first().ok_or(Fault::NotPem(Half::Certificate))?.public_key();
    let key = read_key(key)?;
    let key = load_key(&key, first).ok_or_else(|| describe(first))?;
    if let Some(own) = key.public_key() {
        match parsed.iter().position(|one| one.public_key().raw == own.as_ref()) {
            Some(0) => {}
            // Istio takes none, either.
            Some(_) => return Err(Fault::LeafNotFirst),
            None => return Err(Fault::WrongKey),
        }
    }
    let beside = beside(secret);
    let known: Vec<_> = beside.iter().filter_map(|der| parse(der).ok()).collect();
    let order = order(&parsed, &known);
    let facts = parsed.first().map(Certificate::of).unwrap_or_default();
    drop(parsed);
    let chain = order.places.iter().filter_map(|place| chain.get(*place).cloned()).collect();
    let key = Arc::new(CertifiedKey::new(chain, key));
    Ok(Pair { key, facts: Arc::new(facts), faults: order.faults, lone: order.lone })
}

fn certificate_and_key(secret: &Secret) -> Result<(&[u8], &[u8]), Fault> {
    let value = |key: &str| secret.data.get(key).map(Vec::as_slice);
    let pairs = [("cert", "key"), ("tls.crt", "tls.key")];
    let mut both = pairs.into_iter().filter_map(|(certificate, key)| Some((value(certificate)?, value(key)?)));
    let first = both.clone().next();
    if let Some(good) = both.find(|(certificate, key)| !certificate.is_empty() && !key.is_empty()) {
        return Ok(good);
    }
    Err(match first {
        Some(([], _)) => Fault::Empty(Half::Certificate),
        Some(_) => Fault::Empty(Half::Key),
        None => {
            let names = ["cert", "key", "tls.crt", "tls.key"].into_iter();
            Fault::Missing(names.filter(|name| secret.data.contains_key(*name)).collect())
        }
    })
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Fault::NotPem(Half::Certificate)),
        Err(error) => Err(fault_of(&error, Half::Certificate)),
    }
}

/// PKCS#8, SEC1 or PKCS#1.
fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
        match has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
            true => Fault::EncryptedKey,
            false => fault_of(&error, Half::Key),
        }
    })
}

fn fault_of(error: &pem::Error, half: Half) -> Fault {
    match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => Fault::Cut(half),
        _ => Fault::NotPem(half),
    }
}

/// Loads a key for the certificate: its kind says which way is tried first.
fn load_key(der: &PrivateKeyDer<'_>, expected: &SubjectPublicKeyInfo<'_>) -> Option<Arc<dyn SigningKey>> {
    if expected.algorithm.algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY
        && let Ok(key) = any_ecdsa_type(der)
    {
        return Some(key);
    }
    any_supported_type(der).ok()
}

/// Why a key that should belong to such a certificate cannot be used.
fn describe(key: &SubjectPublicKeyInfo<'_>) -> Fault {
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    Fault::UnsupportedKey(match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => return Fault::WeakKey(rsa.key_size()),
        Ok(PublicKey::RSA(rsa)) => format!("RSA with {} bits", rsa.key_size()),
        Ok(PublicKey::DSA(_)) => "DSA".to_owned(),
        Ok(PublicKey::EC(_)) => match curve.map(|curve| curve.to_id_string()).as_deref() {
            None => "ECDSA with parameters of its own".to_owned(),
            Some("1.3.132.0.10") => "ECDSA with secp256k1".to_owned(),
            Some("1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35") => {
                "another than the certificate's".to_owned()
            }
            Some(other) => format!("ECDSA with the curve {other}"),
        },
        _ => match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.113" => "Ed448".to_owned(),
            "1.3.101.112" => "another than the certificate's".to_owned(),
            other => other.to_owned(),
        },
    })
}

/// The authorities beside a certificate, if they can be read.
fn beside(secret: &Secret) -> Vec<CertificateDer<'static>> {
    let value = ["cacert", "ca.crt"].into_iter().find_map(|key| secret.data.get(key));
    value.map(|pem| CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{self, EcdsaKeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair, RsaKeySize};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn secret(data: &[(&str, &str)]) -> Secret {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        Secret { kind: String::new(), data: data.collect::<BTreeMap<_, _>>() }
    }

    fn certificate(key: &KeyPair) -> String {
        CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(key).unwrap().pem()
    }

    #[test]
    fn every_kind_and_encoding_of_keys_is_read() {
        let sec1 = |key: &KeyPair, algorithm| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der()).unwrap();
            pem("EC PRIVATE KEY", pair.private_key().as_der().unwrap().as_ref())
        };
        // Behind version and algorithm of PKCS#8.
        let pkcs1 = |key: &KeyPair| pem("RSA PRIVATE KEY", &key.serialize_der()[26..]);
        let of = |algorithm| KeyPair::generate_for(algorithm).unwrap();
        let p256 = of(&rcgen::PKCS_ECDSA_P256_SHA256);
        let p384 = of(&rcgen::PKCS_ECDSA_P384_SHA384);
        let p521 = of(&rcgen::PKCS_ECDSA_P521_SHA512);
        let ed25519 = of(&rcgen::PKCS_ED25519);
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let parameters = pem("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07");
        let sec1_p256 = sec1(&p256, &signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        for (case, key, text) in [
            ("P-256 in PKCS#8", &p256, p256.serialize_pem()),
            ("P-256 in SEC1", &p256, sec1_p256.clone()),
            ("P-256 as openssl writes it", &p256, format!("{parameters}{sec1_p256}")),
            ("with text and CRLF", &p256, format!("Bag Attributes\n{}", p256.serialize_pem()).replace('\n', "\r\n")),
            ("P-384 in PKCS#8", &p384, p384.serialize_pem()),
            ("P-384 in SEC1", &p384, sec1(&p384, &signature::ECDSA_P384_SHA384_ASN1_SIGNING)),
            ("P-521 in PKCS#8", &p521, p521.serialize_pem()),
            ("P-521 in SEC1", &p521, sec1(&p521, &signature::ECDSA_P521_SHA512_ASN1_SIGNING)),
            ("Ed25519 in PKCS#8", &ed25519, ed25519.serialize_pem()),
            ("RSA in PKCS#8", &rsa, rsa.serialize_pem()),
            ("RSA in PKCS#1", &rsa, pkcs1(&rsa)),
        ] {
            let read = certified_key(&secret(&[("tls.crt", &certificate(key)), ("tls.key", &text)]));
            let read = read.unwrap_or_else(|fault| panic!("{case}: {fault}"));
            assert_eq!((read.facts.dns.as_slice(), read.faults.len()), (&["a.test".to_owned()][..], 0), "{case}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (ours, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (chain, key) = (certificate(&ours), ours.serialize_pem());
        let (half_chain, half_key) = (chain.get(..300).unwrap(), key.get(..80).unwrap());
        let encrypted = pem("ENCRYPTED PRIVATE KEY", b"secret");
        let old_encrypted =
            key.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\nM");
        for (data, expected) in [
            (vec![], "missing"),
            (vec![("tls.crt", chain.as_str())], "missing"),
            (vec![("tls.crt", &chain), ("tls.key", "")], "empty"),
            (vec![("cert", ""), ("key", &key)], "empty"),
            (vec![("tls.crt", half_chain), ("tls.key", &key)], "half_written"),
            (vec![("tls.crt", &chain), ("tls.key", half_key)], "half_written"),
            (vec![("tls.crt", &chain), ("tls.key", "-----BEGIN PRIV")], "half_written"),
            (vec![("tls.crt", "words"), ("tls.key", &key)], "not_pem"),
            (vec![("tls.crt", &chain), ("tls.key", &chain)], "not_pem"),
            (vec![("tls.crt", &pem("CERTIFICATE", b"words")), ("tls.key", &key)], "not_readable"),
            (vec![("tls.crt", &chain), ("tls.key", &encrypted)], "encrypted_key"),
            (vec![("tls.crt", &chain), ("tls.key", &old_encrypted)], "encrypted_key"),
            (vec![("tls.crt", &chain), ("tls.key", &other.serialize_pem())], "wrong_key"),
            (vec![("tls.crt", &format!("{}{chain}", certificate(&other))), ("tls.key", &key)], "leaf_not_first"),
            (vec![("tls.crt", &chain), ("tls.key", &pem("PRIVATE KEY", b"words"))], "unsupported_key"),
        ] {
            let names: Vec<_> = data.iter().map(|(name, text)| format!("{name}:{}", text.len())).collect();
            let fault = certified_key(&secret(&data)).map(|_| ()).unwrap_err();
            assert_eq!(fault.kind(), expected, "{names:?}: {fault}");
            assert!(!fault.hint().is_empty() && !fault.to_string().contains("PRIVATE"));
        }
    }
}
