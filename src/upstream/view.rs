//! Which endpoints does a cluster have now, and whose turn is it?

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Wish;
use super::balance::Weights;
use super::commons::Common;
use super::dns::{self, Resolver};
use super::endpoint::{Endpoint, Group};
use super::plan::{Member, plan};
use super::requested::Requested;
use super::table::Table;
use crate::net::proxy_protocol::Addresses;
use crate::snapshot::cluster::{self, Balancing, Cluster, DnsName, Encryption, EndpointSource, Warmup, WorkloadFacts};

/// One cluster of one snapshot, joined with the live state of its endpoints.
pub(super) struct View {
    pub(super) cluster: Arc<Cluster>,
    group: Arc<Group>,
    /// What all workers count together, if there is such.
    pub(super) common: Option<Arc<Common>>,
    turn: AtomicUsize,
    source: Source,
}

enum Source {
    /// Nothing ever changes.
    Fixed(Arc<Candidates>),
    /// Endpoints come and go, or are put out.
    Changing {
        names: Vec<(DnsName, Arc<dns::Addresses>)>,
        last: Mutex<Option<Arc<Candidates>>>,
    },
    Requested(Requested),
}

/// The endpoints that a request may get, in groups that one choice is made among.
#[derive(Default)]
struct Candidates {
    pools: Vec<Pool>,
    /// The sum of their shares.
    total: u64,
    /// What the names resolved to when this was made.
    seen: Vec<Arc<Vec<IpAddr>>>,
    /// Which change of the endpoints' health was the last.
    changes: u64,
    /// While endpoints warm up: when their weights are others.
    holds_until: Option<Instant>,
}

/// So many times in their warm-up the weights of endpoints grow, if that is not more often than `LEAST_STEP`.
const WARMING_STEPS: u32 = 100;
const LEAST_STEP: Duration = Duration::from_millis(100);

struct Pool {
    share: u64,
    list: Vec<Candidate>,
    weights: Weights,
    /// Whether some of the weights still grow.
    warming: bool,
    /// Where the cluster hashes.
    table: Option<Table>,
}

/// One endpoint as the cluster describes it.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) workload: Arc<WorkloadFacts>,
}

impl View {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        group: Arc<Group>,
        common: Option<Arc<Common>>,
        resolver: &Resolver,
    ) -> Self {
        let changing = |names| Source::Changing { names, last: Mutex::default() };
        let source = match &cluster.endpoints {
            EndpointSource::Static(_) if cluster.outlier.is_some() || cluster.warmup.is_some() => changing(Vec::new()),
            EndpointSource::Static(endpoints) => Source::Fixed(Arc::new(Candidates::new(
                &group,
                &cluster,
                endpoints.iter().cloned().zip(0..),
                &HashSet::new(),
            ))),
            EndpointSource::Original => Source::Fixed(Arc::default()),
            EndpointSource::Requested => {
                let default_port = if cluster.tls.is_some() { 443 } else { 80 };
                Source::Requested(Requested::new(resolver.clone(), default_port))
            }
            EndpointSource::Dns { names, .. } => {
                changing(names.iter().map(|name| (name.clone(), resolver.addresses(&name.name))).collect())
            }
        };
        View { cluster, group, common, turn: AtomicUsize::new(0), source }
    }

    /// The endpoint that the authority of a request names.
    pub(super) async fn requested(&self, authority: &str, tried: &[SocketAddr]) -> Option<Candidate> {
        let Source::Requested(requested) = &self.source else { return None };
        let limit = self.cluster.connect_timeout;
        let address = requested.address(authority, tried, limit, Instant::now()).await?;
        Some(Candidate { endpoint: self.group.endpoint((address, Encryption::OfCluster)), workload: Arc::default() })
    }

    /// Forgets the endpoints that no request names any more.
    pub(super) fn sweep(&self, now: Instant) {
        if let Source::Requested(requested) = &self.source {
            let wanted = requested.sweep(now).into_iter().map(|address| (address, Encryption::OfCluster));
            self.group.retain(&wanted.collect());
        }
    }

    /// Chooses an endpoint by the cluster's rule.
    pub(super) fn choose(&self, wish: Wish<'_>, mut random: impl FnMut() -> u32) -> Option<Candidate> {
        let Wish { tried, picks, key, .. } = wish;
        let candidates = self.candidates();
        let pool = candidates.pool(key, &mut random)?;
        let list = &pool.list;
        let last = tried.last().and_then(|last| list.iter().position(|one| one.endpoint.address == *last));
        let mut chosen = None;
        if let Some(table) = pool.table.as_ref().filter(|_| list.len() > 1) {
            let key = key.unwrap_or_else(|| u64::from(random()) << 32 | u64::from(random()));
            for attempt in 0..picks.max(1) {
                chosen = table.find(key, attempt).and_then(|index| list.get(index));
                if chosen.is_none_or(|one| !tried.contains(&one.endpoint.address)) {
                    break;
                }
            }
            return chosen.cloned();
        }
        for _ in 0..picks.max(1) {
            chosen = self.balance(pool, last, &mut random).and_then(|index| list.get(index));
            if chosen.is_none_or(|one| !tried.contains(&one.endpoint.address)) {
                break;
            }
        }
        chosen.cloned()
    }

    /// One choice, without the endpoint `skip`.
    fn balance(&self, pool: &Pool, skip: Option<usize>, random: &mut impl FnMut() -> u32) -> Option<usize> {
        let list = &pool.list;
        match self.cluster.balancing {
            _ if list.len() == 1 => Some(0),
            Balancing::Random | Balancing::Ring { .. } | Balancing::Maglev { .. } => {
                pool.weights.uniform(skip, random())
            }
            Balancing::RoundRobin => pool.weights.round_robin(skip, self.turn.fetch_add(1, Ordering::Relaxed)),
            Balancing::LeastRequest => {
                let active = |index: usize| list.get(index).map_or(0, |candidate| candidate.endpoint.active());
                pool.weights.least_request(skip, active, (random(), random()))
            }
        }
    }

    /// The endpoints of now. Those that left DNS are forgotten when the change is first seen.
    fn candidates(&self) -> Arc<Candidates> {
        let (names, last) = match &self.source {
            Source::Fixed(candidates) => return Arc::clone(candidates),
            Source::Requested(_) => return Arc::default(),
            Source::Changing { names, last } => (names, last),
        };
        let watched = self.common.as_ref().zip(self.cluster.outlier.as_ref());
        let changes = watched.map_or(0, |(common, policy)| common.changes(policy));
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |last: &&Arc<Candidates>| {
            last.changes == changes
                && last.holds_until.is_none_or(|end| Instant::now() < end)
                && names.iter().zip(&last.seen).all(|((_, addresses), seen)| addresses.is_still(seen))
        };
        if let Some(last) = last.as_ref().filter(holds) {
            return Arc::clone(last);
        }
        let seen: Vec<_> = names.iter().map(|(_, addresses)| addresses.load()).collect();
        let endpoints = match &self.cluster.endpoints {
            EndpointSource::Static(endpoints) => endpoints.iter().cloned().zip(0..).collect(),
            EndpointSource::Dns { logical, .. } => resolved(names.iter().map(|(name, _)| name).zip(&seen), *logical),
            EndpointSource::Original | EndpointSource::Requested => Vec::new(),
        };
        let all = endpoints.iter().map(|(endpoint, _)| endpoint.address).collect();
        let out = watched.map(|(common, _)| common.out(&all)).unwrap_or_default();
        self.group.retain(&endpoints.iter().map(|(endpoint, _)| (endpoint.address, endpoint.encryption)).collect());
        let candidates = Candidates::new(&self.group, &self.cluster, endpoints.into_iter(), &out);
        let candidates = Arc::new(Candidates { seen, changes, ..candidates });
        *last = Some(Arc::clone(&candidates));
        candidates
    }
}

impl Candidates {
    /// `endpoints` with the numbers that they, or their names, have in the cluster; those that are `out` are ill.
    fn new(
        group: &Group,
        cluster: &Cluster,
        endpoints: impl Iterator<Item = (cluster::Endpoint, usize)>,
        out: &HashSet<SocketAddr>,
    ) -> Self {
        let endpoints: Vec<_> = endpoints.collect();
        let places = cluster.places.as_deref();
        let member = |(endpoint, number): &(cluster::Endpoint, usize)| {
            let spot = places.and_then(|places| places.spots.get(*number)).copied().unwrap_or_default();
            Member { level: spot.level, place: spot.place, healthy: !out.contains(&endpoint.address) }
        };
        let members: Vec<Member> = endpoints.iter().map(member).collect();
        let shares = places.map(|places| places.shares.as_slice()).unwrap_or_default();
        let panic = cluster.outlier.as_ref().map_or(0, |policy| policy.min_health_percent);
        let pools = plan(&members, shares, panic).into_iter().map(|planned| {
            let chosen = planned.members.iter().filter_map(|index| endpoints.get(*index)).map(|(endpoint, _)| endpoint);
            Pool::new(group, cluster, planned.share, chosen.collect())
        });
        let pools: Vec<Pool> = pools.collect();
        let warming = cluster.warmup.as_ref().filter(|_| pools.iter().any(|pool| pool.warming));
        Candidates {
            total: pools.iter().map(|pool| pool.share).sum(),
            pools,
            holds_until: warming.map(|warmup| Instant::now() + (warmup.window / WARMING_STEPS).max(LEAST_STEP)),
            ..Candidates::default()
        }
    }

    /// One of the groups, by their shares.
    fn pool(&self, key: Option<u64>, random: &mut impl FnMut() -> u32) -> Option<&Pool> {
        if let [only] = self.pools.as_slice() {
            return Some(only);
        }
        let mut point = key.unwrap_or_else(|| u64::from(random())).checked_rem(self.total)?;
        self.pools.iter().find(|pool| match point.checked_sub(pool.share) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        })
    }
}

impl Pool {
    fn new(group: &Group, cluster: &Cluster, share: u64, endpoints: Vec<&cluster::Endpoint>) -> Self {
        let candidate = |endpoint: &&cluster::Endpoint| Candidate {
            endpoint: group.endpoint((endpoint.address, endpoint.encryption)),
            workload: Arc::clone(&endpoint.workload),
        };
        let list: Vec<Candidate> = endpoints.iter().map(candidate).collect();
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let shares_of = |warmup: &Warmup| list.iter().map(|one| warmup.share(one.endpoint.born.elapsed())).collect();
        let shares: Vec<f64> = cluster.warmup.as_deref().map(shares_of).unwrap_or_default();
        let warming = shares.iter().any(|share| *share < 1.0);
        let weights = if warming { Weights::scaled(&weights, &shares) } else { Weights::new(weights) };
        let table = cluster.balancing.hashes().then(|| table(cluster.balancing, &endpoints)).flatten();
        Pool { share, list, weights, warming, table }
    }
}

fn table(balancing: Balancing, endpoints: &[&cluster::Endpoint]) -> Option<Table> {
    let named = endpoints.iter().map(|endpoint| (endpoint.address.to_string(), f64::from(endpoint.weight.max(1))));
    Table::new(balancing, &named.collect::<Vec<_>>())
}

impl Candidate {
    /// Where endpoints are told whom a connection is for, it is for one client alone.
    pub(super) fn keep_apart(&mut self, cluster: &Cluster, client: Option<Addresses>) {
        if let (Some(_), Some(client)) = (cluster.proxy_header, client) {
            self.endpoint = self.endpoint.for_client(client, Instant::now());
        }
    }
}

/// The addresses of names as endpoints with the numbers of their names, each address once; only the first address if `logical`.
fn resolved<'a>(
    names: impl Iterator<Item = (&'a DnsName, &'a Arc<Vec<IpAddr>>)>,
    logical: bool,
) -> Vec<(cluster::Endpoint, usize)> {
    let mut met = HashSet::new();
    let mut endpoints = Vec::new();
    for ((name, addresses), number) in names.zip(0..) {
        for address in addresses.iter().map(|ip| SocketAddr::new(*ip, name.port)) {
            if met.insert(address) {
                let DnsName { weight, encryption, .. } = *name;
                let workload = Arc::clone(&name.workload);
                endpoints.push((cluster::Endpoint { address, weight, encryption, workload }, number));
            }
        }
    }
    if logical {
        endpoints.truncate(1);
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_names_are_endpoints_once() {
        let name = |port| DnsName {
            name: "a".into(),
            port,
            weight: 2,
            encryption: Encryption::default(),
            workload: Arc::default(),
        };
        let addresses = Arc::new(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
        let (first, again, other) = (name(80), name(80), name(81));
        let names = || [(&first, &addresses), (&again, &addresses), (&other, &addresses)].into_iter();
        let ports = |logical| resolved(names(), logical).iter().map(|(e, _)| e.address.port()).collect::<Vec<_>>();
        assert_eq!(ports(false), [80, 80, 81, 81]);
        assert_eq!(ports(true), [80]);
    }
}
