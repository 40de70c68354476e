//! Where is the process in its life? Starting, live, draining, stopped: it only ever moves forward.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// A stage of the process; later stages are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// The first configuration is not yet in force.
    Starting,
    /// Ready for traffic.
    Live,
    /// Not ready any more; requests are still served, connections are told to go.
    Draining,
    /// Told to end by a signal: drains, then exits.
    Stopping,
    /// Ends at once.
    Stopped,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Starting => "starting",
            Stage::Live => "live",
            Stage::Draining => "draining",
            Stage::Stopping => "stopping",
            Stage::Stopped => "stopped",
        })
    }
}

/// The stage of this process, shared by all who change or follow it.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle(Arc<watch::Sender<Stage>>);

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Lifecycle(Arc::new(watch::Sender::new(Stage::Starting)))
    }

    /// Moves to `stage`, unless the process is already there or further; says whether it moved.
    pub(crate) fn advance(&self, stage: Stage) -> bool {
        self.0.send_if_modified(|now| {
            let moves = stage > *now;
            if moves {
                *now = stage;
            }
            moves
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Whether load balancers should send traffic here.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage() == Stage::Live
    }

    /// Waits until the process has come to `stage` or further.
    pub(crate) async fn reached(&self, stage: Stage) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|now| *now >= stage).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_moves_forward() {
        let lifecycle = Lifecycle::new();
        assert!(!lifecycle.is_ready());
        assert!(lifecycle.advance(Stage::Live));
        assert!(lifecycle.is_ready());
        assert!(lifecycle.advance(Stage::Stopping));
        assert!(!lifecycle.advance(Stage::Draining), "stopping is further than draining");
        assert!(!lifecycle.is_ready());
    }
}
