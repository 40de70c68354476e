//! Which authorities vouch for clients, and whom did they take back? The chain is webpki's; what counts as an
//! authority, and what a revocation list means, follow Istio's gateways.

use std::collections::HashSet;
use std::sync::OnceLock;

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, VerifiedPath};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, ParsedExtension, X509Certificate, X509Extension, X509Version,
};

/// Whom a server believes about its clients: every certificate of `ca.crt`, and the lists of `ca.crl`.
///
/// A certificate ends chains unless its issuer is there too, so that a list of the root also counts for an
/// intermediate authority. One that is no authority lets in nobody but itself.
#[derive(Debug)]
pub(super) struct Authorities {
    /// Where chains end.
    ends: Vec<End>,
    /// The ends that may sign others, for webpki; `anchor_ends` are their places among `ends`.
    anchors: Vec<TrustAnchor<'static>>,
    anchor_ends: Vec<usize>,
    /// Certificates whose issuer is there too: they complete the chains of clients that do not show them.
    intermediates: Vec<CertificateDer<'static>>,
    lists: Vec<RevocationList>,
    subjects: Vec<DistinguishedName>,
}

#[derive(Debug)]
struct End {
    der: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
    /// Whether it is its own issuer.
    is_root: bool,
    /// Whether it is for clients, as far as it says.
    is_for_clients: bool,
}

impl End {
    fn is_in_date(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl Authorities {
    /// Reads certificates, and revocation lists in PEM. Fails with a sentence about what cannot be read.
    pub(super) fn read(certificates: &[CertificateDer<'static>], lists: Option<&[u8]>) -> Result<Authorities, String> {
        let mut authorities = Authorities {
            ends: Vec::new(),
            anchors: Vec::new(),
            anchor_ends: Vec::new(),
            intermediates: Vec::new(),
            lists: read_lists(lists.unwrap_or_default())?,
            subjects: Vec::new(),
        };
        let mut parsed = Vec::with_capacity(certificates.len());
        for der in certificates {
            let (_, certificate) =
                X509Certificate::from_der(der).map_err(|_| "one of its CA certificates cannot be read".to_owned())?;
            parsed.push((der, certificate));
        }
        for (der, certificate) in &parsed {
            authorities.subjects.push(DistinguishedName::from(certificate.subject().as_raw().to_vec()));
            let has_issuer = !is_issued_by(certificate, certificate)
                && parsed.iter().any(|(_, other)| is_issued_by(certificate, other));
            if has_issuer {
                authorities.intermediates.push((*der).clone());
            } else {
                authorities.add_end(der, certificate)?;
            }
        }
        Ok(authorities)
    }

    fn add_end(&mut self, der: &CertificateDer<'static>, parsed: &X509Certificate<'_>) -> Result<(), String> {
        if may_sign(parsed) {
            let anchor = webpki::anchor_from_trusted_cert(der)
                .map_err(|error| format!("one of its CA certificates cannot be used: {error}"))?;
            self.anchors.push(anchor.to_owned());
            self.anchor_ends.push(self.ends.len());
        }
        self.ends.push(End {
            der: der.clone(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_root: is_issued_by(parsed, parsed),
            is_for_clients: parsed
                .extended_key_usage()
                .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.client_auth)),
        });
        Ok(())
    }

    /// The names that clients are told, so that they can choose a certificate.
    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// Whether a client with this certificate, and with those it shows beside it, may in.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if let Some(end) = self.ends.iter().find(|end| end.der == *leaf) {
            return self.verify_end(end, seconds);
        }
        let entity = EndEntityCert::try_from(leaf)?;
        let known = shown.iter().chain(&self.intermediates);
        let intermediates: Vec<CertificateDer<'_>> = known.map(|der| CertificateDer::from_slice(der)).collect();
        let check = |path: &VerifiedPath<'_>| self.verify_path(path, leaf, seconds, algorithms);
        let usage = KeyUsage::client_auth();
        entity.verify_for_usage(algorithms.all, &self.anchors, &intermediates, now, usage, None, Some(&check))?;
        Ok(())
    }

    /// A client that shows one of the ends itself.
    fn verify_end(&self, end: &End, now: i64) -> Result<(), webpki::Error> {
        match end {
            _ if !end.is_in_date(now) || !end.is_for_clients => Err(webpki::Error::UnknownIssuer),
            _ if !self.lists.is_empty() => Err(webpki::Error::UnknownRevocationStatus),
            _ => Ok(()),
        }
    }

    /// What webpki leaves to us: the dates of the end, and revocation.
    fn verify_path(
        &self,
        path: &VerifiedPath<'_>,
        leaf: &CertificateDer<'_>,
        now: i64,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let place = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        let end = place.and_then(|place| self.ends.get(*self.anchor_ends.get(place)?));
        let end = end.filter(|end| end.is_in_date(now)).ok_or(webpki::Error::UnknownIssuer)?;
        if self.lists.is_empty() {
            return Ok(());
        }
        if !end.is_root {
            // Nobody is there who could say whether it was taken back.
            return Err(webpki::Error::UnknownRevocationStatus);
        }
        let mut certificate = leaf.clone();
        let issuers = path.intermediate_certificates().map(|issuer| issuer.der());
        for issuer in issuers.chain([CertificateDer::from_slice(&end.der)]) {
            self.verify_not_revoked(&certificate, &issuer, now, algorithms)?;
            certificate = issuer;
        }
        Ok(())
    }

    /// Every authority of a chain needs a list of its own that is in date.
    fn verify_not_revoked(
        &self,
        certificate: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
        now: i64,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| webpki::Error::BadDer);
        let (certificate, issuer): (X509Certificate<'_>, X509Certificate<'_>) = (parse(certificate)?, parse(issuer)?);
        let may_list = issuer.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()));
        let mut is_known = false;
        for list in self.lists.iter().filter(|list| may_list && list.is_of(&issuer, algorithms)) {
            if list.serials.contains(certificate.raw_serial()) {
                return Err(webpki::Error::CertRevoked);
            }
            is_known |= list.is_in_date(now);
        }
        if is_known { Ok(()) } else { Err(webpki::Error::UnknownRevocationStatus) }
    }
}

/// Whether names and key identifiers say that `issuer` signed `certificate`.
fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let wanted = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(wanted) => wanted.key_identifier.as_ref(),
        _ => None,
    });
    let own = issuer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(own) => Some(own),
        _ => None,
    });
    let same_key = wanted.zip(own).is_none_or(|(wanted, own)| wanted == own);
    certificate.issuer().as_raw() == issuer.subject().as_raw() && same_key
}

/// Whether it is an authority: by its basic constraints, or a root from before there were any.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    let old_root = certificate.version() == X509Version::V1 && is_issued_by(certificate, certificate);
    usage && (certificate.is_ca() || old_root)
}

/// A list of certificates that an authority took back.
#[derive(Debug)]
struct RevocationList {
    issuer: Vec<u8>,
    serials: HashSet<Vec<u8>>,
    this_update: i64,
    /// `None`: it never ends.
    next_update: Option<i64>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    /// The public key that was found to have signed it.
    signer: OnceLock<Vec<u8>>,
}

impl RevocationList {
    fn read(der: &[u8]) -> Result<RevocationList, String> {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|_| "one of its revocation lists cannot be read".to_owned())?;
        let is_critical = |extensions: &[X509Extension<'_>]| extensions.iter().any(|extension| extension.critical);
        let mut serials = HashSet::new();
        let mut partial = is_critical(list.extensions());
        for revoked in list.iter_revoked_certificates() {
            partial |= is_critical(revoked.extensions());
            serials.insert(revoked.raw_serial().to_vec());
        }
        if partial {
            return Err("one of its revocation lists is partial or indirect, which is not supported".to_owned());
        }
        Ok(RevocationList {
            issuer: list.issuer().as_raw().to_vec(),
            serials,
            this_update: list.last_update().timestamp(),
            next_update: list.next_update().map(|time| time.timestamp()),
            signed: list.tbs_cert_list.as_ref().to_vec(),
            signature: list.signature_value.data.to_vec(),
            signer: OnceLock::new(),
        })
    }

    /// Whether this authority made it.
    fn is_of(&self, issuer: &X509Certificate<'_>, algorithms: WebPkiSupportedAlgorithms) -> bool {
        let key = issuer.public_key().raw;
        if self.issuer != issuer.subject().as_raw() {
            return false;
        }
        if self.signer.get().is_some_and(|signer| signer == key) {
            return true;
        }
        let der = SubjectPublicKeyInfoDer::from(key);
        let Ok(entity) = RawPublicKeyEntity::try_from(&der) else { return false };
        let signed = algorithms
            .all
            .iter()
            .any(|algorithm| entity.verify_signature(*algorithm, &self.signed, &self.signature).is_ok());
        if signed {
            let _ = self.signer.set(key.to_vec());
        }
        signed
    }

    fn is_in_date(&self, now: i64) -> bool {
        self.this_update <= now && self.next_update.is_none_or(|end| now <= end)
    }
}

fn read_lists(pem: &[u8]) -> Result<Vec<RevocationList>, String> {
    if pem.is_empty() {
        return Ok(Vec::new());
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|_| "a revocation list is not readable PEM".to_owned())?;
    if lists.is_empty() {
        return Err("it holds no revocation list in PEM".to_owned());
    }
    lists.iter().map(|list| RevocationList::read(list)).collect()
}
