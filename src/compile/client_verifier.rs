//! May this client in? Chain, dates, revocation, names and pins of its certificate, as Istio's gateways judge them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authorities::Purpose;
use super::peer_roots::PeerRoots;
use crate::snapshot::certificate::{Certificate, sha256};

/// What a server asks of its clients.
#[derive(Debug, Hash)]
pub(super) struct ClientPolicy {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    pub check: Check,
}

/// What has to be true of a certificate that a client shows.
#[derive(Debug, Hash)]
pub(super) enum Check {
    /// insecureSkipVerify: nothing but that the client has its key.
    Nothing,
    /// Its chain and dates; one of the names, and one of the pins, where there are any.
    Everything { names: Vec<String>, pins: Vec<Pin> },
}

/// A fingerprint, SHA-256 in hexadecimal.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) enum Pin {
    /// Of the public key (verifyCertificateSpki).
    Key(String),
    /// Of the certificate (verifyCertificateHash).
    Certificate(String),
}

impl Pin {
    /// Base64, as verifyCertificateSpki has it.
    pub(super) fn key(text: &str) -> Result<Pin, String> {
        let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| format!("`{text}` is no SHA-256 in base64"))?;
        Ok(Pin::Key(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Hexadecimal in any case, with or without colons, as verifyCertificateHash has it.
    pub(super) fn certificate(text: &str) -> Result<Pin, String> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            true => Ok(Pin::Certificate(digits)),
            false => Err(format!("`{text}` is no SHA-256 in hexadecimal")),
        }
    }
}

/// Asks clients for certificates and judges them.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub policy: ClientPolicy,
    pub authorities: Arc<PeerRoots>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    fn check_names(&self, der: &CertificateDer<'_>, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let certificate = Certificate::read(der).ok_or(CertificateError::BadEncoding)?;
        match names.iter().any(|name| certificate.is_named(name)) {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

fn check_pins(der: &CertificateDer<'_>, pins: &[Pin]) -> Result<(), Error> {
    if pins.is_empty() {
        return Ok(());
    }
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let (key, certificate) = (sha256(parsed.public_key().raw), sha256(der));
    let matches = |pin: &Pin| match pin {
        Pin::Key(wanted) => *wanted == key,
        Pin::Certificate(wanted) => *wanted == certificate,
    };
    match pins.iter().any(matches) {
        true => Ok(()),
        false => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.policy.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Check::Everything { names, pins } = &self.policy.check {
            let verdict = self.authorities.verify(end_entity, intermediates, Purpose::Client, now, self.algorithms);
            verdict.map_err(refusal)?;
            self.check_names(end_entity, names)?;
            check_pins(end_entity, pins)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// In rustls's words, so that the other side gets the right alert.
pub(super) fn refusal(error: webpki::Error) -> Error {
    let error = match error {
        webpki::Error::BadDer => CertificateError::BadEncoding,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_in_both_forms() {
        let bytes: Vec<u8> = (0..32).collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let colons =
            hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(":");
        let wanted = Ok(Pin::Certificate(hex.to_ascii_lowercase()));
        assert_eq!((Pin::certificate(&hex), Pin::certificate(&colons)), (wanted.clone(), wanted));
        assert_eq!(Pin::key(&STANDARD.encode(&bytes)), Ok(Pin::Key(hex.to_ascii_lowercase())));
        assert!(Pin::key("AAAA").is_err() && Pin::certificate("zz").is_err());
    }
}
