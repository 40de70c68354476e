//! Which fault is injected into a request: a delay, an abort, both or none? (Istio HTTPFaultInjection.)

use std::time::Duration;

use http::StatusCode;

/// The faults of one rule; at least one of the two is there.
#[derive(Debug)]
pub(crate) struct FaultPolicy {
    pub delay: Option<(Share, Duration)>,
    pub abort: Option<(Share, Abort)>,
}

/// How an aborted request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    Http(StatusCode),
    /// gRPC's number; a request that is not gRPC gets 200.
    Grpc(u8),
}

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u32);

/// What is done to one request: first the delay, then the abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    pub delay: Option<Duration>,
    pub abort: Option<Abort>,
}

impl FaultPolicy {
    /// Draws for the delay and for the abort, each on its own.
    pub(crate) fn decide(&self, random: [u32; 2]) -> Injection {
        let [for_delay, for_abort] = random;
        Injection {
            delay: self.delay.filter(|(share, _)| share.takes(for_delay)).map(|(_, delay)| delay),
            abort: self.abort.filter(|(share, _)| share.takes(for_abort)).map(|(_, abort)| abort),
        }
    }
}

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// Of a percentage; what is finer than 0.0001 is cut off.
    pub(crate) fn from_percent(percent: f64) -> Share {
        // A conversion from floating point saturates, so that nothing is outside 0 and the whole.
        Share(((percent * 10_000.0) as u32).min(Share::WHOLE))
    }

    /// In percent, for people.
    pub(crate) fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether a random number falls into the share.
    pub(crate) fn takes(self, random: u32) -> bool {
        random % Share::WHOLE < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_millionths() {
        for (percent, taken) in [(0.0, 0), (0.0001, 1), (0.00019, 1), (50.0, 500_000), (100.0, 1_000_000)] {
            assert_eq!(Share::from_percent(percent), Share(taken), "{percent}");
        }
        assert!(Share::from_percent(0.0001).takes(0) && !Share::from_percent(0.0001).takes(1));
        assert!(Share::from_percent(100.0).takes(u32::MAX) && !Share::from_percent(0.0).takes(0));
    }

    #[test]
    fn delay_and_abort_are_drawn_on_their_own() {
        let policy = FaultPolicy {
            delay: Some((Share::from_percent(50.0), Duration::from_secs(1))),
            abort: Some((Share::from_percent(10.0), Abort::Grpc(14))),
        };
        let drawn = |random| {
            let injection = policy.decide(random);
            (injection.delay.is_some(), injection.abort.is_some())
        };
        assert_eq!(drawn([0, 0]), (true, true));
        assert_eq!(drawn([499_999, 100_000]), (true, false));
        assert_eq!(drawn([500_000, 99_999]), (false, true));
    }
}
