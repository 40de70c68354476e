//! What do all workers know together of a cluster? How much is under way, as far as a rule limits it, and
//! which endpoints are out.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::outlier::{Detector, Report};
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::{Cluster, Limits, OutlierPolicy};

/// The clusters whose rules count something across workers. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Commons(Arc<Mutex<HashMap<Arc<str>, Arc<Common>>>>);

/// One cluster, by name.
#[derive(Debug, Default)]
pub(super) struct Common {
    requests: Arc<AtomicU32>,
    pending: Arc<AtomicU32>,
    retries: Arc<AtomicU32>,
    detector: Mutex<Detector>,
    /// How many endpoints the cluster has.
    endpoints: AtomicUsize,
    /// Grows whenever an endpoint is put out or comes back.
    changes: AtomicU64,
}

/// One unit of what is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cluster has as much of something as it may have (503 UO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overflow")]
pub(crate) struct Overflow;

impl Commons {
    fn all(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Common>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: nothing is counted across workers.
    pub(super) fn of(&self, cluster: &Cluster) -> Option<Arc<Common>> {
        let is_shared = cluster.limits.are_counted() || cluster.outlier.is_some();
        is_shared.then(|| Arc::clone(self.all().entry(Arc::clone(&cluster.name)).or_default()))
    }

    /// Forgets clusters that are gone.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        self.all().retain(|name, _| snapshot.clusters.contains_key(name));
    }
}

impl Common {
    fn detector(&self) -> MutexGuard<'_, Detector> {
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what came of a try.
    pub(super) fn report(&self, policy: &OutlierPolicy, address: SocketAddr, report: Report) {
        let all = self.endpoints.load(Ordering::Relaxed);
        if self.detector().report(policy, address, all, report, Instant::now()) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Lets those come back that were out long enough, and tells whether something has changed since `seen`.
    pub(super) fn changes(&self, policy: &OutlierPolicy) -> u64 {
        if self.detector().look(policy, Instant::now()) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        self.changes.load(Ordering::Acquire)
    }

    /// Those that are out, of the endpoints that the cluster has now.
    pub(super) fn out(&self, all: &HashSet<SocketAddr>) -> HashSet<SocketAddr> {
        self.endpoints.store(all.len(), Ordering::Relaxed);
        let mut detector = self.detector();
        detector.retain(all);
        detector.out()
    }

    /// Before a request goes to an endpoint.
    pub(super) fn begin_request(&self, limits: &Limits) -> Result<Place, Overflow> {
        take(&self.requests, limits.max_requests)
    }

    /// Before a request waits for a connection.
    pub(super) fn begin_waiting(&self, limits: &Limits) -> Result<Place, Overflow> {
        take(&self.pending, limits.max_pending)
    }

    /// Before a request is tried again. A budget is a share of the requests that are under way.
    pub(super) fn begin_retry(&self, limits: &Limits) -> Result<Place, Overflow> {
        let most = match limits.retry_budget {
            Some(budget) => {
                let busy = self.requests.load(Ordering::Relaxed) + self.pending.load(Ordering::Relaxed);
                Some(((f64::from(busy) * budget.percent / 100.0) as u32).max(budget.least))
            }
            None => limits.max_retries,
        };
        take(&self.retries, most)
    }
}

fn take(counter: &Arc<AtomicU32>, most: Option<u32>) -> Result<Place, Overflow> {
    let before = counter.fetch_add(1, Ordering::Relaxed);
    let place = Place(Arc::clone(counter));
    if most.is_some_and(|most| before >= most) { Err(Overflow) } else { Ok(place) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::cluster::RetryBudget;

    #[test]
    fn places_are_given_until_none_is_left() {
        let (common, one) = (Common::default(), Limits { max_requests: Some(1), ..Limits::default() });
        let first = common.begin_request(&one).unwrap();
        assert!(common.begin_request(&one).is_err());
        assert!(common.begin_waiting(&one).is_ok(), "each has a number of its own");
        drop(first);
        assert!(common.begin_request(&one).is_ok(), "what was refused is not counted");
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_under_way() {
        let budget = Limits { retry_budget: Some(RetryBudget { percent: 50.0, least: 1 }), ..Limits::default() };
        let common = Common::default();
        let retry = common.begin_retry(&budget).unwrap();
        assert!(common.begin_retry(&budget).is_err());
        let _requests: Vec<_> = (0..4).map(|_| common.begin_request(&budget).unwrap()).collect();
        let second = common.begin_retry(&budget).unwrap();
        assert!(common.begin_retry(&budget).is_err());
        drop((retry, second));
        let fixed = Limits { max_retries: Some(0), ..Limits::default() };
        assert!(common.begin_retry(&fixed).is_err());
    }
}
