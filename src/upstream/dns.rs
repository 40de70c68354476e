//! What are the addresses of a name now? Names are resolved again and again by the control runtime; workers only look.
//! Names of the configuration are known as long as a snapshot names them, those of clients as long as somebody holds them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::base::task;
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::EndpointSource;

/// An answer is kept at least and at most this long, whatever its TTL.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// After a failure the old addresses stay, and the name is asked again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Names that are asked at the same time.
const AT_ONCE: usize = 64;

/// The addresses of one name, sorted; none before the first answer.
#[derive(Debug, Default)]
pub(crate) struct Addresses(ArcSwap<Vec<IpAddr>>);

impl Addresses {
    pub(super) fn load(&self) -> Arc<Vec<IpAddr>> {
        self.0.load_full()
    }

    /// Whether `seen` is what [`Addresses::load`] would give.
    pub(super) fn is_still(&self, seen: &Arc<Vec<IpAddr>>) -> bool {
        Arc::ptr_eq(&self.0.load(), seen)
    }

    /// Puts a new answer in force; the same addresses stay the same value.
    fn store(&self, mut answer: Vec<IpAddr>) {
        answer.sort_unstable();
        answer.dedup();
        if **self.0.load() != answer {
            self.0.store(Arc::new(answer));
        }
    }
}

/// Resolves the names of snapshots. Clones share everything.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Inner>);

struct Inner {
    names: Mutex<HashMap<Box<str>, Watched>>,
    /// Where refreshing runs.
    runtime: Handle,
    /// `None`: there is no way to resolve names here.
    system: Option<TokioResolver>,
    turns: Arc<Semaphore>,
    live: Mutex<HashMap<Box<str>, Weak<LiveName>>>,
    /// For names that clients chose: they never keep the configuration's waiting.
    live_turns: Arc<Semaphore>,
}

/// A name that a client asked for, or an address; kept fresh while somebody holds it.
pub(super) struct LiveName {
    pub(super) addresses: Arc<Addresses>,
    name: Box<str>,
    /// `None`: an IP address, or there is no way to resolve names.
    refresh: Option<Refresh>,
    home: Weak<Inner>,
}

impl LiveName {
    /// Waits until it is known whether the name resolves.
    pub(super) async fn answered(&self) {
        let Some(refresh) = &self.refresh else { return };
        if !*refresh.answered.borrow() {
            let _ = refresh.answered.clone().wait_for(|answered| *answered).await;
        }
    }
}

impl Drop for LiveName {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut live = home.live.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have asked anew in the meantime.
        if live.get(&self.name).is_some_and(|name| name.strong_count() == 0) {
            live.remove(&self.name);
        }
    }
}

struct Watched {
    addresses: Arc<Addresses>,
    /// `None`: an IP address, or nobody asked to keep it fresh yet.
    refresh: Option<Refresh>,
}

struct Refresh {
    /// Whether the first answer has come, good or bad.
    answered: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Uses the system's configuration (resolv.conf, hosts); refreshing runs on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        let [turns, live_turns] = [(); 2].map(|()| Arc::new(Semaphore::new(AT_ONCE)));
        let (names, live, system) = (Mutex::default(), Mutex::default(), system_resolver());
        Resolver(Arc::new(Inner { names, runtime, system, turns, live, live_turns }))
    }

    /// The addresses of a name that a client chose.
    pub(super) fn live(&self, name: &str) -> Arc<LiveName> {
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = live.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let addresses = Arc::new(Addresses::default());
        let fixed: Option<IpAddr> = name.parse().ok();
        addresses.store(fixed.into_iter().collect());
        let system = self.0.system.clone().filter(|_| fixed.is_none());
        let refresh = system.map(|system| {
            let turns = Arc::clone(&self.0.live_turns);
            let question = Question { system, turns, name: name.to_owned(), asker: Asker::Client };
            self.refresh(question, Arc::clone(&addresses))
        });
        let made = Arc::new(LiveName { addresses, name: name.into(), refresh, home: Arc::downgrade(&self.0) });
        live.insert(name.into(), Arc::downgrade(&made));
        made
    }

    fn refresh(&self, question: Question, addresses: Arc<Addresses>) -> Refresh {
        let (tell, answered) = watch::channel(false);
        let _inside = self.0.runtime.enter();
        let task = task::spawn("dns", question.keep_fresh(addresses, tell)).abort_handle();
        Refresh { answered, task }
    }

    #[cfg(test)]
    pub(super) fn has_no_live_names(&self) -> bool {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, Watched>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a name, kept up to date if a snapshot wants the name.
    pub(super) fn addresses(&self, name: &str) -> Arc<Addresses> {
        let mut names = self.names();
        if let Some(watched) = names.get(name) {
            return Arc::clone(&watched.addresses);
        }
        let addresses = Arc::new(Addresses::default());
        addresses.store(name.parse().into_iter().collect());
        names.insert(name.into(), Watched { addresses: Arc::clone(&addresses), refresh: None });
        addresses
    }

    /// Before a publish: begins to resolve the new names of `next` and waits for their first answers, but not longer
    /// than `limit`.
    pub(crate) async fn prime(&self, next: &Snapshot, limit: Duration) {
        let answers: Vec<_> = wanted(next).into_iter().filter_map(|name| self.watch(name)).collect();
        let all = async {
            for mut answered in answers {
                let _ = answered.wait_for(|answered| *answered).await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// After a publish: resolves the names of `snapshot` and no others.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        let wanted = wanted(snapshot);
        self.names().retain(|name, _| wanted.contains(&**name));
        wanted.into_iter().for_each(|name| drop(self.watch(name)));
    }

    /// Begins to keep a name fresh, if that has not begun; tells when the first answer has come.
    fn watch(&self, name: &str) -> Option<watch::Receiver<bool>> {
        let addresses = self.addresses(name);
        if name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let mut names = self.names();
        let watched = names.get_mut(name)?;
        let system = self.0.system.clone()?;
        let refresh = watched.refresh.get_or_insert_with(|| {
            let turns = Arc::clone(&self.0.turns);
            self.refresh(Question { system, turns, name: name.to_owned(), asker: Asker::Configuration }, addresses)
        });
        Some(refresh.answered.clone())
    }
}

/// Every name of a snapshot's clusters.
fn wanted(snapshot: &Snapshot) -> HashSet<&str> {
    let names = snapshot.clusters.values().filter_map(|cluster| match &cluster.endpoints {
        EndpointSource::Dns { names, .. } => Some(names),
        EndpointSource::Static(_) | EndpointSource::Original | EndpointSource::Requested => None,
    });
    names.flatten().map(|name| name.name.as_str()).collect()
}

/// One name that is asked again and again.
struct Question {
    system: TokioResolver,
    turns: Arc<Semaphore>,
    name: String,
    asker: Asker,
}

/// Who wants to know; a client's wrong names are nothing that the operator could mend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Configuration,
    Client,
}

impl Question {
    async fn keep_fresh(self, addresses: Arc<Addresses>, tell: watch::Sender<bool>) {
        let mut failing = false;
        loop {
            let pause = match self.ask().await {
                Ok(answer) => {
                    addresses.store(answer.iter().collect());
                    failing = false;
                    answer.valid_until().saturating_duration_since(Instant::now()).clamp(SHORTEST, LONGEST)
                }
                Err(error) => {
                    if !failing && self.asker == Asker::Configuration {
                        tracing::warn!(name = self.name, %error, "name does not resolve; what was known stays in use");
                    }
                    failing = true;
                    RETRY
                }
            };
            tell.send_replace(true);
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&self) -> Result<LookupIp, NetError> {
        let _turn = self.turns.acquire().await;
        self.system.lookup_ip(self.name.as_str()).await
    }
}

/// Follows resolv.conf and the hosts file; without a usable resolv.conf the hosts file alone. `None`: neither.
fn system_resolver() -> Option<TokioResolver> {
    let empty = || ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!(%error, "no usable DNS configuration; names are looked up in the hosts file alone");
        TokioResolver::builder_with_config(empty(), TokioRuntimeProvider::default())
    });
    system(builder).inspect_err(|error| tracing::error!(%error, "DNS cannot be used")).ok()
}

fn system(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.cache_size = 0; // answers are kept here
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_stays_the_same_value() {
        let addresses = Addresses::default();
        let [one, two] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        addresses.store(vec![two, one, two]);
        let seen = addresses.load();
        assert_eq!(*seen, [one, two]);
        addresses.store(vec![one, two]);
        assert!(addresses.is_still(&seen));
        addresses.store(vec![one]);
        assert!(!addresses.is_still(&seen));
    }

    #[tokio::test]
    async fn a_name_of_the_hosts_file_resolves_and_is_forgotten_with_its_snapshot() {
        let resolver = Resolver::new(Handle::current());
        let addresses = resolver.addresses("localhost");
        let mut answered = resolver.watch("localhost").unwrap();
        answered.wait_for(|answered| *answered).await.unwrap();
        assert!(addresses.load().iter().all(IpAddr::is_loopback) && !addresses.load().is_empty());
        resolver.retain(&Snapshot::empty());
        assert!(resolver.names().is_empty());
        assert!(resolver.watch("127.0.0.1").is_none(), "an address is its own answer");
    }
}
