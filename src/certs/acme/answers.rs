//! What is shown to the CA while an order is open? Everything is withdrawn afterwards, however it ends.

use std::sync::Arc;

use instant_acme::KeyAuthorization;

use super::dns::{self, Presented};
use super::shown;
use crate::certs::challenges::{Answered, Challenges};
use crate::certs::issue::{FailureKind, IssueError};
use crate::snapshot::issuance::{ChallengeKind, DnsSolver, Identifier};

/// The answers of one order. Those of http-01 and tls-alpn-01 end with this; records in DNS too, by a task of their own
/// if [`Answers::withdraw`] was not awaited.
#[derive(Default)]
pub(super) struct Answers {
    given: Vec<Answered>,
    records: Vec<Presented>,
}

impl Answers {
    /// Answers one challenge. `proof` is the key authorization for its token.
    pub(super) async fn give(
        &mut self,
        challenges: &Arc<Challenges>,
        solver: Option<&DnsSolver>,
        (kind, identifier): (ChallengeKind, &Identifier),
        (token, proof): (&str, &KeyAuthorization),
    ) -> Result<(), IssueError> {
        let failed = |error: String| {
            local(format!("{} of {} cannot be answered: {error}", super::choice::name(kind), shown(identifier)))
        };
        match kind {
            ChallengeKind::Http01 => {
                let answered = challenges.answer_http(token, proof.as_str()).await;
                self.given.push(answered.map_err(|error| failed(error.to_string()))?);
            }
            ChallengeKind::TlsAlpn01 => {
                let digest: [u8; 32] = proof
                    .digest()
                    .as_ref()
                    .try_into()
                    .map_err(|_| failed("the digest has another length than SHA-256".to_owned()))?;
                let answered = challenges.answer_tls(identifier, &digest).await;
                self.given.push(answered.map_err(|error| failed(error.to_string()))?);
            }
            ChallengeKind::Dns01 => {
                let (Some(solver), Identifier::Dns(name)) = (solver, identifier) else {
                    return Err(failed("nobody writes records for it".to_owned()));
                };
                let name = format!("_acme-challenge.{}.", name.strip_prefix("*.").unwrap_or(name));
                self.records.push(dns::present(solver, &name, &proof.dns_value()).await.map_err(failed)?);
            }
            // The record stands there for good.
            ChallengeKind::DnsPersist01 => {}
        }
        Ok(())
    }

    /// Waits until the records can be seen, as far as that can be asked.
    pub(super) async fn seen(&self) -> Result<(), IssueError> {
        for record in &self.records {
            record.seen().await.map_err(local)?;
        }
        Ok(())
    }

    /// Ends everything. What cannot be removed from DNS is logged.
    pub(super) async fn withdraw(self) {
        drop(self.given);
        for record in self.records {
            record.withdraw().await;
        }
    }
}

fn local(message: String) -> IssueError {
    IssueError { kind: FailureKind::Local, message, retry_after: None }
}
