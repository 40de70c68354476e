//! What is to be told of the certificates that are kept: names, dates, next renewals, faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use serde::{Serialize, Serializer};

use super::memory::LastError;
use super::renewal::Reason;

/// All certificates that are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statuses {
    /// By their folder.
    pub certificates: BTreeMap<String, Arc<CertificateStatus>>,
    /// Why the storage cannot be used.
    pub problem: Option<String>,
}

impl Statuses {
    /// All certificates, in the order of their folders.
    pub(crate) fn certificates(&self) -> Vec<&CertificateStatus> {
        self.certificates.values().map(|status| &**status).collect()
    }
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateStatus {
    pub folder: String,
    /// What it has to be valid for.
    pub names: Vec<String>,
    /// Who is asked for it, in that order.
    pub issuers: Vec<String>,
    pub state: CertificateState,
    /// Who issued what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued: Option<IssuedStatus>,
    #[serde(serialize_with = "rfc3339")]
    pub next_renewal: i64,
    pub why: Reason,
    /// Rounds that failed since the last success.
    pub failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ShownError>,
    /// What is done or waited for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// What is wrong with the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Questions about renewal that its issuer left without an answer, since the last answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub renewal_questions_failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
}

/// How a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CertificateState {
    Valid,
    /// Valid, and its renewal is due or fails.
    Due,
    Expired,
    Missing,
}

impl CertificateState {
    pub(crate) const ALL: [CertificateState; 4] =
        [CertificateState::Valid, CertificateState::Due, CertificateState::Expired, CertificateState::Missing];

    pub(crate) fn word(self) -> &'static str {
        match self {
            CertificateState::Valid => "valid",
            CertificateState::Due => "due",
            CertificateState::Expired => "expired",
            CertificateState::Missing => "missing",
        }
    }
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssuedStatus {
    /// The name of our issuer; empty for what was put there by hand.
    pub by: String,
    pub serial: String,
    pub sha256: String,
    #[serde(serialize_with = "rfc3339")]
    pub not_before: i64,
    #[serde(serialize_with = "rfc3339")]
    pub not_after: i64,
}

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShownError {
    pub kind: &'static str,
    pub message: String,
    pub issuer: String,
    #[serde(serialize_with = "rfc3339")]
    pub at: i64,
}

impl From<&LastError> for ShownError {
    fn from(error: &LastError) -> Self {
        let LastError { kind, message, issuer, at } = error.clone();
        ShownError { kind: kind.word(), message, issuer, at }
    }
}

/// What the gateway got when it connected to itself after a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "result", content = "detail")]
pub(crate) enum Served {
    /// The new certificate, wherever its names are served.
    New,
    /// No server has it.
    Nowhere,
    /// Another certificate, or none: where, and what.
    Old(String),
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn rfc3339<S: Serializer>(time: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = DateTime::from_timestamp(*time, 0).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
    shown.serialize(serializer)
}
