//! Which roots vouch for the other side? Those that were named; in the mesh, those of the peer's own trust domain.
//! (SPIFFE X.509-SVID 4 and 5; MeshConfig caCertificates.)

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::authorities::{Authorities, Purpose};
use super::certificates;
use super::work::Work;
use crate::base::spiffe::SpiffeId;
use crate::resource::core::Secret;
use crate::resource::meta::Object;

/// CA certificates, and revocation lists in PEM.
pub(super) type Material = (Vec<CertificateDer<'static>>, Option<Vec<u8>>);

/// What [`PeerRoots`] are made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerMaterial {
    /// For everyone, or in the mesh for our own trust domain.
    own: Material,
    of_mesh: bool,
    /// Every trust domain that is trusted, our own included; none: nobody but `own` vouches, and for everyone.
    domains: BTreeMap<String, Material>,
}

impl PeerMaterial {
    /// Authorities that vouch for everyone.
    pub(super) fn named(own: Material) -> PeerMaterial {
        PeerMaterial { own, of_mesh: false, domains: BTreeMap::new() }
    }

    /// Those of the mesh, as our identity and the mesh settings know them. `list` takes the place of the identity's own.
    pub(super) fn of_mesh(
        work: &mut Work<'_>,
        identity: &Arc<Object<Secret>>,
        list: Option<Vec<u8>>,
    ) -> Result<PeerMaterial, String> {
        let trust = &work.index.settings.mesh.trust;
        let (mut own, own_list) = certificates::authorities_and_lists(&identity.spec)?;
        let own_list = list.clone().or_else(|| own_list.map(<[u8]>::to_vec));
        let mut others: BTreeMap<&str, Vec<CertificateDer<'static>>> = BTreeMap::new();
        let mut of_everyone = Vec::new();
        for authority in &trust.authorities {
            // What cannot be read was told when the mesh file was.
            let read = certificates::read_certificates(authority.pem.as_bytes()).unwrap_or_default();
            match authority.trust_domains.is_empty() {
                true => of_everyone.extend(read),
                false => {
                    for domain in &authority.trust_domains {
                        others.entry(domain).or_default().extend(read.iter().cloned());
                    }
                }
            }
        }
        for (key, pem) in &identity.spec.data {
            if let Some(domain) = key.strip_prefix("ca.").and_then(|key| key.strip_suffix(".crt")) {
                let read = certificates::read_certificates(pem).map_err(|reason| format!("{key}: {reason}"))?;
                others.entry(domain).or_default().extend(read);
            }
        }
        own.extend(of_everyone.iter().cloned());
        let mut domains = BTreeMap::new();
        if !others.is_empty() {
            let ours = own_domain(work, identity).unwrap_or_else(|| work.index.settings.trust_domain().to_owned());
            own.extend(others.remove(ours.as_str()).unwrap_or_default());
            let aliases = Some(&trust.domain).filter(|domain| !domain.is_empty()).into_iter().chain(&trust.aliases);
            for alias in aliases.filter(|alias| !others.contains_key(alias.as_str())).chain([&ours]) {
                domains.insert(alias.clone(), (own.clone(), own_list.clone()));
            }
            for (domain, mut certificates) in others {
                certificates.extend(of_everyone.iter().cloned());
                domains.insert(domain.to_owned(), (certificates, list.clone()));
            }
        }
        Ok(PeerMaterial { own: (own, own_list), of_mesh: true, domains })
    }

    /// All of it in a fixed order, for a fingerprint that other processes make, too.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        fn of((certificates, list): &Material) -> impl Iterator<Item = &[u8]> {
            certificates.iter().map(|der| &**der).chain(list.as_deref())
        }
        let domains =
            self.domains.iter().flat_map(|(name, material)| [name.as_bytes()].into_iter().chain(of(material)));
        of(&self.own).chain(domains)
    }
}

/// The trust domain of our own certificate.
fn own_domain(work: &mut Work<'_>, identity: &Arc<Object<Secret>>) -> Option<String> {
    let served = work.memory.certified_key(identity, None).ok()?;
    let id = SpiffeId::parse(served.pair.facts.uris.first()?).ok()?;
    Some(id.trust_domain().to_owned())
}

/// Whom we believe about the other side.
#[derive(Debug)]
pub(super) struct PeerRoots {
    own: Authorities,
    of_mesh: bool,
    domains: BTreeMap<String, Authorities>,
    subjects: Vec<DistinguishedName>,
}

impl PeerRoots {
    /// Fails with a sentence if one of the domains has no usable authority.
    pub(super) fn read(material: &PeerMaterial) -> Result<PeerRoots, String> {
        let read = |(certificates, list): &Material| Authorities::read(certificates, list.as_deref());
        let own = read(&material.own)?;
        let mut domains = BTreeMap::new();
        for (domain, material) in &material.domains {
            domains
                .insert(domain.clone(), read(material).map_err(|reason| format!("trust domain {domain}: {reason}"))?);
        }
        let all = domains.values().flat_map(Authorities::subjects);
        let mut met = HashSet::new();
        let all = own.subjects().iter().chain(all).filter(|name| met.insert(name.as_ref().to_vec()));
        let subjects = all.cloned().collect();
        Ok(PeerRoots { own, of_mesh: material.of_mesh, domains, subjects })
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
        let mut authorities = &self.own;
        if self.of_mesh {
            let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| webpki::Error::BadDer)?;
            if signs_others(&parsed) {
                return Err(webpki::Error::CaUsedAsEndEntity);
            }
            if !self.domains.is_empty() {
                let domain = trust_domain(&parsed).ok_or(webpki::Error::UnknownIssuer)?;
                authorities = self.domains.get(&domain).ok_or(webpki::Error::UnknownIssuer)?;
            }
        }
        authorities.verify(leaf, shown, purpose, now, algorithms)
    }
}

/// Whether it is an authority, which is no workload.
fn signs_others(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage();
    let signs =
        usage.is_ok_and(|usage| usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()));
    signs || certificate.is_ca()
}

/// The trust domain of the only URI of a certificate.
fn trust_domain(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let only = uris.next().filter(|_| uris.next().is_none())?;
    SpiffeId::parse(only).ok().map(|id| id.trust_domain().to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SanType,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;
    use crate::base::clock;

    type Authority = (Issuer<'static, KeyPair>, CertificateDer<'static>);

    fn authority(name: &str) -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap().der().clone();
        (Issuer::new(parameters, key), der)
    }

    fn leaf(by: &Authority, uris: &[&str], usages: &[KeyUsagePurpose]) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        parameters.subject_alt_names = uris.iter().map(uri).collect();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.key_usages = usages.to_vec();
        parameters.signed_by(&KeyPair::generate().unwrap(), &by.0).unwrap().der().clone()
    }

    #[test]
    fn roots_are_chosen_by_the_trust_domain_of_the_peer() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let own: Material = (vec![ours.1.clone()], None);
        let both = BTreeMap::from([
            ("our.domain".to_owned(), own.clone()),
            ("their.domain".to_owned(), (vec![theirs.1.clone()], None)),
        ]);
        let alone = PeerMaterial { own: own.clone(), of_mesh: true, domains: BTreeMap::new() };
        let federated = PeerMaterial { own: own.clone(), of_mesh: true, domains: both };
        let named = PeerMaterial::named(own);
        let (our_web, their_web) = ("spiffe://our.domain/web", "spiffe://their.domain/web");
        let signature = [KeyUsagePurpose::DigitalSignature];
        let signs = [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        for (case, material, leaf, expected) in [
            ("ours", &federated, leaf(&ours, &[our_web], &signature), true),
            ("theirs", &federated, leaf(&theirs, &[their_web], &[]), true),
            ("our root for their domain", &federated, leaf(&ours, &[their_web], &signature), false),
            ("their root for our domain", &federated, leaf(&theirs, &[our_web], &signature), false),
            ("a domain that nobody knows", &federated, leaf(&ours, &["spiffe://far.domain/web"], &[]), false),
            ("two identities", &federated, leaf(&ours, &[our_web, "spiffe://our.domain/db"], &[]), false),
            ("no identity", &federated, leaf(&ours, &[], &[]), false),
            ("one that signs", &federated, leaf(&ours, &[our_web], &signs), false),
            ("any domain under the only root", &alone, leaf(&ours, &[their_web], &[]), true),
            ("one that signs, under the only root", &alone, leaf(&ours, &[our_web], &signs), false),
            ("a root of nobody", &alone, leaf(&theirs, &[their_web], &[]), false),
            ("outside the mesh", &named, leaf(&ours, &[], &signs), true),
        ] {
            let roots = PeerRoots::read(material).unwrap();
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(clock::now() as u64));
            let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
            let verdict = roots.verify(&leaf, &[], Purpose::Client, now, algorithms);
            assert_eq!(verdict.is_ok(), expected, "{case}: {verdict:?}");
        }
    }
}
