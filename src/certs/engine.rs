//! Who keeps every certificate in date? An actor on the control thread: it reads the storage, orders what is due, and asks
//! for a reload when something new is there.
//!
//! It goes by the wall clock and looks again every minute, so that a clock that jumps or a machine that slept delays
//! nothing for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::entry::{Entry, Step, Work};
use super::issue::{Issue, IssueError};
use super::memory::Memory;
use super::on_demand::{Arrivals, Asker, Demand, Demands, Refusal, folder_of, name_of};
use super::order::{self, Candidate, Ended, Limiters, aside};
use super::self_check;
use super::status::{CertificateState, Served, Statuses};
use super::store::{ON_DEMAND, Store};
use super::stored::{Reading, look};
use super::upkeep::{self, Told};
use crate::base::{clock, task};
use crate::snapshot::issuance::{Identifier, Issuance, Issuer, KeyKind, Wanted};
use crate::snapshot::store::Store as Snapshots;
use crate::telemetry::Telemetry;

/// Tasks at once for certificates that are written down, and as many again for those on demand: strangers who ask for
/// names delay no renewal.
const MOST_AT_WORK: usize = 16;
/// Orders of strangers at once; more are refused.
const MOST_ON_DEMAND: usize = 100;
/// Nothing is waited for longer than this before all is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often the storage is read, in seconds: another process may have renewed.
const READ_AGAIN: i64 = 600;
/// How often certificates in force are looked at, in seconds.
const DATES_AGAIN: i64 = 60;
/// How often the storage is cleaned, in seconds.
const CLEAN_AGAIN: i64 = 86_400;
/// Certificates that come together share a reload.
const GATHERED_FOR: Duration = Duration::from_millis(200);
/// The status is made anew so much less often than events are looked at.
const TOLD_LESS_OFTEN: u32 = 5;
/// When the gateway asks itself for a new certificate, after its reload. The last is repeated.
const CHECKS: [u64; 6] = [0, 1, 4, 10, 20, 25];
/// So often a certificate that is not served is asked for, a minute apart, after those.
const MORE_CHECKS: u32 = 60;
/// Certificates whose next renewal has a number of its own; those that come first.
const MOST_SHOWN: usize = 1000;
/// How long work that must not be lost may hold up the end of the process.
const LAST_WORK: Duration = Duration::from_secs(3);
const EVENTS: usize = 256;

/// A reload of the configuration; done when it is over.
pub(crate) type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Makes who issues of what the configuration says of them.
pub(crate) type MakeIssuer = Box<dyn Fn(&Arc<Issuer>, &Store) -> Result<Arc<dyn Issue>, IssueError> + Send + Sync>;

/// What the engine needs of others.
pub(crate) struct Parts {
    pub issuance: watch::Receiver<Arc<Issuance>>,
    pub snapshots: Arc<Snapshots>,
    pub telemetry: Arc<Telemetry>,
    pub issuers: MakeIssuer,
    pub reload: Reload,
    /// Of the door that handshakes ask.
    pub arrivals: Arrivals,
}

/// How the certificates are, for all who look; cheap to clone.
#[derive(Clone)]
pub(crate) struct Certificates {
    status: watch::Receiver<Arc<Statuses>>,
}

impl Certificates {
    /// How all certificates are now.
    pub(crate) fn status(&self) -> Arc<Statuses> {
        Arc::clone(&self.status.borrow())
    }
}

/// The actor.
pub(crate) struct Engine {
    parts: Parts,
    /// What is obeyed now.
    issuance: Arc<Issuance>,
    store: Option<Store>,
    made: HashMap<String, Candidate>,
    entries: BTreeMap<String, Entry>,
    limiters: Arc<Limiters>,
    demands: Demands,
    asker: Option<Asker>,
    teller: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    status: watch::Sender<Arc<Statuses>>,
    problem: Option<String>,
    /// Folders whose new content is not in force yet.
    unloaded: BTreeSet<String>,
    is_reloading: bool,
    last_read: i64,
    last_dates: i64,
    last_clean: i64,
    told: Told,
    last_told: Option<Instant>,
}

/// What tasks tell.
enum Event {
    Waits { folder: String, what: Option<String> },
    Ended { folder: String, ended: Ended, reading: Box<Reading> },
    Window { folder: String, memory: Memory },
    Allowed { name: String, answer: Option<bool> },
    Reloaded { folders: BTreeSet<String> },
    Checked { folder: String, fingerprint: String, served: Served, round: u32 },
}

impl Engine {
    /// An engine, and how its certificates are.
    pub(crate) fn new(parts: Parts) -> (Engine, Certificates) {
        let (teller, events) = mpsc::channel(EVENTS);
        let status = watch::Sender::default();
        let certificates = Certificates { status: status.subscribe() };
        let engine = Engine {
            parts,
            issuance: Arc::default(),
            store: None,
            made: HashMap::new(),
            entries: BTreeMap::new(),
            limiters: Arc::default(),
            demands: Demands::default(),
            asker: None,
            teller,
            events,
            status,
            problem: None,
            unloaded: BTreeSet::new(),
            is_reloading: false,
            last_read: 0,
            last_dates: 0,
            last_clean: 0,
            told: Told::default(),
            last_told: None,
        };
        (engine, certificates)
    }

    /// Reads the storage and makes what we issue ourselves, as far as it is due, in at most `limit`. Says whether anything
    /// is new, so that the configuration has to be read again.
    pub(crate) async fn prepare(&mut self, limit: Duration) -> bool {
        self.follow().await;
        let deadline = Instant::now() + limit;
        loop {
            self.start_due(clock::now(), true);
            if !self.entries.values().any(|entry| entry.is_local() && entry.work.is_some()) {
                break;
            }
            tokio::select! {
                Some(event) = self.events.recv() => self.heed(event),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("certificates of the local CA are not ready; the gateway starts without them");
                    break;
                }
            }
        }
        self.publish(clock::now());
        !std::mem::take(&mut self.unloaded).is_empty()
    }

    /// Keeps all certificates until `stop` is told or dropped.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        self.follow().await;
        loop {
            let now = clock::now();
            self.look_around(now).await;
            self.start_due(now, false);
            self.reload_if_due();
            let told = self.last_told.is_none_or(|told| told.elapsed() >= self.gathering() * TOLD_LESS_OFTEN);
            if told {
                self.publish(now);
            }
            let next = self.entries.values().filter(|entry| entry.work.is_none()).filter_map(|entry| entry.next(now));
            let next = next.map(|(at, _)| at).min().unwrap_or(i64::MAX);
            let pause = if told { u64::try_from(next.saturating_sub(now)).unwrap_or(0).max(1) } else { 1 };
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Ok(()) = self.parts.issuance.changed() => self.follow().await,
                Some(event) = self.events.recv() => {
                    self.heed(event);
                    sleep(self.gathering()).await;
                    while let Ok(event) = self.events.try_recv() {
                        self.heed(event);
                    }
                }
                Some(demand) = self.parts.arrivals.demands.recv() => {
                    self.demanded(demand, now);
                    // All that have come: each turn looks at every certificate.
                    while let Ok(demand) = self.parts.arrivals.demands.try_recv() {
                        self.demanded(demand, now);
                    }
                }
                () = sleep(Duration::from_secs(pause).min(LOOK_AGAIN)) => {}
            }
        }
        self.finish().await;
    }

    /// How long events are gathered: to look at all certificates takes its time when there are thousands.
    fn gathering(&self) -> Duration {
        Duration::from_micros(20)
            .saturating_mul(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
            .min(GATHERED_FOR)
    }

    /// What is not on disk yet is waited for; all else is broken off.
    async fn finish(mut self) {
        self.entries.retain(|_, entry| entry.work.as_ref().is_some_and(|work| work.keeping.load(Ordering::SeqCst)));
        let written = async {
            while !self.entries.is_empty()
                && let Some(event) = self.events.recv().await
            {
                if let Event::Ended { folder, .. } = event {
                    self.entries.remove(&folder);
                }
            }
        };
        if timeout(LAST_WORK, written).await.is_err() {
            tracing::error!("a certificate that was issued could not be written before the end");
        }
    }

    /// Turns to what the configuration wants now.
    async fn follow(&mut self) {
        let issuance = Arc::clone(&self.parts.issuance.borrow_and_update());
        if issuance.storage != self.issuance.storage || self.store.is_none() {
            self.entries.clear();
            // Their accounts are in the other storage.
            self.made.clear();
            self.parts.arrivals.known.retain(|_| false);
            self.store = self.open(&issuance).await;
        }
        self.issuance = issuance;
        self.last_read = clock::now();
        self.made.retain(|_, candidate| self.issuance.issuers.contains(&candidate.issuer));
        self.read_all(false).await;
    }

    async fn open(&mut self, issuance: &Issuance) -> Option<Store> {
        self.problem = None;
        let wants_any = !issuance.certificates.is_empty() || issuance.on_demand.is_some();
        if !wants_any || issuance.storage.as_os_str().is_empty() {
            return None;
        }
        let root = issuance.storage.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&root)).await;
        match opened.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(store) => Some(store),
            Err(error) => {
                let storage = issuance.storage.display();
                tracing::error!(%storage, %error, "the storage of certificates cannot be used; nothing is issued");
                self.problem = Some(format!("{storage} cannot be used: {error}"));
                None
            }
        }
    }

    /// Every certificate that is wanted, with those on demand.
    async fn wanted(&self, store: &Store) -> BTreeMap<String, Arc<Wanted>> {
        let written = self.issuance.certificates.iter().map(|wanted| (wanted.folder.clone(), Arc::clone(wanted)));
        let mut wanted: BTreeMap<_, _> = written.collect();
        if let Some(on_demand) = &self.issuance.on_demand {
            let names = aside(store, |store| store.list(ON_DEMAND)).await.unwrap_or_default();
            let now = clock::now();
            let present = self.entries.iter().filter(|(_, entry)| entry.work.is_some() || entry.next(now).is_some());
            let present = present.filter_map(|(folder, _)| name_of(folder).map(str::to_owned));
            for name in names.into_iter().chain(present).collect::<BTreeSet<_>>() {
                wanted.insert(folder_of(&name), Arc::new(on_demand_certificate(&name, &on_demand.issuers)));
            }
        }
        wanted
    }

    /// Makes the entries what is wanted, and reads what is not known yet; with `again`, all that nobody works on.
    async fn read_all(&mut self, again: bool) {
        let Some(store) = self.store.clone() else { return };
        let wanted = self.wanted(&store).await;
        self.entries.retain(|folder, _| wanted.contains_key(folder));
        self.parts.arrivals.known.retain(|name| wanted.contains_key(&folder_of(name)));
        let is_read = |folder: &String| match self.entries.get(folder) {
            None => true,
            Some(entry) => again && entry.work.is_none(),
        };
        let folders: Vec<String> = wanted.keys().filter(|folder| is_read(folder)).cloned().collect();
        let read = aside(&store, move |store| {
            Ok(folders.into_iter().map(|folder| (look(store, &folder), folder)).collect::<Vec<_>>())
        });
        let mut readings: HashMap<_, _> =
            read.await.unwrap_or_default().into_iter().map(|(reading, folder)| (folder, reading)).collect();
        for (folder, wanted) in wanted {
            let candidates = self.candidates(&store, &wanted);
            let reading = readings.remove(&folder);
            match self.entries.get_mut(&folder) {
                Some(entry) => {
                    let issuers = |candidates: &[Candidate]| -> Vec<Arc<Issuer>> {
                        candidates.iter().map(|candidate| Arc::clone(&candidate.issuer)).collect()
                    };
                    if entry.wanted != wanted || issuers(&entry.candidates) != issuers(&candidates) {
                        entry.anew = true;
                        entry.reading.memory.next_try = 0;
                    }
                    if entry.wanted != wanted {
                        // It is another certificate now.
                        entry.work = None;
                        entry.wanted = wanted;
                    }
                    entry.candidates = candidates;
                    if let Some(reading) = reading.filter(|_| entry.work.is_none()) {
                        if fingerprint(&reading) != fingerprint(&entry.reading) {
                            self.unloaded.insert(folder);
                        }
                        entry.reading = reading;
                    }
                }
                None => {
                    self.entries.insert(folder, Entry::new(wanted, candidates, reading.unwrap_or_default()));
                }
            }
        }
    }

    /// Who is asked for a certificate, in order. Who cannot be asked is told and left out.
    fn candidates(&mut self, store: &Store, wanted: &Wanted) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for name in &wanted.issuers {
            if let Some(candidate) = self.made.get(name) {
                candidates.push(candidate.clone());
                continue;
            }
            let Some(issuer) = self.issuance.issuers.iter().find(|issuer| issuer.name == *name) else { continue };
            match (self.parts.issuers)(issuer, store) {
                Ok(issue) => {
                    let candidate = Candidate { issuer: Arc::clone(issuer), issue };
                    self.made.insert(name.clone(), candidate.clone());
                    candidates.push(candidate);
                }
                Err(error) => tracing::error!(issuer = name, %error, "an issuer cannot be asked"),
            }
        }
        candidates
    }

    /// What is done every few minutes, whatever happens.
    async fn look_around(&mut self, now: i64) {
        if self.problem.is_some() && (now - self.last_read).abs() >= DATES_AGAIN {
            self.follow().await;
        }
        // A clock that was set back counts as well.
        if (now - self.last_read).abs() >= READ_AGAIN {
            self.last_read = now;
            self.note_askers().await;
            self.read_all(true).await;
            self.report_lost_work();
        }
        if (now - self.last_dates).abs() >= DATES_AGAIN {
            self.last_dates = now;
            let metrics = &self.parts.telemetry.metrics;
            upkeep::look_at_dates(&self.parts.snapshots.load(), &mut self.told, metrics, now);
        }
        if (now - self.last_clean).abs() >= CLEAN_AGAIN
            && let Some(store) = &self.store
        {
            self.last_clean = now;
            self.entries.values().for_each(|entry| entry.tell_missed_window(now));
            // Names on demand that nobody asks for are not wanted any more.
            let wanted = self.entries.iter().filter(|(folder, entry)| {
                name_of(folder).is_none() || entry.work.is_some() || entry.next(now).is_some()
            });
            let wanted: BTreeSet<String> = wanted.map(|(folder, _)| folder.clone()).collect();
            let store = store.clone();
            task::spawn("clean certificates", async move {
                // A panic is all that can go wrong, and it is logged.
                let _ = tokio::task::spawn_blocking(move || upkeep::clean(&store, &wanted, now)).await;
            });
        }
    }

    /// A task that panicked told nothing.
    fn report_lost_work(&mut self) {
        for (folder, entry) in &mut self.entries {
            if entry.work.as_ref().is_some_and(|work| work.task.is_finished()) && self.events.is_empty() {
                tracing::error!(certificate = folder, "work on a certificate broke off");
                entry.work = None;
            }
        }
    }

    /// Writes down which names on demand are still asked for, at most once a day each.
    async fn note_askers(&mut self) {
        let Some(store) = self.store.clone() else { return };
        for (folder, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.work.is_none()) {
            let Some(asked) = name_of(folder).map(|name| self.parts.arrivals.known.last_asked(name)) else { continue };
            if asked.saturating_sub(entry.reading.memory.last_asked) > CLEAN_AGAIN {
                entry.reading.memory.last_asked = asked;
                let (folder, memory) = (folder.clone(), entry.reading.memory.clone());
                if let Err(error) = aside(&store, move |store| order::remember(store, &folder, &memory)).await {
                    tracing::warn!(%error, "the state of a certificate cannot be written");
                }
            }
        }
    }

    /// Starts what is due, the most urgent first, as far as there is room.
    fn start_due(&mut self, now: i64, only_local: bool) {
        let at_work = self.entries.iter().filter(|(_, entry)| entry.work.is_some());
        let (mut of_strangers, mut of_ours) = (0, 0);
        at_work
            .for_each(|(folder, _)| *(if name_of(folder).is_some() { &mut of_strangers } else { &mut of_ours }) += 1);
        let due = self.entries.iter().filter(|(_, entry)| entry.work.is_none() && (!only_local || entry.is_local()));
        let due = due.filter_map(|(folder, entry)| Some((entry.next(now)?, folder)));
        let mut due: Vec<_> =
            due.filter(|((at, _), _)| *at <= now).map(|((at, step), folder)| (at, folder.clone(), step)).collect();
        due.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, folder, step) in due {
            let at_work = if name_of(&folder).is_some() { &mut of_strangers } else { &mut of_ours };
            if *at_work < MOST_AT_WORK {
                *at_work += 1;
                self.start(&folder, step);
            }
        }
    }

    fn start(&mut self, folder: &str, step: Step) {
        let (Some(store), Some(entry)) = (self.store.clone(), self.entries.get(folder)) else { return };
        let (teller, name) = (self.teller.clone(), folder.to_owned());
        let keeping = Arc::new(AtomicBool::new(false));
        let task = match step {
            Step::Allow => match name_of(folder).and_then(|name| self.ask(name)) {
                Some(task) => task,
                None => return,
            },
            Step::Order => {
                let work = order::Work {
                    store,
                    wanted: Arc::clone(&entry.wanted),
                    candidates: entry.candidates.clone(),
                    limiters: Arc::clone(&self.limiters),
                    telemetry: Arc::clone(&self.parts.telemetry),
                    anew: entry.anew,
                    last_asked: match name_of(folder) {
                        Some(name) => entry.last_asked().max(self.parts.arrivals.known.last_asked(name)),
                        None => 0,
                    },
                    keeping: Arc::clone(&keeping),
                };
                task::spawn("certificate", async move {
                    let (waits, about) = (teller.clone(), name.clone());
                    // Not worth waiting for.
                    let tell = move |what| drop(waits.try_send(Event::Waits { folder: about.clone(), what }));
                    let (ended, reading) = order::carry_out(work, tell).await;
                    let _ = teller.send(Event::Ended { folder: name, ended, reading: Box::new(reading) }).await;
                })
            }
            Step::AskWindow => {
                let Some((candidate, stored)) = entry.issuer_of_stored().zip(entry.reading.stored.clone()) else {
                    return;
                };
                let candidate = candidate.clone();
                task::spawn("renewal window", async move {
                    let memory = order::ask_window(store, name.clone(), candidate, stored).await;
                    let _ = teller.send(Event::Window { folder: name, memory }).await;
                })
            }
        };
        if let Some(entry) = self.entries.get_mut(folder) {
            entry.anew = entry.anew && step != Step::Order;
            entry.work = Some(Work { task, keeping });
        }
    }

    /// Asks the `ask` URL about a name; `None` if there is none.
    fn ask(&mut self, name: &str) -> Option<JoinHandle<()>> {
        let url = self.issuance.on_demand.as_ref()?.ask.clone();
        if self.asker.is_none() {
            let made = Asker::new();
            self.asker = made.inspect_err(|error| tracing::error!(%error, "the `ask` URL cannot be asked")).ok();
        }
        let (asker, teller, name) = (self.asker.clone()?, self.teller.clone(), name.to_owned());
        Some(task::spawn("on-demand question", async move {
            let answer = asker.allows(&url, &name).await;
            let _ = teller.send(Event::Allowed { name, answer }).await;
        }))
    }

    /// A handshake wants a name that it does not know.
    fn demanded(&mut self, demand: Demand, now: i64) {
        let folder = folder_of(&demand.name);
        let name = demand.name.clone();
        let refusal = match self.entries.get(&folder) {
            _ if self.issuance.on_demand.is_none() || self.store.is_none() => Some(Refusal::Off),
            Some(entry) => match (&entry.reading.key, &entry.reading.stored) {
                (Some(key), Some(stored)) if stored.certificate.not_after > now => {
                    self.parts.arrivals.known.put(&name, Arc::clone(key), stored.certificate.not_after, now);
                    return self.demands.serve(demand, Ok(Arc::clone(key)));
                }
                _ if entry.reading.memory.next_try > now => Some(Refusal::Failed),
                _ => None,
            },
            None => None,
        };
        if let Some(refusal) = refusal {
            return self.demands.serve(demand, Err(refusal));
        }
        // Whoever is at work on it tells all who wait.
        let at_work = self.entries.get(&folder).is_some_and(|entry| entry.work.is_some());
        if self.demands.wait(demand, now) && !at_work && self.ask(&name).is_none() {
            self.demands.answer(&name, &Err(Refusal::Failed));
        }
    }

    /// The `ask` URL has answered.
    fn allowed(&mut self, name: &str, answer: Option<bool>) {
        let (now, folder) = (clock::now(), folder_of(name));
        if answer != Some(true) {
            self.parts.telemetry.metrics.on_demand(Refusal::NotAllowed.word());
            self.demands.refuse(name, answer.is_some(), now);
            if let Some(entry) = self.entries.get_mut(&folder) {
                entry.work = None;
                // What is there is served to its end.
                let pause = if answer.is_some() { CLEAN_AGAIN } else { READ_AGAIN };
                entry.reading.memory.next_try = now.saturating_add(pause);
            }
            return;
        }
        let (Some(store), Some(on_demand)) = (self.store.clone(), self.issuance.on_demand.clone()) else {
            return self.demands.answer(name, &Err(Refusal::Off));
        };
        let at_work = self.entries.iter().filter(|(folder, entry)| name_of(folder).is_some() && entry.work.is_some());
        if at_work.count() > MOST_ON_DEMAND {
            if let Some(entry) = self.entries.get_mut(&folder).filter(|entry| !entry.allowed) {
                entry.work = None;
                entry.reading.memory.next_try = now.saturating_add(DATES_AGAIN);
            }
            return self.demands.answer(name, &Err(Refusal::Busy));
        }
        if !self.entries.contains_key(&folder) {
            let wanted = Arc::new(on_demand_certificate(name, &on_demand.issuers));
            let candidates = self.candidates(&store, &wanted);
            self.entries.insert(folder.clone(), Entry::new(wanted, candidates, Reading::default()));
        }
        match self.entries.get_mut(&folder) {
            // It was allowed a moment ago, and is being ordered.
            Some(entry) if entry.allowed && entry.work.is_some() => return,
            Some(entry) => {
                entry.allowed = true;
                entry.work = None;
                if self.demands.awaits(name) {
                    entry.reading.memory.last_asked = now;
                }
            }
            None => {}
        }
        self.start(&folder, Step::Order);
    }

    fn heed(&mut self, event: Event) {
        match event {
            Event::Waits { folder, what } => {
                if let Some(entry) = self.entries.get_mut(&folder).filter(|entry| entry.work.is_some()) {
                    entry.waits = what;
                }
            }
            Event::Ended { folder, ended, reading } => self.ended(folder, ended, *reading),
            Event::Window { folder, memory } => {
                if let Some(entry) = self.entries.get_mut(&folder) {
                    entry.work = None;
                    entry.reading.memory = memory;
                }
            }
            Event::Allowed { name, answer } => self.allowed(&name, answer),
            Event::Reloaded { folders } => {
                (self.is_reloading, self.last_dates) = (false, 0);
                folders.into_iter().for_each(|folder| self.check(folder, 0));
            }
            Event::Checked { folder, fingerprint, served, round } => self.checked(folder, &fingerprint, served, round),
        }
    }

    fn ended(&mut self, folder: String, ended: Ended, reading: Reading) {
        let now = clock::now();
        let Some(entry) = self.entries.get_mut(&folder) else { return };
        let is_new = fingerprint(&reading) != fingerprint(&entry.reading);
        (entry.work, entry.waits) = (None, None);
        entry.reading = reading;
        if let Some(name) = name_of(&folder) {
            entry.allowed = false;
            let (key, stored) = (entry.reading.key.clone(), entry.reading.stored.as_ref());
            let answer = key.zip(stored).filter(|(_, stored)| stored.certificate.not_after > now);
            if let Some((key, stored)) = &answer {
                self.parts.arrivals.known.put(name, Arc::clone(key), stored.certificate.not_after, entry.last_asked());
            }
            self.parts.telemetry.metrics.on_demand(if ended == Ended::Failed { "failed" } else { "served" });
            self.demands.answer(name, &answer.map(|(key, _)| key).ok_or(Refusal::Failed));
        } else if is_new {
            entry.served = None;
            self.unloaded.insert(folder);
        }
    }

    /// Has what is new put in force. Certificates on demand need no reload.
    fn reload_if_due(&mut self) {
        self.unloaded.retain(|folder| name_of(folder).is_none());
        if self.is_reloading || self.unloaded.is_empty() {
            return;
        }
        self.is_reloading = true;
        let folders = std::mem::take(&mut self.unloaded);
        let (reload, teller) = (Arc::clone(&self.parts.reload), self.teller.clone());
        task::spawn("certificate reload", async move {
            sleep(GATHERED_FOR).await;
            reload().await;
            let _ = teller.send(Event::Reloaded { folders }).await;
        });
    }

    /// Connects to ourselves, to see whether what is stored is served.
    fn check(&mut self, folder: String, round: u32) {
        let Some(entry) = self.entries.get(&folder) else { return };
        let Some(stored) = entry.reading.stored.clone() else { return };
        let (wanted, snapshots) = (Arc::clone(&entry.wanted), Arc::clone(&self.parts.snapshots));
        let teller = self.teller.clone();
        let pause = usize::try_from(round).ok().and_then(|round| CHECKS.get(round)).copied();
        task::spawn("self check", async move {
            sleep(pause.map_or(LOOK_AGAIN, Duration::from_secs)).await;
            let served = self_check::check(&snapshots.load(), &wanted, &stored).await;
            let fingerprint = stored.certificate.sha256.clone();
            let _ = teller.send(Event::Checked { folder, fingerprint, served, round }).await;
        });
    }

    fn checked(&mut self, folder: String, checked: &str, served: Served, round: u32) {
        let Some(entry) = self.entries.get_mut(&folder) else { return };
        if fingerprint(&entry.reading) != Some(checked) {
            // There is a newer one, which is looked at by itself.
            return;
        }
        let last_in_time = u32::try_from(CHECKS.len()).unwrap_or_default().saturating_sub(1);
        match &served {
            Served::New => tracing::info!(certificate = folder, "the new certificate is served"),
            Served::Nowhere => tracing::debug!(certificate = folder, "no server has the new certificate"),
            Served::Old(_) if round < last_in_time => return self.check(folder, round.saturating_add(1)),
            Served::Old(what) => {
                tracing::error!(certificate = folder, what, "a new certificate is not served; it is loaded again");
                if round < last_in_time.saturating_add(MORE_CHECKS) {
                    entry.served = Some(served.clone());
                    self.parts.telemetry.metrics.self_check("old");
                    let reload = Arc::clone(&self.parts.reload);
                    task::spawn("certificate reload", async move { reload().await });
                    return self.check(folder, round.saturating_add(1));
                }
            }
        }
        let result = match &served {
            Served::New => "new",
            Served::Nowhere => "nowhere",
            Served::Old(_) => "old",
        };
        self.parts.telemetry.metrics.self_check(result);
        entry.served = Some(served);
    }

    /// Tells all who look.
    fn publish(&mut self, now: i64) {
        self.last_told = Some(Instant::now());
        let before = Arc::clone(&self.status.borrow());
        let mut certificates = BTreeMap::new();
        let mut changed = before.problem != self.problem || before.certificates.len() != self.entries.len();
        for (folder, entry) in &self.entries {
            let status = entry.status(now);
            let same = before.certificates.get(folder).filter(|known| ***known == status);
            changed |= same.is_none();
            certificates.insert(folder.clone(), same.map_or_else(|| Arc::new(status), Arc::clone));
        }
        if !changed {
            return;
        }
        let metrics = &self.parts.telemetry.metrics;
        for state in CertificateState::ALL {
            let count = certificates.values().filter(|status| status.state == state).count();
            metrics.certificates(state.word(), count);
        }
        let next = certificates.values().map(|status| (status.folder.as_str(), status.next_renewal));
        let mut next: Vec<_> = next.collect();
        next.sort_unstable_by_key(|(_, at)| *at);
        metrics.certificate_renewals(next.into_iter().take(MOST_SHOWN));
        self.status.send_replace(Arc::new(Statuses { certificates, problem: self.problem.clone() }));
    }
}

fn fingerprint(reading: &Reading) -> Option<&str> {
    reading.stored.as_ref().map(|stored| stored.certificate.sha256.as_str())
}

fn on_demand_certificate(name: &str, issuers: &[String]) -> Wanted {
    Wanted {
        folder: folder_of(name),
        identifiers: vec![Identifier::Dns(name.to_owned())],
        issuers: issuers.to_vec(),
        key: KeyKind::default(),
        profile: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;

    use super::super::issue::{FailureKind, Issued, Order, RenewalWindow};
    use super::super::on_demand::{self, OnDemandDoor};
    use super::super::stored::tests::make;
    use super::*;
    use crate::snapshot::Snapshot;
    use crate::snapshot::issuance::{AcmeIssuer, IssuerKind, OnDemand};
    use crate::telemetry::requests::SourceLabels;

    const DAY: i64 = 86_400;

    /// A CA that does as it is told, and remembers what it was asked.
    #[derive(Default)]
    struct Double {
        orders: AtomicUsize,
        /// The answers of the first orders.
        failures: Mutex<Vec<IssueError>>,
        /// How many orders say what they replace.
        replacing: AtomicUsize,
        window: Mutex<Option<RenewalWindow>>,
    }

    #[async_trait]
    impl Issue for Double {
        async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError> {
            self.orders.fetch_add(1, Ordering::SeqCst);
            self.replacing.fetch_add(usize::from(order.replaces.is_some()), Ordering::SeqCst);
            // Time in which another process might order as well.
            sleep(Duration::from_millis(50)).await;
            match self.failures.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => {
                    let now = clock::now();
                    Ok(make(&order.wanted.identifiers, order.wanted.key, now - 60, now + 90 * DAY))
                }
            }
        }

        async fn renewal_window(&self, _: &[u8]) -> Result<Option<RenewalWindow>, IssueError> {
            Ok(self.window.lock().unwrap().clone())
        }
    }

    impl Double {
        fn orders(&self) -> usize {
            self.orders.load(Ordering::SeqCst)
        }
    }

    /// A gateway's part, with its configuration.
    struct House {
        issuance: watch::Sender<Arc<Issuance>>,
        engine: Engine,
        certificates: Certificates,
        reloads: Arc<AtomicUsize>,
        door: OnDemandDoor,
    }

    fn wanted(folder: &str, names: &[&str]) -> Arc<Wanted> {
        Arc::new(Wanted {
            folder: folder.to_owned(),
            identifiers: names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect(),
            issuers: vec!["first".into(), "second".into()],
            key: KeyKind::default(),
            profile: None,
        })
    }

    fn issuance(storage: &std::path::Path, certificates: Vec<Arc<Wanted>>) -> Issuance {
        let acme = |name: &str| {
            let acme = AcmeIssuer {
                directory: format!("https://{name}/directory"),
                root: None,
                email: String::new(),
                profile: None,
                preferred_chain: None,
                external_account: None,
                challenges: Vec::new(),
                dns: None,
            };
            Arc::new(Issuer { name: name.into(), kind: IssuerKind::Acme(Box::new(acme)) })
        };
        Issuance {
            storage: storage.to_owned(),
            certificates,
            issuers: vec![acme("first"), acme("second")],
            on_demand: None,
        }
    }

    fn house(issuance: Issuance, doubles: &[(&'static str, &Arc<Double>)]) -> House {
        let (sender, receiver) = watch::channel(Arc::new(issuance));
        let doubles: HashMap<&str, Arc<Double>> =
            doubles.iter().map(|(name, double)| (*name, Arc::clone(double))).collect();
        let reloads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reloads);
        let (door, arrivals) = on_demand::door();
        let (engine, certificates) = Engine::new(Parts {
            issuance: receiver,
            snapshots: Arc::new(Snapshots::new(Arc::new(Snapshot::empty()))),
            telemetry: Arc::new(Telemetry::new(SourceLabels::default()).unwrap()),
            issuers: Box::new(move |issuer, _| {
                let double = doubles.get(issuer.name.as_str()).expect("a double");
                Ok(Arc::clone(double) as Arc<dyn Issue>)
            }),
            reload: Arc::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Box::pin(async {})
            }),
            arrivals,
        });
        House { issuance: sender, engine, certificates, reloads, door }
    }

    /// Lets the engine run until its status is as expected.
    async fn until(certificates: &Certificates, is_there: impl Fn(&Statuses) -> bool) -> Arc<Statuses> {
        let mut status = certificates.status.clone();
        let waited = timeout(Duration::from_secs(20), status.wait_for(|status| is_there(status))).await;
        Arc::clone(&waited.unwrap_or_else(|_| panic!("{:#?}", certificates.status())).unwrap())
    }

    fn all_valid(statuses: &Statuses) -> bool {
        let mut all = statuses.certificates.values();
        !statuses.certificates.is_empty()
            && all.all(|status| status.state == CertificateState::Valid && status.work.is_none())
    }

    #[tokio::test]
    async fn a_restart_orders_nothing_and_what_changes_is_ordered() {
        let storage = tempfile::tempdir().unwrap();
        let certificates = vec![wanted("hosts/a.com", &["a.com"]), wanted("secrets/b", &["b.com", "*.b.com"])];
        let (first, second) = (Arc::new(Double::default()), Arc::new(Double::default()));
        let doubles = [("first", &first), ("second", &second)];
        let one = house(issuance(storage.path(), certificates.clone()), &doubles);
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(one.engine.run(stopped));
        until(&one.certificates, all_valid).await;
        // The window was asked for, and no answer came.
        until(&one.certificates, |statuses| {
            statuses.certificates.values().all(|status| status.served == Some(Served::Nowhere))
        })
        .await;
        assert_eq!((first.orders(), second.orders()), (2, 0));
        assert!((1..=2).contains(&one.reloads.load(Ordering::SeqCst)));
        drop(stop);
        run.await.unwrap();

        let mut two = house(issuance(storage.path(), certificates), &doubles);
        assert!(!two.engine.prepare(Duration::from_secs(5)).await, "nothing is new");
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(two.engine.run(stopped));
        until(&two.certificates, all_valid).await;
        assert_eq!(first.orders(), 2, "the store is read first");
        let more = vec![wanted("hosts/a.com", &["a.com", "www.a.com"])];
        two.issuance.send_replace(Arc::new(issuance(storage.path(), more)));
        until(&two.certificates, |statuses| statuses.certificates.len() == 1 && all_valid(statuses)).await;
        assert_eq!((first.orders(), first.replacing.load(Ordering::SeqCst)), (3, 1));
        assert!(storage.path().join("secrets/b/tls.crt").exists(), "files of names that are gone stay");
        drop(stop);
        run.await.unwrap();
    }

    #[tokio::test]
    async fn two_processes_of_one_storage_order_once() {
        let storage = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..10).map(|n| wanted(&format!("hosts/{n}.com"), &[&format!("{n}.com")])).collect();
        let first = Arc::new(Double::default());
        let doubles = [("first", &first), ("second", &first)];
        let houses = [(); 2].map(|()| house(issuance(storage.path(), names.clone()), &doubles));
        let mut stops = Vec::new();
        let mut status = Vec::new();
        for house in houses {
            let (stop, stopped) = oneshot::channel();
            tokio::spawn(house.engine.run(stopped));
            stops.push((stop, house.issuance));
            status.push(house.certificates);
        }
        for certificates in &status {
            until(certificates, |statuses| statuses.certificates.len() == 10 && all_valid(statuses)).await;
        }
        assert_eq!(first.orders(), 10);
    }

    #[tokio::test]
    async fn the_next_issuer_is_asked_and_a_failure_of_all_is_remembered() {
        let storage = tempfile::tempdir().unwrap();
        let (first, second) = (Arc::new(Double::default()), Arc::new(Double::default()));
        let failure = |kind, wait| IssueError {
            kind,
            message: "no".into(),
            retry_after: Some(Duration::from_secs(wait)).filter(|wait| !wait.is_zero()),
        };
        first
            .failures
            .lock()
            .unwrap()
            .extend([failure(FailureKind::RateLimited, 7200), failure(FailureKind::Broken, 0)]);
        second.failures.lock().unwrap().push(failure(FailureKind::Refused, 0));
        let doubles = [("first", &first), ("second", &second)];
        let certificates = vec![wanted("hosts/a.com", &["a.com"])];
        let one = house(issuance(storage.path(), certificates.clone()), &doubles);
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(one.engine.run(stopped));
        let statuses = until(&one.certificates, |statuses| {
            statuses.certificates.values().any(|status| status.failures == 1 && status.work.is_none())
        })
        .await;
        let status = &statuses.certificates["hosts/a.com"];
        let wait = status.next_renewal - clock::now();
        assert!((55..=72).contains(&wait), "the mildest failure decides: {wait}");
        assert_eq!(status.last_error.as_ref().map(|error| (error.kind, &*error.issuer)), Some(("refused", "second")));
        assert_eq!((first.orders(), second.orders(), one.reloads.load(Ordering::SeqCst)), (1, 1, 0));
        drop(stop);
        run.await.unwrap();

        let mut two = house(issuance(storage.path(), certificates), &doubles);
        two.engine.prepare(Duration::from_secs(5)).await;
        let status = two.certificates.status();
        assert_eq!(status.certificates["hosts/a.com"].failures, 1, "remembered over a restart");
        let entry = two.engine.entries.get_mut("hosts/a.com").unwrap();
        assert_eq!(entry.next(clock::now()).unwrap().0, entry.reading.memory.next_try);

        // The next round begins with the first issuer, which wants patience from now on.
        let store = two.engine.store.clone().unwrap();
        let rounds = [(2, 1, "rate-limited, and the second issues"), (2, 2, "held")];
        for (expected_first, expected_second, what) in rounds {
            let mut memory = two.engine.entries["hosts/a.com"].reading.memory.clone();
            memory.next_try = 0;
            order::remember(&store, "hosts/a.com", &memory).unwrap();
            if expected_second == 2 {
                memory.held.insert("first".into(), clock::now() + 7200);
                order::remember(&store, "hosts/a.com", &memory).unwrap();
            } else {
                second.failures.lock().unwrap().push(failure(FailureKind::Unreachable, 0));
            }
            two.engine.entries.get_mut("hosts/a.com").unwrap().reading.memory = memory;
            two.engine.start("hosts/a.com", Step::Order);
            while two.engine.entries["hosts/a.com"].work.is_some() {
                let event = two.engine.events.recv().await.unwrap();
                two.engine.heed(event);
            }
            let orders = (first.orders(), second.orders() - 1);
            assert_eq!(orders, (expected_first, expected_second), "{what}");
        }
        let entry = &two.engine.entries["hosts/a.com"];
        assert!(entry.reading.stored.is_some() && entry.reading.memory.failures == 0);
    }

    #[tokio::test]
    async fn a_window_of_the_issuer_is_obeyed() {
        let storage = tempfile::tempdir().unwrap();
        let first = Arc::new(Double::default());
        let now = clock::now();
        *first.window.lock().unwrap() = Some(RenewalWindow {
            start: now + 10 * DAY,
            end: now + 12 * DAY,
            ask_again: Duration::from_secs(3600),
            explanation: Some("https://ca/why".into()),
        });
        let doubles = [("first", &first), ("second", &first)];
        let one = house(issuance(storage.path(), vec![wanted("hosts/a.com", &["a.com"])]), &doubles);
        let (_stop, stopped) = oneshot::channel();
        tokio::spawn(one.engine.run(stopped));
        let statuses = until(&one.certificates, |statuses| {
            statuses.certificates.values().any(|status| status.next_renewal < now + 20 * DAY && all_valid(statuses))
        })
        .await;
        let status = &statuses.certificates["hosts/a.com"];
        assert!((now + 10 * DAY..=now + 12 * DAY).contains(&status.next_renewal));
        let shown = serde_json::to_value(statuses.certificates()).unwrap();
        assert_eq!(shown[0]["why"]["reason"], "window");
        assert_eq!(shown[0]["why"]["explanation"], "https://ca/why");
    }

    #[tokio::test]
    async fn what_changed_is_tried_at_once_and_an_authority_that_was_made_anew_issues_anew() {
        let storage = tempfile::tempdir().unwrap();
        let first = Arc::new(Double::default());
        let doubles = [("first", &first), ("second", &first)];
        let mut one = house(issuance(storage.path(), vec![wanted("hosts/a.com", &["a.com"])]), &doubles);
        let store = Store::open(storage.path()).unwrap();
        let failed = Memory { failures: 20, next_try: clock::now() + 3600, ..Memory::default() };
        order::remember(&store, "hosts/a.com", &failed).unwrap();
        one.engine.follow().await;
        one.engine.start_due(clock::now(), false);
        assert!(one.engine.entries["hosts/a.com"].work.is_none(), "the ladder holds");
        let mut changed = issuance(storage.path(), vec![wanted("hosts/a.com", &["a.com", "b.com"])]);
        // Strangers fill no place of what is written down.
        changed.on_demand =
            Some(Arc::new(OnDemand { ask: "http://127.0.0.1:1/".into(), issuers: vec!["first".into()] }));
        one.issuance.send_replace(Arc::new(changed));
        one.engine.follow().await;
        for number in 0..MOST_AT_WORK {
            let name = format!("{number}.net");
            let wanted = Arc::new(on_demand_certificate(&name, &["first".to_owned()]));
            let mut entry = Entry::new(wanted, Vec::new(), Reading::default());
            let task = task::spawn("test", std::future::pending());
            entry.work = Some(Work { task, keeping: Arc::default() });
            one.engine.entries.insert(folder_of(&name), entry);
        }
        one.engine.start_due(clock::now(), false);
        while one.engine.entries["hosts/a.com"].work.is_some() {
            let event = one.engine.events.recv().await.unwrap();
            one.engine.heed(event);
        }
        assert_eq!(first.orders(), 1, "a failure of another certificate delays nothing");
        let folder = storage.path().join("ca");
        let meta = |authority: String| crate::certs::store::Meta { authority, ..Default::default() };
        let local = meta(format!("local:{}", folder.display()));
        let kept = store.read("hosts/a.com").unwrap().unwrap();
        let issued = Issued { chain: kept.chain, key: kept.key };
        let reserve = |folder| store.reserve(folder, std::time::SystemTime::now()).unwrap();
        reserve("local/a.com").keep(&issued, &local).unwrap();
        assert!(look(&store, "local/a.com").stored.unwrap().is_disowned, "the authority is gone");
        assert!(!look(&store, "hosts/a.com").stored.unwrap().is_disowned);
    }

    /// An `ask` URL that allows what ends in `good.com`, and counts its questions.
    async fn ask_server() -> (String, Arc<AtomicUsize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask?from=test", listener.local_addr().unwrap());
        let questions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&questions);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = vec![0; 2048];
                let length = stream.read(&mut head).await.unwrap();
                let good = String::from_utf8_lossy(&head[..length]).contains("/ask?from=test&domain=")
                    && String::from_utf8_lossy(&head[..length]).contains("good.com HTTP");
                let status = if good { "200 OK" } else { "404 Not Found" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, questions)
    }

    #[tokio::test]
    async fn names_on_demand_are_asked_for_ordered_once_and_found_after_a_restart() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let storage = tempfile::tempdir().unwrap();
        let first = Arc::new(Double::default());
        let doubles = [("first", &first), ("second", &first)];
        let (ask, questions) = ask_server().await;
        let mut configured = issuance(storage.path(), Vec::new());
        configured.on_demand = Some(Arc::new(OnDemand { ask, issuers: vec!["first".into()] }));
        let one = house(configured.clone(), &doubles);
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(one.engine.run(stopped));
        let (a, b, c) = tokio::join!(
            one.door.certificate("www.good.com"),
            one.door.certificate("WWW.good.com"),
            one.door.certificate("www.bad.com")
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.cert, b.cert);
        assert_eq!(c.unwrap_err(), Refusal::NotAllowed);
        assert_eq!(one.door.certificate("www.bad.com").await.unwrap_err(), Refusal::NotAllowed);
        assert_eq!((first.orders(), questions.load(Ordering::SeqCst)), (1, 2));
        assert!(!storage.path().join("on-demand/www.bad.com").exists(), "strangers fill no disk");
        drop(stop);
        run.await.unwrap();

        let two = house(configured, &doubles);
        let (_stop, stopped) = oneshot::channel();
        tokio::spawn(two.engine.run(stopped));
        assert_eq!(two.door.certificate("www.good.com").await.unwrap().cert, a.cert);
        assert_eq!((first.orders(), questions.load(Ordering::SeqCst)), (1, 2), "it is known");
        assert_eq!(two.reloads.load(Ordering::SeqCst), 0, "it never becomes part of the configuration");
        first.failures.lock().unwrap().push(IssueError {
            kind: FailureKind::Unproven,
            message: "no".into(),
            retry_after: None,
        });
        for _ in 0..2 {
            assert_eq!(two.door.certificate("new.good.com").await.unwrap_err(), Refusal::Failed, "it backs off");
        }
        assert_eq!(first.orders(), 2);
    }
}
