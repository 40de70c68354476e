//! How does a configuration come into force? One run after another: gather, analyze, compile, bind, publish.
//!
//! A generation is a configuration, not a run: a run that reads the same content again succeeds without a new one.
//! Whatever fails, what is in force stays: an object, a listener, or all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use super::build::{self, Built, Kept};
use super::identity::IdentityStatus;
use super::observe;
use super::sockets::{BindFailure, Sockets};
use super::status::{Cause, Outcome, Status, Verdict};
use super::watch::WatchPlan;
use crate::base::task;
use crate::certs::identity::Held;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::identity::IdentitySource;
use crate::snapshot::issuance::Issuance;
use crate::snapshot::store::Store;
use crate::telemetry::Telemetry;

/// Requests that may wait at once; more than one wait for the same run.
const WAITING_REQUESTS: usize = 256;
/// How often, and how many times, a replaced snapshot is asked whether its last request has ended.
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
    telemetry: Arc<Telemetry>,
    sockets: S,
    /// What one run leaves to the next; empty while a run has it.
    kept: Kept,
    /// Listeners of the last run that could not be bound: such a run is never the same as the next.
    unbound: Vec<Finding>,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<Arc<Status>>,
    plan: watch::Sender<WatchPlan>,
    issuance: watch::Sender<Arc<Issuance>>,
    identity_source: watch::Sender<Option<Arc<IdentitySource>>>,
    /// What the source of our identity says; `None`: nobody listens to one.
    held: Option<watch::Receiver<Held>>,
}

impl<S: Sockets> Pipeline<S> {
    /// `settings` is the absolute path of `limani.toml`; `status` describes the process before the first run.
    pub(crate) fn new(
        settings: PathBuf,
        status: Status,
        store: Arc<Store>,
        telemetry: Arc<Telemetry>,
        sockets: S,
    ) -> (Self, Reloader) {
        let (sender, requests) = mpsc::channel(WAITING_REQUESTS);
        let status = watch::Sender::new(Arc::new(status));
        let reloader = Reloader { requests: sender, status: status.subscribe() };
        let plan = watch::Sender::new(WatchPlan::default());
        let pipeline = Pipeline {
            settings,
            store,
            telemetry,
            sockets,
            kept: Kept::default(),
            unbound: Vec::new(),
            requests,
            status,
            plan,
            issuance: watch::Sender::default(),
            identity_source: watch::Sender::default(),
            held: None,
        };
        (pipeline, reloader)
    }

    /// What is to be watched; follows the configuration.
    pub(crate) fn watch_plan(&self) -> watch::Receiver<WatchPlan> {
        self.plan.subscribe()
    }

    /// Which certificates are to be got; follows the configuration.
    pub(crate) fn issuance(&self) -> watch::Receiver<Arc<Issuance>> {
        self.issuance.subscribe()
    }

    /// Who is to give us our identity; follows the configuration.
    pub(crate) fn identity_source(&self) -> watch::Receiver<Option<Arc<IdentitySource>>> {
        self.identity_source.subscribe()
    }

    /// From now on each run takes our identity from here.
    pub(crate) fn take_identity(&mut self, held: watch::Receiver<Held>) {
        self.held = Some(held);
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
        let (mut findings, changed, failed) = match self.build().await {
            Built::Changed { snapshot, settings, watched, identity } => {
                self.unbound = self.publish(snapshot, settings).await;
                self.watch(watched);
                self.identify(identity);
                (self.survey().await, true, false)
            }
            Built::Unchanged { watched, findings, identity } => {
                self.watch(watched);
                self.identify(identity);
                (findings, false, false)
            }
            Built::Failed { findings } => (findings, false, true),
        };
        findings.extend(self.unbound.iter().cloned());
        let outcome = Arc::new(Outcome {
            verdict: if failed { Verdict::Failed } else { Verdict::of(&findings) },
            changed,
            generation: self.store.load().generation,
            cause,
            began,
            duration: clock.elapsed(),
            findings: findings.into(),
        });
        self.tell(&outcome);
        outcome
    }

    async fn build(&mut self) -> Built {
        let settings = self.settings.clone();
        let generation = self.store.load().generation + 1;
        let same_would_do = self.unbound.is_empty();
        let held = self.held.as_ref().map(|held| held.borrow().clone()).unwrap_or_default();
        let built = self.aside(move |kept| build::build(&settings, kept, generation, same_would_do, &held)).await;
        built.unwrap_or_else(|fault| Built::Failed { findings: vec![*fault] })
    }

    async fn survey(&mut self) -> Vec<Finding> {
        self.aside(build::survey).await.unwrap_or_else(|fault| vec![*fault])
    }

    /// Works on what is kept, away from the runtime's thread.
    async fn aside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Kept) -> T + Send + 'static,
    ) -> Result<T, Box<Finding>> {
        let mut kept = std::mem::take(&mut self.kept);
        let working = tokio::task::spawn_blocking(move || {
            let result = work(&mut kept);
            (kept, result)
        });
        let (kept, result) = working.await.map_err(|error| {
            let message = format!("{error}; the last good configuration stays in force");
            Finding::new(&codes::INTERNAL, Location::default(), message)
        })?;
        self.kept = kept;
        Ok(result)
    }

    /// Puts a snapshot in force, without the listeners that cannot be bound; these are told.
    async fn publish(&mut self, mut snapshot: Snapshot, settings: Arc<Settings>) -> Vec<Finding> {
        observe::follow_settings(&self.telemetry, &self.status.borrow().settings, &settings);
        if self.store.load().proxy.access_logs.paths() != snapshot.proxy.access_logs.paths() {
            observe::open_access_logs(&self.telemetry, &snapshot.proxy.access_logs);
        }
        let (prepared, failures) = self.sockets.prepare(&snapshot).await;
        snapshot.listeners.retain(|listener| failures.iter().all(|failure| failure.address != listener.address));
        let snapshot = Arc::new(snapshot);
        retire(self.store.publish(Arc::clone(&snapshot)));
        self.sockets.commit(prepared, &snapshot).await;
        self.issuance.send_if_modified(|current| {
            let differs = *current != snapshot.issuance;
            *current = Arc::clone(&snapshot.issuance);
            differs
        });
        self.identity_source.send_if_modified(|current| {
            let differs = *current != snapshot.identity;
            current.clone_from(&snapshot.identity);
            differs
        });
        self.status.send_modify(|status| {
            *status = Arc::new(status.with_snapshot(&snapshot, settings, SystemTime::now()));
        });
        failures.iter().map(not_bound).collect()
    }

    /// Tells who we are by now.
    fn identify(&self, identity: Option<IdentityStatus>) {
        let end = identity.as_ref().and_then(|status| Some(status.certificate.as_ref()?.not_after));
        self.telemetry.metrics.identity_ends(end);
        self.status.send_if_modified(|status| {
            let differs = status.identity != identity;
            if differs {
                *status = Arc::new(status.with_identity(identity));
            }
            differs
        });
    }

    fn watch(&self, watched: BTreeSet<PathBuf>) {
        let source = &self.status.borrow().settings.source;
        let paths = if source.watch { watched } else { BTreeSet::new() };
        let plan = WatchPlan { paths, debounce: source.debounce };
        self.plan.send_if_modified(|current| {
            let differs = *current != plan;
            *current = plan;
            differs
        });
    }

    /// Log, metrics and status of a run. An event that changed nothing is not worth a word.
    fn tell(&self, outcome: &Arc<Outcome>) {
        let last = self.status.borrow().last_reload.clone();
        let nothing_new = !outcome.changed && last.is_some_and(|last| last.findings == outcome.findings);
        if matches!(outcome.cause, Cause::File | Cause::Certificate) && nothing_new {
            return;
        }
        let status = self.status.borrow().with_outcome(outcome);
        observe::count(&self.telemetry.metrics, outcome);
        observe::log(outcome, &status);
        self.status.send_replace(Arc::new(status));
    }
}

fn not_bound(failure: &BindFailure) -> Finding {
    let BindFailure { address, error } = failure;
    let mut finding =
        Finding::new(&codes::NOT_BOUND, Location::default(), format!("{address} cannot be bound: {error}"));
    finding.hint = "the next reload tries again".into();
    finding
}

/// Frees a replaced snapshot here rather than in the last request that holds it; a big one takes a while.
fn retire(snapshot: Arc<Snapshot>) {
    let (pause, most) = RETIREMENT;
    task::spawn("retire snapshot", async move {
        for _ in 0..most {
            if Arc::strong_count(&snapshot) == 1 {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        let _ = tokio::task::spawn_blocking(move || drop(snapshot)).await;
    });
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;

    use super::*;
    use crate::telemetry::requests::SourceLabels;

    const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: web, namespace: default }
spec:
  selector: { istio: ingressgateway }
  servers:
  - { port: { number: 80, name: http, protocol: HTTP }, hosts: [\"*\"] }
  - { port: { number: 81, name: other, protocol: HTTP }, hosts: [\"*\"] }
";

    /// A generation and its ports.
    type Committed = (u64, Vec<u16>);

    /// Cannot bind one port; remembers what was committed.
    #[derive(Clone, Default)]
    struct Fake {
        taken: Arc<std::sync::Mutex<Option<u16>>>,
        committed: Arc<std::sync::Mutex<Vec<Committed>>>,
    }

    fn ports(snapshot: &Snapshot) -> Vec<u16> {
        snapshot.listeners.iter().map(|listener| listener.address.port()).collect()
    }

    impl Sockets for Fake {
        type Prepared = ();

        async fn prepare(&mut self, next: &Snapshot) -> ((), Vec<BindFailure>) {
            let taken = *self.taken.lock().unwrap();
            let wanted = next.listeners.iter().map(|listener| listener.address);
            let failed = wanted.filter(|address: &SocketAddr| Some(address.port()) == taken);
            ((), failed.map(|address| BindFailure { address, error: io::ErrorKind::AddrInUse.into() }).collect())
        }

        async fn commit(&mut self, (): (), snapshot: &Arc<Snapshot>) {
            self.committed.lock().unwrap().push((snapshot.generation, ports(snapshot)));
        }
    }

    fn pipeline(folder: &Path, sockets: Fake) -> (Pipeline<Fake>, Reloader) {
        let path = folder.join("limani.toml");
        std::fs::write(&path, "[source]\nmanifests = [\"m\"]\n").unwrap();
        std::fs::create_dir(folder.join("m")).unwrap();
        std::fs::write(folder.join("m/web.yaml"), GATEWAY).unwrap();
        let store = Arc::new(Store::new(Arc::new(Snapshot::empty())));
        let telemetry = Arc::new(Telemetry::new(SourceLabels::default()).unwrap());
        let status = Status::starting(Arc::new(Settings::default()), SystemTime::now());
        Pipeline::new(path, status, store, telemetry, sockets)
    }

    #[tokio::test]
    async fn a_generation_is_a_configuration_and_faults_keep_what_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let (mut pipeline, reloader) = pipeline(folder.path(), fake.clone());
        let told = |outcome: Arc<Outcome>| (outcome.verdict, outcome.changed, outcome.generation);
        assert_eq!(told(pipeline.run(Cause::Start).await), (Verdict::Success, true, 1));
        assert_eq!(told(pipeline.run(Cause::Admin).await), (Verdict::Success, false, 1));

        *fake.taken.lock().unwrap() = Some(81);
        std::fs::write(folder.path().join("m/web.yaml"), format!("{GATEWAY}# more\n")).unwrap();
        let outcome = pipeline.run(Cause::Admin).await;
        assert_eq!(told(Arc::clone(&outcome)), (Verdict::Partial, true, 2));
        assert!(outcome.findings.iter().any(|finding| finding.message.starts_with("0.0.0.0:81 cannot be bound")));
        assert_eq!(told(pipeline.run(Cause::Admin).await), (Verdict::Partial, true, 3), "tried again");
        *fake.taken.lock().unwrap() = None;
        assert_eq!(told(pipeline.run(Cause::Admin).await), (Verdict::Success, true, 4));
        assert_eq!(told(pipeline.run(Cause::Admin).await), (Verdict::Success, false, 4));

        std::fs::write(folder.path().join("limani.toml"), "[source]\nmanifests = 5\n").unwrap();
        assert_eq!(told(pipeline.run(Cause::Admin).await), (Verdict::Partial, false, 4));
        let committed = fake.committed.lock().unwrap().clone();
        assert_eq!(committed, [(1, vec![80, 81]), (2, vec![80]), (3, vec![80]), (4, vec![80, 81])]);
        assert_eq!(reloader.status().generation, 4);
    }

    #[tokio::test]
    async fn who_waits_gets_a_run_that_began_later() {
        let folder = tempfile::tempdir().unwrap();
        let (pipeline, reloader) = pipeline(folder.path(), Fake::default());
        let serving = tokio::spawn(pipeline.serve());
        reloader.request(Cause::File);
        let (first, second) = tokio::join!(reloader.reload(Cause::Admin), reloader.reload(Cause::Signal));
        let outcomes = [first.unwrap(), second.unwrap()];
        assert_eq!(outcomes[0].generation, 1);
        assert!(Arc::ptr_eq(&outcomes[0], &outcomes[1]), "requests that wait together share a run");
        drop(reloader);
        serving.await.unwrap();
    }
}
