//! What is remembered of one endpoint? Its load and its open connections, as long as its cluster keeps its identity.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connect::{ClientConfigs, Stream};
use super::multiplex::Multiplexer;
use super::pool::Pool;
use crate::telemetry::metrics::ClusterMetrics;

/// The live state of one address of one cluster identity.
pub(crate) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) configs: Arc<ClientConfigs>,
    pub(super) metrics: ClusterMetrics,
    /// Requests under way from this worker.
    active: AtomicUsize,
    idle: Mutex<Pool<Stream>>,
    pub(super) multiplexer: Arc<Multiplexer>,
}

impl Endpoint {
    fn new(address: SocketAddr, configs: Arc<ClientConfigs>, metrics: ClusterMetrics) -> Self {
        Endpoint {
            address,
            configs,
            metrics,
            active: AtomicUsize::new(0),
            idle: Mutex::default(),
            multiplexer: Arc::default(),
        }
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

    pub(super) fn sweep(&self, now: Instant) {
        self.idle().sweep(now);
        self.multiplexer.sweep(now);
    }
}

/// The endpoints of one cluster name and identity. They survive snapshots; a new identity gets new ones.
pub(super) struct Group {
    configs: Arc<ClientConfigs>,
    metrics: ClusterMetrics,
    endpoints: Mutex<HashMap<SocketAddr, Arc<Endpoint>>>,
}

impl Group {
    pub(super) fn new(metrics: ClusterMetrics) -> Self {
        Group { configs: Arc::default(), metrics, endpoints: Mutex::default() }
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of an address, known or new.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Arc<Endpoint> {
        let new = || Arc::new(Endpoint::new(address, Arc::clone(&self.configs), self.metrics.clone()));
        Arc::clone(self.endpoints().entry(address).or_insert_with(new))
    }

    /// Forgets every other address: idle connections close now, others when their requests end.
    pub(super) fn retain(&self, addresses: &HashSet<SocketAddr>) {
        self.endpoints().retain(|address, _| addresses.contains(address));
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.endpoints().values().for_each(|endpoint| endpoint.sweep(now));
    }
}
