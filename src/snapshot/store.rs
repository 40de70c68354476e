//! Which snapshot is in force? The one place where it is swapped.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Snapshot;

/// Holds the snapshot in force; one writer (`control`), any number of readers.
#[derive(Debug)]
pub(crate) struct Store(ArcSwap<Snapshot>);

impl Store {
    pub(crate) fn new(first: Arc<Snapshot>) -> Self {
        Store(ArcSwap::new(first))
    }

    /// The snapshot in force, to be kept as long as one request or one handshake.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts a new one in force; returns the old one, so that its memory can be freed elsewhere.
    pub(crate) fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        self.0.swap(next)
    }
}
