//! What to do when no connection can be accepted? Wait if the system is out of something, else go on.

use std::io;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const BETWEEN_LOGS: Duration = Duration::from_secs(60);

/// The failures of one accept loop.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
    logged: Option<Instant>,
}

/// The answer to one failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// `None`: the next connection may be accepted at once.
    pub pause: Option<Duration>,
    /// Whether the operator is to be told; once a minute at most.
    pub log: bool,
}

impl Backoff {
    pub(super) fn failed(&mut self, error: &io::Error, now: Instant) -> Decision {
        if !is_exhaustion(error) {
            return Decision { pause: None, log: false };
        }
        let pause = self.last.map_or(FIRST, |last| LONGEST.min(last * 2));
        self.last = Some(pause);
        let log = self.logged.is_none_or(|logged| now.duration_since(logged) >= BETWEEN_LOGS);
        if log {
            self.logged = Some(now);
        }
        Decision { pause: Some(pause), log }
    }

    pub(super) fn succeeded(&mut self) {
        self.last = None;
    }
}

/// Whether the process or the system is out of file descriptors or memory; other failures concern one client.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_is_waited_out_and_told_once_a_minute() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let mut fail = |code, seconds| {
            let at = start + Duration::from_secs(seconds);
            let decision = backoff.failed(&io::Error::from_raw_os_error(code), at);
            (decision.pause.map_or(0, |pause| pause.as_millis()), decision.log)
        };
        let steps = [
            (libc::EMFILE, 0, (100, true)),
            (libc::ECONNABORTED, 0, (0, false)),
            (libc::ENFILE, 1, (200, false)),
            (libc::EMFILE, 2, (400, false)),
            (libc::EMFILE, 3, (800, false)),
            (libc::EMFILE, 59, (1000, false)),
            (libc::EMFILE, 60, (1000, true)),
        ];
        for (code, seconds, expected) in steps {
            assert_eq!(fail(code, seconds), expected);
        }
        backoff.succeeded();
        let again = backoff.failed(&io::Error::from_raw_os_error(libc::EMFILE), start + Duration::from_secs(61));
        assert_eq!(again, Decision { pause: Some(FIRST), log: false });
    }
}
