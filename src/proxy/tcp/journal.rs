//! What is told of a connection that is not HTTP? Its numbers as it goes on, and one line at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::proxy::connection::{Connection, TlsFacts};
use crate::proxy::http::finish::destined;
use crate::proxy::worker::Worker;
use crate::snapshot::cluster::{Cluster, WorkloadFacts};
use crate::telemetry::flags::{Flag, ResponseFlags};
use crate::telemetry::metrics::TcpSeries;
use crate::telemetry::record::{Record, RecordKind};
use crate::telemetry::requests::{RequestLabels, RequestProtocol};
use crate::upstream::{Peer, TcpConnection};

/// When a connection was accepted.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Arrival {
    pub instant: Instant,
    pub time: SystemTime,
}

impl Arrival {
    pub(in crate::proxy) fn now() -> Self {
        Arrival { instant: Instant::now(), time: SystemTime::now() }
    }
}

/// What happened to a connection so far; dropping it counts the end and writes the line.
pub(super) struct Journal<'a> {
    worker: &'a Worker,
    pub connection: &'a Connection,
    server_name: Option<&'a str>,
    arrival: Arrival,
    pub cluster: Option<Arc<Cluster>>,
    pub workload: Option<Arc<WorkloadFacts>>,
    pub upstream_host: Option<SocketAddr>,
    upstream_local: Option<SocketAddr>,
    upstream_peer: Option<Arc<Peer>>,
    pub flags: ResponseFlags,
    pub transport_failure: Option<Arc<str>>,
    /// Bytes from the client.
    received: u64,
    /// Bytes to the client.
    sent: u64,
    series: Option<TcpSeries>,
    /// How much of `received` and `sent` the metrics know.
    told: (u64, u64),
}

impl<'a> Journal<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        connection: &'a Connection,
        server_name: Option<&'a str>,
        arrival: Arrival,
    ) -> Self {
        Journal {
            worker,
            connection,
            server_name,
            arrival,
            cluster: None,
            workload: None,
            upstream_host: None,
            upstream_local: None,
            upstream_peer: None,
            flags: ResponseFlags::default(),
            transport_failure: None,
            received: 0,
            sent: 0,
            series: None,
            told: (0, 0),
        }
    }

    /// The endpoint is connected.
    pub(super) fn opened(&mut self, connection: &TcpConnection) {
        self.upstream_local = connection.link.local_address();
        self.upstream_peer.clone_from(&connection.peer);
        self.count_open();
    }

    fn count_open(&mut self) {
        let series = self.worker.telemetry.metrics.tcp_series(&self.labels());
        series.opened();
        self.series = Some(series);
    }

    /// Bytes that were moved since the last call.
    pub(super) fn moved(&mut self, received: u64, sent: u64) {
        self.received += received;
        self.sent += sent;
    }

    /// Brings the metrics up to date.
    pub(super) fn tell(&mut self) {
        if let Some(series) = &self.series {
            series.moved(self.received - self.told.0, self.sent - self.told.1);
            self.told = (self.received, self.sent);
        }
    }

    fn labels(&self) -> RequestLabels<'_> {
        let labels = RequestLabels::unrouted(RequestProtocol::Tcp, 0, self.flags);
        destined(labels, self.cluster.as_deref(), self.workload.as_deref(), self.upstream_peer.as_deref())
    }

    fn record(&self) -> Record<'_> {
        Record {
            flags: self.flags,
            upstream_transport_failure_reason: self.transport_failure.as_deref().unwrap_or_default(),
            bytes_received: self.received,
            bytes_sent: self.sent,
            upstream_host: self.upstream_host,
            upstream_cluster: self.cluster.as_ref().map_or("", |cluster| &cluster.name),
            upstream_local_address: self.upstream_local,
            upstream_tls: self.upstream_peer.as_deref().map(Peer::record),
            ..connection_record(RecordKind::Tcp, self.connection, self.server_name, self.arrival)
        }
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        if self.series.is_none() {
            self.count_open();
        }
        self.tell();
        self.worker.telemetry.metrics.tcp_series(&self.labels()).closed();
        let proxy = Arc::clone(&self.worker.store.load().proxy);
        proxy.access_logs.write(&self.record(), &self.worker.telemetry.access_log);
    }
}

/// The listener's own line for a connection that no chain takes.
pub(in crate::proxy) fn log_stray(
    worker: &Worker,
    connection: &Connection,
    server_name: Option<&str>,
    arrival: Arrival,
) {
    let proxy = Arc::clone(&worker.store.load().proxy);
    let record = Record {
        flags: Flag::NoRouteFound.into(),
        response_code_details: "filter_chain_not_found",
        ..connection_record(RecordKind::Listener, connection, server_name, arrival)
    };
    proxy.access_logs.write(&record, &worker.telemetry.access_log);
}

/// A line without a request.
fn connection_record<'a>(
    kind: RecordKind,
    connection: &'a Connection,
    server_name: Option<&'a str>,
    arrival: Arrival,
) -> Record<'a> {
    Record {
        duration: arrival.instant.elapsed(),
        downstream_local_address: Some(connection.local),
        downstream_remote_address: Some(connection.peer),
        downstream_direct_remote_address: Some(connection.socket_peer),
        tls: connection.tls.as_ref().map(TlsFacts::record),
        requested_server_name: server_name.unwrap_or_default(),
        ..Record::empty(kind, arrival.time)
    }
}
