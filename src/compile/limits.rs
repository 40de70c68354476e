//! How much may a cluster be asked at once, how are its connections kept, and which endpoints are left alone? (Istio
//! connectionPool, retryBudget, outlierDetection.)

use std::time::Duration;

use super::destination_rules::Policy;
use crate::resource::networking::{OutlierDetection, TcpKeepalive};
use crate::snapshot::cluster::{Keepalive, Limits, OutlierPolicy, Pings, RetryBudget};

/// Istio's numbers for a budget that names none.
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_LEAST: u32 = 3;

/// Istio's and Envoy's numbers for outlierDetection.
const FAILURES: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const OUT: Duration = Duration::from_secs(30);
const LONGEST_OUT: Duration = Duration::from_secs(300);
const MAX_PERCENT: u32 = 10;

/// When endpoints that fail get no requests for a while.
pub(super) fn outlier(written: &OutlierDetection) -> OutlierPolicy {
    let percent = |number: i32| u32::try_from(number).ok().filter(|percent| *percent > 0);
    let base = written.base_ejection_time.map_or(OUT, |time| time.0);
    OutlierPolicy {
        server: written.consecutive_5xx_errors.unwrap_or(FAILURES),
        gateway: written.consecutive_gateway_errors.unwrap_or_default(),
        local: written.consecutive_local_origin_failures.unwrap_or(FAILURES),
        split: written.split_external_local_origin_errors,
        interval: written.interval.map_or(INTERVAL, |interval| interval.0),
        base,
        longest: LONGEST_OUT.max(base),
        max_percent: percent(written.max_ejection_percent).unwrap_or(MAX_PERCENT).min(100),
        min_health_percent: percent(written.min_health_percent).unwrap_or_default().min(100),
        codes: written.outlier_detection_http_error_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
    }
}

/// 0 is no limit. `mesh` is the mesh's tcpKeepalive.
pub(super) fn limits(policy: Policy<'_>, mesh: Option<&TcpKeepalive>) -> Limits {
    let tcp = policy.connection_pool.and_then(|pool| pool.tcp.as_ref());
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    let most = |number: i32| u32::try_from(number).ok().filter(|most| *most > 0);
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
        keepalive: keepalive(tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()), mesh),
        pings: pings.and_then(|pings| Some(Pings { interval: pings.interval?.0, timeout: pings.timeout?.0 })),
    }
}

/// A rule's numbers come before the mesh's; the block alone turns it on.
fn keepalive(rule: Option<&TcpKeepalive>, mesh: Option<&TcpKeepalive>) -> Option<Keepalive> {
    let mut blocks = rule.into_iter().chain(mesh).peekable();
    blocks.peek()?;
    Some(Keepalive {
        probes: blocks.clone().map(|block| block.probes).find(|probes| *probes > 0),
        time: blocks.clone().find_map(|block| block.time).map(|time| time.0),
        interval: blocks.find_map(|block| block.interval).map(|interval| interval.0),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::networking::GoDuration;

    #[test]
    fn a_rule_changes_single_numbers_of_the_mesh() {
        let block = |probes, time: Option<u64>, interval: Option<u64>| {
            let seconds = |number| GoDuration(Duration::from_secs(number));
            TcpKeepalive { probes, time: time.map(seconds), interval: interval.map(seconds) }
        };
        let numbers = |rule: Option<&TcpKeepalive>, mesh: Option<&TcpKeepalive>| {
            let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
            keepalive(rule, mesh).map(|made| (made.probes, seconds(made.time), seconds(made.interval)))
        };
        let (empty, rule, mesh) = (block(0, None, None), block(0, Some(5), None), block(3, Some(60), Some(7)));
        assert_eq!(numbers(None, None), None);
        assert_eq!(numbers(Some(&empty), None), Some((None, None, None)));
        assert_eq!(numbers(None, Some(&mesh)), Some((Some(3), Some(60), Some(7))));
        assert_eq!(numbers(Some(&rule), Some(&mesh)), Some((Some(3), Some(5), Some(7))));
    }
}
