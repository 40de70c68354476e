//! What we tell the operator: metrics, the access log and the process's own log.

pub(crate) mod access_log;
mod cell;
pub(crate) mod filter;
pub(crate) mod flags;
pub(crate) mod format;
pub(crate) mod log;
pub(crate) mod logs;
pub(crate) mod metrics;
mod operator;
pub(crate) mod recent;
pub(crate) mod record;
pub(crate) mod requests;
mod value;

use self::access_log::AccessLog;
use self::metrics::Metrics;
use self::recent::Recent;
use self::requests::SourceLabels;

/// Shared by every part that carries traffic or configuration.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub metrics: Metrics,
    pub access_log: AccessLog,
    pub recent: Recent,
}

impl Telemetry {
    /// Starts with an access log that is off; `AccessLog::open` turns it on.
    pub(crate) fn new(source: SourceLabels) -> std::io::Result<Self> {
        let metrics = Metrics::new(source);
        let access_log = AccessLog::start(metrics.access_log_dropped())?;
        Ok(Telemetry { metrics, access_log, recent: Recent::default() })
    }
}
