//! How are a route's requests tried again? (Istio VirtualService.http.retries, MeshConfig.defaultHttpRetryPolicy.)

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::StatusCode;

use crate::resource::networking::HttpRetry;
use crate::snapshot::retry::{RetryCondition, RetryConditions, RetryPolicy};

/// Istio's policy for routes that say nothing.
const DEFAULT_ATTEMPTS: u32 = 2;
const DEFAULT_WORDS: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// Envoy's pause.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// How often Istio looks for an endpoint that was not tried.
const HOST_PICKS: u32 = 5;

/// The policy of a route: what it says, else what the mesh says, else Istio's own. `None` never tries again.
/// Where a hash decides the endpoint, other endpoints are asked only if the policy says so.
pub(super) fn policy(route: Option<&HttpRetry>, mesh: Option<&HttpRetry>, hashed: bool) -> Option<Arc<RetryPolicy>> {
    match route.or(mesh) {
        None if !hashed => {
            // Most rules say nothing: they share one policy.
            static COMMON: LazyLock<Option<Arc<RetryPolicy>>> = LazyLock::new(|| made(None, false).map(Arc::new));
            COMMON.clone()
        }
        written => made(written, hashed).map(Arc::new),
    }
}

fn made(written: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let attempts = written.map_or(Some(DEFAULT_ATTEMPTS), |written| u32::try_from(written.attempts).ok());
    let attempts = attempts.filter(|attempts| *attempts > 0)?;
    let words = written.map(|written| written.retry_on.as_str()).filter(|words| !words.is_empty());
    let (conditions, status_codes) = parse(words.unwrap_or(DEFAULT_WORDS));
    let flag = |flag: fn(&HttpRetry) -> Option<bool>| written.and_then(flag);
    let duration = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
    Some(RetryPolicy {
        attempts,
        per_try_timeout: duration(written.and_then(|written| Some(written.per_try_timeout?.0))),
        conditions,
        status_codes,
        backoff: duration(written.and_then(|written| Some(written.backoff?.0))).unwrap_or(DEFAULT_BACKOFF),
        host_picks: flag(|written| written.retry_ignore_previous_hosts).unwrap_or(!hashed).then_some(HOST_PICKS),
        remote_localities: flag(|written| written.retry_remote_localities).unwrap_or(false),
    })
}

/// Numbers are status codes, and having one makes them count; words that Envoy does not act by are left out.
fn parse(text: &str) -> (RetryConditions, Box<[StatusCode]>) {
    let mut codes = Vec::new();
    let mut conditions = Vec::new();
    for word in text.split(',').map(str::trim) {
        let code = word.parse().ok().and_then(|number| StatusCode::from_u16(number).ok());
        match code.filter(|code| code.canonical_reason().is_some()) {
            Some(code) => codes.push(code),
            None => conditions.extend(RetryCondition::ALL.into_iter().find(|condition| condition.word() == word)),
        }
    }
    if !codes.is_empty() {
        conditions.push(RetryCondition::StatusCodes);
    }
    (conditions.into_iter().collect(), codes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(yaml: &str) -> HttpRetry {
        serde_json::from_str(yaml).unwrap()
    }

    fn words(policy: &RetryPolicy) -> Vec<&'static str> {
        policy.conditions.iter().map(RetryCondition::word).collect()
    }

    #[test]
    fn a_route_without_retries_has_istios_policy_or_the_meshs() {
        let own = policy(None, None, false).unwrap();
        assert_eq!((own.attempts, own.per_try_timeout, own.host_picks), (2, None, Some(5)));
        assert_eq!(
            words(&own),
            ["connect-failure", "refused-stream", "retriable-status-codes", "cancelled", "unavailable"]
        );
        assert!(own.status_codes.is_empty() && own.backoff == Duration::from_millis(25));
        let mesh = written(r#"{"attempts": 5, "retryOn": "5xx"}"#);
        assert_eq!(
            policy(None, Some(&mesh), false).map(|policy| (policy.attempts, words(&policy))),
            Some((5, vec!["5xx"]))
        );
        assert_eq!(policy(None, Some(&written(r#"{"attempts": 0}"#)), false), None);
        let route = written(r#"{"attempts": 1}"#);
        assert_eq!(
            policy(Some(&route), Some(&mesh), false).map(|policy| words(&policy).len()),
            Some(5),
            "Istio's own words"
        );
        assert_eq!(policy(Some(&written(r#"{"attempts": 0}"#)), Some(&mesh), false), None);
    }

    #[test]
    fn words_and_codes_are_told_apart() {
        for (text, expected, codes) in [
            ("503, 429", &["retriable-status-codes"][..], &[503, 429][..]),
            ("reset,503,retriable-headers", &["reset", "retriable-status-codes"], &[503]),
            ("5xx, ,http3-post-connect-failure,999", &["5xx"], &[]),
        ] {
            let (conditions, found) = parse(text);
            assert_eq!(conditions.iter().map(RetryCondition::word).collect::<Vec<_>>(), expected, "{text}");
            assert_eq!(found.iter().map(StatusCode::as_u16).collect::<Vec<_>>(), codes, "{text}");
        }
    }

    #[test]
    fn every_field_is_taken_over() {
        let route = r#"{"attempts": 3, "perTryTimeout": "2s", "backoff": "1ms", "retryRemoteLocalities": true,
                        "retryIgnorePreviousHosts": false, "retryOn": "5xx"}"#;
        let policy = policy(Some(&written(route)), None, false).unwrap();
        assert_eq!((policy.per_try_timeout, policy.backoff), (Some(Duration::from_secs(2)), Duration::from_millis(1)));
        assert_eq!((policy.host_picks, policy.remote_localities), (None, true));
    }
}
