//! Which HTTP/2 connection takes a stream? One that has room; else one dial for everybody who waits.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use tokio::sync::watch;

use super::connect::{self, ClientConfigs, ConnectError, End, Opened, Want};
use super::peer::Peer;
use crate::base::task;
use crate::snapshot::cluster::{Cluster, Limits, Pings};
use crate::telemetry::metrics::ClusterMetrics;

/// What we let an endpoint send before we have read it, for one stream and for the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What we keep for an endpoint that does not read, for one stream.
const SEND_BUFFER: usize = 64 * 1024;
const MAX_HEADER_LIST: u32 = 60 * 1024;
/// Dials that one request may wait for, when each new connection is full before its turn comes.
const MOST_DIALS: usize = 16;

type Outcome = Option<Result<(), ConnectError>>;

/// The HTTP/2 connections of one endpoint.
#[derive(Default)]
pub(super) struct Multiplexer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: Vec<Arc<Shared>>,
    /// Dials under way, by server name.
    dials: Vec<(Option<Box<str>>, watch::Receiver<Outcome>)>,
}

/// One connection and how it is used.
struct Shared {
    sender: SendRequest<Bytes>,
    server_name: Option<Box<str>>,
    peer: Option<Arc<Peer>>,
    streams: AtomicUsize,
    served: AtomicU32,
    max_served: u32,
    limits: Limits,
    since: Instant,
    idle_timeout: Option<Duration>,
    idle_since: Mutex<Instant>,
}

/// One stream's place on its connection; given back when dropped.
pub(crate) struct StreamPermit(Arc<Shared>);

impl StreamPermit {
    /// Whom TLS proved the endpoint to be.
    pub(super) fn peer(&self) -> Option<Arc<Peer>> {
        self.0.peer.clone()
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

impl Shared {
    fn is_alive(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    fn has_requests_left(&self) -> bool {
        let too_old = self.limits.max_age.is_some_and(|most| self.since.elapsed() >= most);
        !too_old && (self.max_served == 0 || self.served.load(Ordering::Relaxed) < self.max_served)
    }

    fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams();
        let most = self.limits.max_streams.map_or(most, |limit| most.min(limit as usize));
        self.streams.load(Ordering::Relaxed) < most
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let idle_since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        let too_old = self.idle_timeout.is_some_and(|limit| now.duration_since(idle_since) >= limit);
        self.streams.load(Ordering::Relaxed) > 0 || !too_old
    }
}

/// Where and how to dial; owned, because a dial outlives the request that began it.
pub(super) struct Target {
    pub end: End,
    pub cluster: Arc<Cluster>,
    pub configs: Arc<ClientConfigs>,
    pub metrics: ClusterMetrics,
}

impl Multiplexer {
    /// A place on a connection that is there.
    pub(super) fn place(&self, server_name: Option<&str>) -> Option<(SendRequest<Bytes>, StreamPermit, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).place(server_name)
    }

    /// A place on a connection; `true` if the connection carried requests before.
    pub(super) async fn lease(
        self: &Arc<Self>,
        server_name: Option<&str>,
        target: impl Fn() -> Target,
    ) -> Result<(SendRequest<Bytes>, StreamPermit, bool), ConnectError> {
        for _ in 0..MOST_DIALS {
            let mut dial = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(leased) = state.place(server_name) {
                    return Ok(leased);
                }
                state.dial(server_name, || (Arc::clone(self), target()))
            };
            match dial.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Err(error))) => return Err(error.clone()),
                Ok(_) => {}
                Err(_) => return Err(ConnectError::Failed("the dial was given up".into())),
            }
        }
        Err(ConnectError::Failed("every new connection is full at once".into()))
    }

    /// Closes connections that nobody used for long or that are dead.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connections.retain(|shared| shared.is_wanted(now) && shared.is_alive());
    }
}

impl State {
    fn place(&mut self, server_name: Option<&str>) -> Option<(SendRequest<Bytes>, StreamPermit, bool)> {
        self.connections.retain(|shared| shared.has_requests_left() && shared.is_alive());
        let fits = |shared: &&Arc<Shared>| shared.server_name.as_deref() == server_name && shared.has_room();
        let shared = self.connections.iter().find(fits)?;
        shared.streams.fetch_add(1, Ordering::Relaxed);
        let reused = shared.served.fetch_add(1, Ordering::Relaxed) > 0;
        Some((shared.sender.clone(), StreamPermit(Arc::clone(shared)), reused))
    }

    /// The dial under way for the name, or a new one.
    fn dial(
        &mut self,
        server_name: Option<&str>,
        start: impl FnOnce() -> (Arc<Multiplexer>, Target),
    ) -> watch::Receiver<Outcome> {
        self.dials.retain(|(_, outcome)| outcome.has_changed().is_ok() && outcome.borrow().is_none());
        if let Some((_, under_way)) = self.dials.iter().find(|(name, _)| name.as_deref() == server_name) {
            return under_way.clone();
        }
        let (tell, outcome) = watch::channel(None);
        let name: Option<Box<str>> = server_name.map(Into::into);
        self.dials.push((name.clone(), outcome.clone()));
        let (multiplexer, target) = start();
        task::spawn("dial", async move {
            let result = dial(&target, name).await.map(|shared| {
                let mut state = multiplexer.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.connections.push(Arc::new(shared));
            });
            tell.send_replace(Some(result));
        });
        outcome
    }
}

async fn dial(target: &Target, server_name: Option<Box<str>>) -> Result<Shared, ConnectError> {
    let cluster = &target.cluster;
    let shaken = tokio::time::timeout(cluster.connect_timeout, async {
        let Opened { link, peer } =
            connect::open(target.end, cluster, server_name.as_deref(), &target.configs, Want::Http2).await?;
        h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(link)
            .await
            .map(|(sender, connection)| (sender, connection, peer))
            .map_err(|error| ConnectError::Failed(error.to_string().into()))
    });
    let shaken = shaken.await.unwrap_or(Err(ConnectError::Timeout));
    let (sender, mut connection, peer) = shaken.inspect_err(|_| target.metrics.connect_failed())?;
    let open = target.metrics.open();
    let pings = cluster.limits.pings.and_then(|limits| Some((connection.ping_pong()?, limits)));
    task::spawn("http2 to endpoint", async move {
        let ended = match pings {
            Some((pings, limits)) => tokio::select! {
                ended = connection => ended.map_err(|error| error.to_string()),
                unanswered = keep_alive(pings, limits) => Err(unanswered),
            },
            None => connection.await.map_err(|error| error.to_string()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection to an endpoint ended");
        }
        drop(open);
    });
    Ok(Shared {
        sender,
        server_name,
        peer,
        streams: AtomicUsize::new(0),
        served: AtomicU32::new(0),
        max_served: cluster.max_requests_per_connection,
        limits: cluster.limits,
        since: Instant::now(),
        idle_timeout: cluster.idle_timeout,
        idle_since: Mutex::new(Instant::now()),
    })
}

/// Asks for a sign of life again and again; ready when none comes in time.
async fn keep_alive(mut pings: PingPong, limits: Pings) -> String {
    loop {
        tokio::time::sleep(limits.interval).await;
        match tokio::time::timeout(limits.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "a ping was not answered".to_owned(),
        }
    }
}
