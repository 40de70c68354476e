//! What is known of the client's connection while it asks one request after the other?

use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::HeaderValue;

use crate::net::drain::Drain;
use crate::proxy::connection::Connection;
use crate::proxy::worker::Worker;
use crate::snapshot::Snapshot;
use crate::snapshot::listener::FilterChain;

/// One connection that was handed to HTTP; its streams share it.
pub(super) struct Visit {
    pub connection: Arc<Connection>,
    pub worker: Arc<Worker>,
    pub drain: Drain,
    /// The peer's address without its port, as x-forwarded-for tells it.
    pub peer: HeaderValue,
    /// The chain of the generation that was asked for last. Weak: an idle connection keeps no old routes alive.
    chain: Mutex<Option<(u64, Weak<FilterChain>)>>,
}

impl Visit {
    pub(super) fn new(connection: Arc<Connection>, worker: Arc<Worker>, drain: Drain) -> Self {
        let peer = HeaderValue::try_from(connection.peer.ip().to_string());
        let peer = peer.unwrap_or_else(|_| HeaderValue::from_static("0.0.0.0"));
        Visit { connection, worker, drain, peer, chain: Mutex::default() }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.connection.tls.is_some()
    }

    /// The chain that serves this connection in `snapshot`: a connection outlives configurations.
    pub(super) fn chain(&self, snapshot: &Snapshot) -> Option<Arc<FilterChain>> {
        let mut known = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((generation, chain)) if *generation == snapshot.generation => chain.upgrade(),
            _ => {
                let chain = self.connection.chain(snapshot).cloned();
                *known = Some((snapshot.generation, chain.as_ref().map_or_else(Weak::new, Arc::downgrade)));
                chain
            }
        }
    }
}
