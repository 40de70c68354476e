//! How does the process start, run and end? Every part is built once, in order, and joined here.

mod descriptors;
mod sockets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use self::sockets::Doors;
use crate::admin::{self, Addresses, Facts};
use crate::base::task;
use crate::certs::challenges::Challenges;
use crate::certs::engine::{self, Certificates, Engine};
use crate::certs::identity::{self, Keeper};
use crate::certs::issuers;
use crate::certs::on_demand::{self, Arrivals};
use crate::control::lifecycle::{Lifecycle, Stage};
use crate::control::pipeline::{Pipeline, Reloader};
use crate::control::signal::Signals;
use crate::control::status::{Cause, Outcome, Status, Verdict};
use crate::control::{observe, watch};
use crate::proxy::listeners::{Listeners, Parts};
use crate::proxy::worker::Issuing;
use crate::resource::codes;
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::issuance::Issuance;
use crate::snapshot::store::Store;
use crate::source;
use crate::telemetry::Telemetry;
use crate::telemetry::log;
use crate::upstream::dns::Resolver;

/// How long the last access log lines may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long the start waits for our identity in the mesh, if a source is to give it.
const IDENTITY_LIMIT: Duration = Duration::from_secs(5);

/// How long the start waits for certificates of the local CA.
const LOCAL_CERTIFICATES_LIMIT: Duration = Duration::from_secs(30);

/// How the gateway is to be started.
#[derive(Debug)]
pub(crate) struct Start {
    /// `limani.toml`.
    pub settings: PathBuf,
    /// Whether an address that cannot be bound ends the start; else it is a finding, tried again at each reload.
    pub needs_all_listeners: bool,
    /// Printed on stdout once the gateway is ready.
    pub greeting: Option<String>,
}

/// Runs the gateway until it is told to end, by a signal or on the admin port.
///
/// # Errors
///
/// What makes a start impossible: unusable settings, a taken admin, ready or metrics port, missing rights.
pub(crate) fn run(start: Start) -> anyhow::Result<()> {
    // Fails if there is a provider already, as in a second gateway of one process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let log_level = log::init();
    let path = std::path::absolute(&start.settings).context("the settings file has no absolute path")?;
    let settings = Arc::new(read_settings(&path)?);
    let telemetry =
        Arc::new(Telemetry::new(observe::source_labels(&settings.gateway)).context("the access log has no thread")?);
    let workers = match settings.runtime.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    telemetry.recent.keep(settings.admin.recent_requests, workers);
    let control = Builder::new_current_thread().enable_all().build().context("no runtime for the control thread")?;
    let result = control.block_on(live(&start, path, settings, Arc::clone(&telemetry), log_level));
    telemetry.access_log.flush(FLUSH_LIMIT);
    // Blocking work that is still under way is not worth waiting for.
    control.shutdown_background();
    result
}

fn read_settings(path: &Path) -> anyhow::Result<Settings> {
    source::settings(path).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the settings cannot be used:\n{}", lines.join("\n"))
    })
}

/// From the first part to the end of the process, on the control thread.
async fn live(
    start: &Start,
    path: PathBuf,
    settings: Arc<Settings>,
    telemetry: Arc<Telemetry>,
    log_level: log::LogLevel,
) -> anyhow::Result<()> {
    let most_files = descriptors::raise_limit();
    let lifecycle = Lifecycle::new();
    let signals = Signals::catch().context("signals cannot be caught")?;
    let addresses =
        Addresses { admin: settings.admin.address, ready: settings.admin.ready, metrics: settings.admin.metrics };
    let ports = admin::bind(addresses)?;
    let store = Arc::new(Store::new(Arc::new(Snapshot::empty())));
    let resolver = Resolver::new(tokio::runtime::Handle::current());
    let challenges = Arc::new(Challenges::default());
    let (on_demand, arrivals) = on_demand::door();
    let listeners = Listeners::start(Parts {
        workers: settings.runtime.workers,
        drain: settings.shutdown.drain,
        most_files,
        store: Arc::clone(&store),
        telemetry: Arc::clone(&telemetry),
        resolver: resolver.clone(),
        issuing: Issuing { challenges: Arc::clone(&challenges), on_demand },
    });
    let listeners = Arc::new(listeners.context("worker threads cannot be started")?);
    let (mut pipeline, reloader) = Pipeline::new(
        path,
        Status::starting(settings, SystemTime::now()),
        Arc::clone(&store),
        Arc::clone(&telemetry),
        Doors::new(Arc::clone(&listeners), resolver),
    );
    let (mut engine, certificates) =
        certificate_engine(&pipeline, &reloader, &store, &telemetry, Arc::clone(&challenges), arrivals);
    let facts = Facts {
        store: Arc::clone(&store),
        telemetry: Arc::clone(&telemetry),
        certificates,
        reloader: reloader.clone(),
        lifecycle: lifecycle.clone(),
        log_level,
    };
    admin::serve(ports, Arc::new(facts)).context("the admin ports cannot be served")?;
    task::spawn("signals", signals.obey(reloader.clone(), lifecycle.clone(), reopen_logs(&telemetry, &store)));

    judge_start(&*pipeline.run(Cause::Start).await, start.needs_all_listeners)?;
    obtain_identity(&mut pipeline, &reloader, &telemetry).await;
    task::spawn("challenges", follow_storage(pipeline.issuance(), challenges));
    if engine.prepare(LOCAL_CERTIFICATES_LIMIT).await {
        pipeline.run(Cause::Certificate).await;
    }
    task::spawn("watch", watch::follow(pipeline.watch_plan(), reloader.clone()));
    let pipeline = task::spawn("pipeline", pipeline.serve());
    let (stop_certificates, stopped) = oneshot::channel();
    let engine = task::spawn("certificates", engine.run(stopped));
    lifecycle.advance(Stage::Live);
    greet(start, &reloader.status(), addresses);

    lifecycle.reached(Stage::Draining).await;
    listeners.leave();
    lifecycle.reached(Stage::Stopping).await;
    pipeline.abort();
    drop(stop_certificates);
    let shutdown = &reloader.status().settings.shutdown;
    tokio::select! {
        () = listeners.shutdown(shutdown.grace, shutdown.drain) => tracing::info!("stopped"),
        () = lifecycle.reached(Stage::Stopped) => tracing::warn!("stopped at once"),
    }
    // What was issued is written; it takes a moment at most.
    let _ = engine.await;
    Ok(())
}

/// Who keeps certificates in date, and asks for a reload when one is new.
fn certificate_engine(
    pipeline: &Pipeline<Doors>,
    reloader: &Reloader,
    store: &Arc<Store>,
    telemetry: &Arc<Telemetry>,
    challenges: Arc<Challenges>,
    arrivals: Arrivals,
) -> (Engine, Certificates) {
    let reloader = reloader.clone();
    Engine::new(engine::Parts {
        issuance: pipeline.issuance(),
        snapshots: Arc::clone(store),
        telemetry: Arc::clone(telemetry),
        issuers: Box::new(move |issuer, store| Ok(issuers::make(issuer, store, &challenges))),
        reload: Arc::new(move || {
            let reloader = reloader.clone();
            Box::pin(async move { drop(reloader.reload(Cause::Certificate).await) })
        }),
        arrivals,
    })
}

/// Sets the source of our identity going, and gives it a while to answer: what needs an identity should not fail at
/// first.
async fn obtain_identity(pipeline: &mut Pipeline<Doors>, reloader: &Reloader, telemetry: &Arc<Telemetry>) {
    let (keeper, source) = (Keeper::new(Arc::clone(telemetry)), pipeline.identity_source());
    let (held, is_awaited) = (keeper.held(), source.borrow().is_some());
    pipeline.take_identity(held.clone());
    let reloader = reloader.clone();
    task::spawn("identity", keeper.follow(source, move || reloader.request(Cause::Certificate)));
    if is_awaited {
        identity::first(held, IDENTITY_LIMIT).await;
        pipeline.run(Cause::Certificate).await;
    }
}

/// Lets challenges of every process be answered that shares the storage in force.
async fn follow_storage(mut issuance: tokio::sync::watch::Receiver<Arc<Issuance>>, challenges: Arc<Challenges>) {
    loop {
        let storage = {
            let issuance = issuance.borrow_and_update();
            issuance.orders_any().then(|| issuance.storage.clone())
        };
        challenges.share(storage.as_deref());
        if issuance.changed().await.is_err() {
            return;
        }
    }
}

/// A rotated access log is let go at SIGHUP.
fn reopen_logs(telemetry: &Arc<Telemetry>, store: &Arc<Store>) -> impl Fn() + Send + use<> {
    let (telemetry, store) = (Arc::clone(telemetry), Arc::clone(store));
    move || observe::open_access_logs(&telemetry, &store.load().proxy.access_logs)
}

/// Whether the gateway may go on with what its first reading of the configuration gave.
fn judge_start(outcome: &Outcome, needs_all_listeners: bool) -> anyhow::Result<()> {
    let mut fatal = outcome.findings.iter().filter(|finding| match outcome.verdict {
        Verdict::Failed => true,
        Verdict::Partial | Verdict::Success => needs_all_listeners && finding.code == codes::NOT_BOUND.id,
    });
    match fatal.next() {
        Some(finding) => bail!("{finding}"),
        None => Ok(()),
    }
}

fn greet(start: &Start, status: &Status, addresses: Addresses) {
    let listeners: Vec<String> = status.listeners.iter().map(|listener| listener.address.to_string()).collect();
    tracing::info!(
        generation = status.generation,
        listeners = listeners.join(","),
        admin = %addresses.admin,
        ready = %addresses.ready,
        metrics = %addresses.metrics,
        "ready"
    );
    if let Some(greeting) = &start.greeting {
        println!("{greeting}");
    }
}
