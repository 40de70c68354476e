//! Is a connection asked to go away? One signal for each accept loop, so that nothing is shared between workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// How far a listener is on its way out. The order is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Serving,
    /// Connections are still accepted, but each is told to go away: `connection: close`, GOAWAY.
    Leaving,
    /// Nothing is accepted any more.
    Closed,
}

impl Phase {
    fn from_byte(byte: u8) -> Phase {
        match byte {
            0 => Phase::Serving,
            1 => Phase::Leaving,
            _ => Phase::Closed,
        }
    }
}

#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    changed: Notify,
}

/// The end that tells. Dropping it tells nothing.
#[derive(Clone, Debug)]
pub(crate) struct DrainSignal(Arc<Shared>);

impl DrainSignal {
    pub(crate) fn new() -> Self {
        DrainSignal(Arc::new(Shared { phase: AtomicU8::new(Phase::Serving as u8), changed: Notify::new() }))
    }

    /// Moves on to `phase`; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// The end that listens, for one connection that begins now.
    pub(crate) fn drain(&self) -> Drain {
        let born = self.phase();
        Drain { shared: Arc::clone(&self.0), born }
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_byte(self.0.phase.load(Ordering::Acquire))
    }
}

/// The end that listens; one for each connection.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    shared: Arc<Shared>,
    /// The phase in which the connection began.
    born: Phase,
}

impl Drain {
    fn phase(&self) -> Phase {
        Phase::from_byte(self.shared.phase.load(Ordering::Acquire))
    }

    /// Whether answers have to carry `connection: close`.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase() > Phase::Serving
    }

    /// Returns when an idle connection has to close and an HTTP/2 connection has to send GOAWAY. A connection that
    /// was accepted while its listener was leaving may wait for its one request until the listener is closed.
    pub(crate) async fn wait(&self) {
        self.reached(|phase| phase > self.born || phase == Phase::Closed).await;
    }

    /// Returns when nothing is to be accepted any more.
    pub(crate) async fn closed(&self) {
        self.reached(|phase| phase == Phase::Closed).await;
    }

    async fn reached(&self, enough: impl Fn(Phase) -> bool) {
        while !enough(self.phase()) {
            let changed = self.shared.changed.notified();
            if enough(self.phase()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_connection_is_told_once_its_listener_moves_on() {
        let signal = DrainSignal::new();
        let early = signal.drain();
        assert!(!early.is_draining() && !is_ready(early.wait()));
        signal.enter(Phase::Leaving);
        let late = signal.drain();
        assert!(early.is_draining() && is_ready(early.wait()) && !is_ready(early.closed()));
        assert!(late.is_draining() && !is_ready(late.wait()), "it may still ask once");
        signal.enter(Phase::Closed);
        signal.enter(Phase::Leaving);
        assert!(is_ready(late.wait()) && is_ready(late.closed()));
        assert!(is_ready(signal.drain().wait()), "too late to ask");
    }

    #[test]
    fn a_waiting_task_is_woken() {
        let signal = DrainSignal::new();
        let drain = signal.drain();
        let mut wait = pin!(drain.wait());
        let mut context = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        signal.enter(Phase::Closed);
        assert!(wait.as_mut().poll(&mut context).is_ready());
    }
}
