//! What does a certificate say of its owner? Read once, shown in headers, logs and status.

use std::fmt::Write;
use std::net::IpAddr;

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::asn1_rs::Tag;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, GeneralName, X509Certificate, X509Name};

use crate::telemetry::record::CertificateRecord;

/// A certificate of either side, as words. Never a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// As RFC 2253 writes it: `CN=web,O=example`.
    pub subject: String,
    pub issuer: String,
    /// Subject alternative names by their kind, in the order in which they stand.
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub emails: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Hexadecimal.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// Of the whole certificate, hexadecimal.
    pub sha256: String,
    pub sha1: String,
    /// PEM with its line ends, blanks, `+`, `/` and `=` escaped, as Envoy puts it into headers; empty for our own.
    pub escaped_pem: String,
}

impl Certificate {
    /// Reads DER; `None` if it is no certificate.
    pub(crate) fn read(der: &[u8]) -> Option<Certificate> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Certificate { escaped_pem: escaped_pem(der), ..Certificate::of(&parsed) })
    }

    /// What was read already, without its PEM: nobody sends our own in headers.
    pub(crate) fn of(parsed: &X509Certificate<'_>) -> Certificate {
        let der = parsed.as_raw();
        let mut certificate = Certificate {
            subject: rfc2253(parsed.subject()),
            issuer: rfc2253(parsed.issuer()),
            serial: hexadecimal(parsed.raw_serial()).trim_start_matches("00").to_owned(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            sha256: fingerprint(&SHA256, der),
            sha1: fingerprint(&SHA1_FOR_LEGACY_USE_ONLY, der),
            ..Certificate::default()
        };
        certificate.read_names(parsed);
        certificate
    }

    /// Names with control characters are none: they would break lines of logs and headers.
    fn read_names(&mut self, parsed: &X509Certificate<'_>) {
        let Ok(Some(extension)) = parsed.subject_alternative_name() else { return };
        let name = |text: &str| Some(text.to_owned()).filter(|text| !text.contains(char::is_control));
        for one in &extension.value.general_names {
            match one {
                GeneralName::URI(text) => self.uris.extend(name(text)),
                GeneralName::DNSName(text) => self.dns.extend(name(text)),
                GeneralName::RFC822Name(text) => self.emails.extend(name(text)),
                GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }

    /// What an access log may tell of it.
    pub(crate) fn record(&self) -> CertificateRecord<'_> {
        CertificateRecord {
            subject: &self.subject,
            issuer: &self.issuer,
            uris: &self.uris,
            dns: &self.dns,
            emails: &self.emails,
            addresses: &self.addresses,
            serial: &self.serial,
            sha256: &self.sha256,
            sha1: &self.sha1,
            not_before: self.not_before,
            not_after: self.not_after,
            escaped_pem: &self.escaped_pem,
            ..CertificateRecord::default()
        }
    }

    /// All alternative names, for people.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let texts = self.dns.iter().chain(&self.uris).chain(&self.emails).cloned();
        texts.chain(self.addresses.iter().map(IpAddr::to_string))
    }

    /// Whether one of the alternative names is `wanted`: URIs and addresses exactly, DNS names in any case, where a
    /// `*.` of the certificate stands for one label. The common name does not count (Istio subjectAltNames).
    pub(crate) fn is_named(&self, wanted: &str) -> bool {
        if wanted.contains("://") {
            return self.uris.iter().any(|uri| uri == wanted);
        }
        let is_address = wanted.parse().is_ok_and(|address: IpAddr| self.addresses.contains(&address));
        is_address
            || self.uris.iter().chain(&self.emails).any(|name| name == wanted)
            || self.dns.iter().any(|name| covers(name, wanted))
    }

    /// The nearest limit in days that it has passed on its way to its end: 30, 7 or 1. Limits longer than a quarter of its
    /// life do not count, as short-lived certificates are renewed in their last third.
    pub(crate) fn days_left(&self, now: i64) -> Option<i64> {
        const DAY: i64 = 86_400;
        let (life, left) = (self.not_after.saturating_sub(self.not_before), self.not_after.saturating_sub(now));
        [1, 7, 30].into_iter().find(|days| left <= days * DAY && days * DAY * 4 <= life)
    }
}

/// SHA-256 as lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    fingerprint(&SHA256, bytes)
}

fn fingerprint(algorithm: &'static Algorithm, bytes: &[u8]) -> String {
    hexadecimal(digest::digest(algorithm, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Whether a DNS name of a certificate covers a name.
fn covers(name: &str, wanted: &str) -> bool {
    if name.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let below = name.strip_prefix("*.").zip(wanted.split_once('.'));
    below.is_some_and(|(parent, (label, rest))| !label.is_empty() && parent.eq_ignore_ascii_case(rest))
}

fn escaped_pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (index, letter) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push_str("%0A");
        }
        match letter {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            other => text.push(other),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

/// The last part first, as OpenSSL writes it with its RFC 2253 flags.
fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (place, part) in parts.iter().rev().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let attributes: Vec<_> = part.iter().collect();
        for (place, attribute) in attributes.iter().rev().enumerate() {
            if place > 0 {
                text.push('+');
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    match short_name(attribute.attr_type()) {
        Some(name) => text.push_str(name),
        None => text.push_str(&attribute.attr_type().to_id_string()),
    }
    text.push('=');
    let value = attribute.attr_value();
    let is_text = matches!(
        value.tag(),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::T61String | Tag::NumericString
    );
    match std::str::from_utf8(value.data) {
        Ok(plain) if is_text && short_name(attribute.attr_type()).is_some() => push_escaped(text, plain),
        // A value that is no text, or of an attribute that has no name, is dumped.
        _ => {
            text.push('#');
            let length = value.data.len();
            let _ = write!(text, "{:02X}", value.tag().0);
            match u8::try_from(length) {
                Ok(short) if short < 128 => drop(write!(text, "{short:02X}")),
                Ok(long) => drop(write!(text, "81{long:02X}")),
                Err(_) => drop(write!(text, "82{length:04X}")),
            }
            text.push_str(&hexadecimal(value.data).to_ascii_uppercase());
        }
    }
}

fn short_name(kind: &oid::Oid<'_>) -> Option<&'static str> {
    let known = [
        (oid::OID_X509_COMMON_NAME, "CN"),
        (oid::OID_X509_ORGANIZATION_NAME, "O"),
        (oid::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (oid::OID_X509_COUNTRY_NAME, "C"),
        (oid::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (oid::OID_X509_LOCALITY_NAME, "L"),
        (oid::OID_X509_STREET_ADDRESS, "street"),
        (oid::OID_X509_SERIALNUMBER, "serialNumber"),
        (oid::OID_X509_SURNAME, "SN"),
        (oid::OID_X509_GIVEN_NAME, "GN"),
        (oid::OID_X509_TITLE, "title"),
        (oid::OID_X509_POSTAL_CODE, "postalCode"),
        (oid::OID_PKCS9_EMAIL_ADDRESS, "emailAddress"),
        (oid::OID_DOMAIN_COMPONENT, "DC"),
    ];
    known.iter().find(|(known, _)| known == kind).map(|(_, name)| *name)
}

/// RFC 2253 2.4; control characters and what is not ASCII as hexadecimal pairs.
fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (place, letter) in value.chars().enumerate() {
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', letter]),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            '#' if place == 0 => text.push_str("\\#"),
            ' '..='~' => text.push(letter),
            other => {
                for byte in other.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    fn certificate() -> (Certificate, Vec<u8>) {
        let mut params = CertificateParams::new(vec!["*.example.com".into(), "10.0.0.1".into()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://a/ns/b/sa/c".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("me@example.com".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("me\nmore@example.com".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(vec![0x80, 1]));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Some, \"Org\"");
        params.distinguished_name.push(DnType::CommonName, "#Bücher ");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "x");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (Certificate::read(made.der()).unwrap(), made.der().to_vec())
    }

    #[test]
    fn somebody_is_told_once_it_is_late_for_a_certificate_of_that_life() {
        const DAY: i64 = 86_400;
        for (life, left, expected) in [
            (365, 31, None),
            (365, 30, Some(30)),
            (365, 7, Some(7)),
            (365, 1, Some(1)),
            (365, -3, Some(1)),
            (90, 25, None),
            (90, 7, Some(7)),
            (6, 2, None),
            (6, 1, Some(1)),
            (1, 0, None),
        ] {
            let certificate = Certificate { not_before: 0, not_after: life * DAY, ..Certificate::default() };
            assert_eq!(certificate.days_left((life - left) * DAY), expected, "{left} of {life} days are left");
        }
    }

    #[test]
    fn words_are_those_of_envoy() {
        let (certificate, der) = certificate();
        assert_eq!(certificate.subject, r#"1.2.3.4=#0C0178,CN=\#B\C3\BCcher\ ,O=Some\, \"Org\""#);
        assert_eq!(certificate.serial, "8001");
        assert_eq!(certificate.emails, ["me@example.com"], "a line end is in no name");
        assert_eq!((certificate.sha256.len(), certificate.sha1.len()), (64, 40));
        let pem = percent_encoding::percent_decode_str(&certificate.escaped_pem).decode_utf8().unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(STANDARD.decode(body).unwrap(), der);
        assert!(pem.lines().all(|line| line.len() <= 64) && pem.ends_with("-----\n"));
    }

    #[test]
    fn names_are_exact_but_for_case_and_one_label() {
        let (certificate, _) = certificate();
        for (wanted, expected) in [
            ("x.EXAMPLE.com", true),
            ("*.example.com", true),
            ("x.y.example.com", false),
            ("example.com", false),
            (".example.com", false),
            ("spiffe://a/ns/b/sa/c", true),
            ("spiffe://a/ns/B/sa/c", false),
            ("spiffe://a/*", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("me@example.com", true),
        ] {
            assert_eq!(certificate.is_named(wanted), expected, "{wanted}");
        }
    }
}
