//! What does one worker thread own?

use std::sync::Arc;

use crate::snapshot::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::Upstreams;

/// The state of one worker thread; all of its connections share it, no other thread uses it.
pub(crate) struct Worker {
    pub store: Arc<Store>,
    pub telemetry: Arc<Telemetry>,
    pub upstreams: Upstreams,
}
