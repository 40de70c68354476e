//! What does one worker thread own?

use std::sync::Arc;

use crate::certs::challenges::Challenges;
use crate::certs::on_demand::OnDemandDoor;
use crate::snapshot::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::Upstreams;
use crate::upstream::commons::Commons;
use crate::upstream::dns::Resolver;

use super::http::finish::SeriesCache;

/// What certificates that are being issued ask of connections.
#[derive(Clone)]
pub(crate) struct Issuing {
    /// What is answered to CAs.
    pub challenges: Arc<Challenges>,
    /// Where certificates for names come from that nobody wrote down.
    pub on_demand: OnDemandDoor,
}

/// The state of one worker thread; all of its connections share it, no other thread uses it.
pub(crate) struct Worker {
    pub store: Arc<Store>,
    pub telemetry: Arc<Telemetry>,
    pub upstreams: Upstreams,
    pub issuing: Issuing,
    /// The request metrics of this worker.
    pub series: SeriesCache,
}

impl Worker {
    pub(crate) fn new(
        store: Arc<Store>,
        telemetry: Arc<Telemetry>,
        resolver: Resolver,
        commons: Commons,
        issuing: Issuing,
    ) -> Self {
        let upstreams = Upstreams::new(resolver, commons, Arc::clone(&telemetry));
        Worker { store, telemetry, upstreams, issuing, series: SeriesCache::default() }
    }
}
