//! What does a certificate in PEM say, and does it belong to its key? Read once, when it comes or the storage is read.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::local_ca;
use super::memory::Memory;
use super::renewal::LOCAL;
use super::store::{Meta, Store, state_of};
use crate::base::clock;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::issuance::{Identifier, KeyKind, Wanted};

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The leaf in DER.
    pub leaf: CertificateDer<'static>,
    pub certificate: Arc<Certificate>,
    /// `None`: another kind than those that are ordered.
    pub key: Option<KeyKind>,
    pub meta: Meta,
    /// Our own authority, which issued it, was made anew since.
    pub is_disowned: bool,
}

/// What the storage holds of a certificate.
#[derive(Default)]
pub(super) struct Reading {
    pub stored: Option<Stored>,
    pub key: Option<Arc<CertifiedKey>>,
    /// Why what is there is of no use.
    pub problem: Option<String>,
    pub memory: Memory,
}

/// Reads a certificate's folder and what is remembered of it. What cannot be read is as if it were not there.
pub(super) fn look(store: &Store, folder: &str) -> Reading {
    let memory = store.read_text(&state_of(folder)).ok().flatten();
    let memory: Memory = memory.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let memory = memory.plausible(clock::now());
    let reading = Reading { memory, ..Reading::default() };
    match store.read(folder) {
        Ok(None) => reading,
        Err(error) => Reading { problem: Some(error.to_string()), ..reading },
        Ok(Some(kept)) => match read(&kept.chain, &kept.key, kept.meta) {
            Ok((mut stored, key)) => {
                let folder = stored.meta.authority.strip_prefix(LOCAL);
                stored.is_disowned = folder.is_some_and(|folder| local_ca::disowns(Path::new(folder), &stored.leaf));
                Reading { stored: Some(stored), key: Some(Arc::new(key)), ..reading }
            }
            Err(problem) => Reading { problem: Some(problem), ..reading },
        },
    }
}

/// Reads a chain and its key. Fails with a sentence that never shows the key.
pub(super) fn read(chain: &str, key: &str, meta: Meta) -> Result<(Stored, CertifiedKey), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|_| "the certificate is not readable PEM".to_owned())?;
    let leaf = chain.first().cloned().ok_or_else(|| "there is no certificate in PEM".to_owned())?;
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the key is not PEM".to_owned())?;
    let signer = default_provider().key_provider.load_private_key(private);
    let certified = CertifiedKey::new(chain, signer.map_err(|_| "the kind of the key is not supported".to_owned())?);
    certified.keys_match().map_err(|_| "the key does not belong to the certificate".to_owned())?;
    let certificate = Certificate::read(&leaf).ok_or_else(|| "the certificate cannot be read".to_owned())?;
    let key = key_kind(&leaf);
    Ok((Stored { leaf, certificate: Arc::new(certificate), key, meta, is_disowned: false }, certified))
}

impl Stored {
    /// The identifiers that it does not cover, for people.
    pub(super) fn missing(&self, wanted: &Wanted) -> Vec<String> {
        let names = wanted.identifiers.iter().filter(|identifier| match identifier {
            Identifier::Dns(name) => !self.certificate.is_named(name),
            Identifier::Ip(address) => !self.certificate.addresses.contains(address),
        });
        names.map(shown).collect()
    }
}

/// An identifier, for people.
pub(super) fn shown(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.clone(),
        Identifier::Ip(address) => address.to_string(),
    }
}

fn key_kind(leaf: &[u8]) -> Option<KeyKind> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let algorithm = &parsed.public_key().algorithm;
    let curve = || algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    match &algorithm.algorithm {
        kind if *kind == oid::OID_PKCS1_RSAENCRYPTION => Some(KeyKind::Rsa2048),
        kind if *kind == oid::OID_SIG_ED25519 => Some(KeyKind::Ed25519),
        kind if *kind == oid::OID_KEY_TYPE_EC_PUBLIC_KEY => match curve()? {
            curve if curve == oid::OID_EC_P256 => Some(KeyKind::EcdsaP256),
            curve if curve == oid::OID_NIST_EC_P384 => Some(KeyKind::EcdsaP384),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

    use super::*;
    use crate::certs::issue::Issued;

    /// A self-signed certificate with a new key, valid from `start` to `end` in seconds since 1970.
    pub(in crate::certs) fn make(names: &[Identifier], kind: KeyKind, start: i64, end: i64) -> Issued {
        let key = KeyPair::generate_for(match kind {
            KeyKind::EcdsaP384 => &PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &PKCS_ED25519,
            _ => &PKCS_ECDSA_P256_SHA256,
        });
        let key = key.unwrap();
        let mut params = CertificateParams::default();
        let names = names.iter().map(|name| match name {
            Identifier::Dns(name) => SanType::DnsName(name.as_str().try_into().unwrap()),
            Identifier::Ip(address) => SanType::IpAddress(*address),
        });
        params.subject_alt_names = names.collect();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(start.try_into().unwrap());
        params.not_after = epoch + Duration::from_secs(end.try_into().unwrap());
        Issued { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    #[test]
    fn names_and_kinds_are_compared() {
        let dns = |name: &str| Identifier::Dns(name.into());
        let wanted = |names: Vec<Identifier>| Wanted {
            folder: "hosts/a".into(),
            identifiers: names,
            issuers: vec![],
            key: KeyKind::default(),
            profile: None,
        };
        let address = Identifier::Ip("::1".parse().unwrap());
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519] {
            let issued = make(&[dns("*.a.com"), address.clone()], kind, 1000, 2000);
            let (stored, _) = read(&issued.chain, &issued.key, Meta::default()).unwrap();
            assert_eq!(stored.key, Some(kind));
            assert_eq!((stored.certificate.not_before, stored.certificate.not_after), (1000, 2000));
            let names = vec![dns("b.a.com"), dns("*.a.com"), address.clone(), dns("a.com"), dns("*.b.a.com")];
            assert_eq!(stored.missing(&wanted(names)), ["a.com", "*.b.a.com"]);
        }
        let [one, other] = [(); 2].map(|()| make(&[dns("a.com")], KeyKind::EcdsaP256, 1000, 2000));
        assert!(read(&one.chain, &other.key, Meta::default()).unwrap_err().contains("belong"));
        for (chain, key) in [("", one.key.as_str()), (&one.chain, ""), ("-----BEGIN CERTIFICATE-----\nAA\n", &one.key)]
        {
            assert!(read(chain, key, Meta::default()).is_err());
        }
    }
}
