//! How much may a cluster be asked at once, and how are its connections kept? (Istio connectionPool, retryBudget.)

use super::destination_rules::Policy;
use crate::resource::networking::TcpKeepalive;
use crate::snapshot::cluster::{Keepalive, Limits, Pings, RetryBudget};

/// Istio's numbers for a budget that names none.
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_LEAST: u32 = 3;

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
