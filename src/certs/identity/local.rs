//! Who does our own authority say we are? For development: certificates of the mesh without anybody else, from the
//! authority that also issues for servers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::schedule::{self, LEAST_PAUSE};
use super::svid::{Identity, Parts};
use super::{Source, SourceError};
use crate::base::clock;
use crate::base::spiffe::SpiffeId;
use crate::certs::local_ca;
use crate::snapshot::identity::LocalIdentity;
use crate::snapshot::issuance::LOCAL_AUTHORITY;

/// Clocks of others may be late by this much.
const BACKDATED: Duration = Duration::from_secs(60);

/// The authority in a folder, which may be shared by several gateways.
pub(super) struct FromLocalCa {
    plan: LocalIdentity,
    renewal: Option<Instant>,
}

impl FromLocalCa {
    pub(super) fn new(plan: LocalIdentity) -> Self {
        FromLocalCa { plan, renewal: None }
    }
}

#[async_trait]
impl Source for FromLocalCa {
    async fn next(&mut self) -> Result<Identity, SourceError> {
        if let Some(renewal) = self.renewal {
            sleep_until(renewal).await;
        }
        let (plan, now) = (self.plan.clone(), clock::now());
        let issued = tokio::task::spawn_blocking(move || issue(&plan, now)).await;
        let issued = issued.unwrap_or_else(|error| Err(error.to_string()));
        let identity = issued.map_err(|reason| {
            SourceError::Failed(format!("our own authority in {}: {reason}", self.plan.folder.display()))
        })?;
        let left = schedule::until_renewal(identity.not_before(), identity.not_after(), now, fastrand::f64());
        self.renewal = Some(Instant::now() + left.max(LEAST_PAUSE));
        Ok(identity)
    }
}

/// A new key with a certificate from `now` on, in seconds since 1970. Fails with a sentence.
fn issue(plan: &LocalIdentity, now: i64) -> Result<Identity, String> {
    let workload = &plan.workload;
    let id = SpiffeId::of_workload(&workload.trust_domain, &workload.namespace, &workload.service_account)?;
    let authority = local_ca::authority(&plan.folder, &[], now)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| format!("no key: {error}"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = Ia5String::try_from(id.as_str()).map_err(|error| error.to_string())?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let now_since = Duration::from_secs(u64::try_from(now).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now_since.saturating_sub(BACKDATED);
    params.not_after = epoch + now_since + plan.ttl;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority).map_err(|error| format!("nothing was signed: {error}"))?;
    let mut parts =
        Parts { chain: vec![certificate.der().to_vec()], key: Zeroizing::new(key.serialize_der()), ..Parts::default() };
    parts.roots.insert(id.trust_domain().to_owned(), vec![root(&plan.folder)?]);
    Identity::judge(&parts, now)
}

fn root(folder: &Path) -> Result<Vec<u8>, String> {
    let pem = fs::read(folder.join(LOCAL_AUTHORITY)).map_err(|error| format!("{LOCAL_AUTHORITY}: {error}"))?;
    let root = CertificateDer::from_pem_slice(&pem).map_err(|_| format!("{LOCAL_AUTHORITY} is no certificate"))?;
    Ok(root.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::identity::Workload;

    #[test]
    fn our_own_authority_vouches_for_us() {
        let home = tempfile::tempdir().unwrap();
        let workload =
            Workload { trust_domain: "td".to_owned(), namespace: "a".to_owned(), service_account: "b".to_owned() };
        let plan = LocalIdentity { folder: home.path().join("ca"), workload, ttl: Duration::from_secs(3600) };
        let now = clock::now();
        let identity = issue(&plan, now).unwrap();
        assert_eq!(identity.spiffe_id().as_str(), "spiffe://td/ns/a/sa/b");
        assert_eq!((now - identity.not_before(), identity.not_after() - now), (60, 3600));
        let leaf = CertificateDer::from_pem_slice(identity.chain().as_bytes()).unwrap();
        let root = CertificateDer::from(root(&plan.folder).unwrap());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let moment = rustls::pki_types::UnixTime::now();
        verifier.build().unwrap().verify_client_cert(&leaf, &[], moment).expect("others believe it");
        let again = issue(&plan, now).unwrap();
        assert_eq!(identity.secret()["ca.crt"], again.secret()["ca.crt"], "the authority is made once");
        assert_ne!(identity.secret()["tls.key"], again.secret()["tls.key"]);
    }
}
