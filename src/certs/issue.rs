//! What is an issuer asked for, and what does it answer? The same for a CA on the network and our own.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::snapshot::issuance::Wanted;

/// One certificate, ordered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub wanted: &'a Wanted,
    /// The certificate in DER that the new one follows, if this issuer issued it (RFC 9773 section 5).
    pub replaces: Option<&'a [u8]>,
}

/// What an issuer gave.
pub(crate) struct Issued {
    /// The leaf and its intermediates, in PEM.
    pub chain: String,
    /// PKCS#8 in PEM, made for this certificate alone. Never logged.
    pub key: String,
}

/// When a certificate should be renewed, as its issuer says (RFC 9773), in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenewalWindow {
    pub start: i64,
    pub end: i64,
    /// When to ask again.
    pub ask_again: Duration,
    /// A page that says why.
    pub explanation: Option<String>,
}

/// Why nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct IssueError {
    pub kind: FailureKind,
    /// A sentence with the CA's own words.
    pub message: String,
    /// How long the CA wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// What went wrong, as metrics name it and the next try depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    /// No connection, no name, a time-out.
    Unreachable,
    /// 429, or `urn:ietf:params:acme:error:rateLimited`.
    RateLimited,
    /// The CA could not see that the names are ours.
    Unproven,
    /// The CA will not issue this, now or later: an unknown account, a forbidden name.
    Refused,
    /// An answer that cannot be understood, or 5xx.
    Broken,
    /// Something on our side: no challenge that both sides know, a DNS program that failed.
    Local,
}

impl FailureKind {
    /// As metrics name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            FailureKind::Unreachable => "unreachable",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::Unproven => "unproven",
            FailureKind::Refused => "refused",
            FailureKind::Broken => "broken",
            FailureKind::Local => "local",
        }
    }
}

/// Somebody who issues certificates.
#[async_trait]
pub(crate) trait Issue: Send + Sync {
    /// Gets a certificate for all names of the order, with a new key. Takes as long as the CA needs, at most some minutes.
    async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError>;

    /// When the CA wants this certificate (DER) to be renewed; `None` if it does not say.
    async fn renewal_window(&self, certificate: &[u8]) -> Result<Option<RenewalWindow>, IssueError>;
}
