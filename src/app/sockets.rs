//! How do worker threads and DNS follow a publish?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::control::sockets::{BindFailure, Sockets};
use crate::proxy::listeners::{Listeners, Prepared};
use crate::snapshot::Snapshot;
use crate::upstream::dns::Resolver;

/// How long a publish waits for the first addresses of new names.
const PRIME_LIMIT: Duration = Duration::from_secs(2);

/// The parts that act on a publish.
pub(super) struct Doors {
    listeners: Arc<Listeners>,
    resolver: Resolver,
}

impl Doors {
    pub(super) fn new(listeners: Arc<Listeners>, resolver: Resolver) -> Self {
        Doors { listeners, resolver }
    }
}

impl Sockets for Doors {
    type Prepared = Prepared;

    async fn prepare(&mut self, next: &Snapshot) -> (Prepared, Vec<BindFailure>) {
        let wanted: Vec<SocketAddr> = next.listeners.iter().map(|listener| listener.address).collect();
        let mut prepared = self.listeners.prepare(&wanted);
        let failures = std::mem::take(&mut prepared.failures);
        self.resolver.prime(next, PRIME_LIMIT).await;
        (prepared, failures.into_iter().map(|(address, error)| BindFailure { address, error }).collect())
    }

    async fn commit(&mut self, prepared: Prepared, snapshot: &Arc<Snapshot>) {
        self.resolver.retain(snapshot);
        let (listeners, snapshot) = (Arc::clone(&self.listeners), Arc::clone(snapshot));
        // Waits until the workers have let removed addresses go.
        if let Err(error) = tokio::task::spawn_blocking(move || listeners.commit(prepared, &snapshot)).await {
            tracing::error!(%error, "listeners did not follow the configuration");
        }
    }
}
