//! Certificates of workloads, as SPIRE's agent and Istio's CA give them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificate::{Authority, Identity};

pub const HOUR: Duration = Duration::from_secs(3600);

/// A key with its certificate.
pub struct Svid {
    pub id: String,
    /// PEM.
    pub certificate: String,
    pub key: KeyPair,
}

impl Svid {
    pub fn new(authority: &Authority, id: &str, life: Duration) -> Self {
        let key = KeyPair::generate().expect("a key");
        Svid { id: id.to_owned(), certificate: sign(authority, id, life, &key), key }
    }

    pub fn der(&self) -> Vec<u8> {
        der(&self.certificate)
    }

    /// As a server of the tests has it.
    pub fn identity(&self) -> Identity {
        Identity { certificate: self.certificate.clone(), key: self.key.serialize_pem() }
    }
}

/// A certificate of a workload for somebody's key, in PEM. Each has a number of its own.
pub fn sign(authority: &Authority, id: &str, life: Duration, key: &impl PublicKeyData) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id).expect("an ID is ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(NUMBER.fetch_add(1, Ordering::Relaxed)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let now = rcgen::date_time_ymd(1970, 1, 1) + now;
    (params.not_before, params.not_after) = (now - Duration::from_secs(1), now + life);
    authority.sign(&params, key).expect("a certificate")
}

/// The first certificate of a text in PEM.
pub fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("our own PEM").to_vec()
}
