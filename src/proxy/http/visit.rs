//! What is known of the client's connection while it asks one request after the other?

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::HeaderValue;
use tokio::sync::Notify;

use crate::net::drain::Drain;
use crate::proxy::connection::{Connection, Standing};
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
    /// Where the connection belonged when it was asked last.
    home: Mutex<Option<Home>>,
    /// Whether the connection is to end behind the next answer, since the configuration has no place for it any more.
    leaves: AtomicBool,
    told: Notify,
}

/// The chain of one generation. Weak: an idle connection keeps no old routes alive.
struct Home {
    generation: u64,
    chain: Weak<FilterChain>,
    standing: Standing,
}

impl Visit {
    pub(super) fn new(connection: Arc<Connection>, worker: Arc<Worker>, drain: Drain) -> Self {
        let peer = HeaderValue::try_from(connection.peer.ip().to_string());
        let peer = peer.unwrap_or_else(|_| HeaderValue::from_static("0.0.0.0"));
        let (home, leaves, told) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        Visit { connection, worker, drain, peer, home, leaves, told }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.connection.tls.is_some()
    }

    /// The chain that serves this connection in `snapshot`: a connection outlives configurations. Fails with how it
    /// stands if none does, [`Standing::Welcome`] if there is none.
    pub(super) fn chain(&self, snapshot: &Snapshot) -> Result<Arc<FilterChain>, Standing> {
        let mut known = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        let home = match &mut *known {
            Some(home) if home.generation == snapshot.generation => home,
            known => known.insert(self.find(snapshot)),
        };
        match home.standing {
            Standing::Unproven => Err(Standing::Unproven),
            standing => home.chain.upgrade().ok_or(standing),
        }
    }

    fn find(&self, snapshot: &Snapshot) -> Home {
        let chain = self.connection.chain(snapshot);
        let standing = chain.map_or(Standing::Welcome, |chain| self.connection.standing(chain));
        if chain.is_none() || standing != Standing::Welcome {
            self.leaves.store(true, Ordering::Relaxed);
            self.told.notify_one();
        }
        Home { generation: snapshot.generation, chain: chain.map_or_else(Weak::new, Arc::downgrade), standing }
    }

    /// Whether answers have to end the connection, whatever its listener does.
    pub(super) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Returns once the connection [`Visit::leaves`].
    pub(super) async fn told_to_leave(&self) {
        self.told.notified().await;
    }
}
