//! Which endpoints have failed so often that they get no requests for a while? Pure: the time is an argument.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::snapshot::cluster::OutlierPolicy;

/// What came of a try, as far as it tells something about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It answered with this status.
    Status(u16),
    /// It was connected to (TCP).
    Connected,
    /// It could not be connected to, or broke off without an answer.
    Failed,
    /// It took too long.
    TimedOut,
}

/// What is remembered of the endpoints of one cluster.
#[derive(Debug, Default)]
pub(super) struct Detector {
    endpoints: HashMap<SocketAddr, Record>,
    /// When endpoints were last looked through.
    looked: Option<Instant>,
}

/// One endpoint.
#[derive(Debug, Default)]
struct Record {
    server_errors: u32,
    gateway_errors: u32,
    local_failures: u32,
    /// How many times the base time it stays out.
    multiplier: u32,
    out_since: Option<Instant>,
}

/// The number of an endpoint's failures in a row has reached its limit.
fn reached(count: &mut u32, limit: u32) -> bool {
    *count += 1;
    limit > 0 && *count >= limit
}

impl Detector {
    /// Takes note of a try; true if the endpoint is out from now on. `all` is how many endpoints the cluster has.
    pub(super) fn report(
        &mut self,
        policy: &OutlierPolicy,
        address: SocketAddr,
        all: usize,
        report: Report,
        now: Instant,
    ) -> bool {
        self.looked.get_or_insert(now);
        let out = self.endpoints.values().filter(|record| record.out_since.is_some()).count();
        let record = self.endpoints.entry(address).or_default();
        if !record.note(policy, report) || record.out_since.is_some() {
            return false;
        }
        (record.server_errors, record.gateway_errors, record.local_failures) = (0, 0, 0);
        if (out + 1) * 100 > all * policy.max_percent as usize {
            return false;
        }
        record.out_since = Some(now);
        if policy.base * record.multiplier < policy.longest {
            record.multiplier += 1;
        }
        true
    }

    /// Once in each interval: who was out long enough comes back. True if somebody does.
    pub(super) fn look(&mut self, policy: &OutlierPolicy, now: Instant) -> bool {
        let Some(looked) = self.looked else { return false };
        let interval = policy.interval.max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(looked).as_nanos() / interval.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed == 0 {
            return false;
        }
        let latest = looked + interval * passed;
        self.looked = Some(latest);
        let mut changed = false;
        for record in self.endpoints.values_mut() {
            let Some(since) = record.out_since else {
                record.multiplier = record.multiplier.saturating_sub(passed);
                continue;
            };
            let end = since + (policy.base * record.multiplier).min(policy.longest);
            if latest >= end {
                record.out_since = None;
                changed = true;
                // The intervals since then were healthy ones, though nobody looked.
                let healthy = latest.saturating_duration_since(end).as_nanos() / interval.as_nanos();
                record.multiplier = record.multiplier.saturating_sub(u32::try_from(healthy).unwrap_or(u32::MAX));
            }
        }
        changed
    }

    /// Those that are out now.
    pub(super) fn out(&self) -> HashSet<SocketAddr> {
        let out = self.endpoints.iter().filter(|(_, record)| record.out_since.is_some());
        out.map(|(address, _)| *address).collect()
    }

    /// Forgets endpoints that the cluster has no more.
    pub(super) fn retain(&mut self, addresses: &HashSet<SocketAddr>) {
        self.endpoints.retain(|address, _| addresses.contains(address));
    }
}

impl Record {
    /// True if one of its counts has reached the limit.
    fn note(&mut self, policy: &OutlierPolicy, report: Report) -> bool {
        let status = match (report, policy.split) {
            (Report::Failed | Report::TimedOut, true) => return reached(&mut self.local_failures, policy.local),
            (Report::Connected, true) => {
                self.local_failures = 0;
                return false;
            }
            (Report::Failed, false) => 503,
            (Report::TimedOut, false) => 504,
            (Report::Connected, false) => 200,
            (Report::Status(status), _) if policy.codes.is_empty() => status,
            (Report::Status(status), _) if policy.codes.contains(&status) => 500,
            (Report::Status(_), _) => 200,
        };
        if let Report::Status(_) = report {
            self.local_failures = 0;
        }
        if !(500..600).contains(&status) {
            (self.server_errors, self.gateway_errors) = (0, 0);
            return false;
        }
        let gateway = match status {
            502..=504 => reached(&mut self.gateway_errors, policy.gateway),
            _ => {
                self.gateway_errors = 0;
                false
            }
        };
        reached(&mut self.server_errors, policy.server) || gateway
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> OutlierPolicy {
        OutlierPolicy {
            server: 3,
            gateway: 0,
            local: 2,
            split: false,
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            max_percent: 100,
            min_health_percent: 0,
            codes: Box::default(),
        }
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    #[test]
    fn failures_in_a_row_put_an_endpoint_out() {
        use Report::{Connected, Failed, Status, TimedOut};
        let gateway = OutlierPolicy { server: 0, gateway: 2, ..policy() };
        let split = OutlierPolicy { split: true, ..policy() };
        let codes = OutlierPolicy { codes: [429].into(), ..policy() };
        for (policy, reports, expected) in [
            (policy(), &[Status(500), Status(503), Status(599)][..], true),
            (policy(), &[Status(500), Status(500), Status(404), Status(500)], false),
            (policy(), &[Failed, TimedOut, Failed], true),
            (policy(), &[Failed, Failed, Connected, Failed], false),
            (OutlierPolicy { server: 0, ..policy() }, &[Failed, Failed, Failed, Failed], false),
            (gateway.clone(), &[Status(503), TimedOut], true),
            (gateway.clone(), &[Status(503), Status(500), Status(503)], false),
            (split.clone(), &[Failed, TimedOut], true),
            (split.clone(), &[Status(500), Failed, Status(500)], false),
            (split, &[Status(500), Status(500), Failed, Status(500)], true),
            (codes.clone(), &[Status(429), Status(429), Status(429)], true),
            (codes, &[Status(500), Status(500), Status(500)], false),
        ] {
            let (mut detector, now) = (Detector::default(), Instant::now());
            let out = reports.iter().any(|report| detector.report(&policy, address(1), 2, *report, now));
            assert_eq!((out, detector.out().contains(&address(1))), (expected, expected), "{policy:?} {reports:?}");
        }
    }

    #[test]
    fn only_a_share_of_the_endpoints_goes() {
        for (percent, all, expected) in [(10, 9, 0), (10, 10, 1), (50, 4, 2), (40, 4, 1), (100, 3, 3)] {
            let policy = OutlierPolicy { server: 1, max_percent: percent, ..policy() };
            let (mut detector, now) = (Detector::default(), Instant::now());
            for number in 0..all {
                detector.report(&policy, address(number), usize::from(all), Report::Failed, now);
            }
            assert_eq!(detector.out().len(), expected, "{percent} of {all}");
        }
    }

    #[test]
    fn who_was_out_long_enough_comes_back() {
        let policy = OutlierPolicy { server: 1, ..policy() };
        let (mut detector, start) = (Detector::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let fail = |detector: &mut Detector, now| detector.report(&policy, address(1), 1, Report::Failed, now);
        assert!(fail(&mut detector, start));
        assert!(!detector.look(&policy, after(29)) && detector.look(&policy, after(30)));
        assert!(fail(&mut detector, after(31)), "the second time it is out twice as long");
        assert!(!detector.look(&policy, after(90)) && detector.look(&policy, after(100)));
        assert!(!detector.look(&policy, after(130)));
        assert!(fail(&mut detector, after(131)), "after a healthy while as short as the first time");
        assert!(detector.look(&policy, after(170)));
        assert!(fail(&mut detector, after(171)) && detector.look(&policy, after(260)));
        assert!(fail(&mut detector, after(261)) && detector.look(&policy, after(300)), "nobody looked all the while");
        detector.retain(&HashSet::new());
        assert!(detector.endpoints.is_empty());
    }
}
