//! Who are we in the mesh? Each source hands over full states of our identity; the actor here keeps the newest good one
//! and asks again, ever more patiently, when a source fails.
//!
//! What comes from here stays in memory: control lays it over the configuration as the Secret `builtin://`. Identities
//! in files are Secrets like all other certificate files, and are read and watched where those are.

mod istiod;
mod local;
mod messages;
mod schedule;
mod svid;
mod transport;
mod workload_api;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub(crate) use self::schedule::Age;
pub(crate) use self::svid::Identity;

use self::istiod::FromIstiod;
use self::local::FromLocalCa;
use self::workload_api::FromWorkloadApi;
use crate::base::clock;
use crate::snapshot::identity::IdentitySource;
use crate::telemetry::Telemetry;

/// Somebody who says who we are.
#[async_trait]
trait Source: Send {
    /// Waits for the next full state, which replaces the one before as a whole. The first comes as soon as it can. Behind
    /// a failure the caller waits a while, and then calls again.
    async fn next(&mut self) -> Result<Identity, SourceError>;
}

/// Why there is no new state. The words never show keys or tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum SourceError {
    /// The source says that we have no identity, or none any more.
    #[error("{0}")]
    Withdrawn(String),
    /// It cannot be asked, or says what cannot be used. What we have stays.
    #[error("{0}")]
    Failed(String),
}

/// What we are now, and how its source does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// What `[identity] source` is called; `None`: no source is in use.
    pub source: Option<&'static str>,
    pub identity: Option<Arc<Identity>>,
    pub trouble: Option<Arc<Trouble>>,
}

/// A source that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In seconds since 1970: the first of the failures without a success between them.
    pub since: i64,
    /// The last.
    pub message: String,
}

/// Keeps our identity new for as long as the process lives.
pub(crate) struct Keeper {
    held: watch::Sender<Held>,
    telemetry: Arc<Telemetry>,
}

impl Keeper {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Keeper {
        Keeper { held: watch::Sender::default(), telemetry }
    }

    /// What we are; follows the source.
    pub(crate) fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Obeys `plan` until its sender is gone. `changed` is called when there is something new to know.
    pub(crate) async fn follow(self, mut plan: watch::Receiver<Option<Arc<IdentitySource>>>, changed: impl Fn()) {
        loop {
            let source = plan.borrow_and_update().clone();
            let ended = match &source {
                None => {
                    self.held.send_replace(Held::default());
                    plan.changed().await.is_err()
                }
                Some(source) => tokio::select! {
                    ended = plan.changed() => ended.is_err(),
                    () = self.obey(source, &changed) => true,
                },
            };
            if ended {
                return;
            }
        }
    }

    /// Takes what one source gives, for ever. What another one gave stays until then.
    async fn obey(&self, plan: &IdentitySource, changed: &impl Fn()) {
        let name = plan.name();
        self.held.send_modify(|held| {
            held.source = Some(name);
            held.trouble = None;
        });
        let mut source = open(plan);
        let mut failures = 0u32;
        let mut told_age = Age::Fresh;
        loop {
            let error = match source.next().await {
                Ok(identity) => {
                    failures = 0;
                    told_age = Age::Fresh;
                    if self.take(name, identity) {
                        changed();
                    }
                    continue;
                }
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            self.telemetry.metrics.identity_failed(name);
            let now = clock::now();
            let is_new = self.note(name, &error, now);
            let age = self.held.borrow().identity.as_ref().map_or(Age::Fresh, |identity| identity.age(now));
            if is_new || age != told_age {
                told_age = age;
                changed();
            }
            sleep(schedule::wait(failures, fastrand::f64())).await;
        }
    }

    /// Puts a state in force; says whether there is anything new to know.
    fn take(&self, source: &str, identity: Identity) -> bool {
        self.held.send_if_modified(|held| {
            let is_same = held.identity.as_deref() == Some(&identity);
            let news = !is_same || held.trouble.is_some();
            held.trouble = None;
            if !is_same {
                let (spiffe_id, left) = (identity.spiffe_id(), identity.not_after() - clock::now());
                tracing::info!(source, %spiffe_id, seconds_left = left, "our identity in the mesh is new");
                held.identity = Some(Arc::new(identity));
            }
            news
        })
    }

    /// Remembers a failure; says whether there is anything new to know.
    fn note(&self, source: &str, error: &SourceError, now: i64) -> bool {
        let message = error.to_string();
        self.held.send_if_modified(|held| {
            let withdrawn = matches!(error, SourceError::Withdrawn(_)) && held.identity.take().is_some();
            let before = held.trouble.clone();
            let news = withdrawn || before.as_ref().is_none_or(|before| before.message != message);
            let since = before.map_or(now, |before| before.since);
            match news {
                true => {
                    tracing::warn!(source, error = message, withdrawn, "our identity in the mesh cannot be renewed")
                }
                false => tracing::debug!(source, error = message, "our identity in the mesh cannot be renewed"),
            }
            held.trouble = Some(Arc::new(Trouble { since, message }));
            news
        })
    }
}

/// Waits until there is an identity, but no longer than `limit`.
pub(crate) async fn first(mut held: watch::Receiver<Held>, limit: Duration) {
    // A time-out means that the gateway begins without; its sender lives as long as the process.
    let _ = timeout(limit, held.wait_for(|held| held.identity.is_some())).await;
}

fn open(plan: &IdentitySource) -> Box<dyn Source> {
    match plan {
        IdentitySource::WorkloadApi(plan) => Box::new(FromWorkloadApi::new(plan.clone())),
        IdentitySource::Istiod(plan) => Box::new(FromIstiod::new((**plan).clone())),
        IdentitySource::LocalCa(plan) => Box::new(FromLocalCa::new(plan.clone())),
    }
}
