//! When is a request tried again, and how? (Istio HTTPRetry.)

use std::time::Duration;

use http::StatusCode;

/// How a route's requests are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// Tries beyond the first, at least 1.
    pub attempts: u32,
    /// From the moment that a request is sent to the head of its answer; `None` is no limit beside the route's.
    pub per_try_timeout: Option<Duration>,
    pub conditions: RetryConditions,
    /// What [`RetryCondition::StatusCodes`] means.
    pub status_codes: Box<[StatusCode]>,
    /// The longest pause before the first retry; it doubles with each, up to ten times as much.
    pub backoff: Duration,
    /// Endpoints that were tried are avoided: how often another is looked for. `None` takes what comes.
    pub host_picks: Option<u32>,
    /// Whether later tries go to other localities than the ones before.
    pub remote_localities: bool,
}

/// One word of `retryOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RetryCondition {
    /// Any status of 500 or more, and what ends without an answer.
    ServerError,
    /// 502, 503 or 504, and what ends without an answer.
    GatewayError,
    /// What ends without an answer.
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM.
    RefusedStream,
    /// 409.
    Retriable4xx,
    StatusCodes,
    /// An answer with `x-envoy-ratelimited`.
    RateLimited,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

impl RetryCondition {
    pub(crate) const ALL: [RetryCondition; 14] = [
        RetryCondition::ServerError,
        RetryCondition::GatewayError,
        RetryCondition::Reset,
        RetryCondition::ResetBeforeRequest,
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Retriable4xx,
        RetryCondition::StatusCodes,
        RetryCondition::RateLimited,
        RetryCondition::Cancelled,
        RetryCondition::DeadlineExceeded,
        RetryCondition::Internal,
        RetryCondition::ResourceExhausted,
        RetryCondition::Unavailable,
    ];

    /// As Istio and Envoy write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            RetryCondition::ServerError => "5xx",
            RetryCondition::GatewayError => "gateway-error",
            RetryCondition::Reset => "reset",
            RetryCondition::ResetBeforeRequest => "reset-before-request",
            RetryCondition::ConnectFailure => "connect-failure",
            RetryCondition::RefusedStream => "refused-stream",
            RetryCondition::Retriable4xx => "retriable-4xx",
            RetryCondition::StatusCodes => "retriable-status-codes",
            RetryCondition::RateLimited => "envoy-ratelimited",
            RetryCondition::Cancelled => "cancelled",
            RetryCondition::DeadlineExceeded => "deadline-exceeded",
            RetryCondition::Internal => "internal",
            RetryCondition::ResourceExhausted => "resource-exhausted",
            RetryCondition::Unavailable => "unavailable",
        }
    }

    fn bit(self) -> u16 {
        1 << (self as u8)
    }
}

/// A set of conditions; any one of them is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryConditions(u16);

impl RetryConditions {
    /// Only a connection that was not made: nothing of the request has been sent then.
    const UNSENT: RetryConditions =
        RetryConditions(1 << RetryCondition::ResetBeforeRequest as u8 | 1 << RetryCondition::ConnectFailure as u8);

    pub(crate) fn contains(self, condition: RetryCondition) -> bool {
        self.0 & condition.bit() != 0
    }

    /// Whether one of several is in the set.
    pub(crate) fn any(self, conditions: &[RetryCondition]) -> bool {
        conditions.iter().any(|condition| self.contains(*condition))
    }

    /// Whether a request may be tried again after its body was sent.
    pub(crate) fn need_body(self) -> bool {
        self.0 & !Self::UNSENT.0 != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = RetryCondition> {
        RetryCondition::ALL.into_iter().filter(move |condition| self.contains(*condition))
    }
}

impl FromIterator<RetryCondition> for RetryConditions {
    fn from_iter<I: IntoIterator<Item = RetryCondition>>(conditions: I) -> Self {
        RetryConditions(conditions.into_iter().fold(0, |set, condition| set | condition.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_retried_after_sending_needs_the_body() {
        for (conditions, expected) in [
            (&[][..], false),
            (&[RetryCondition::ConnectFailure, RetryCondition::ResetBeforeRequest], false),
            (&[RetryCondition::ConnectFailure, RetryCondition::Unavailable], true),
            (&[RetryCondition::ServerError], true),
        ] {
            let set: RetryConditions = conditions.iter().copied().collect();
            assert_eq!(set.need_body(), expected, "{conditions:?}");
            assert_eq!(set.iter().count(), conditions.len());
        }
    }
}
