//! Which endpoint takes a request, and over which connection? Live state of one worker: it outlives snapshots, is
//! keyed by cluster and endpoint, and is pruned after each publish.

mod balance;
pub(crate) mod commons;
pub(crate) mod connect;
pub(crate) mod dns;
mod endpoint;
mod multiplex;
mod outlier;
mod peer;
mod plan;
mod pool;
mod requested;
mod table;
mod tunnel;
mod view;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;

use crate::net::link::Link;
use crate::net::proxy_protocol::Addresses;
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::{Cluster, EndpointSource, WorkloadFacts};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Active;

use self::commons::{Common, Commons};
pub(crate) use self::commons::{Overflow, Place};
pub(crate) use self::connect::ConnectError;
use self::connect::{Opened, Stream, Want};
use self::dns::Resolver;
use self::endpoint::{Group, Open};
pub(crate) use self::multiplex::StreamPermit;
use self::multiplex::Target;
pub(crate) use self::outlier::Report;
pub(crate) use self::peer::Peer;
use self::pool::Held;
use self::view::{Candidate, View};

/// The clusters of one worker, as far as requests have asked for them.
pub(crate) struct Upstreams {
    resolver: Resolver,
    commons: Commons,
    telemetry: Arc<Telemetry>,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// By the address of the cluster, which the view keeps alive.
    views: HashMap<usize, Arc<View>>,
    /// By cluster name and identity.
    groups: HashMap<(Arc<str>, u64), Arc<Group>>,
}

/// The cluster has no endpoint now: none is configured, or its name does not resolve (503 UH).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no healthy upstream")]
pub(crate) struct NoEndpoint;

/// What one request asks of the choice of its endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// The last of these is avoided if there is another endpoint; so are those before it, as far as choosing `picks`
    /// times finds another.
    pub tried: &'a [SocketAddr],
    /// 0 counts as 1.
    pub picks: u32,
    /// Decides where the cluster hashes; without it chance does.
    pub key: Option<u64>,
    /// Whom the request is from, as endpoints may be told.
    pub client: Option<Addresses>,
}

/// An endpoint chosen for one request; it counts as load until this is dropped.
pub(crate) struct Pick {
    candidate: Candidate,
    cluster: Arc<Cluster>,
    common: Option<Arc<Common>>,
    /// The request's place among those that are counted.
    place: Mutex<Option<Place>>,
    /// What belongs to the HTTP/1 connection in use.
    held: Mutex<Held>,
}

/// A connection to use for one request.
pub(crate) enum Lease {
    /// A lazy [`crate::net::link::Link`]. Give it back with [`Pick::give_back`] when it may carry another request.
    Http1 { stream: Stream, reused: bool },
    /// Keep the permit as long as the stream.
    Http2 { sender: SendRequest<Bytes>, permit: StreamPermit, reused: bool },
}

/// How a request gets a connection where their number is limited.
enum Slot {
    Idle(Stream, Held),
    New(Open),
}

/// A connection to an endpoint that carries what the client says, as it is.
pub(crate) struct TcpConnection {
    pub link: Link,
    /// Whom TLS proved the endpoint to be.
    pub peer: Option<Arc<Peer>>,
    /// It counts as load of its endpoint, and against the cluster's limit.
    _pick: Pick,
    _open: Active,
}

/// Why there is no connection for bytes as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TcpFailure {
    #[error("the cluster has all the connections that it may have")]
    Overflow,
    #[error("{0}")]
    Connect(#[from] ConnectError),
}

impl Upstreams {
    pub(crate) fn new(resolver: Resolver, commons: Commons, telemetry: Arc<Telemetry>) -> Self {
        Upstreams { resolver, commons, telemetry, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses an endpoint by the cluster's balancing.
    pub(crate) fn pick(&self, cluster: &Arc<Cluster>, wish: Wish<'_>) -> Result<Pick, NoEndpoint> {
        let view = self.live().view(cluster, self);
        let mut candidate = view.choose(wish, || fastrand::u32(..)).ok_or(NoEndpoint)?;
        candidate.keep_apart(cluster, wish.client);
        candidate.endpoint.begin_request();
        Ok(view.picked(candidate))
    }

    /// Before a request is tried again; what is given counts as a retry until it is dropped. `None`: they are not
    /// limited.
    pub(crate) fn begin_retry(&self, cluster: &Arc<Cluster>) -> Result<Option<Place>, Overflow> {
        if !cluster.limits.limit_retries() {
            return Ok(None);
        }
        let view = self.live().view(cluster, self);
        view.common.as_ref().map(|common| common.begin_retry(&cluster.limits)).transpose()
    }

    /// The endpoint that a request's own authority names, where the cluster leaves it to that
    /// ([`EndpointSource::Requested`]). Waits until a new name is resolved. Addresses that were tried come last.
    pub(crate) async fn pick_requested(
        &self,
        cluster: &Arc<Cluster>,
        authority: &str,
        wish: Wish<'_>,
    ) -> Result<Pick, NoEndpoint> {
        let view = self.live().view(cluster, self);
        let mut candidate = view.requested(authority, wish.tried).await.ok_or(NoEndpoint)?;
        candidate.keep_apart(cluster, wish.client);
        candidate.endpoint.begin_request();
        Ok(view.picked(candidate))
    }

    /// After a publish: forgets clusters, identities and endpoints that are gone. Their idle connections close now,
    /// the others when their requests end.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        self.commons.retain(snapshot);
        let mut live = self.live();
        let is_current = |cluster: &Arc<Cluster>| {
            snapshot.clusters.get(&cluster.name).is_some_and(|current| Arc::ptr_eq(current, cluster))
        };
        live.views.retain(|_, view| is_current(&view.cluster));
        live.groups.retain(|(name, identity), group| {
            let Some(cluster) = snapshot.clusters.get(name) else {
                self.telemetry.metrics.forget_cluster(name);
                return false;
            };
            if cluster.identity != *identity {
                return false;
            }
            if let EndpointSource::Static(endpoints) = &cluster.endpoints {
                let keys = endpoints.iter().map(|endpoint| (endpoint.address, endpoint.encryption));
                group.retain(&keys.collect::<HashSet<_>>());
            }
            true
        });
    }

    /// Closes connections that were idle too long or that their endpoints closed. To be called every second or so.
    pub(crate) fn sweep(&self, now: Instant) {
        let (groups, views): (Vec<_>, Vec<_>) = {
            let live = self.live();
            (live.groups.values().cloned().collect(), live.views.values().cloned().collect())
        };
        views.iter().for_each(|view| view.sweep(now));
        groups.iter().for_each(|group| group.sweep(now));
    }
}

impl Live {
    fn view(&mut self, cluster: &Arc<Cluster>, parts: &Upstreams) -> Arc<View> {
        let Live { views, groups } = self;
        let view = views.entry(Arc::as_ptr(cluster).addr()).or_insert_with(|| {
            let group = groups.entry((Arc::clone(&cluster.name), cluster.identity));
            let group = group.or_insert_with(|| Arc::new(Group::new(parts.telemetry.metrics.cluster(&cluster.name))));
            Arc::new(View::new(Arc::clone(cluster), Arc::clone(group), parts.commons.of(cluster), &parts.resolver))
        });
        Arc::clone(view)
    }
}

impl View {
    fn picked(&self, candidate: Candidate) -> Pick {
        let (cluster, common) = (Arc::clone(&self.cluster), self.common.clone());
        Pick { candidate, cluster, common, place: Mutex::default(), held: Mutex::default() }
    }
}

impl Pick {
    pub(crate) fn address(&self) -> SocketAddr {
        self.candidate.endpoint.address
    }

    pub(crate) fn workload(&self) -> &Arc<WorkloadFacts> {
        &self.candidate.workload
    }

    /// Whom TLS proved the endpoint of this lease to be.
    pub(crate) fn peer(&self, lease: &Lease) -> Option<Arc<Peer>> {
        self.cluster.tls.as_ref()?;
        match lease {
            Lease::Http1 { .. } => self.held().peer.clone(),
            Lease::Http2 { permit, .. } => permit.peer(),
        }
    }

    /// Tells what came of the try, where endpoints that fail are left alone.
    pub(crate) fn report(&self, report: Report) {
        if let (Some(policy), Some(common)) = (&self.cluster.outlier, &self.common) {
            common.report(policy, self.candidate.endpoint.address, report);
        }
    }

    /// A pooled connection or a new one. `authority` names the server where the cluster does not.
    pub(crate) async fn connect(&self, authority: &str, want: Want) -> Result<Lease, ConnectError> {
        let server_name = connect::server_name_of(&self.cluster, authority);
        let lease = match want {
            Want::Http1 => self.connect_http1(server_name).await,
            Want::Http2 => self.connect_http2(server_name).await,
        }?;
        let Some(common) = &self.common else { return Ok(lease) };
        match common.begin_request(&self.cluster.limits) {
            Ok(place) => {
                *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
                Ok(lease)
            }
            Err(overflow) => {
                if let Lease::Http1 { stream, .. } = lease {
                    let held = std::mem::take(&mut *self.held());
                    self.rest(stream, held);
                }
                Err(overflow.into())
            }
        }
    }

    /// Counts the request as waiting for a connection.
    fn wait(&self) -> Result<Option<Place>, ConnectError> {
        let place = self.common.as_ref().map(|common| common.begin_waiting(&self.cluster.limits)).transpose();
        place.map_err(|Overflow| ConnectError::Overflow { waiting: true })
    }

    /// A connection of its own, without ALPN; no name is sent or verified unless the cluster says one.
    pub(crate) async fn connect_tcp(self) -> Result<TcpConnection, TcpFailure> {
        let endpoint = &self.candidate.endpoint;
        let open = match self.cluster.limits.max_connections {
            Some(most) => endpoint.metrics.open_below(most).ok_or(TcpFailure::Overflow)?,
            None => endpoint.metrics.open(),
        };
        let link = connect::open_tcp(endpoint.end(), &self.cluster).await;
        let link = link.inspect_err(|_| endpoint.metrics.connect_failed());
        self.report(match &link {
            Ok(_) => Report::Connected,
            Err(ConnectError::Timeout) => Report::TimedOut,
            Err(_) => Report::Failed,
        });
        let Opened { link, peer } = link?;
        Ok(TcpConnection { link, peer, _pick: self, _open: open })
    }

    async fn connect_http1(&self, server_name: Option<&str>) -> Result<Lease, ConnectError> {
        let endpoint = &self.candidate.endpoint;
        let taken = endpoint.idle().take(server_name, Instant::now());
        if let Some((stream, held)) = taken {
            *self.held() = held;
            return Ok(Lease::Http1 { stream, reused: true });
        }
        let _waiting = self.wait()?;
        let open = match self.cluster.limits.max_connections {
            None => None,
            Some(most) => match self.slot(server_name, most).await {
                Slot::Idle(stream, held) => {
                    *self.held() = held;
                    return Ok(Lease::Http1 { stream, reused: true });
                }
                Slot::New(open) => Some(open),
            },
        };
        let link = connect::open(endpoint.end(), &self.cluster, server_name, &endpoint.configs, Want::Http1).await;
        let Opened { mut link, peer } = link.inspect_err(|_| endpoint.metrics.connect_failed())?;
        link.set_lazy();
        let server_name = server_name.map(Into::into);
        let open = open.unwrap_or_else(|| Open::new(endpoint, endpoint.metrics.open()));
        *self.held() = Held { served: 0, server_name, peer, since: Some(Instant::now()), _open: Some(open) };
        Ok(Lease::Http1 { stream: Box::new(link), reused: false })
    }

    /// Waits until one of the cluster's `most` connections may be used. An endpoint without a connection of this worker
    /// always gets one, because nobody would wake those who wait for it.
    async fn slot(&self, server_name: Option<&str>, most: u32) -> Slot {
        let endpoint = &self.candidate.endpoint;
        loop {
            let freed = endpoint.freed();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if let Some((stream, held)) = endpoint.idle().take(server_name, Instant::now()) {
                return Slot::Idle(stream, held);
            }
            // One that verified another name makes room.
            endpoint.idle().evict();
            if let Some(open) = endpoint.metrics.open_below(most) {
                return Slot::New(Open::new(endpoint, open));
            }
            if endpoint.open() == 0 {
                return Slot::New(Open::new(endpoint, endpoint.metrics.open()));
            }
            freed.await;
        }
    }

    async fn connect_http2(&self, server_name: Option<&str>) -> Result<Lease, ConnectError> {
        let endpoint = &self.candidate.endpoint;
        let target = || Target {
            end: endpoint.end(),
            cluster: Arc::clone(&self.cluster),
            configs: Arc::clone(&endpoint.configs),
            metrics: endpoint.metrics.clone(),
        };
        if let Some((sender, permit, reused)) = endpoint.multiplexer.place(server_name) {
            return Ok(Lease::Http2 { sender, permit, reused });
        }
        let _waiting = self.wait()?;
        let (sender, permit, reused) = endpoint.multiplexer.lease(server_name, target).await?;
        Ok(Lease::Http2 { sender, permit, reused })
    }

    /// Keeps the HTTP/1 connection of this pick for other requests. Only after a complete exchange that left it
    /// open and quiet.
    pub(crate) fn give_back(&self, stream: Stream) {
        let mut held = std::mem::take(&mut *self.held());
        held.served += 1;
        let limit = self.cluster.max_requests_per_connection;
        if limit == 0 || held.served < limit {
            self.rest(stream, held);
        }
    }

    fn rest(&self, stream: Stream, held: Held) {
        let idle = self.cluster.idle_timeout.map(|timeout| Instant::now() + timeout);
        let too_old = held.since.zip(self.cluster.limits.max_age).map(|(since, most)| since + most);
        let expires = idle.into_iter().chain(too_old).min();
        let endpoint = &self.candidate.endpoint;
        endpoint.idle().put(stream, held, expires, endpoint.metrics.rest());
        endpoint.free_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.candidate.endpoint.end_request();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::Handle;

    use super::*;
    use crate::snapshot::cluster::{Balancing, DnsName, Encryption, Endpoint, ServiceFacts, UpstreamProtocol};
    use crate::telemetry::requests::SourceLabels;

    fn upstreams() -> Upstreams {
        let telemetry = Arc::new(Telemetry::new(SourceLabels::default()).unwrap());
        Upstreams::new(Resolver::new(Handle::current()), Commons::default(), telemetry)
    }

    fn cluster(endpoints: EndpointSource, max_requests_per_connection: u32) -> Arc<Cluster> {
        Arc::new(Cluster {
            name: "outbound|80||a".into(),
            service: ServiceFacts::default(),
            protocol: UpstreamProtocol::AsClient,
            endpoints,
            balancing: Balancing::RoundRobin,
            warmup: None,
            tls: None,
            proxy_header: None,
            tunnel: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            max_requests_per_connection,
            limits: Default::default(),
            outlier: None,
            places: None,
            identity: 1,
        })
    }

    fn fixed(addresses: &[SocketAddr]) -> EndpointSource {
        let endpoint = |address: &SocketAddr| Endpoint {
            address: *address,
            weight: 1,
            encryption: Encryption::default(),
            workload: Arc::default(),
        };
        EndpointSource::Static(addresses.iter().map(endpoint).collect())
    }

    fn snapshot(clusters: &[&Arc<Cluster>]) -> Snapshot {
        let clusters = clusters.iter().map(|cluster| (Arc::clone(&cluster.name), Arc::clone(cluster))).collect();
        Snapshot { clusters, ..Snapshot::empty() }
    }

    async fn http1(pick: &Pick) -> (Stream, bool) {
        match pick.connect("a", Want::Http1).await {
            Ok(Lease::Http1 { stream, reused }) => (stream, reused),
            Ok(Lease::Http2 { .. }) => panic!("HTTP/1 was wanted"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn http2(pick: &Pick) -> (SendRequest<Bytes>, StreamPermit, bool) {
        match pick.connect("a", Want::Http2).await {
            Ok(Lease::Http2 { sender, permit, reused }) => (sender, permit, reused),
            Ok(Lease::Http1 { .. }) => panic!("HTTP/2 was wanted"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn is_closed(socket: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut [0])).await;
        read.expect("the connection ends").unwrap_or(0) == 0
    }

    #[tokio::test]
    async fn connections_are_used_again_while_they_live() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, cluster) = (upstreams(), cluster(fixed(&[origin.local_addr().unwrap()]), 3));
        let pick = upstreams.pick(&cluster, Wish::default()).unwrap();
        let (stream, reused) = http1(&pick).await;
        let (mut far, _) = origin.accept().await.unwrap();
        assert!(!reused);
        pick.give_back(stream);

        let (mut stream, reused) = http1(&pick).await;
        assert!(reused);
        stream.write_all(b"ping").await.unwrap();
        let link = Link::of(&stream).unwrap();
        std::future::poll_fn(|cx| link.poll_drive(cx)).await.unwrap();
        far.read_exact(&mut [0; 4]).await.unwrap();
        pick.give_back(stream);

        // The origin speaks unasked; the byte behind it on another connection proves that it has arrived.
        far.write_all(b"x").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_near, _far) = tokio::join!(TcpStream::connect(other.local_addr().unwrap()), other.accept());
        let (stream, reused) = http1(&pick).await;
        assert!(!reused, "what spoke unasked is not used");
        assert!(is_closed(&mut far).await);
        let (mut far, _) = origin.accept().await.unwrap();
        let mut stream = Some(stream);
        for _ in 0..3 {
            let used = match stream.take() {
                Some(stream) => stream,
                None => http1(&pick).await.0,
            };
            pick.give_back(used);
        }
        assert!(is_closed(&mut far).await, "three requests are its limit");
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stays = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gone, kept) = (origin.local_addr().unwrap(), stays.local_addr().unwrap());
        let upstreams = upstreams();
        let old = cluster(fixed(&[gone, kept]), 0);
        let first = upstreams.pick(&old, Wish::default()).unwrap();
        let second = upstreams.pick(&old, Wish { tried: &[first.address()], ..Wish::default() }).unwrap();
        assert_eq!((first.address(), second.address()), (gone, kept), "in turns");
        first.give_back(http1(&first).await.0);
        second.give_back(http1(&second).await.0);
        let (mut far, _) = origin.accept().await.unwrap();
        drop((first, second));

        let new = cluster(fixed(&[kept]), 0);
        upstreams.retain(&snapshot(&[&new]));
        assert!(is_closed(&mut far).await);
        let pick = upstreams.pick(&new, Wish { tried: &[kept], ..Wish::default() }).unwrap();
        assert!(http1(&pick).await.1, "the endpoint that stayed keeps its connections over a reload");
        drop(pick);
        upstreams.retain(&snapshot(&[]));
        assert!(upstreams.live().groups.is_empty() && upstreams.live().views.is_empty());
    }

    #[tokio::test]
    async fn streams_share_a_connection_until_it_says_goodbye() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, cluster) = (upstreams(), cluster(fixed(&[origin.local_addr().unwrap()]), 0));
        let picks: Vec<_> = (0..20).map(|_| upstreams.pick(&cluster, Wish::default()).unwrap()).collect();
        let mut leases = Vec::new();
        let (mut far, ()) = tokio::join!(
            async {
                let (socket, _) = origin.accept().await.unwrap();
                h2::server::handshake(socket).await.unwrap()
            },
            async {
                let (a, b) = tokio::join!(http2(&picks[0]), http2(&picks[1]));
                leases.extend([a, b]);
                for pick in &picks[2..] {
                    leases.push(http2(pick).await);
                }
            }
        );
        assert_eq!(leases.iter().filter(|(_, _, reused)| !reused).count(), 1, "one dial for all");

        far.abrupt_shutdown(h2::Reason::NO_ERROR);
        let ended = tokio::spawn(async move { while far.accept().await.is_some() {} });
        let (mut sender, ..) = leases.pop().unwrap();
        std::future::poll_fn(|cx| match sender.poll_ready(cx) {
            std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
            _ => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        })
        .await;
        let (fresh, (socket, _)) = tokio::join!(http2(&picks[0]), async { origin.accept().await.unwrap() });
        assert!(!fresh.2);
        drop((leases, sender, socket));
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn failures_say_what_is_wrong() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let upstreams = upstreams();
        assert_eq!(upstreams.pick(&cluster(fixed(&[]), 0), Wish::default()).err(), Some(NoEndpoint));
        let name = DnsName {
            name: "127.0.0.1".into(),
            port: closed.port(),
            weight: 1,
            encryption: Encryption::default(),
            workload: Arc::default(),
        };
        let cluster = cluster(EndpointSource::Dns { names: vec![name], logical: true }, 0);
        let pick = upstreams.pick(&cluster, Wish::default()).unwrap();
        for want in [Want::Http1, Want::Http2] {
            let error = pick.connect("a", want).await.err().unwrap();
            assert_eq!(error.transport_failure(), Some("delayed connect error: Connection refused"));
        }
    }
}
