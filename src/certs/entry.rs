//! What is known of one certificate, and what is to be done next for it?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::on_demand::name_of;
use super::order::Candidate;
use super::renewal::{self, Renewal};
use super::status::{CertificateState, CertificateStatus, IssuedStatus, Served, ShownError};
use super::stored::{self, Reading};
use crate::snapshot::issuance::{Issuer, IssuerKind, Wanted};

const DAY: i64 = 86_400;
/// A name that is served on demand is renewed while it was asked for in so many seconds.
const STILL_ASKED: i64 = 30 * DAY;

/// One certificate that is kept.
pub(super) struct Entry {
    pub wanted: Arc<Wanted>,
    /// Who is asked for it; those that cannot be asked are left out.
    pub candidates: Vec<Candidate>,
    pub reading: Reading,
    /// Whether the `ask` URL has just allowed it; names that are written down are allowed.
    pub allowed: bool,
    /// It or who is asked for it changed: what failed before does not count.
    pub anew: bool,
    pub work: Option<Work>,
    /// What is waited for, for people.
    pub waits: Option<String>,
    pub served: Option<Served>,
}

/// A task that is under way. Dropped, it is broken off, unless there is a certificate that is not on disk yet.
pub(super) struct Work {
    pub task: JoinHandle<()>,
    pub keeping: Arc<AtomicBool>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.keeping.load(Ordering::SeqCst) {
            self.task.abort();
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask whether a name may have a certificate.
    Allow,
    Order,
    /// Ask the issuer when it wants to renew.
    AskWindow,
}

impl Entry {
    pub(super) fn new(wanted: Arc<Wanted>, candidates: Vec<Candidate>, reading: Reading) -> Entry {
        let allowed = name_of(&wanted.folder).is_none();
        Entry { wanted, candidates, reading, allowed, anew: false, work: None, waits: None, served: None }
    }

    pub(super) fn renewal(&self, now: i64) -> Renewal {
        let issuers: Vec<&Issuer> = self.candidates.iter().map(|candidate| &*candidate.issuer).collect();
        renewal::due(self.reading.stored.as_ref(), &self.wanted, &issuers, &self.reading.memory, now)
    }

    /// The next step and its instant, in seconds since 1970; `None`: nothing is to be done for it.
    pub(super) fn next(&self, now: i64) -> Option<(i64, Step)> {
        if self.candidates.is_empty() {
            return None;
        }
        let on_demand = name_of(&self.wanted.folder).is_some();
        let order = match on_demand && !self.allowed {
            true => Step::Allow,
            false => Step::Order,
        };
        let at = self.renewal(now).at.max(self.reading.memory.next_try);
        if on_demand && self.last_asked().saturating_add(STILL_ASKED) < at.max(now) {
            return None;
        }
        let ask = self.issuer_of_stored().zip(self.reading.stored.as_ref());
        let ask = ask.map(|(_, stored)| (self.reading.memory.ask_at(&stored.certificate.sha256), Step::AskWindow));
        // A certificate that has ended needs no advice.
        let ask = ask.filter(|(ask_at, _)| *ask_at < at);
        Some(ask.unwrap_or((at, order)))
    }

    /// When somebody last wanted it, as far as is known.
    pub(super) fn last_asked(&self) -> i64 {
        match self.reading.memory.last_asked {
            0 => self.reading.stored.as_ref().map_or(0, |stored| stored.meta.issued),
            asked => asked,
        }
    }

    /// The issuer of what is there, if it is a CA that can be asked about renewals.
    pub(super) fn issuer_of_stored(&self) -> Option<&Candidate> {
        let authority = &self.reading.stored.as_ref()?.meta.authority;
        let acme = self.candidates.iter().filter(|candidate| matches!(candidate.issuer.kind, IssuerKind::Acme(_)));
        acme.into_iter().find(|candidate| renewal::authority(&candidate.issuer) == *authority)
    }

    /// Whether nobody but ourselves is asked for it.
    pub(super) fn is_local(&self) -> bool {
        let mut kinds = self.candidates.iter().map(|candidate| &candidate.issuer.kind);
        !self.candidates.is_empty() && kinds.all(|kind| matches!(kind, IssuerKind::Local { .. }))
    }

    /// Tells that the instant has passed at which the issuer wanted it to be renewed.
    pub(super) fn tell_missed_window(&self, now: i64) {
        let Some(stored) = &self.reading.stored else { return };
        let Some(window) = self.reading.memory.window_of(&stored.certificate.sha256) else { return };
        if window.end.saturating_add(DAY) < now {
            let (certificate, explanation) = (&self.wanted.folder, window.explanation.as_deref().unwrap_or_default());
            tracing::warn!(certificate, explanation, "the time has passed at which its issuer wanted it to be renewed");
        }
    }

    pub(super) fn status(&self, now: i64) -> CertificateStatus {
        let Renewal { at, reason } = self.renewal(now);
        let memory = &self.reading.memory;
        let issued = self.reading.stored.as_ref().map(|stored| IssuedStatus {
            by: stored.meta.issuer.clone(),
            serial: stored.certificate.serial.clone(),
            sha256: stored.certificate.sha256.clone(),
            not_before: stored.certificate.not_before,
            not_after: stored.certificate.not_after,
        });
        let state = match &issued {
            None => CertificateState::Missing,
            Some(issued) if issued.not_after <= now => CertificateState::Expired,
            Some(_) if at <= now => CertificateState::Due,
            Some(_) => CertificateState::Valid,
        };
        CertificateStatus {
            folder: self.wanted.folder.clone(),
            names: self.wanted.identifiers.iter().map(stored::shown).collect(),
            issuers: self.wanted.issuers.clone(),
            state,
            issued,
            // What is due is done when it may be tried again.
            next_renewal: if at <= now { memory.next_try.max(now) } else { at.max(memory.next_try) },
            why: reason,
            failures: memory.failures,
            last_error: memory.last_error.as_ref().map(ShownError::from),
            work: self.waits.clone().or_else(|| self.work.as_ref().map(|_| "at work".to_owned())),
            problem: self.reading.problem.clone(),
            renewal_questions_failed: memory.ari.failures,
            served: self.served.clone(),
        }
    }
}
