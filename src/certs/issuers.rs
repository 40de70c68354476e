//! Who issues, by what the configuration says of them?

use std::sync::Arc;

use super::acme::Acme;
use super::challenges::Challenges;
use super::issue::{FailureKind, Issue, IssueError};
use super::store::Store;
use crate::snapshot::issuance::{Issuer, IssuerKind};

/// The issuer that `issuer` describes.
///
/// # Errors
/// Nobody issues in its name.
pub(crate) fn make(issuer: &Issuer, store: &Store, challenges: &Arc<Challenges>) -> Result<Arc<dyn Issue>, IssueError> {
    match &issuer.kind {
        IssuerKind::Acme(acme) => {
            Ok(Arc::new(Acme::new(&issuer.name, (**acme).clone(), store.clone(), Arc::clone(challenges))))
        }
        IssuerKind::Local { folder } => {
            let message = format!("nobody issues in the name of the authority in {}", folder.display());
            Err(IssueError { kind: FailureKind::Local, message, retry_after: None })
        }
    }
}
