//! Who are we in the mesh, as the configuration and the operator see it? What a source gave is laid over the files as
//! the Secret `builtin://`; status and findings are read from that Secret, whoever it came from.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Serialize, Serializer};

use crate::base::spiffe::SpiffeId;
use crate::certs::identity::{Age, Held};
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::settings::Settings;
use crate::snapshot::certificate::Certificate;

/// The Secret with our own identity, as Istio names it.
const BUILTIN: &str = "builtin://";

/// Our identity in the mesh, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityStatus {
    /// `files`, `workload-api`, `istiod` or `local-ca`.
    pub source: &'static str,
    /// `None`: there is none yet, or none any more.
    pub certificate: Option<IdentityCertificate>,
    /// Since when the source fails, and why.
    pub trouble: Option<IdentityTrouble>,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityCertificate {
    /// `None`: it names no SPIFFE ID.
    pub spiffe_id: Option<String>,
    pub trust_domain: Option<String>,
    /// Other trust domains whose certificates we can judge.
    pub federated: Vec<String>,
    #[serde(serialize_with = "rfc3339")]
    pub not_before: i64,
    #[serde(serialize_with = "rfc3339")]
    pub not_after: i64,
}

/// A source that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IdentityTrouble {
    #[serde(serialize_with = "rfc3339")]
    pub since: i64,
    pub message: String,
}

/// Puts what a source gave among the Secrets. `kept` is what it was the last time: the same identity is the same object,
/// so that nothing is compiled anew.
pub(super) fn overlay(
    held: &Held,
    settings: &Settings,
    kept: &mut Option<Arc<Object<Secret>>>,
    resources: &mut ResourceSet,
) {
    let given = held.identity.as_ref().filter(|_| !settings.identity.is_from_files());
    *kept = given.map(|identity| {
        let (data, namespace) = (identity.secret(), &settings.gateway.namespace);
        let same = kept.take().filter(|old| old.spec.data == data && old.meta.namespace == *namespace);
        same.unwrap_or_else(|| {
            let meta = Meta { name: BUILTIN.to_owned(), namespace: namespace.clone(), ..Meta::default() };
            let spec = Secret { kind: "kubernetes.io/tls".into(), data };
            Arc::new(Object { meta, spec, origin: Origin::default() })
        })
    });
    resources.secrets.extend(kept.clone());
}

/// What there is to say about our identity; `None` if there is none and nobody was told to get one.
pub(super) fn status(held: &Held, settings: &Settings, resources: &ResourceSet) -> Option<IdentityStatus> {
    let namespace = &settings.gateway.namespace;
    let is_ours = |secret: &&Arc<Object<Secret>>| secret.meta.name == BUILTIN && secret.meta.namespace == *namespace;
    let certificate = resources.secrets.iter().find(is_ours).and_then(|secret| certificate(&secret.spec));
    let from_files = settings.identity.is_from_files();
    let trouble = held.trouble.as_ref().filter(|_| !from_files);
    let trouble = trouble.map(|trouble| IdentityTrouble { since: trouble.since, message: trouble.message.clone() });
    let source = if from_files { "files" } else { held.source.unwrap_or("none yet") };
    (certificate.is_some() || !from_files).then_some(IdentityStatus { source, certificate, trouble })
}

fn certificate(secret: &Secret) -> Option<IdentityCertificate> {
    let leaf = CertificateDer::from_pem_slice(secret.data.get("tls.crt")?).ok()?;
    let leaf = Certificate::read(&leaf)?;
    let id = leaf.uris.first().and_then(|uri| SpiffeId::parse(uri).ok());
    let federated = secret.data.keys().filter_map(|key| key.strip_prefix("ca.")?.strip_suffix(".crt"));
    Some(IdentityCertificate {
        spiffe_id: id.as_ref().map(|id| id.as_str().to_owned()),
        trust_domain: id.as_ref().map(|id| id.trust_domain().to_owned()),
        federated: federated.map(str::to_owned).collect(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    })
}

/// What is wrong with it at `now`, in seconds since 1970.
pub(super) fn findings(status: &IdentityStatus, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(IdentityTrouble { since, message }) = &status.trouble {
        let in_force = match status.certificate {
            Some(_) => "what it gave last stays in force",
            None => "there is no identity, and what needs it fails",
        };
        let message = format!("{} fails since {}: {message}; {in_force}", status.source, time(*since));
        findings.push(Finding::new(&codes::IDENTITY_SOURCE, Location::default(), message));
    }
    if let Some(certificate) = &status.certificate {
        let ends = time(certificate.not_after);
        let message = match Age::of(certificate.not_before, certificate.not_after, now) {
            Age::Fresh => return findings,
            Age::Late => format!("it ends at {ends} and should have been renewed by now"),
            Age::Ended => format!("it ended at {ends}; the other side will refuse it"),
        };
        let message = format!("our certificate in the mesh, of {}: {message}", status.source);
        findings.push(Finding::new(&codes::IDENTITY_LATE, Location::default(), message));
    }
    findings
}

fn time(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn rfc3339<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time(*seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(trouble: bool, certificate: bool) -> IdentityStatus {
        IdentityStatus {
            source: "istiod",
            certificate: certificate.then(|| IdentityCertificate {
                spiffe_id: None,
                trust_domain: None,
                federated: Vec::new(),
                not_before: 0,
                not_after: 100,
            }),
            trouble: trouble.then(|| IdentityTrouble { since: 5, message: "gone".into() }),
        }
    }

    #[test]
    fn findings_say_since_when_and_until_when() {
        for (trouble, certificate, now, expected) in [
            (false, false, 0, vec![]),
            (false, true, 10, vec![]),
            (true, true, 10, vec!["istiod fails since 1970-01-01T00:00:05Z: gone; what it gave last stays in force"]),
            (
                true,
                false,
                10,
                vec!["istiod fails since 1970-01-01T00:00:05Z: gone; there is no identity, and what needs it fails"],
            ),
            (
                false,
                true,
                80,
                vec![
                    "our certificate in the mesh, of istiod: it ends at 1970-01-01T00:01:40Z and should have been renewed by now",
                ],
            ),
            (
                false,
                true,
                101,
                vec![
                    "our certificate in the mesh, of istiod: it ended at 1970-01-01T00:01:40Z; the other side will refuse it",
                ],
            ),
        ] {
            let told: Vec<String> =
                findings(&status(trouble, certificate), now).into_iter().map(|f| f.message).collect();
            assert_eq!(told, expected);
        }
    }
}
