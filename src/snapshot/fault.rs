//! Which fault is injected into a request: a delay, an abort, both or none? (Istio HTTPFaultInjection.)

use std::time::Duration;

use http::StatusCode;

use super::share::Share;

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

#[cfg(test)]
mod tests {
    use super::*;

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
