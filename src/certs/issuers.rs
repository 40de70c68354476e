//! Who issues, by what the configuration says of them?

use std::sync::Arc;

use super::acme::Acme;
use super::challenges::Challenges;
use super::issue::Issue;
use super::local_ca::LocalCa;
use super::store::Store;
use crate::snapshot::issuance::{Issuer, IssuerKind};

/// The issuer that `issuer` describes.
pub(crate) fn make(issuer: &Issuer, store: &Store, challenges: &Arc<Challenges>) -> Arc<dyn Issue> {
    match &issuer.kind {
        IssuerKind::Acme(acme) => {
            Arc::new(Acme::new(&issuer.name, (**acme).clone(), store.clone(), Arc::clone(challenges)))
        }
        IssuerKind::Local { folder } => Arc::new(LocalCa::new(folder.clone())),
    }
}
