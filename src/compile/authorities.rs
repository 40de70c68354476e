//! Which authorities vouch for the other side, and whom did they take back? The chain is webpki's; what counts as an
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

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Client,
    Server,
}

/// Whom we believe about the other side: every certificate of `ca.crt`, and the lists of `ca.crl`.
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
    /// Whether it is for clients, and for servers, as far as it says.
    is_for_clients: bool,
    is_for_servers: bool,
}

impl End {
    fn is_in_date(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    fn is_for(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Client => self.is_for_clients,
            Purpose::Server => self.is_for_servers,
        }
    }
}

impl Authorities {
    /// Reads certificates, and revocation lists in PEM. A certificate that cannot be read vouches for nobody; fails with a
    /// sentence if none can, or a list cannot.
    pub(super) fn read(certificates: &[CertificateDer<'static>], lists: Option<&[u8]>) -> Result<Authorities, String> {
        let mut authorities = Authorities {
            ends: Vec::new(),
            anchors: Vec::new(),
            anchor_ends: Vec::new(),
            intermediates: Vec::new(),
            lists: read_lists(lists.unwrap_or_default())?,
            subjects: Vec::new(),
        };
        let readable = certificates.iter().filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)));
        let parsed: Vec<_> = readable.collect();
        for (der, certificate) in &parsed {
            authorities.subjects.push(DistinguishedName::from(certificate.subject().as_raw().to_vec()));
            let has_issuer = !is_issued_by(certificate, certificate)
                && parsed.iter().any(|(_, other)| is_issued_by(certificate, other));
            match has_issuer {
                true => authorities.intermediates.push((*der).clone()),
                false => authorities.add_end(der, certificate),
            }
        }
        if authorities.ends.is_empty() {
            return Err("none of its CA certificates can be read".to_owned());
        }
        Ok(authorities)
    }

    fn add_end(&mut self, der: &CertificateDer<'static>, parsed: &X509Certificate<'_>) {
        let Ok(usage) = parsed.extended_key_usage() else { return };
        if may_sign(parsed)
            && let Ok(anchor) = webpki::anchor_from_trusted_cert(der)
        {
            self.anchors.push(anchor.to_owned());
            self.anchor_ends.push(self.ends.len());
        }
        self.ends.push(End {
            der: der.clone(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_root: is_issued_by(parsed, parsed),
            is_for_clients: usage.as_ref().is_none_or(|usage| usage.value.client_auth),
            is_for_servers: usage.as_ref().is_none_or(|usage| usage.value.server_auth),
        });
    }

    /// The names that clients are told, so that they can choose a certificate.
    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// Whether this certificate, with those that are shown beside it, is vouched for.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if let Some(end) = self.ends.iter().find(|end| end.der == *leaf) {
            return self.verify_end(end, purpose, seconds);
        }
        let entity = EndEntityCert::try_from(leaf)?;
        let known = shown.iter().chain(&self.intermediates);
        let intermediates: Vec<CertificateDer<'_>> = known.map(|der| CertificateDer::from_slice(der)).collect();
        let check = |path: &VerifiedPath<'_>| self.verify_path(path, leaf, seconds, algorithms);
        let usage = match purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Server => KeyUsage::server_auth(),
        };
        entity.verify_for_usage(algorithms.all, &self.anchors, &intermediates, now, usage, None, Some(&check))?;
        Ok(())
    }

    /// Where one of the ends is shown itself.
    fn verify_end(&self, end: &End, purpose: Purpose, now: i64) -> Result<(), webpki::Error> {
        match end {
            _ if !end.is_in_date(now) || !end.is_for(purpose) => Err(webpki::Error::UnknownIssuer),
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
pub(super) fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;
    use crate::base::clock;

    struct Made {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
    }

    fn parameters(name: &str, serial: u8) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.serial_number = Some(SerialNumber::from(vec![serial]));
        parameters.use_authority_key_identifier_extension = true;
        parameters
    }

    fn authority(name: &str, serial: u8, by: Option<&Made>) -> Made {
        let mut parameters = parameters(name, serial);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        sign(parameters, by)
    }

    fn sign(parameters: CertificateParams, by: Option<&Made>) -> Made {
        let key = KeyPair::generate().unwrap();
        let made = match by {
            Some(by) => parameters.signed_by(&key, &by.issuer),
            None => parameters.self_signed(&key),
        };
        let der = made.unwrap().der().clone();
        Made { issuer: Issuer::new(parameters, key), der }
    }

    fn client(serial: u8, by: Option<&Made>) -> Made {
        let mut parameters = parameters("client", serial);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        sign(parameters, by)
    }

    fn list(by: &Made, revoked: &[u8], until: i32) -> String {
        let entry = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let parameters = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        parameters.signed_by(&by.issuer).unwrap().pem().unwrap()
    }

    fn verdict(roots: &[&Made], lists: &str, leaf: &Made, shown: &[&Made]) -> Result<(), webpki::Error> {
        let certificates: Vec<_> = roots.iter().map(|root| root.der.clone()).collect();
        let lists = Some(lists.as_bytes()).filter(|lists| !lists.is_empty());
        let authorities = Authorities::read(&certificates, lists).unwrap();
        let shown: Vec<_> = shown.iter().map(|made| made.der.clone()).collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(clock::now() as u64));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        authorities.verify(&leaf.der, &shown, Purpose::Client, now, algorithms)
    }

    #[test]
    fn every_certificate_is_believed_for_what_it_is() {
        let root = authority("root", 1, None);
        let middle = authority("middle", 2, Some(&root));
        let (near, far, stray) = (client(3, Some(&root)), client(4, Some(&middle)), client(5, None));
        let forged = client(6, Some(&near));
        for (case, roots, leaf, shown, expected) in [
            ("of the root", vec![&root], &near, vec![], true),
            ("its authority is not shown", vec![&root], &far, vec![], false),
            ("its authority is shown", vec![&root], &far, vec![&middle], true),
            ("its authority is known", vec![&root, &middle], &far, vec![], true),
            ("an authority without its root", vec![&middle], &far, vec![], true),
            ("of nobody", vec![&root], &stray, vec![], false),
            ("known itself", vec![&root, &stray], &stray, vec![], true),
            ("who is known cannot sign", vec![&near], &forged, vec![], false),
            ("nor with a root behind", vec![&root, &near], &forged, vec![&near], false),
        ] {
            assert_eq!(verdict(&roots, "", leaf, &shown).is_ok(), expected, "{case}");
        }
        let mut parameters = parameters("server", 7);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = sign(parameters, Some(&root));
        assert!(verdict(&[&root], "", &server, &[]).is_err(), "a server's certificate is no client's");
        assert!(verdict(&[&server], "", &server, &[]).is_err(), "nor if it is known");
    }

    #[test]
    fn who_is_out_of_date_vouches_for_nobody() {
        let mut old = parameters("old", 1);
        old.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        old.not_after = date_time_ymd(2001, 1, 1);
        let old = sign(old, None);
        assert!(verdict(&[&old], "", &client(2, Some(&old)), &[]).is_err());
    }

    #[test]
    fn with_a_list_every_authority_of_the_chain_needs_one() {
        let root = authority("root", 1, None);
        let middle = authority("middle", 2, Some(&root));
        let (near, far) = (client(3, Some(&root)), client(4, Some(&middle)));
        let fresh = |by: &Made, revoked: &[u8]| list(by, revoked, 2090);
        let both = [fresh(&root, &[]), fresh(&middle, &[])].concat();
        let imposter = authority("root", 1, None);
        for (case, roots, lists, leaf, expected) in [
            ("nobody is revoked", vec![&root, &middle], both.clone(), &far, true),
            ("only the root has a list", vec![&root, &middle], fresh(&root, &[]), &far, false),
            ("only the middle has a list", vec![&root, &middle], fresh(&middle, &[]), &far, false),
            ("the root has its list", vec![&root], fresh(&root, &[9]), &near, true),
            ("the client is revoked", vec![&root], fresh(&root, &[3]), &near, false),
            ("another's list", vec![&root], fresh(&imposter, &[]), &near, false),
            ("an old list", vec![&root], list(&root, &[], 2021), &near, false),
            (
                "revoked in an old list",
                vec![&root],
                [fresh(&root, &[]), list(&root, &[3], 2021)].concat(),
                &near,
                false,
            ),
            ("the root is not there", vec![&middle], both.clone(), &far, false),
            ("known itself", vec![&near], fresh(&root, &[]), &near, false),
        ] {
            assert_eq!(verdict(&roots, &lists, leaf, &[]).is_ok(), expected, "{case}");
        }
        let revoked = [fresh(&root, &[2]), fresh(&middle, &[])].concat();
        assert_eq!(verdict(&[&root, &middle], &revoked, &far, &[]), Err(webpki::Error::CertRevoked));
        assert!(Authorities::read(std::slice::from_ref(&root.der), Some(b"no list")).is_err());
    }
}
