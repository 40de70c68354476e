//! What must the world outside do around a publish? Bind before it, start and drain after it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::snapshot::Snapshot;

/// An address that could not be bound; its listener is left out of the snapshot.
#[derive(Debug)]
pub(crate) struct BindFailure {
    pub address: SocketAddr,
    pub error: io::Error,
}

/// The part that carries traffic, as the pipeline sees it. `app` implements it.
pub(crate) trait Sockets: Send + 'static {
    /// What was bound; dropping it gives the new addresses back.
    type Prepared: Send;

    /// Binds the addresses of `next` that are not bound yet, and makes ready what its first requests need.
    /// Nothing that runs is touched.
    fn prepare(&mut self, next: &Snapshot) -> impl Future<Output = (Self::Prepared, Vec<BindFailure>)> + Send;

    /// Called right after the publish: starts the new listeners, drains the removed ones, drops what is not
    /// wanted any more.
    fn commit(&mut self, prepared: Self::Prepared, snapshot: &Arc<Snapshot>) -> impl Future<Output = ()> + Send;
}
