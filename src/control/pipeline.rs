//! How does a configuration come into force? One run after another: gather, analyze, compile, bind, publish.
//!
//! A generation is a configuration, not a run: a run that reads the same content again succeeds without a new one.
//! Whatever fails, what is in force stays: an object, a listener, or all of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use super::build::Kept;
use super::sockets::{BindFailure, Sockets};
use super::status::{Cause, Outcome, Status, Verdict};
use super::watch::WatchPlan;
use crate::base::task;
use crate::resource::finding::{Finding, Location, Severity};
use crate::snapshot::Snapshot;
use crate::snapshot::store::Store;

/// Requests that may wait at once; more than one wait for the same run.
const WAITING_REQUESTS: usize = 256;
/// How often, and how long, a replaced snapshot is asked whether its last request has ended.
const RETIREMENT: (Duration, u32) = (Duration::from_millis(50), 200);

/// Asks the pipeline for runs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Reloader {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<Status>>,
}

struct Request {
    cause: Cause,
    /// Told of the first run that begins after the request.
    reply: Option<oneshot::Sender<Arc<Outcome>>>,
}

impl Reloader {
    /// Asks for a run without waiting for it.
    pub(crate) fn request(&self, cause: Cause) {
        // A full queue means that a run is due anyway; a closed one, that the process ends.
        let _ = self.requests.try_send(Request { cause, reply: None });
    }

    /// Asks for a run and waits for its end; it begins after this call. `None`: the process ends.
    pub(crate) async fn reload(&self, cause: Cause) -> Option<Arc<Outcome>> {
        let (reply, outcome) = oneshot::channel();
        self.requests.send(Request { cause, reply: Some(reply) }).await.ok()?;
        outcome.await.ok()
    }

    /// What is in force now.
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }
}

/// The only writer of the store.
pub(crate) struct Pipeline<S> {
    settings: PathBuf,
    store: Arc<Store>,
    sockets: S,
    /// What one run leaves to the next; `None` only while a run has it.
    kept: Kept,
    /// Listeners of the last run that could not be bound: such a run is never the same as the next.
    unbound: Vec<Finding>,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<Arc<Status>>,
    plan: watch::Sender<WatchPlan>,
}

impl<S: Sockets> Pipeline<S> {
    /// `settings` is the absolute path of `limani.toml`; `status` describes the process before the first run.
    pub(crate) fn new(settings: PathBuf, status: Status, store: Arc<Store>, sockets: S) -> (Self, Reloader) {
        let (sender, requests) = mpsc::channel(WAITING_REQUESTS);
        let status = watch::Sender::new(Arc::new(status));
        let reloader = Reloader { requests: sender, status: status.subscribe() };
        let plan = watch::Sender::new(WatchPlan::default());
        let kept = Kept::default();
        let pipeline = Pipeline { settings, store, sockets, kept, unbound: Vec::new(), requests, status, plan };
        (pipeline, reloader)
    }

    /// What is to be watched; follows the configuration.
    pub(crate) fn watch_plan(&self) -> watch::Receiver<WatchPlan> {
        self.plan.subscribe()
    }

    /// Runs once for every request, or for several that wait together. Ends when all `Reloader`s are gone.
    pub(crate) async fn serve(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = self.requests.try_recv() {
                waiting.push(next);
            }
            let cause = waiting.iter().map(|request| request.cause).find(|cause| *cause != Cause::File);
            let outcome = self.run(cause.unwrap_or(Cause::File)).await;
            for request in waiting {
                // Who asked may have gone.
                let _ = request.reply.map(|reply| reply.send(Arc::clone(&outcome)));
            }
        }
    }

    /// One run from the files to the publish.
    pub(crate) async fn run(&mut self, cause: Cause) -> Arc<Outcome> {
        let (began, clock) = (SystemTime::now(), Instant::now());
        let generation = self.store.load().generation;
        let (verdict, findings) = (Verdict::Failed, Arc::from([]));
        let duration = clock.elapsed();
        Arc::new(Outcome { verdict, changed: false, generation, cause, began, duration, findings })
    }
}

fn internal(message: String) -> Finding {
    Finding {
        code: "LIM0001",
        severity: Severity::Error,
        object: String::new(),
        location: Location::default(),
        message: format!("an internal error stopped the reload: {message}"),
        hint: "please report it; the last good configuration stays in force".into(),
    }
}
