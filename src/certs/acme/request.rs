//! What is sent to be signed, and is that what came back? A new key, and the chain for it.

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::snapshot::issuance::{Identifier, KeyKind};

/// A key that was made for one certificate, and the request for it.
pub(super) struct Request {
    key: KeyPair,
    pub csr: Vec<u8>,
    identifiers: Vec<Identifier>,
}

/// Makes a key and its request (RFC 2986): names in the alternative names alone. An RSA key takes a while.
pub(super) fn make(kind: KeyKind, identifiers: &[Identifier]) -> Result<Request, rcgen::Error> {
    let algorithm = match kind {
        KeyKind::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
        KeyKind::EcdsaP384 => &PKCS_ECDSA_P384_SHA384,
        KeyKind::Rsa2048 => &PKCS_RSA_SHA256,
        KeyKind::Ed25519 => &PKCS_ED25519,
    };
    let key = KeyPair::generate_for(algorithm)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for identifier in identifiers {
        params.subject_alt_names.push(match identifier {
            Identifier::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Identifier::Ip(address) => SanType::IpAddress(*address),
        });
    }
    let csr = params.serialize_request(&key)?.der().to_vec();
    Ok(Request { key, csr, identifiers: identifiers.to_vec() })
}

impl Request {
    /// The key in PKCS#8, PEM.
    pub(super) fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// Says what is wrong with a chain that should be the answer to this request.
    pub(super) fn fault(&self, chain: &str) -> Option<String> {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let Ok([leaf, ..]) = certificates.as_deref() else {
            return Some("there is no certificate in the answer".to_owned());
        };
        let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else {
            return Some("the certificate cannot be read".to_owned());
        };
        if leaf.public_key().raw != self.key.subject_public_key_info() {
            return Some("the certificate is for another key".to_owned());
        }
        let missing = self.identifiers.iter().find(|identifier| !covers(&leaf, identifier));
        missing.map(|identifier| format!("the certificate does not name {}", super::shown(identifier)))
    }
}

/// Whether the last certificate of a chain was issued under this common name.
pub(super) fn ends_under(chain: &str, name: &str) -> bool {
    let Some(Ok(last)) = CertificateDer::pem_slice_iter(chain.as_bytes()).last() else { return false };
    let Ok((_, last)) = x509_parser::parse_x509_certificate(&last) else { return false };
    last.issuer().iter_common_name().any(|common| common.as_str().is_ok_and(|common| common == name))
}

fn covers(leaf: &X509Certificate<'_>, identifier: &Identifier) -> bool {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match (name, identifier) {
        (GeneralName::DNSName(name), Identifier::Dns(wanted)) => name.eq_ignore_ascii_case(wanted),
        (GeneralName::IPAddress(octets), Identifier::Ip(std::net::IpAddr::V4(wanted))) => *octets == wanted.octets(),
        (GeneralName::IPAddress(octets), Identifier::Ip(std::net::IpAddr::V6(wanted))) => *octets == wanted.octets(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn every_kind_of_key_makes_a_request_and_knows_its_certificate() {
        let names = [Identifier::Dns("*.example.com".into()), Identifier::Ip("2001:db8::1".parse().unwrap())];
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let request = make(kind, &names).unwrap();
            let (_, asked) = X509CertificationRequest::from_der(&request.csr).unwrap();
            assert_eq!(asked.certification_request_info.subject_pki.raw, request.key.subject_public_key_info());
            assert!(rustls::pki_types::PrivateKeyDer::from_pem_slice(request.key().as_bytes()).is_ok(), "{kind:?}");
            let mut params = CertificateParams::new(["*.example.com".to_owned(), "2001:db8::1".to_owned()]).unwrap();
            let signed = params.self_signed(&request.key).unwrap().pem();
            assert_eq!(request.fault(&signed), None, "{kind:?}");

            let other = make(KeyKind::EcdsaP256, &names).unwrap();
            assert!(other.fault(&signed).is_some_and(|fault| fault.contains("another key")), "{kind:?}");
            params.subject_alt_names.pop();
            let fewer = params.self_signed(&request.key).unwrap().pem();
            assert!(request.fault(&fewer).is_some_and(|fault| fault.contains("2001:db8::1")), "{kind:?}");
            for nonsense in ["", "<html>", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
                assert!(request.fault(nonsense).is_some(), "{nonsense}");
            }
        }
    }
}
