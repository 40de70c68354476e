//! What is remembered of one endpoint? Its load and its open connections, as long as its cluster keeps its identity.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::connect::{ClientConfigs, End, Stream};
use super::multiplex::Multiplexer;
use super::pool::Pool;
use crate::net::proxy_protocol::Addresses;
use crate::snapshot::cluster::Encryption;
use crate::telemetry::metrics::{Active, ClusterMetrics};

/// A client that sent no request for so long has its connections closed.
const CLIENT_UNUSED: Duration = Duration::from_secs(10);

/// By what the endpoints of one cluster identity differ: no connection of one carries requests of another.
pub(super) type Key = (SocketAddr, Encryption);

/// The live state of one address of one cluster identity.
pub(crate) struct Endpoint {
    pub(super) address: SocketAddr,
    /// When it was first needed.
    pub(super) born: Instant,
    pub(super) encryption: Encryption,
    /// The only client that its connections are for.
    pub(super) client: Option<Addresses>,
    of_clients: OfClients,
    pub(super) configs: Arc<ClientConfigs>,
    pub(super) metrics: ClusterMetrics,
    /// Requests under way from this worker, for all clients.
    active: Arc<AtomicUsize>,
    idle: Mutex<Pool<Stream>>,
    connections: Arc<Connections>,
    pub(super) multiplexer: Arc<Multiplexer>,
}

impl Endpoint {
    fn new((address, encryption): Key, configs: Arc<ClientConfigs>, metrics: ClusterMetrics) -> Self {
        Endpoint {
            address,
            born: Instant::now(),
            encryption,
            client: None,
            of_clients: OfClients::default(),
            configs,
            metrics,
            active: Arc::default(),
            idle: Mutex::default(),
            connections: Arc::default(),
            multiplexer: Arc::default(),
        }
    }

    /// The same endpoint with connections that are for one client alone.
    pub(super) fn for_client(&self, client: Addresses, now: Instant) -> Arc<Endpoint> {
        let new = || {
            let endpoint =
                Endpoint::new((self.address, self.encryption), Arc::clone(&self.configs), self.metrics.clone());
            Endpoint { client: Some(client), active: Arc::clone(&self.active), ..endpoint }
        };
        self.of_clients.find(client, new, now)
    }

    /// Where its connections lead.
    pub(super) fn end(&self) -> End {
        End { address: self.address, encryption: self.encryption, client: self.client }
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn begin_request(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_request(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// The idle HTTP/1 connections. Never hold this over an await.
    pub(super) fn idle(&self) -> MutexGuard<'_, Pool<Stream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP/1 connections of this worker.
    pub(super) fn open(&self) -> usize {
        self.connections.open.load(Ordering::Relaxed)
    }

    /// Ready when a connection can be used again or has gone.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.connections.freed.notified()
    }

    pub(super) fn free_one(&self) {
        self.connections.freed.notify_one();
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.idle().sweep(now);
        self.multiplexer.sweep(now);
        self.of_clients.sweep(now);
    }
}

/// What an endpoint is to clients whose connections are kept apart.
#[derive(Default)]
struct OfClients(Mutex<HashMap<Addresses, (Arc<Endpoint>, Instant)>>);

impl OfClients {
    fn all(&self) -> MutexGuard<'_, HashMap<Addresses, (Arc<Endpoint>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, client: Addresses, new: impl FnOnce() -> Endpoint, now: Instant) -> Arc<Endpoint> {
        let mut all = self.all();
        let (endpoint, last_use) = all.entry(client).or_insert_with(|| (Arc::new(new()), now));
        *last_use = now;
        Arc::clone(endpoint)
    }

    /// Forgets the clients that no request came from for a while; most of them have left.
    fn sweep(&self, now: Instant) {
        self.all().retain(|_, (endpoint, last_use)| {
            if Arc::strong_count(endpoint) > 1 {
                *last_use = now;
            }
            endpoint.sweep(now);
            now.saturating_duration_since(*last_use) < CLIENT_UNUSED
        });
    }
}

/// The HTTP/1 connections of one worker to an endpoint.
#[derive(Debug, Default)]
struct Connections {
    open: AtomicUsize,
    freed: Notify,
}

/// One open HTTP/1 connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    connections: Arc<Connections>,
    _active: Active,
}

impl Open {
    pub(super) fn new(endpoint: &Endpoint, active: Active) -> Self {
        endpoint.connections.open.fetch_add(1, Ordering::Relaxed);
        Open { connections: Arc::clone(&endpoint.connections), _active: active }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.freed.notify_one();
    }
}

/// The endpoints of one cluster name and identity. They survive snapshots; a new identity gets new ones.
pub(super) struct Group {
    configs: Arc<ClientConfigs>,
    metrics: ClusterMetrics,
    endpoints: Mutex<HashMap<Key, Arc<Endpoint>>>,
}

impl Group {
    pub(super) fn new(metrics: ClusterMetrics) -> Self {
        Group { configs: Arc::default(), metrics, endpoints: Mutex::default() }
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<Key, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of an address, known or new.
    pub(super) fn endpoint(&self, key: Key) -> Arc<Endpoint> {
        let new = || Arc::new(Endpoint::new(key, Arc::clone(&self.configs), self.metrics.clone()));
        Arc::clone(self.endpoints().entry(key).or_insert_with(new))
    }

    /// Forgets every other one: idle connections close now, others when their requests end.
    pub(super) fn retain(&self, keys: &HashSet<Key>) {
        self.endpoints().retain(|key, _| keys.contains(key));
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.endpoints().values().for_each(|endpoint| endpoint.sweep(now));
    }
}
