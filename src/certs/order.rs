//! How is one certificate got? Locked, read again, room taken, ordered from one issuer after another, kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::issue::{FailureKind, Issue, IssueError, Issued, Order};
use super::ladder::{self, Limiter};
use super::lock::Lock;
use super::memory::{LastError, Memory};
use super::renewal::{self, Reason, authority};
use super::store::{Meta, Reservation, Store, state_of};
use super::stored::{self, Reading, Stored, look};
use crate::base::clock;
use crate::snapshot::issuance::{Issuer, IssuerKind, Wanted};
use crate::telemetry::Telemetry;

/// How often a lock is asked for that another process has, and for how long.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
const LOCK_LIMIT: Duration = Duration::from_secs(20 * 60);
/// No issuer takes longer.
const ISSUE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often a certificate that was issued is written again when the disk does not take it.
const WRITE_AGAIN: Duration = Duration::from_secs(10);
/// An issuer's demand for patience is remembered no longer than this, in seconds.
const LONGEST_HOLD: i64 = 7 * 86_400;

/// Rates by issuer, shared by all orders.
#[derive(Default)]
pub(super) struct Limiters(Mutex<HashMap<String, Limiter>>);

/// Somebody who issues, with what the configuration says of them.
#[derive(Clone)]
pub(super) struct Candidate {
    pub issuer: Arc<Issuer>,
    pub issue: Arc<dyn Issue>,
}

/// All that one order needs.
#[derive(Clone)]
pub(super) struct Work {
    pub store: Store,
    pub wanted: Arc<Wanted>,
    /// In the order in which they are tried.
    pub candidates: Vec<Candidate>,
    pub limiters: Arc<Limiters>,
    pub telemetry: Arc<Telemetry>,
    /// Failures that are remembered were of another certificate, or of issuers that were changed since.
    pub anew: bool,
    /// When a name that is served on demand was last asked for; 0 for others.
    pub last_asked: i64,
    /// Set while there is a certificate that is not on disk yet: such work is not to be broken off.
    pub keeping: Arc<AtomicBool>,
}

/// How work on a certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Issued,
    /// Another process had got it, or has lately failed.
    NothingToDo,
    Failed,
}

impl Limiters {
    /// Waits until an issuer may be asked for another certificate.
    async fn admitted(&self, issuer: &str) {
        while let Err(wait) = self.with(issuer, |limiter| limiter.admit(milliseconds())) {
            sleep(wait).await;
        }
    }

    fn with<T>(&self, issuer: &str, act: impl FnOnce(&mut Limiter) -> T) -> T {
        let mut limiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(limiters.entry(issuer.to_owned()).or_insert_with(Limiter::new))
    }
}

/// Gets the certificate, unless another process has. `tell` is told, for people, what is waited for.
pub(super) async fn carry_out(work: Work, tell: impl Fn(Option<String>) + Send + Sync) -> (Ended, Reading) {
    let lock = match work.lock(&tell).await {
        Ok(Some(lock)) => lock,
        Ok(None) => return (Ended::NothingToDo, work.look().await),
        Err(error) => return work.failed_here(work.look().await, "the lock cannot be had", &error).await,
    };
    // Who has waited finds what the other has done.
    let mut reading = work.look().await;
    if work.anew {
        reading.memory = Memory { ari: reading.memory.ari, hurried: reading.memory.hurried, ..Memory::default() };
    }
    reading.memory.last_asked = reading.memory.last_asked.max(work.last_asked);
    let now = clock::now();
    let due = renewal::due(reading.stored.as_ref(), &work.wanted, &work.issuers(), &reading.memory, now);
    if due.at > now || reading.memory.next_try > now {
        return (Ended::NothingToDo, reading);
    }
    let folder = work.wanted.folder.clone();
    let reserved = work.aside(move |store| store.reserve(&folder, SystemTime::now())).await;
    let reservation = match reserved {
        Ok(reservation) => reservation,
        Err(error) => return work.failed_here(reading, "there is no room for a certificate", &error).await,
    };
    let mut memory = reading.memory.clone();
    if work.candidates.iter().any(|candidate| matches!(candidate.issuer.kind, IssuerKind::Acme(_))) {
        let failure = failure(FailureKind::Unreachable, String::new());
        memory.begins(now, |many| seconds(ladder::wait(&failure, many, fastrand::f64())));
        work.remember(&memory).await;
    }
    memory.begun = 0;
    let ended = match work.order(&reading, &mut memory).await {
        Some((issued, meta)) => {
            work.keep(reservation, issued, meta, &tell).await;
            let hurried = matches!(due.reason, Reason::Window { .. });
            memory = Memory { hurried, last_asked: memory.last_asked, ..Memory::default() };
            Ended::Issued
        }
        None => Ended::Failed,
    };
    work.remember(&memory).await;
    drop(lock);
    let reading = work.look().await;
    // What could not be written counts nevertheless.
    (ended, Reading { memory, ..reading })
}

impl Work {
    async fn lock(&self, tell: &(impl Fn(Option<String>) + Sync)) -> std::io::Result<Option<Lock>> {
        let began = tokio::time::Instant::now();
        while began.elapsed() < LOCK_LIMIT {
            let folder = self.wanted.folder.clone();
            let attempt = self.aside(move |store| {
                let lock = store.try_lock(&folder, SystemTime::now())?;
                let holder = if lock.is_none() { store.lock_holder(&folder) } else { None };
                Ok((lock, holder))
            });
            let (lock, holder) = attempt.await?;
            if lock.is_some() {
                tell(None);
                return Ok(lock);
            }
            tell(Some(format!("{} is at work on it", holder.as_deref().unwrap_or("another process"))));
            sleep(LOCK_AGAIN).await;
        }
        Ok(None)
    }

    async fn look(&self) -> Reading {
        let folder = self.wanted.folder.clone();
        let looked = self.aside(move |store| Ok(look(store, &folder))).await;
        looked.unwrap_or_else(|error| Reading { problem: Some(error.to_string()), ..Reading::default() })
    }

    /// Asks one issuer after another. A failure of all is put into `memory`.
    async fn order(&self, reading: &Reading, memory: &mut Memory) -> Option<(Issued, Meta)> {
        let failures = memory.failures.saturating_add(1);
        let mut next_try = i64::MAX;
        let mut error = None;
        for candidate in &self.candidates {
            let name = &candidate.issuer.name;
            if let Some(until) = memory.held.get(name).filter(|until| **until > clock::now()) {
                next_try = next_try.min(*until);
                continue;
            }
            match self.order_from(candidate, reading).await {
                Ok(issued) => return Some(issued),
                Err(failure) => {
                    let now = clock::now();
                    let wait = seconds(ladder::wait(&failure, failures, fastrand::f64()));
                    next_try = next_try.min(now.saturating_add(wait));
                    if let Some(asked) = failure.retry_after {
                        let until = now.saturating_add(seconds(asked).min(LONGEST_HOLD));
                        memory.held.insert(name.clone(), until);
                        self.limiters.with(name, |limiter| limiter.hold(asked, milliseconds()));
                    }
                    self.tell_failure(name, &failure);
                    error = Some((name, failure));
                }
            }
        }
        if let Some((issuer, failure)) = error {
            memory.failures = failures;
            memory.last_error = Some(last_error(&failure, issuer));
        }
        // Nobody to ask is looked into again when the configuration changes, or in an hour.
        memory.next_try = if next_try == i64::MAX { clock::now().saturating_add(3600) } else { next_try };
        memory.held.retain(|_, until| *until > clock::now());
        None
    }

    async fn order_from(&self, candidate: &Candidate, reading: &Reading) -> Result<(Issued, Meta), IssueError> {
        let issuer = &candidate.issuer;
        self.limiters.admitted(&issuer.name).await;
        let authority = authority(issuer);
        let replaces = reading.stored.as_ref().filter(|stored| stored.meta.authority == authority);
        let order = Order { wanted: &self.wanted, replaces: replaces.map(|stored| &*stored.leaf) };
        let issued = match timeout(ISSUE_LIMIT, candidate.issue.issue(order)).await {
            Ok(issued) => issued?,
            Err(_) => return Err(failure(FailureKind::Unreachable, "the issuer took too long".into())),
        };
        let now = clock::now();
        let meta = Meta { issuer: issuer.name.clone(), authority, issued: now };
        self.judge(&issued, &meta, now)?;
        Ok((issued, meta))
    }

    /// Whether what was issued is what was ordered, and can be served.
    fn judge(&self, issued: &Issued, meta: &Meta, now: i64) -> Result<(), IssueError> {
        let broken = |why: String| failure(FailureKind::Broken, format!("what was issued cannot be used: {why}"));
        let (stored, _) = stored::read(&issued.chain, &issued.key, meta.clone()).map_err(broken)?;
        let missing = stored.missing(&self.wanted);
        let (from, to) = (stored.certificate.not_before, stored.certificate.not_after);
        if !missing.is_empty() {
            Err(broken(format!("it is not valid for {}", missing.join(", "))))
        } else if stored.key != Some(self.wanted.key) {
            Err(broken("its key is of another kind".into()))
        } else if to <= now || from > to {
            Err(broken(format!("it ends at {to}, and our clock says {now} (seconds since 1970)")))
        } else {
            Ok(())
        }
    }

    /// Writes what was issued, again and again if need be: it is not ordered twice.
    async fn keep(
        &self,
        mut reservation: Reservation,
        issued: Issued,
        meta: Meta,
        tell: &(impl Fn(Option<String>) + Sync),
    ) {
        self.keeping.store(true, Ordering::SeqCst);
        let issued = Arc::new(issued);
        loop {
            let (copy, meta) = (Arc::clone(&issued), meta.clone());
            let written = tokio::task::spawn_blocking(move || {
                let written = reservation.keep(&copy, &meta);
                (reservation, written)
            });
            let Ok((back, written)) = written.await else { break };
            let Err(error) = written else { break };
            reservation = back;
            let folder = &self.wanted.folder;
            tracing::error!(certificate = folder, %error, "a new certificate cannot be written; it is kept in memory");
            tell(Some(format!("the new certificate cannot be written: {error}")));
            sleep(WRITE_AGAIN).await;
        }
        self.keeping.store(false, Ordering::SeqCst);
        let folder = &self.wanted.folder;
        self.telemetry.metrics.certificate_ordered(&meta.issuer, "issued");
        tracing::info!(certificate = folder, issuer = meta.issuer, "certificate issued");
    }

    async fn failed_here(&self, mut reading: Reading, what: &str, error: &std::io::Error) -> (Ended, Reading) {
        let failure = failure(FailureKind::Local, format!("{what}: {error}"));
        self.tell_failure("", &failure);
        let memory = &mut reading.memory;
        memory.failures = memory.failures.saturating_add(1);
        let wait = ladder::wait(&failure, memory.failures, fastrand::f64());
        memory.next_try = clock::now().saturating_add(seconds(wait));
        memory.last_error = Some(last_error(&failure, ""));
        // Written if it can be.
        self.remember(memory).await;
        (Ended::Failed, reading)
    }

    fn tell_failure(&self, issuer: &str, failure: &IssueError) {
        let (certificate, kind) = (&self.wanted.folder, failure.kind.word());
        self.telemetry.metrics.certificate_ordered(issuer, kind);
        let again = failure.retry_after;
        tracing::warn!(certificate, issuer, kind, retry_after = ?again, error = %failure, "a certificate was not issued");
    }

    async fn remember(&self, memory: &Memory) {
        let (folder, memory) = (self.wanted.folder.clone(), memory.clone());
        if let Err(error) = self.aside(move |store| remember(store, &folder, &memory)).await {
            tracing::warn!(certificate = self.wanted.folder, %error, "the state of a certificate cannot be written");
        }
    }

    fn issuers(&self) -> Vec<&Issuer> {
        self.candidates.iter().map(|candidate| &*candidate.issuer).collect()
    }

    async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Store) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        aside(&self.store, act).await
    }
}

/// Asks an issuer when a certificate is to be renewed, and remembers the answer.
pub(super) async fn ask_window(store: Store, folder: String, candidate: Candidate, stored: Stored) -> Memory {
    let name = &stored.certificate.sha256;
    // Another process may have asked.
    let asked_for = folder.clone();
    let reading = aside(&store, move |store| Ok(look(store, &asked_for))).await.unwrap_or_default();
    let mut memory = reading.memory;
    if memory.ask_at(name) > clock::now() {
        return memory;
    }
    let answer = timeout(ISSUE_LIMIT, candidate.issue.renewal_window(&stored.leaf)).await;
    let answer = answer.unwrap_or_else(|_| Err(failure(FailureKind::Unreachable, "the issuer took too long".into())));
    let now = clock::now();
    match answer {
        Ok(answer) => memory.answered(name, answer, now, fastrand::f64()),
        Err(failure) => {
            let failures = if memory.ari.leaf == *name { memory.ari.failures } else { 0 };
            let wait = ladder::wait(&failure, failures.saturating_add(1), fastrand::f64());
            memory.unanswered(name, now, seconds(wait));
            let issuer = &candidate.issuer.name;
            tracing::warn!(certificate = folder, issuer, error = %failure, "the issuer does not say when to renew");
        }
    }
    let kept = memory.clone();
    if let Err(error) = aside(&store, move |store| remember(store, &folder, &kept)).await {
        tracing::warn!(%error, "the state of a certificate cannot be written");
    }
    memory
}

/// Works on the disk off the runtime's thread.
pub(super) async fn aside<T: Send + 'static>(
    store: &Store,
    act: impl FnOnce(&Store) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || act(&store)).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Writes down what is remembered of a certificate.
pub(super) fn remember(store: &Store, folder: &str, memory: &Memory) -> std::io::Result<()> {
    store.write_text(&state_of(folder), &serde_json::to_string_pretty(memory)?)
}

fn failure(kind: FailureKind, message: String) -> IssueError {
    IssueError { kind, message, retry_after: None }
}

fn last_error(failure: &IssueError, issuer: &str) -> LastError {
    LastError { kind: failure.kind, message: failure.message.clone(), issuer: issuer.to_owned(), at: clock::now() }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
