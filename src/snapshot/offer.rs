//! Which of its certificates does a server show to a client?

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::tls::CertificateFacts;

/// The certificates of one server, any number for any number of names.
///
/// The name that the client asks for decides first: those that have it, then those with a wildcard for its first label,
/// then the first of each kind of key. Among them the client's signature algorithms decide: ECDSA if it can, else the first that it can verify.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    certificates: Vec<Offered>,
    /// The places of the certificates that have a name, by the name in lower case; wildcards as `*.example.com`. Empty
    /// where there is nothing to choose.
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// The place of the first certificate of each kind of key, for clients whose name nobody has.
    kinds: Vec<usize>,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Offered {
    pub key: Arc<CertifiedKey>,
    pub facts: CertificateFacts,
}

impl Offer {
    /// In the order of preference among those that suit a client equally well.
    pub(crate) fn new(certificates: Vec<Offered>) -> Offer {
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let (mut kinds, mut seen) = (Vec::new(), Vec::new());
        if certificates.len() > 1 {
            for (place, offered) in certificates.iter().enumerate() {
                for name in &offered.facts.certificate.dns {
                    let places = by_name.entry(name.to_ascii_lowercase().into()).or_default();
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                }
                let kind = offered.kind();
                if !seen.contains(&kind) {
                    seen.push(kind);
                    kinds.push(place);
                }
            }
        }
        Offer { certificates, by_name, kinds }
    }

    /// What is known of the certificates, in their order.
    pub(crate) fn facts(&self) -> impl Iterator<Item = &CertificateFacts> {
        self.certificates.iter().map(|offered| &offered.facts)
    }

    /// Whether one of the certificates has the name, itself or by a wildcard for its first label.
    pub(crate) fn has(&self, name: &str) -> bool {
        let name = lower(name);
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let names = [Some(&*name), wildcard.as_deref()];
        if let [only] = self.certificates.as_slice() {
            return only.facts.certificate.dns.iter().any(|own| names.contains(&Some(&*own.to_ascii_lowercase())));
        }
        names.into_iter().flatten().any(|name| self.by_name.contains_key(name))
    }

    /// Whether every client gets the same certificate.
    pub(crate) fn is_single(&self) -> bool {
        self.certificates.len() == 1
    }

    /// The certificate for a client that asks for `name` and can verify what `is_usable` says of a key; if it can verify
    /// none of them, the first that has the name. `None` without any certificate.
    pub(crate) fn choose(&self, name: Option<&str>, is_usable: impl Fn(&dyn SigningKey) -> bool) -> Option<&Offered> {
        if let [only] = self.certificates.as_slice() {
            return Some(only);
        }
        let name = name.map(lower);
        let wildcard = name.as_deref().and_then(|name| Some(format!("*.{}", name.split_once('.')?.1)));
        let named = [name.as_deref(), wildcard.as_deref()].map(|name| name.and_then(|name| self.by_name.get(name)));
        let tiers = named.into_iter().flatten().chain([&self.kinds]);
        let best = tiers.clone().find_map(|places| {
            let offered = places.iter().filter_map(|at| self.certificates.get(*at));
            best(offered, &is_usable)
        });
        best.or_else(|| tiers.flatten().next().and_then(|at| self.certificates.get(*at)))
    }
}

impl Offered {
    /// How its key signs; `None` for a key that signs nothing that TLS knows.
    fn kind(&self) -> Option<SignatureScheme> {
        self.key.key.choose_scheme(&KINDS).map(|signer| signer.scheme())
    }
}

/// One scheme for each kind of key.
const KINDS: [SignatureScheme; 5] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// The first with an ECDSA key that the client can verify, else the first that it can.
fn best<'a>(
    candidates: impl Iterator<Item = &'a Offered> + Clone,
    is_usable: impl Fn(&dyn SigningKey) -> bool,
) -> Option<&'a Offered> {
    let is_usable = |offered: &&Offered| is_usable(&*offered.key.key);
    let is_ecdsa = |offered: &&Offered| offered.key.key.algorithm() == SignatureAlgorithm::ECDSA;
    candidates.clone().filter(is_ecdsa).find(is_usable).or_else(|| candidates.clone().find(is_usable))
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

impl ResolvesServerCert for Offer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_usable = |key: &dyn SigningKey| key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), is_usable).map(|offered| Arc::clone(&offered.key))
    }
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme as Scheme;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::snapshot::certificate::Certificate;

    const BOTH: [Scheme; 2] = [Scheme::RSA_PSS_SHA256, Scheme::ECDSA_NISTP256_SHA256];

    fn keys() -> (rcgen::KeyPair, rcgen::KeyPair) {
        let make = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
        (make(&rcgen::PKCS_ECDSA_P256_SHA256), make(&rcgen::PKCS_RSA_SHA256))
    }

    fn offered(title: &str, names: &[&str], key: &rcgen::KeyPair) -> Offered {
        let certificate = Certificate { dns: names.iter().map(|name| (*name).into()).collect(), ..Default::default() };
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(der).unwrap();
        let facts = CertificateFacts { source: title.to_owned(), certificate: Arc::new(certificate) };
        Offered { key: Arc::new(CertifiedKey::new(Vec::new(), key)), facts }
    }

    #[test]
    fn the_name_decides_before_the_algorithm() {
        let (ecdsa, rsa) = keys();
        let offer = Offer::new(vec![
            offered("first", &["first.test"], &rsa),
            offered("wild", &["*.a.test"], &ecdsa),
            offered("rsa", &["X.a.test", "y.a.test"], &rsa),
            offered("ecdsa", &["x.a.test"], &ecdsa),
            offered("second", &["x.a.test"], &ecdsa),
        ]);
        for (name, schemes, expected) in [
            (Some("x.a.test"), &BOTH[..], "ecdsa"),
            (Some("X.A.test"), &BOTH[..1], "rsa"),
            (Some("y.a.test"), &BOTH, "rsa"),
            (Some("y.a.test"), &BOTH[1..], "wild"),
            (Some("z.a.test"), &BOTH, "wild"),
            (Some("z.a.test"), &BOTH[..1], "first"),
            (Some("z.a.test"), &[Scheme::ED25519], "wild"),
            (Some("a.test"), &BOTH, "wild"),
            (Some("u.z.a.test"), &BOTH[..1], "first"),
            (None, &BOTH, "wild"),
            (None, &[], "first"),
        ] {
            let chosen = offer.choose(name, |key| key.choose_scheme(schemes).is_some()).unwrap();
            assert_eq!(chosen.facts.source, expected, "{name:?} {schemes:?}");
        }
        assert!(Offer::default().choose(None, |_| true).is_none());
    }
}
