//! How much may a cluster be asked at once, and how are its connections kept? (Istio connectionPool, retryBudget.)

use super::destination_rules::Policy;
use crate::snapshot::cluster::{Keepalive, Limits, Pings, RetryBudget};

/// Istio's numbers for a budget that names none.
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_LEAST: u32 = 3;

/// 0 is no limit.
pub(super) fn limits(policy: Policy<'_>) -> Limits {
    let tcp = policy.connection_pool.and_then(|pool| pool.tcp.as_ref());
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    let most = |number: i32| u32::try_from(number).ok().filter(|most| *most > 0);
    let keepalive = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref());
    let pings = http.and_then(|http| http.http2_keep_alive.as_ref());
    Limits {
        max_connections: tcp.and_then(|tcp| most(tcp.max_connections)),
        max_pending: http.and_then(|http| most(http.http1_max_pending_requests)),
        max_requests: http.and_then(|http| most(http.http2_max_requests)),
        max_retries: http.and_then(|http| most(http.max_retries)),
        retry_budget: policy.retry_budget.map(|budget| RetryBudget {
            percent: budget.percent.unwrap_or(BUDGET_PERCENT),
            least: if budget.min_retry_concurrency == 0 { BUDGET_LEAST } else { budget.min_retry_concurrency },
        }),
        max_streams: http.and_then(|http| most(http.max_concurrent_streams)),
        max_age: tcp.and_then(|tcp| tcp.max_connection_duration).map(|age| age.0).filter(|age| !age.is_zero()),
        keepalive: keepalive.map(|keepalive| Keepalive {
            probes: Some(keepalive.probes).filter(|probes| *probes > 0),
            time: keepalive.time.map(|time| time.0),
            interval: keepalive.interval.map(|interval| interval.0),
        }),
        pings: pings.and_then(|pings| Some(Pings { interval: pings.interval?.0, timeout: pings.timeout?.0 })),
    }
}
