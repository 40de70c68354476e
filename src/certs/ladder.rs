//! When is the next try after a failure? Soon at first, then ever later, and never before the CA wants it.

use std::collections::VecDeque;
use std::time::Duration;

use super::issue::{FailureKind, IssueError};

/// Minutes to the next round, by the number of rounds that failed; the last goes on.
const RUNGS: [u64; 20] = [1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 60, 60, 120, 120, 240, 360];
/// A CA that asks for more is asked again nevertheless.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 86_400);
/// Waits grow by up to this part, so that those who failed together do not come back together.
const JITTER: f64 = 0.2;

/// How long to wait after `error` of one issuer. `failures` counts failed rounds, this one included; `chance` lies
/// between 0 and 1.
pub(super) fn wait(error: &IssueError, failures: u32, chance: f64) -> Duration {
    let rung = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(RUNGS.len() - 1);
    let minutes = RUNGS.get(rung).copied().unwrap_or(360);
    let minutes = match error.kind {
        // Nobody's patience is used up.
        FailureKind::Local => minutes.min(10),
        FailureKind::Unreachable => minutes.min(20),
        FailureKind::Broken => minutes,
        // CAs allow five failures of a name in an hour.
        FailureKind::Unproven if failures >= 3 => minutes.max(20),
        FailureKind::Unproven => minutes,
        FailureKind::RateLimited => minutes.max(30),
        FailureKind::Refused => minutes.max(60),
    };
    let asked = error.retry_after.unwrap_or_default().min(LONGEST_WAIT);
    Duration::from_secs(minutes * 60).max(asked).mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0))
}

/// How fast orders may come to one issuer.
#[derive(Debug)]
pub(super) struct Limiter {
    /// The last orders, in milliseconds since 1970, the oldest first.
    last: VecDeque<i64>,
    /// Nothing before then.
    held_until: i64,
}

/// At most so many orders in so many milliseconds.
const MOST_ORDERS: (usize, i64) = (10, 10_000);
/// An issuer that has enough of one certificate is left alone with others too, but not for long: most limits are for
/// one set of names.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

impl Limiter {
    pub(super) fn new() -> Self {
        Limiter { last: VecDeque::new(), held_until: 0 }
    }

    /// Counts an order at `now`, in milliseconds since 1970; or says how long to wait before asking again.
    pub(super) fn admit(&mut self, now: i64) -> Result<(), Duration> {
        let (most, within) = MOST_ORDERS;
        // The clock may have been set back.
        self.last.retain(|at| (0..within).contains(&now.saturating_sub(*at)));
        let by_rate = self.last.front().filter(|_| self.last.len() >= most).map_or(now, |oldest| oldest + within);
        let longest = now.saturating_add(i64::try_from(LONGEST_HOLD.as_millis()).unwrap_or(i64::MAX));
        let free_at = by_rate.max(self.held_until.min(longest));
        if free_at > now {
            return Err(Duration::from_millis(free_at.abs_diff(now)));
        }
        self.last.push_back(now);
        Ok(())
    }

    /// The issuer wants no orders for a while.
    pub(super) fn hold(&mut self, wait: Duration, now: i64) {
        let wait = i64::try_from(wait.min(LONGEST_HOLD).as_millis()).unwrap_or_default();
        self.held_until = self.held_until.max(now.saturating_add(wait));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [FailureKind; 6] = [
        FailureKind::Unreachable,
        FailureKind::RateLimited,
        FailureKind::Unproven,
        FailureKind::Refused,
        FailureKind::Broken,
        FailureKind::Local,
    ];

    fn error(kind: FailureKind, retry_after: Option<u64>) -> IssueError {
        IssueError { kind, message: String::new(), retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn kinds_have_their_ladders() {
        for (kind, minutes) in [
            (FailureKind::Broken, [1, 2, 2, 5, 10, 10, 10, 20]),
            (FailureKind::Unreachable, [1, 2, 2, 5, 10, 10, 10, 20]),
            (FailureKind::Local, [1, 2, 2, 5, 10, 10, 10, 10]),
            (FailureKind::Unproven, [1, 2, 20, 20, 20, 20, 20, 20]),
            (FailureKind::RateLimited, [30; 8]),
            (FailureKind::Refused, [60; 8]),
        ] {
            let waits: Vec<u64> = (1..=8).map(|n| wait(&error(kind, None), n, 0.0).as_secs() / 60).collect();
            assert_eq!(waits, minutes, "{kind:?}");
        }
        assert_eq!(wait(&error(FailureKind::Broken, None), 1000, 0.0), Duration::from_secs(6 * 3600));
        assert_eq!(wait(&error(FailureKind::Broken, None), 1, 1.0), Duration::from_secs(72));
    }

    proptest! {
        #[test]
        fn never_before_the_ca_wants_it_and_never_without_end(
            kind in 0..KINDS.len(), failures: u32, asked in proptest::option::of(0u64..u64::MAX / 2), chance in 0.0..=1.0
        ) {
            let wait = wait(&error(KINDS[kind], asked), failures, chance);
            let asked = Duration::from_secs(asked.unwrap_or(0)).min(LONGEST_WAIT);
            prop_assert!(wait >= asked && wait >= Duration::from_secs(60));
            prop_assert!(wait <= LONGEST_WAIT.mul_f64(1.0 + JITTER));
        }

        #[test]
        fn never_more_orders_than_allowed(pauses in proptest::collection::vec(0i64..3000, 1..200)) {
            let (mut limiter, mut now, mut admitted) = (Limiter::new(), 1_000_000, Vec::new());
            for pause in pauses {
                now += pause;
                match limiter.admit(now) {
                    Ok(()) => admitted.push(now),
                    Err(wait) => {
                        let free = now + i64::try_from(wait.as_millis()).unwrap();
                        prop_assert!(free > now && free <= now + MOST_ORDERS.1);
                    }
                }
            }
            for some in admitted.windows(MOST_ORDERS.0 + 1) {
                prop_assert!(some[MOST_ORDERS.0] - some[0] >= MOST_ORDERS.1);
            }
        }
    }

    #[test]
    fn an_issuer_is_left_alone_but_not_for_long() {
        let mut limiter = Limiter::new();
        limiter.hold(Duration::from_secs(60), 0);
        assert_eq!(limiter.admit(1000), Err(Duration::from_secs(59)));
        limiter.hold(Duration::from_secs(86_400), 0);
        assert_eq!(limiter.admit(300_000), Ok(()));
        // A clock that is set back by a year does not hold for a year.
        limiter.hold(Duration::from_secs(60), 400_000);
        assert_eq!(limiter.admit(-31_536_000_000), Err(LONGEST_HOLD));
    }
}
