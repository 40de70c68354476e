//! Which endpoints are spoken to with mutual TLS though no rule says so? (Istio's automatic mutual TLS.)
//!
//! Each endpoint for itself, because the Pods of one service move into the mesh one by one.

use super::destination_rules::Policy;
use super::endpoints::{Candidate, Found};
use super::services::{ServiceSource, ServiceView};
use super::work::Work;
use crate::resource::security::MutualTlsMode;
use crate::snapshot::cluster::Encryption;

/// What a sidecar's injector writes on its Pods.
pub(super) const LABEL: &str = "security.istio.io/tlsMode";
/// Its value where mutual TLS is taken.
pub(super) const MUTUAL: &str = "istio";

/// Marks the endpoints that are spoken to in plaintext; whether there is any other.
pub(super) fn decide(work: &Work<'_>, view: &ServiceView<'_>, policy: &Policy<'_>, found: &mut Found) -> bool {
    let is_wanted = policy.tls.is_none() && is_possible(work, view, found);
    if !is_wanted {
        return false;
    }
    let mut any = false;
    for candidate in found.all() {
        let mode = mutual_tls(work, candidate);
        any |= mode.is_some();
        candidate.encryption = mode.map_or(Encryption::None, |_| Encryption::OfCluster);
        candidate.demands_tls = mode == Some(MutualTlsMode::Strict);
    }
    any
}

/// Whether anything can be encrypted by itself: nothing outside the mesh or in a namespace without mutual TLS.
fn is_possible(work: &Work<'_>, view: &ServiceView<'_>, found: &mut Found) -> bool {
    let index = work.index;
    let is_named = matches!(view.source, ServiceSource::Named(_));
    let is_in_mesh = view.is_in_mesh() || is_named;
    if index.settings.mesh.no_auto_mtls || !is_in_mesh || !found.all().iter().any(is_labelled) {
        return false;
    }
    // Whose addresses clients look up themselves is encrypted as a whole or not at all.
    let is_headless = matches!(view.source, ServiceSource::Kubernetes(service) if service.spec.cluster_ip == "None");
    if is_headless && !found.all().iter().all(is_labelled) {
        return false;
    }
    index.peer_policies(view.namespace).of_namespace(view.namespace) != MutualTlsMode::Disable
}

/// How an endpoint takes mutual TLS; `None`: not at all.
fn mutual_tls(work: &Work<'_>, candidate: &Candidate) -> Option<MutualTlsMode> {
    let Candidate { namespace, labels, port, .. } = candidate;
    let mode = || work.index.peer_policies(namespace).of_port(namespace, labels, *port);
    is_labelled(candidate).then(mode).filter(|mode| *mode != MutualTlsMode::Disable)
}

fn is_labelled(candidate: &Candidate) -> bool {
    candidate.labels.get(LABEL).is_some_and(|value| value == MUTUAL)
}
