//! When is an identity renewed, and when is a source asked again that failed? Sums of times and chance, nothing else.

use std::time::Duration;

/// The part of its life after which a certificate is renewed, and how far chance moves that (Istio's
/// SECRET_GRACE_PERIOD_RATIO and its jitter).
const RENEWAL: f64 = 0.5;
const JITTER: f64 = 0.01;
/// The first and the longest wait for a source that failed.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The first wait inside one call, and how long a call with all its tries may take.
pub(super) const CALL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// However short a certificate lives, and however soon a stream ends, nobody is asked more often.
pub(super) const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a certificate is still good before it has to be renewed. Times are in seconds since 1970; `chance` lies
/// between 0 and 1.
pub(super) fn until_renewal(not_before: i64, not_after: i64, now: i64, chance: f64) -> Duration {
    let life = seconds(not_after - not_before);
    let part = RENEWAL + JITTER * (2.0 * chance - 1.0);
    let left = seconds(not_after - now) - life * part;
    Duration::from_secs_f64(left.max(0.0))
}

/// The wait before a stream is opened, where the last one was opened so long ago.
pub(super) fn until_reopened(since: Option<Duration>) -> Duration {
    since.map_or(Duration::ZERO, |since| LEAST_PAUSE.saturating_sub(since))
}

fn seconds(count: i64) -> f64 {
    count as f64
}

/// The wait behind the failure of this number, counted from 1: doubled each time, and a little less by chance.
pub(super) fn wait(failures: u32, chance: f64) -> Duration {
    let (first, longest) = WAIT;
    doubled(first, failures, longest, chance)
}

/// The wait inside a call behind its failure of this number; see `wait`.
pub(super) fn wait_in_call(failures: u32, chance: f64) -> Duration {
    let (first, whole) = CALL;
    doubled(first, failures, whole, chance)
}

fn doubled(first: Duration, failures: u32, longest: Duration, chance: f64) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest).mul_f64(1.0 - 0.2 * chance)
}

/// How near an identity is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Age {
    Fresh,
    /// Less than a quarter of its life is left: it should have been renewed long ago.
    Late,
    Ended,
}

impl Age {
    /// At `now`, in seconds since 1970 as all others.
    pub(crate) fn of(not_before: i64, not_after: i64, now: i64) -> Age {
        match not_after - now {
            left if left < 0 => Age::Ended,
            left if left < (not_after - not_before) / 4 => Age::Late,
            _ => Age::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_at_half_of_the_life_give_or_take_a_hundredth() {
        let day = 24 * 3600;
        for (now, chance, expected) in [
            (0, 0.5, day / 2),
            (0, 0.0, day * 51 / 100),
            (0, 1.0, day * 49 / 100),
            (day / 4, 0.5, day / 4),
            (day * 3 / 4, 0.5, 0),
            (day * 2, 0.5, 0),
        ] {
            let wait = until_renewal(0, day, now, chance).as_secs_f64();
            assert!((wait - seconds(expected)).abs() < 1.0, "{now} {chance}: {wait}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<_> = [1, 2, 3, 6, 7, 8, 200].map(|failures| wait(failures, 0.0).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(wait(1, 1.0), Duration::from_millis(800));
        assert_eq!(wait_in_call(1, 0.0), Duration::from_millis(50));
    }

    #[test]
    fn streams_that_end_at_once_are_not_opened_at_once() {
        let waits = [None, Some(0), Some(400), Some(5000)].map(|since| since.map(Duration::from_millis));
        assert_eq!(waits.map(|since| until_reopened(since).as_millis()), [0, 1000, 600, 0]);
    }

    #[test]
    fn an_identity_is_late_in_its_last_quarter() {
        let ages = [0, 74, 76, 100, 101].map(|now| Age::of(0, 100, now));
        assert_eq!(ages, [Age::Fresh, Age::Fresh, Age::Late, Age::Late, Age::Ended]);
    }
}
