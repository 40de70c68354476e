//! What is an identity, and may it be used? Judged as the standard says (X509-SVID.md sections 2 to 5) before anything
//! sees it.

use std::collections::BTreeMap;
use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::schedule::Age;
use crate::base::spiffe::SpiffeId;

/// What a source hands over, still unproven. All in DER.
#[derive(Clone, Default)]
pub(super) struct Parts {
    /// The leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
    /// By trust domain; our own has to be among them.
    pub roots: BTreeMap<String, Vec<Vec<u8>>>,
    pub revocations: Vec<Vec<u8>>,
}

/// A certificate that says who we are, with its key and whom we believe: a full state, which replaces the one before.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    spiffe_id: SpiffeId,
    not_before: i64,
    not_after: i64,
    /// PEM.
    chain: String,
    /// PEM. Never logged, and wiped when it is dropped.
    key: Zeroizing<String>,
    /// PEM, by trust domain.
    roots: BTreeMap<String, String>,
    /// PEM.
    revocations: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("spiffe_id", &self.spiffe_id).field("not_after", &self.not_after).finish()
    }
}

impl Identity {
    /// Judges the parts; `now` is in seconds since 1970. Fails with a sentence that never shows the key.
    pub(super) fn judge(parts: &Parts, now: i64) -> Result<Identity, String> {
        let leaf = parts.chain.first().ok_or("it holds no certificate")?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| "its certificate cannot be read".to_owned())?;
        let spiffe_id = judge_leaf(&leaf)?;
        for issuer in parts.chain.iter().skip(1) {
            let (_, issuer) =
                X509Certificate::from_der(issuer).map_err(|_| "one of its intermediates cannot be read".to_owned())?;
            if !issuer.is_ca() {
                return Err("one of its intermediates is no authority".to_owned());
            }
        }
        let (not_before, not_after) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        if now > not_after {
            return Err(format!("the certificate of {spiffe_id} has ended"));
        }
        judge_key(parts)?;
        judge_roots(parts, &spiffe_id)?;
        let read = |list: &Vec<u8>| CertificateRevocationList::from_der(list).is_ok();
        if !parts.revocations.iter().all(read) {
            return Err("one of its revocation lists cannot be read".to_owned());
        }
        Ok(Identity {
            spiffe_id,
            not_before,
            not_after,
            chain: encode("CERTIFICATE", &parts.chain),
            key: Zeroizing::new(encode("PRIVATE KEY", std::slice::from_ref(&*parts.key))),
            roots: parts.roots.iter().map(|(domain, roots)| (domain.clone(), encode("CERTIFICATE", roots))).collect(),
            revocations: encode("X509 CRL", &parts.revocations),
        })
    }

    pub(crate) fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Seconds since 1970, here and below.
    pub(crate) fn not_before(&self) -> i64 {
        self.not_before
    }

    pub(crate) fn not_after(&self) -> i64 {
        self.not_after
    }

    /// How near it is to its end.
    pub(crate) fn age(&self, now: i64) -> Age {
        Age::of(self.not_before, self.not_after, now)
    }

    /// In PEM, the leaf first.
    pub(super) fn chain(&self) -> &str {
        &self.chain
    }

    /// In PEM.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The same with other roots of our own domain, in DER; `None` if there are none.
    pub(super) fn with_roots(&self, roots: &[Vec<u8>]) -> Option<Identity> {
        let mut identity = self.clone();
        identity.roots.insert(self.spiffe_id.trust_domain().to_owned(), encode("CERTIFICATE", roots));
        (!roots.is_empty()).then_some(identity)
    }

    /// As the Secret that compile reads: `tls.crt`, `tls.key`, `ca.crt`, `ca.crl`, and `ca.TRUSTDOMAIN.crt` for each
    /// federated domain.
    pub(crate) fn secret(&self) -> BTreeMap<String, Vec<u8>> {
        let own = self.spiffe_id.trust_domain();
        let roots = self.roots.iter().map(|(domain, roots)| match domain == own {
            true => ("ca.crt".to_owned(), roots.clone().into_bytes()),
            false => (format!("ca.{domain}.crt"), roots.clone().into_bytes()),
        });
        let revocations = Some(&self.revocations).filter(|lists| !lists.is_empty());
        let revocations = revocations.map(|lists| ("ca.crl".to_owned(), lists.clone().into_bytes()));
        roots
            .chain(revocations)
            .chain([
                ("tls.crt".to_owned(), self.chain.clone().into_bytes()),
                ("tls.key".to_owned(), self.key.as_bytes().to_vec()),
            ])
            .collect()
    }
}

fn encode<T: AsRef<[u8]>>(tag: &str, items: &[T]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    items.iter().map(|der| pem::encode_config(&Pem::new(tag, der.as_ref()), lines)).collect()
}

/// One URI SAN, which is a SPIFFE ID; no authority; may sign.
fn judge_leaf(leaf: &X509Certificate<'_>) -> Result<SpiffeId, String> {
    let names = leaf.subject_alternative_name().map_err(|_| "its names cannot be read".to_owned())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err("its certificate has to name exactly one URI, the SPIFFE ID".to_owned());
    };
    let id = SpiffeId::parse(uri)?;
    if leaf.is_ca() {
        return Err(format!("the certificate of {id} is that of an authority"));
    }
    let usage = leaf.key_usage().map_err(|_| "its key usage cannot be read".to_owned())?;
    match usage.map(|usage| usage.value) {
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Err(format!("the certificate of {id} may sign certificates or revocation lists"))
        }
        Some(usage) if usage.digital_signature() => Ok(id),
        _ => Err(format!("the certificate of {id} may not be used for signatures")),
    }
}

fn judge_key(parts: &Parts) -> Result<(), String> {
    let chain = parts.chain.iter().map(|der| CertificateDer::from_slice(der).into_owned()).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(parts.key.as_slice())).clone_key();
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
    let key = key.map_err(|_| "its key cannot be used; it has to be PKCS#8".to_owned())?;
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("its key does not belong to its certificate".to_owned()),
    }
}

fn judge_roots(parts: &Parts, id: &SpiffeId) -> Result<(), String> {
    if parts.roots.get(id.trust_domain()).is_none_or(Vec::is_empty) {
        return Err(format!("there are no roots of {}", id.trust_domain()));
    }
    for (domain, roots) in &parts.roots {
        if !roots.iter().all(|root| X509Certificate::from_der(root).is_ok()) {
            return Err(format!("one of the roots of {domain} cannot be read"));
        }
    }
    Ok(())
}

/// Certificates one behind the other in DER, as the Workload API concatenates them.
pub(super) fn split(mut der: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).map_err(|_| "a certificate cannot be read".to_owned())?;
        certificates.push(der.get(..der.len() - rest.len()).unwrap_or_default().to_vec());
        der = rest;
    }
    Ok(certificates)
}

/// Certificates for the tests of this part.
#[cfg(test)]
pub(super) mod example {
    use rcgen::string::Ia5String;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    pub(in super::super) const US: &str = "spiffe://td/ns/a/sa/b";

    pub(in super::super) fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), Issuer::new(params, key))
    }

    /// An identity of these URIs, with what `change` makes of it.
    pub(in super::super) fn parts(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Parts {
        let (root, issuer) = authority();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Parts {
            chain: vec![params.signed_by(&key, &issuer).unwrap().der().to_vec()],
            key: Zeroizing::new(key.serialize_der()),
            roots: BTreeMap::from([("td".to_owned(), vec![root])]),
            revocations: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

    use super::example::{US, authority, parts};
    use super::*;

    /// What is wrong, or nothing.
    fn fault(parts: &Parts) -> String {
        Identity::judge(parts, 1_700_000_000).err().unwrap_or_default()
    }

    #[test]
    fn identities_are_judged_before_they_are_used() {
        let good = parts(&[US], |_| ());
        assert_eq!(fault(&good), "");
        let changed = |change: fn(&mut Parts)| {
            let mut parts = good.clone();
            change(&mut parts);
            fault(&parts)
        };
        for (told, expected) in [
            (fault(&parts(&[], |_| ())), "exactly one URI"),
            (fault(&parts(&[US, "spiffe://td/c"], |_| ())), "exactly one URI"),
            (fault(&parts(&["https://td/a"], |_| ())), "does not begin with spiffe://"),
            (fault(&parts(&[US], |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))), "that of an authority"),
            (fault(&parts(&[US], |it| it.key_usages.push(KeyUsagePurpose::KeyCertSign))), "may sign certificates"),
            (fault(&parts(&[US], |it| it.key_usages.clear())), "may not be used for signatures"),
            (fault(&parts(&[US], |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1))), "has ended"),
            (changed(|it| it.chain.clear()), "holds no certificate"),
            (changed(|it| it.chain[0].truncate(40)), "cannot be read"),
            (changed(|it| it.chain.push(it.chain[0].clone())), "intermediates is no authority"),
            (changed(|it| it.key = parts(&[US], |_| ()).key), "does not belong"),
            (changed(|it| it.key = Zeroizing::new(vec![1])), "has to be PKCS#8"),
            (changed(|it| it.roots.clear()), "no roots of td"),
            (changed(|it| it.roots.entry("other".into()).or_default().push(vec![1])), "roots of other cannot"),
            (changed(|it| it.revocations.push(vec![1])), "revocation lists cannot be read"),
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
    }

    #[test]
    fn a_secret_has_roots_by_trust_domain_and_debug_shows_no_key() {
        let mut parts = parts(&[US], |_| ());
        parts.roots.insert("other".to_owned(), vec![authority().0]);
        let identity = Identity::judge(&parts, 1_700_000_000).unwrap();
        let secret = identity.secret();
        assert_eq!(secret.keys().collect::<Vec<_>>(), ["ca.crt", "ca.other.crt", "tls.crt", "tls.key"]);
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let joined = [parts.chain[0].as_slice(), &parts.roots["td"][0]].concat();
        assert_eq!(split(&joined).unwrap(), [parts.chain[0].clone(), parts.roots["td"][0].clone()]);
        assert!(split(&joined[1..]).is_err());
    }
}
