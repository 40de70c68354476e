//! Is a request tried once more? Pure: what came of the last try, and what the policy says of it (Envoy's rules).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::snapshot::retry::{RetryCondition, RetryPolicy};
use crate::telemetry::flags::Flag;
use crate::upstream::ConnectError;

use super::fail::Failure;

const RATE_LIMITED: http::HeaderName = http::HeaderName::from_static("x-envoy-ratelimited");
/// The pause grows to this many times what it begins with.
const LONGEST_PAUSE: u32 = 10;

/// What came of a try.
pub(super) enum Outcome<'a> {
    Answered { status: StatusCode, grpc_status: Option<u16>, headers: &'a HeaderMap },
    Failed(&'a Failure),
}

/// What can be said of the request itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repetition {
    /// All that was read of it can be sent again, and nothing of an answer has been passed on.
    pub possible: bool,
    /// Sending it twice does no harm (RFC 9110 9.2.2).
    pub harmless: bool,
}

/// What follows from a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is the answer.
    Final,
    /// This is the answer, because no more tries are allowed (URX).
    Exhausted,
    /// This is the answer, because the cluster has all the retries that it may have (UO).
    Overflow,
    /// Again, after a pause.
    Retry,
    /// Again at once: the connection was closed while it was idle, and the request never seen.
    Resend,
}

/// Judges try number `tries`, counted from 1.
pub(super) fn decide(policy: Option<&RetryPolicy>, outcome: &Outcome<'_>, tries: u32, request: Repetition) -> Verdict {
    let Some(policy) = policy.filter(|_| request.possible) else { return Verdict::Final };
    let wanted = match outcome {
        Outcome::Answered { status, grpc_status, headers } => wants_answer(policy, *status, *grpc_status, headers),
        Outcome::Failed(failure) => wants_failure(policy, failure),
    };
    let unseen = matches!(outcome, Outcome::Failed(Failure::Terminated { unseen: true })) && request.harmless;
    match tries <= policy.attempts {
        true if wanted => Verdict::Retry,
        true if unseen => Verdict::Resend,
        false if wanted => Verdict::Exhausted,
        _ => Verdict::Final,
    }
}

impl Verdict {
    /// Whether there is another try.
    pub(super) fn repeats(self) -> bool {
        matches!(self, Verdict::Retry | Verdict::Resend)
    }

    /// What the access log says of a last try.
    pub(super) fn flag(self) -> Option<Flag> {
        match self {
            Verdict::Exhausted => Some(Flag::UpstreamRetryLimitExceeded),
            Verdict::Overflow => Some(Flag::UpstreamOverflow),
            Verdict::Final | Verdict::Retry | Verdict::Resend => None,
        }
    }
}

/// How long to wait before the next try; `tries` were made.
pub(super) fn pause(policy: &RetryPolicy, tries: u32, random: u64) -> Duration {
    let doubled = 1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    let most = policy.backoff.saturating_mul(doubled.min(LONGEST_PAUSE));
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(random % most)
}

fn wants_answer(policy: &RetryPolicy, status: StatusCode, grpc_status: Option<u16>, headers: &HeaderMap) -> bool {
    let conditions = policy.conditions;
    // Another Envoy has limited the rate: that counts for nothing else.
    let limited = || headers.contains_key(RATE_LIMITED);
    if conditions.contains(RetryCondition::RateLimited) && limited() {
        return true;
    }
    let by_status = match status.as_u16() {
        409 => conditions.contains(RetryCondition::Retriable4xx),
        502..=504 => conditions.any(&[RetryCondition::ServerError, RetryCondition::GatewayError]),
        500..=599 => conditions.contains(RetryCondition::ServerError),
        _ => false,
    };
    let by_code = conditions.contains(RetryCondition::StatusCodes) && policy.status_codes.contains(&status);
    let by_grpc = grpc_status.and_then(grpc_condition).is_some_and(|condition| conditions.contains(condition));
    (by_status || by_code || by_grpc) && !limited()
}

fn grpc_condition(grpc_status: u16) -> Option<RetryCondition> {
    Some(match grpc_status {
        1 => RetryCondition::Cancelled,
        4 => RetryCondition::DeadlineExceeded,
        8 => RetryCondition::ResourceExhausted,
        13 => RetryCondition::Internal,
        14 => RetryCondition::Unavailable,
        _ => return None,
    })
}

fn wants_failure(policy: &RetryPolicy, failure: &Failure) -> bool {
    use RetryCondition::{ConnectFailure, GatewayError, RefusedStream, Reset, ResetBeforeRequest, ServerError};
    // What ends without an answer would become a 5xx.
    let reset = policy.conditions.any(&[ServerError, GatewayError, Reset]);
    match failure {
        Failure::Connect(ConnectError::Overflow { .. }) => false,
        Failure::Connect(_) => reset || policy.conditions.any(&[ConnectFailure, ResetBeforeRequest]),
        Failure::Refused => reset || policy.conditions.contains(RefusedStream),
        Failure::Terminated { .. } | Failure::Reset | Failure::Protocol | Failure::TryTimeout => reset,
        Failure::NoCluster
        | Failure::NoEndpoint
        | Failure::Timeout
        | Failure::BadRequest
        | Failure::ClientMalformed
        | Failure::ClientGone => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::connect::ConnectError;

    const FREE: Repetition = Repetition { possible: true, harmless: true };

    fn policy(words: &[&str], codes: &[u16]) -> RetryPolicy {
        let conditions = RetryCondition::ALL.into_iter().filter(|condition| words.contains(&condition.word()));
        RetryPolicy {
            attempts: 2,
            per_try_timeout: None,
            conditions: conditions.collect(),
            status_codes: codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect(),
            backoff: Duration::from_millis(25),
            host_picks: Some(5),
            remote_localities: false,
        }
    }

    /// Status, gRPC status and whether the rate was limited; or a failure.
    type Came = Result<(u16, Option<u16>, bool), Failure>;

    /// Everything that a try can come to, by a short name.
    fn outcomes() -> Vec<(&'static str, Came)> {
        vec![
            ("200", Ok((200, None, false))),
            ("500", Ok((500, None, false))),
            ("502", Ok((502, None, false))),
            ("503", Ok((503, None, false))),
            ("504", Ok((504, None, false))),
            ("409", Ok((409, None, false))),
            ("429", Ok((429, None, false))),
            ("limited", Ok((503, None, true))),
            ("grpc1", Ok((200, Some(1), false))),
            ("grpc4", Ok((200, Some(4), false))),
            ("grpc8", Ok((200, Some(8), false))),
            ("grpc13", Ok((200, Some(13), false))),
            ("grpc14", Ok((200, Some(14), false))),
            ("connect", Err(Failure::Connect(ConnectError::Timeout))),
            ("closed", Err(Failure::Terminated { unseen: false })),
            ("reset", Err(Failure::Reset)),
            ("junk", Err(Failure::Protocol)),
            ("refused", Err(Failure::Refused)),
            ("slow", Err(Failure::TryTimeout)),
            ("timeout", Err(Failure::Timeout)),
            ("nobody", Err(Failure::NoEndpoint)),
        ]
    }

    fn judge(policy: &RetryPolicy, outcome: &Came, tries: u32, request: Repetition) -> Verdict {
        let mut headers = HeaderMap::new();
        let outcome = match outcome {
            Ok((status, grpc_status, limited)) => {
                if *limited {
                    headers.insert(RATE_LIMITED, http::HeaderValue::from_static("true"));
                }
                let status = StatusCode::from_u16(*status).unwrap();
                Outcome::Answered { status, grpc_status: *grpc_status, headers: &headers }
            }
            Err(failure) => Outcome::Failed(failure),
        };
        decide(Some(policy), &outcome, tries, request)
    }

    #[test]
    fn every_word_retries_what_it_says() {
        for (words, codes, expected) in [
            (&["5xx"][..], &[][..], "500 502 503 504 connect closed reset junk refused slow"),
            (&["gateway-error"], &[], "502 503 504 connect closed reset junk refused slow"),
            (&["reset"], &[], "connect closed reset junk refused slow"),
            (&["reset-before-request"], &[], "connect"),
            (&["connect-failure"], &[], "connect"),
            (&["retriable-4xx"], &[], "409"),
            (&["retriable-status-codes"], &[], ""),
            (&["retriable-status-codes"], &[503, 200], "200 503 grpc1 grpc4 grpc8 grpc13 grpc14"),
            (&["refused-stream"], &[], "refused"),
            (&["envoy-ratelimited"], &[], "limited"),
            (&["5xx", "envoy-ratelimited"], &[], "500 502 503 504 limited connect closed reset junk refused slow"),
            (&["cancelled"], &[], "grpc1"),
            (&["deadline-exceeded"], &[], "grpc4"),
            (&["resource-exhausted"], &[], "grpc8"),
            (&["internal"], &[], "grpc13"),
            (&["unavailable"], &[], "grpc14"),
            (&[], &[], ""),
        ] {
            let policy = policy(words, codes);
            let retried: Vec<_> = outcomes()
                .into_iter()
                .filter(|(_, outcome)| judge(&policy, outcome, 1, FREE) == Verdict::Retry)
                .map(|(name, _)| name)
                .collect();
            assert_eq!(retried.join(" "), expected, "{words:?} {codes:?}");
        }
    }

    #[test]
    fn tries_are_counted_and_only_what_can_be_sent_again_is() {
        let policy = policy(&["5xx"], &[]);
        let bad = Ok((503, None, false));
        let unseen = Err(Failure::Terminated { unseen: true });
        let never = Repetition { possible: false, harmless: true };
        let harmful = Repetition { possible: true, harmless: false };
        for (outcome, tries, request, expected) in [
            (&bad, 2, FREE, Verdict::Retry),
            (&bad, 3, FREE, Verdict::Exhausted),
            (&bad, 3, never, Verdict::Final),
            (&bad, 1, harmful, Verdict::Retry),
            (&unseen, 1, FREE, Verdict::Retry),
            (&Ok((200, None, false)), 3, FREE, Verdict::Final),
        ] {
            assert_eq!(judge(&policy, outcome, tries, request), expected, "{outcome:?} {tries} {request:?}");
        }
        assert_eq!(decide(None, &Outcome::Failed(&Failure::Reset), 1, FREE), Verdict::Final);
    }

    #[test]
    fn a_request_that_was_never_seen_is_sent_again_at_once() {
        let policy = policy(&["connect-failure"], &[]);
        let unseen = Err(Failure::Terminated { unseen: true });
        let harmful = Repetition { possible: true, harmless: false };
        assert_eq!(judge(&policy, &unseen, 1, FREE), Verdict::Resend);
        assert_eq!(judge(&policy, &unseen, 3, FREE), Verdict::Final);
        assert_eq!(judge(&policy, &unseen, 1, harmful), Verdict::Final);
        assert_eq!(judge(&policy, &Err(Failure::Terminated { unseen: false }), 1, FREE), Verdict::Final);
    }

    #[test]
    fn pauses_double_up_to_ten_times_the_first() {
        let policy = policy(&[], &[]);
        let most: Vec<_> = (1..8).map(|tries| pause(&policy, tries, u64::MAX).as_millis()).collect();
        let bounds = [25u64, 50, 100, 200, 250, 250, 250];
        for (most, bound) in most.iter().zip(bounds) {
            assert_eq!(*most, u128::from(u64::MAX % bound));
        }
        assert_eq!(pause(&policy, 1, 24), Duration::from_millis(24));
        assert_eq!(pause(&policy, 40, 250), Duration::ZERO);
    }
}
