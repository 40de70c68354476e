//! What do signals do? SIGHUP reloads, SIGTERM and SIGINT drain and end, a second one of these ends at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::lifecycle::{Lifecycle, Stage};
use super::pipeline::Reloader;
use super::status::Cause;

/// The signals that are caught; from its making on they no longer end the process by themselves.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Has to be called inside a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Obeys signals until the process is told to stop at once. `on_hangup` is called before each reload.
    pub(crate) async fn obey(mut self, reloader: Reloader, lifecycle: Lifecycle, on_hangup: impl Fn() + Send) {
        loop {
            let name = tokio::select! {
                Some(()) = self.hangup.recv() => {
                    on_hangup();
                    reloader.request(Cause::Signal);
                    continue;
                }
                Some(()) = self.terminate.recv() => "SIGTERM",
                Some(()) = self.interrupt.recv() => "SIGINT",
                else => return,
            };
            if lifecycle.advance(Stage::Stopping) {
                tracing::info!(signal = name, "stopping: readiness fails, requests in flight may finish");
            } else {
                tracing::warn!(signal = name, "stopping at once");
                lifecycle.advance(Stage::Stopped);
                return;
            }
        }
    }
}
