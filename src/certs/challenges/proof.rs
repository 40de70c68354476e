//! Which certificate answers tls-alpn-01 (RFC 8737, RFC 8738)? And how is it told to other processes?

use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::snapshot::issuance::Identifier;

/// The server name with which the CA asks for this identifier: an address is asked by its reverse name
/// (RFC 8738 section 6).
pub(super) fn server_name(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.to_ascii_lowercase(),
        Identifier::Ip(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Identifier::Ip(IpAddr::V6(address)) => {
            let digits = format!("{:032x}", u128::from(*address));
            let mut name: String = digits.chars().rev().flat_map(|digit| [digit, '.']).collect();
            name.push_str("ip6.arpa");
            name
        }
    }
}

/// A self-signed certificate for this identifier alone, with the digest of the key authorization in it.
pub(super) fn certificate(identifier: &Identifier, digest: &[u8; 32]) -> Result<CertifiedKey, String> {
    let name = match identifier {
        Identifier::Dns(name) => {
            SanType::DnsName(name.as_str().try_into().map_err(|error: rcgen::Error| error.to_string())?)
        }
        Identifier::Ip(address) => SanType::IpAddress(*address),
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let signing =
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

/// The file by which others make the same proof: the identifier, and the digest.
pub(super) fn write(identifier: &Identifier, digest: &[u8; 32]) -> String {
    let identifier = match identifier {
        Identifier::Dns(name) => format!("dns {name}"),
        Identifier::Ip(address) => format!("ip {address}"),
    };
    format!("{identifier}\n{}\n", BASE64_URL_SAFE_NO_PAD.encode(digest))
}

/// The reverse of [`write`].
pub(super) fn read(text: &str) -> Option<(Identifier, [u8; 32])> {
    let (identifier, digest) = text.trim_end().split_once('\n')?;
    let identifier = match identifier.split_once(' ')? {
        ("dns", name) => Identifier::Dns(name.to_owned()),
        ("ip", address) => Identifier::Ip(address.parse().ok()?),
        _ => return None,
    };
    Some((identifier, BASE64_URL_SAFE_NO_PAD.decode(digest).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_asked_by_these_names_and_told_to_others() {
        let table = [
            (Identifier::Dns("Web.example.com".into()), "web.example.com"),
            (Identifier::Ip("192.0.2.7".parse().unwrap()), "7.2.0.192.in-addr.arpa"),
            (
                Identifier::Ip("2001:db8::1".parse().unwrap()),
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ];
        for (identifier, name) in table {
            assert_eq!(server_name(&identifier), name);
            assert_eq!(read(&write(&identifier, &[9; 32])), Some((identifier, [9; 32])));
        }
        for broken in ["", "dns a", "dns a\nAAAA", "ip x\n", "other a\nAAAA"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_proof_has_one_name_and_the_critical_extension() {
        let made = certificate(&Identifier::Dns("web.example.com".into()), &[3; 32]).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&made.cert[0]).unwrap();
        let found = parsed.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(found.critical);
        // An octet string of 32 bytes in DER.
        assert_eq!(found.value[..2], [0x04, 0x20]);
        assert_eq!(found.value[2..], [3; 32]);
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
    }
}
