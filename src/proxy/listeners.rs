//! Who accepts connections? Worker threads, each with its own socket for every address; addresses come and go.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::accept::{self, Accepted};
use super::backoff::Backoff;
use super::bind::bind;
use super::worker::{Issuing, Worker};
use crate::base::task;
use crate::net::drain::{DrainSignal, Phase};
use crate::snapshot::Snapshot;
use crate::snapshot::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::commons::Commons;
use crate::upstream::dns::Resolver;

/// How often idle connections to endpoints are looked over.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a commit waits until removed addresses are free for others.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// An eighth of all files is not for clients, but never more than this.
const MOST_SPARED_FILES: u64 = 512;

/// What workers need.
pub(crate) struct Parts {
    /// Number of threads; 0 is one for each core.
    pub workers: usize,
    /// How long connections of removed listeners may go on.
    pub drain: Duration,
    /// How many files the process may have open; `None` if nobody knows.
    pub most_files: Option<u64>,
    pub store: Arc<Store>,
    pub telemetry: Arc<Telemetry>,
    pub resolver: Resolver,
    pub issuing: Issuing,
}

/// The worker threads and what they listen on.
pub(crate) struct Listeners {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    held: Mutex<BTreeSet<SocketAddr>>,
}

/// Addresses that are bound but not served yet. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Prepared {
    sockets: Vec<(SocketAddr, Vec<TcpListener>)>,
    /// The addresses that could not be bound.
    pub failures: Vec<(SocketAddr, io::Error)>,
}

enum Command {
    /// A snapshot is in force: serve new addresses, leave removed ones, forget clusters that are gone.
    Apply {
        open: Vec<(SocketAddr, TcpListener)>,
        close: Vec<SocketAddr>,
        snapshot: Arc<Snapshot>,
        /// Dropped as soon as the addresses in `close` are free.
        closed: blocking::SyncSender<()>,
    },
    /// Tell every connection to go away, but accept on.
    Leave,
    /// Accept no more, wait for connections, end.
    Stop { limit: Duration },
}

impl Listeners {
    /// Starts the workers; they listen on nothing yet.
    pub(crate) fn start(parts: Parts) -> io::Result<Self> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let count = if parts.workers == 0 { cores() } else { parts.workers };
        let ceiling = ceiling(parts.most_files);
        let commons = Commons::default();
        let mut workers = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (commands, inbox) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (store, telemetry) = (Arc::clone(&parts.store), Arc::clone(&parts.telemetry));
            let (resolver, issuing) = (parts.resolver.clone(), parts.issuing.clone());
            let worker = Arc::new(Worker::new(store, telemetry, resolver, commons.clone(), issuing));
            let life = Life { worker, doors: HashMap::new(), leaving: JoinSet::new(), drain: parts.drain, ceiling };
            let work = move || runtime.block_on(life.run(inbox));
            threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
            workers.push(commands);
        }
        Ok(Listeners { workers, threads: Mutex::new(threads), held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds the addresses that are not bound yet. Nothing that runs is touched.
    pub(crate) fn prepare(&self, wanted: &[SocketAddr]) -> Prepared {
        let mut held: Vec<_> = self.held().iter().copied().collect();
        let mut prepared = Prepared { sockets: Vec::new(), failures: Vec::new() };
        for address in wanted {
            if held.contains(address) {
                continue;
            }
            match bind(*address, self.workers.len(), &held) {
                Ok(sockets) => {
                    held.push(*address);
                    prepared.sockets.push((*address, sockets));
                }
                Err(error) => prepared.failures.push((*address, error)),
            }
        }
        prepared
    }

    /// To be called right after `snapshot` was published: serves its new addresses, drains those that it does not
    /// have any more, and forgets its missing clusters. When it returns, removed addresses are free. Blocks for a
    /// moment.
    pub(crate) fn commit(&self, prepared: Prepared, snapshot: &Arc<Snapshot>) {
        let wanted: BTreeSet<_> = snapshot.listeners.iter().map(|listener| listener.address).collect();
        let mut held = self.held();
        let close: Vec<_> = held.difference(&wanted).copied().collect();
        held.retain(|address| wanted.contains(address));
        let mut open: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (address, sockets) in prepared.sockets.into_iter().filter(|(address, _)| wanted.contains(address)) {
            held.insert(address);
            open.iter_mut().zip(sockets).for_each(|(open, socket)| open.push((address, socket)));
        }
        drop(held);
        let (closed, all_closed) = blocking::sync_channel(0);
        for (worker, open) in self.workers.iter().zip(open) {
            let (snapshot, closed) = (Arc::clone(snapshot), closed.clone());
            send(worker, Command::Apply { open, close: close.clone(), snapshot, closed });
        }
        drop(closed);
        if !close.is_empty() {
            // Ends with an error when every worker has dropped its sender.
            let _ = all_closed.recv_timeout(CLOSE_LIMIT);
        }
    }

    /// Tells every connection to go away, now and from now on; connections are still accepted.
    pub(crate) fn leave(&self) {
        self.workers.iter().for_each(|worker| send(worker, Command::Leave));
    }

    /// Leaves in order: for `grace` connections are still accepted, but each is told to go away; then nothing is
    /// accepted any more, and requests may finish within `drain`. Returns when all workers have ended.
    pub(crate) async fn shutdown(&self, grace: Duration, drain: Duration) {
        self.leave();
        tokio::time::sleep(grace).await;
        self.workers.iter().for_each(|worker| send(worker, Command::Stop { limit: drain }));
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().filter_map(|thread| thread.join().err()).count());
        if let Ok(panicked @ 1..) = joined.await {
            tracing::error!(panicked, "worker threads panicked");
        }
    }
}

fn send(worker: &mpsc::UnboundedSender<Command>, command: Command) {
    if worker.send(command).is_err() {
        tracing::error!("a worker thread has ended");
    }
}

/// What runs on one worker thread.
struct Life {
    worker: Arc<Worker>,
    doors: HashMap<SocketAddr, Door>,
    /// Connections of removed listeners.
    leaving: JoinSet<()>,
    drain: Duration,
    ceiling: RawFd,
}

/// One address that is being served.
struct Door {
    signal: DrainSignal,
    accepting: JoinHandle<JoinSet<()>>,
}

impl Door {
    fn open(address: SocketAddr, socket: TcpListener, worker: Arc<Worker>, ceiling: RawFd) -> io::Result<Self> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let signal = DrainSignal::new();
        let accepting = task::spawn("accept", accept_all(socket, address, worker, signal.clone(), ceiling));
        Ok(Door { signal, accepting })
    }

    /// Closes the socket; the connections that are left are the answer.
    async fn close(self) -> JoinSet<()> {
        self.signal.enter(Phase::Closed);
        self.accepting.await.unwrap_or_default()
    }
}

impl Life {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let worker = Arc::clone(&self.worker);
        let sweeper = task::spawn("sweep", async move {
            let mut ticks = tokio::time::interval(SWEEP);
            loop {
                ticks.tick().await;
                worker.upstreams.sweep(Instant::now());
            }
        });
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Apply { open, close, snapshot, closed } => {
                    self.apply(open, close).await;
                    drop(closed);
                    self.worker.upstreams.retain(&snapshot);
                }
                Command::Leave => self.doors.values().for_each(|door| door.signal.enter(Phase::Leaving)),
                Command::Stop { limit } => {
                    self.stop(limit).await;
                    break;
                }
            }
            while self.leaving.try_join_next().is_some() {}
        }
        sweeper.abort();
    }

    async fn apply(&mut self, open: Vec<(SocketAddr, TcpListener)>, close: Vec<SocketAddr>) {
        for (address, socket) in open {
            match Door::open(address, socket, Arc::clone(&self.worker), self.ceiling) {
                Ok(door) => drop(self.doors.insert(address, door)),
                Err(error) => tracing::error!(%address, %error, "a worker cannot listen"),
            }
        }
        for address in close {
            if let Some(door) = self.doors.remove(&address) {
                let connections = door.close().await;
                task::spawn_in(&mut self.leaving, finish(connections, self.drain));
            }
        }
    }

    async fn stop(&mut self, limit: Duration) {
        for door in std::mem::take(&mut self.doors).into_values() {
            let connections = door.close().await;
            task::spawn_in(&mut self.leaving, finish(connections, limit));
        }
        let all = async { while self.leaving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(limit, all).await;
    }
}

/// Waits for connections that were told to go; what is left after `limit` is cut.
async fn finish(mut connections: JoinSet<()>, limit: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            task::report("connection", ended);
        }
    };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
    }
}

/// The first descriptor that no client gets. The system gives the lowest free one, so what is above is left for what
/// existing connections and reloads need: sockets to endpoints and files.
fn ceiling(most_files: Option<u64>) -> RawFd {
    let clients = most_files.map(|most| most - (most / 8).min(MOST_SPARED_FILES));
    clients.and_then(|clients| RawFd::try_from(clients).ok()).unwrap_or(RawFd::MAX)
}

/// Closes a connection that would take what is spared.
fn spared(
    (socket, peer): (tokio::net::TcpStream, SocketAddr),
    ceiling: RawFd,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match socket.as_raw_fd() < ceiling {
        true => Ok((socket, peer)),
        false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
    }
}

/// Accepts until the signal says closed; then the socket is closed, and the connections that are left are the answer.
async fn accept_all(
    socket: tokio::net::TcpListener,
    address: SocketAddr,
    worker: Arc<Worker>,
    signal: DrainSignal,
    ceiling: RawFd,
) -> JoinSet<()> {
    let metrics = worker.telemetry.metrics.listener(&address.to_string());
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::default();
    let drain = signal.drain();
    let mut closed = std::pin::pin!(drain.closed());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closed => return connections,
            Some(ended) = connections.join_next() => {
                task::report("connection", ended);
                continue;
            }
            accepted = socket.accept() => accepted.and_then(|accepted| spared(accepted, ceiling)),
        };
        match accepted {
            Ok((socket, peer)) => {
                backoff.succeeded();
                let (worker, drain, open) = (Arc::clone(&worker), signal.drain(), metrics.open());
                task::spawn_in(&mut connections, async move {
                    accept::serve(Accepted { socket, peer, listener: address }, worker, drain).await;
                    drop(open);
                });
            }
            Err(error) => {
                metrics.accept_failed();
                let decision = backoff.failed(&error, Instant::now());
                if decision.log {
                    tracing::error!(%address, %error, "no connection can be accepted; existing ones go on");
                }
                if let Some(pause) = decision.pause {
                    tokio::select! {
                        () = &mut closed => return connections,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use tokio::runtime::Handle;

    use super::*;
    use crate::snapshot::listener::{ChainMatch, ChainTable, FilterChain, Listener, Service};
    use crate::telemetry::requests::SourceLabels;

    #[test]
    fn an_eighth_of_the_files_is_spared() {
        for (most, expected) in [(Some(64), 56), (Some(1_000_000), 999_488), (Some(u64::MAX), RawFd::MAX)] {
            assert_eq!(ceiling(most), expected);
        }
        assert_eq!(ceiling(None), RawFd::MAX);
    }

    const MOMENT: Duration = Duration::from_secs(5);

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn snapshot(addresses: &[SocketAddr]) -> Arc<Snapshot> {
        let listener = |address: &SocketAddr| {
            let chain = FilterChain { name: "a".into(), tls: None, service: Service::Http(Arc::default()) };
            let mut chains = ChainTable::default();
            chains.insert(ChainMatch::default(), Arc::new(chain));
            Arc::new(Listener { address: *address, proxy_protocol: false, chains })
        };
        Arc::new(Snapshot { listeners: addresses.iter().map(listener).collect(), ..Snapshot::empty() })
    }

    fn apply(listeners: &Listeners, store: &Store, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let prepared = listeners.prepare(addresses);
        let failed: Vec<_> = prepared.failures.iter().map(|(address, _)| *address).collect();
        let bound: Vec<_> = addresses.iter().filter(|address| !failed.contains(address)).copied().collect();
        let next = snapshot(&bound);
        store.publish(Arc::clone(&next));
        listeners.commit(prepared, &next);
        failed
    }

    #[tokio::test]
    async fn addresses_come_and_go_and_strangers_are_found() {
        let store = Arc::new(Store::new(Arc::new(Snapshot::empty())));
        let listeners = Listeners::start(Parts {
            workers: 2,
            most_files: None,
            drain: MOMENT,
            store: Arc::clone(&store),
            telemetry: Arc::new(Telemetry::new(SourceLabels::default()).unwrap()),
            resolver: Resolver::new(Handle::current()),
            issuing: Issuing { challenges: Arc::default(), on_demand: crate::certs::on_demand::door().0 },
        })
        .unwrap();
        let (kept, removed) = (free_address(), free_address());
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap();

        assert_eq!(apply(&listeners, &store, &[kept, removed, taken]), [taken]);
        let mut staying = TcpStream::connect(kept).await.unwrap();
        let mut leaving = TcpStream::connect(removed).await.unwrap();

        drop(stranger);
        assert_eq!(apply(&listeners, &store, &[kept, taken]), [], "what failed is tried again");
        assert!(TcpStream::connect(removed).await.is_err(), "closed when commit returns");
        let end = tokio::time::timeout(MOMENT, leaving.read(&mut [0])).await.expect("an idle connection is closed");
        assert_eq!(end.unwrap_or(0), 0);
        TcpStream::connect(taken).await.unwrap();
        assert_eq!(apply(&listeners, &store, &[kept, removed, taken]), [], "an address may come back at once");

        assert_eq!(staying.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "untouched");
        tokio::time::timeout(MOMENT, listeners.shutdown(Duration::ZERO, MOMENT)).await.expect("all workers end");
        assert_eq!(staying.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(kept).await.is_err());
    }
}
