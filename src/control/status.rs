//! What is in force, since when, and how did the last reload go?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::identity::IdentityStatus;
use crate::resource::finding::{Finding, Severity};
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::listener::Listener;

/// Why a reload was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cause {
    Start,
    Signal,
    /// A watched file changed.
    File,
    /// `limani reload`, or the admin port.
    Admin,
    /// A certificate was issued or renewed.
    Certificate,
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cause::Start => "start",
            Cause::Signal => "signal",
            Cause::File => "file",
            Cause::Admin => "admin",
            Cause::Certificate => "certificate",
        }
    }
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All of the configuration is in force.
    Success,
    /// It is in force but for the objects, listeners or files that error findings name; where an older version
    /// of them was good, that one stays.
    Partial,
    /// Nothing of it is in force; the last good configuration stays.
    Failed,
}

impl Verdict {
    /// `Success` or `Partial`, as the findings say.
    pub(crate) fn of(findings: &[Finding]) -> Self {
        match findings.iter().any(|finding| finding.severity == Severity::Error) {
            true => Verdict::Partial,
            false => Verdict::Success,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Success => "success",
            Verdict::Partial => "partial",
            Verdict::Failed => "failed",
        }
    }
}

/// One run of the pipeline.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub verdict: Verdict,
    /// Whether a new generation came of it; the same content as before makes none.
    pub changed: bool,
    /// What is in force after it.
    pub generation: u64,
    pub cause: Cause,
    #[serde(rename = "at", serialize_with = "rfc3339")]
    pub began: SystemTime,
    #[serde(rename = "durationMs", serialize_with = "milliseconds")]
    pub duration: Duration,
    #[serde(serialize_with = "shared")]
    pub findings: Arc<[Finding]>,
}

impl Outcome {
    pub(crate) fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    pub(crate) fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// The number of findings with this severity.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What /status shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub version: &'static str,
    #[serde(serialize_with = "rfc3339")]
    pub started: SystemTime,
    /// 0 before the first configuration.
    pub generation: u64,
    /// When this generation came into force.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    pub listeners: Vec<ListenerStatus>,
    pub clusters: usize,
    /// Who we are in the mesh; `None`: nobody.
    pub identity: Option<IdentityStatus>,
    /// The last run, with all its findings; `None` before the first.
    #[serde(serialize_with = "shared_option")]
    pub last_reload: Option<Arc<Outcome>>,
    #[serde(skip)]
    pub settings: Arc<Settings>,
}

/// One bound address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListenerStatus {
    pub address: SocketAddr,
    /// The chains behind it, in the order of names.
    pub chains: Vec<String>,
}

impl Status {
    /// The status of a process that has no configuration yet.
    pub(crate) fn starting(settings: Arc<Settings>, now: SystemTime) -> Self {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started: now,
            generation: 0,
            since: now,
            listeners: Vec::new(),
            clusters: 0,
            identity: None,
            last_reload: None,
            settings,
        }
    }

    /// The same process with `snapshot` in force since `now`.
    pub(crate) fn with_snapshot(&self, snapshot: &Snapshot, settings: Arc<Settings>, now: SystemTime) -> Self {
        Status {
            generation: snapshot.generation,
            since: now,
            listeners: snapshot.listeners.iter().map(|listener| ListenerStatus::of(listener)).collect(),
            clusters: snapshot.clusters.len(),
            settings,
            ..self.clone()
        }
    }

    /// The same process as somebody else in the mesh.
    pub(crate) fn with_identity(&self, identity: Option<IdentityStatus>) -> Self {
        Status { identity, ..self.clone() }
    }

    /// The same process after a run.
    pub(crate) fn with_outcome(&self, outcome: &Arc<Outcome>) -> Self {
        Status { last_reload: Some(Arc::clone(outcome)), ..self.clone() }
    }
}

impl ListenerStatus {
    fn of(listener: &Listener) -> Self {
        let mut chains: Vec<String> = listener.chains.all().iter().map(|(_, chain)| chain.name.clone()).collect();
        chains.sort();
        chains.dedup();
        ListenerStatus { address: listener.address, chains }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&DateTime::<Utc>::from(*time).to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn shared<T: Serialize + ?Sized, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn shared_option<T: Serialize, S: Serializer>(value: &Option<Arc<T>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(serializer)
}
