//! What becomes of a connection that is not HTTP? A cluster by weight, an endpoint, and bytes in both directions.

pub(super) mod journal;
mod relay;

use std::net::IpAddr;
use std::sync::Arc;

use crate::net::link::Link;
use crate::snapshot::hash_policy;
use crate::snapshot::route::ClusterReference;
use crate::snapshot::tcp::TcpProxy;
use crate::telemetry::flags::Flag;
use crate::upstream::{TcpConnection, TcpFailure, Wish};

use self::journal::{Arrival, Journal};
use self::relay::{End, Relay};
use super::connection::Connection;
use super::worker::Worker;

/// A client's connection whose chain is known.
pub(super) struct Visitor {
    /// Behind the TLS that was ended here; else from the first byte on.
    pub link: Link,
    pub connection: Connection,
    /// As the client sent it, also where TLS is not ended here.
    pub server_name: Option<Box<str>>,
    pub proxy: Arc<TcpProxy>,
}

/// Serves one connection until it ends. Its line in the access log is written even if the task is dropped.
pub(super) async fn serve(visitor: Visitor, arrival: Arrival, worker: &Worker) {
    let Visitor { link, connection, server_name, proxy } = visitor;
    let mut journal = Journal::new(worker, &connection, server_name.as_deref(), arrival);
    let Some(endpoint) = reach(&proxy, connection.peer.ip(), &mut journal, worker).await else { return };
    let (idle, most) = (proxy.idle_timeout, proxy.max_duration);
    // A long connection must not keep a replaced configuration alive.
    drop(proxy);
    let mut relay = Relay::new(link, endpoint.link, idle, most.map(|most| arrival.instant + most));
    if relay.run(&mut journal).await == End::TooLong {
        journal.flags.set(Flag::DurationTimeout);
    }
}

/// A connection to an endpoint; if there is none, the journal says why.
async fn reach(proxy: &TcpProxy, client: IpAddr, journal: &mut Journal<'_>, worker: &Worker) -> Option<TcpConnection> {
    let cluster = match proxy.choose(fastrand::u32(..)) {
        Some(ClusterReference::Known(cluster)) => cluster,
        Some(ClusterReference::Missing(_)) | None => {
            journal.flags.set(Flag::NoClusterFound);
            return None;
        }
    };
    journal.cluster = Some(Arc::clone(cluster));
    let key = proxy.by_source.then(|| hash_policy::of_address(client));
    let client = Some(journal.connection.addresses());
    let Ok(pick) = worker.upstreams.pick(cluster, Wish { key, client, ..Wish::default() }) else {
        journal.flags.set(Flag::NoHealthyUpstream);
        return None;
    };
    journal.upstream_host = Some(pick.address());
    journal.workload = Some(Arc::clone(pick.workload()));
    match pick.connect_tcp().await {
        Ok(connection) => {
            journal.opened(&connection);
            Some(connection)
        }
        Err(TcpFailure::Overflow) => {
            journal.upstream_host = None;
            journal.flags.set(Flag::UpstreamOverflow);
            None
        }
        Err(TcpFailure::Connect(failure)) => {
            journal.transport_failure = failure.transport_failure().map(Arc::from);
            journal.flags.set(Flag::UpstreamConnectionFailure);
            // Istio tries once.
            journal.flags.set(Flag::UpstreamRetryLimitExceeded);
            None
        }
    }
}
