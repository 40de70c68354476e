//! What is told of a request at its end? Its numbers and its line in the access log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;

use crate::proxy::connection::TlsFacts;
use crate::snapshot::ProxyPolicy;
use crate::snapshot::cluster::{Cluster, WorkloadFacts};
use crate::telemetry::Telemetry;
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::record::{Record, RecordKind};
use crate::telemetry::requests::{RequestLabels, RequestProtocol, RequestSeries};
use crate::upstream::Peer;

use super::context::{Journal, Request};
use super::remember::remember;
use super::visit::Visit;

/// The handles of this worker's metrics, as long as one configuration is in force.
#[derive(Default)]
pub(crate) struct SeriesCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    generation: u64,
    series: HashMap<Key, Entry>,
}

/// Small numbers and addresses in place of texts.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    cluster: usize,
    workload: usize,
    /// Of who was proved on both sides; 0: nobody.
    peer: u64,
    status: u16,
    grpc_status: Option<u16>,
    is_grpc: bool,
    flags: ResponseFlags,
}

struct Entry {
    series: Arc<RequestSeries>,
    /// Keep the addresses of the key from being used again.
    _cluster: Option<Arc<Cluster>>,
    _workload: Option<Arc<WorkloadFacts>>,
}

impl SeriesCache {
    fn record(&self, generation: u64, journal: &Journal, duration: Duration, telemetry: &Telemetry) {
        let address = |pointer: Option<usize>| pointer.unwrap_or_default();
        let key = Key {
            cluster: address(journal.cluster.as_ref().map(|cluster| Arc::as_ptr(cluster).addr())),
            workload: address(journal.workload.as_ref().map(|workload| Arc::as_ptr(workload).addr())),
            peer: journal.upstream_peer.as_ref().map_or(0, |peer| peer.key()),
            status: journal.status,
            grpc_status: journal.grpc_status,
            is_grpc: journal.is_grpc,
            flags: journal.flags,
        };
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.generation < generation {
            cached.generation = generation;
            cached.series.clear();
        }
        let entry = cached.series.entry(key).or_insert_with(|| Entry {
            series: telemetry.metrics.request_series(&labels(journal)),
            _cluster: journal.cluster.clone(),
            _workload: journal.workload.clone(),
        });
        let received = journal.received + journal.head_received;
        entry.series.record(duration, received, journal.sent + journal.head_sent);
    }
}

fn labels(journal: &Journal) -> RequestLabels<'_> {
    let protocol = if journal.is_grpc { RequestProtocol::Grpc } else { RequestProtocol::Http };
    let mut labels = RequestLabels::unrouted(protocol, journal.status, journal.flags);
    labels.grpc_status = journal.grpc_status.filter(|_| journal.is_grpc);
    destined(labels, journal.cluster.as_deref(), journal.workload.as_deref(), journal.upstream_peer.as_deref())
}

/// Adds what is known of the destination.
pub(in crate::proxy) fn destined<'a>(
    mut labels: RequestLabels<'a>,
    cluster: Option<&'a Cluster>,
    workload: Option<&'a WorkloadFacts>,
    peer: Option<&'a Peer>,
) -> RequestLabels<'a> {
    if let Some(peer) = peer {
        (labels.source_principal, labels.destination_principal) = (peer.own_principal(), peer.principal());
    }
    if let Some(cluster) = cluster {
        labels.destination_service = &cluster.service.host;
        labels.destination_service_name = &cluster.service.name;
        labels.destination_service_namespace = &cluster.service.namespace;
    }
    if let Some(workload) = workload {
        labels.destination_workload = &workload.name;
        labels.destination_workload_namespace = &workload.namespace;
        labels.destination_app = &workload.app;
        labels.destination_version = &workload.version;
        labels.destination_canonical_service = &workload.canonical_service;
        labels.destination_canonical_revision = &workload.canonical_revision;
    }
    labels
}

/// Counts the request and writes its lines. `request` is `None` if its head could not be read.
pub(super) fn finish(
    visit: &Visit,
    proxy: &ProxyPolicy,
    generation: u64,
    request: Option<&Request>,
    journal: &Journal,
) {
    let telemetry = &visit.worker.telemetry;
    let duration = journal.start.elapsed();
    visit.worker.series.record(generation, journal, duration, telemetry);
    if let Some(request) = request.filter(|_| telemetry.recent.is_on()) {
        remember(visit, generation, request, journal, duration);
    }
    if proxy.access_logs.is_on() {
        proxy.access_logs.write(&record(visit, proxy, request, journal, duration), &telemetry.access_log);
    }
}

fn record<'a>(
    visit: &'a Visit,
    proxy: &ProxyPolicy,
    request: Option<&'a Request>,
    journal: &'a Journal,
    duration: Duration,
) -> Record<'a> {
    let connection = &visit.connection;
    let tls = connection.tls.as_ref();
    let since = |moment: Instant| moment.saturating_duration_since(journal.start);
    let kept = journal.kept.as_deref();
    let mut record = Record {
        protocol: "HTTP/1.1",
        response_code: journal.status,
        flags: journal.flags,
        response_code_details: &journal.details,
        upstream_transport_failure_reason: journal.transport_failure.as_deref().unwrap_or_default(),
        response_headers: kept.and_then(|kept| kept.response.as_ref()),
        trailers: kept.and_then(|kept| kept.trailers.as_ref()),
        bytes_received: journal.received,
        bytes_sent: journal.sent,
        head_received: journal.head_received,
        head_sent: journal.head_sent,
        duration,
        request_time: journal.request_end.map(since),
        response_time: journal.response_begin.map(since),
        upstream_service_time: journal.service_time.filter(|_| proxy.own_headers.debug),
        is_grpc: journal.is_grpc,
        grpc_status: journal.grpc_status,
        attempts: journal.attempts,
        upstream_host: journal.upstream_host,
        upstream_cluster: journal.cluster.as_ref().map_or("", |cluster| &cluster.name),
        upstream_local_address: journal.upstream_local,
        upstream_tls: journal.upstream_peer.as_deref().map(Peer::record),
        upstream_protocol: journal.upstream_protocol,
        downstream_local_address: Some(connection.local),
        downstream_remote_address: Some(journal.client),
        downstream_direct_remote_address: Some(connection.socket_peer),
        tls: tls.map(TlsFacts::record),
        requested_server_name: tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or_default(),
        route_name: journal.rule.as_ref().map_or("", |rule| &rule.name),
        ..Record::empty(RecordKind::Http, journal.time)
    };
    let Some(request) = request else { return record };
    record.method = request.method.as_str().as_bytes();
    record.protocol = request.protocol();
    record.scheme = &request.scheme;
    if !request.has_body {
        record.request_time = Some(Duration::ZERO);
    }
    let rewritten = kept.and_then(|kept| kept.path.as_ref());
    record.path = rewritten.map_or(request.path(), PathAndQuery::as_str).as_bytes();
    if rewritten.is_some() && proxy.own_headers.debug {
        record.original_path = request.path().as_bytes();
    }
    record.authority = kept.and_then(|kept| kept.authority.as_ref()).unwrap_or(&request.authority).as_bytes();
    record.request_headers = kept.and_then(|kept| kept.request.as_ref()).or(Some(&request.headers));
    record
}
