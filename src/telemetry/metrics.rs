//! Which numbers are published, under which names?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::requests::{
    HistogramTotal, LABELS, RequestLabels, RequestSeries, SeriesTable, SeriesTotal, SourceLabels, bounds, tcp_labels,
};
use crate::base::clock;

/// Every name, with what it counts and its labels.
mod names {
    pub(super) type Name = (&'static str, &'static str, &'static [&'static str]);

    pub(super) const REQUESTS: (&str, &str) = ("istio_requests_total", "Requests that have ended.");
    pub(super) const DURATION: (&str, &str) =
        ("istio_request_duration_milliseconds", "From the first byte of a request to the last of its answer.");
    pub(super) const REQUEST_BYTES: (&str, &str) = ("istio_request_bytes", "Bytes of requests, heads included.");
    pub(super) const RESPONSE_BYTES: (&str, &str) = ("istio_response_bytes", "Bytes of answers, heads included.");

    pub(super) const TCP_OPENED: (&str, &str) =
        ("istio_tcp_connections_opened_total", "Connections that are not HTTP and were opened.");
    pub(super) const TCP_CLOSED: (&str, &str) =
        ("istio_tcp_connections_closed_total", "Connections that are not HTTP and have ended.");
    pub(super) const TCP_SENT: (&str, &str) =
        ("istio_tcp_sent_bytes_total", "Bytes to clients that do not speak HTTP.");
    pub(super) const TCP_RECEIVED: (&str, &str) =
        ("istio_tcp_received_bytes_total", "Bytes from clients that do not speak HTTP.");

    pub(super) const BUILD: Name = ("istio_build", "Always 1; the labels say what runs.", &["component", "tag"]);
    pub(super) const GENERATION: Name = ("limani_config_generation", "The configuration in force.", &[]);
    pub(super) const RELOADS: Name = ("limani_config_reloads_total", "Reloads by result.", &["result"]);
    pub(super) const LAST_SUCCESS: Name =
        ("limani_config_last_success_timestamp_seconds", "When a configuration was last put in force.", &[]);
    pub(super) const FINDINGS: Name =
        ("limani_config_findings", "Findings of the last reload by severity.", &["severity"]);
    pub(super) const REJECTED: Name =
        ("limani_config_rejected_objects", "Objects that the last reload left out, by kind.", &["kind"]);
    pub(super) const CERTIFICATE_PROBLEMS: Name = (
        "limani_certificate_problems",
        "Certificates and keys that something is wrong with, by what it is.",
        &["kind"],
    );
    pub(super) const DOWNSTREAM_ACTIVE: Name =
        ("limani_downstream_connections_active", "Open client connections.", &["listener"]);
    pub(super) const DOWNSTREAM_TOTAL: Name =
        ("limani_downstream_connections_total", "Accepted client connections.", &["listener"]);
    pub(super) const ACCEPT_ERRORS: Name =
        ("limani_downstream_accept_errors_total", "Failures to accept, such as no file descriptors.", &["listener"]);
    pub(super) const HANDSHAKES: Name =
        ("limani_tls_handshakes_total", "TLS handshakes with clients.", &["version", "result"]);
    pub(super) const CHALLENGES: Name =
        ("limani_acme_challenges_answered_total", "CAs that were shown that a name is ours.", &["kind"]);
    pub(super) const PROTOCOL_ERRORS: Name =
        ("limani_downstream_protocol_errors_total", "Requests refused for their form.", &["detail"]);
    pub(super) const UPSTREAM_ACTIVE: Name =
        ("limani_upstream_connections_active", "Open connections to endpoints, idle ones included.", &["cluster"]);
    pub(super) const UPSTREAM_IDLE: Name =
        ("limani_upstream_connections_idle", "Connections that wait in the pool.", &["cluster"]);
    pub(super) const UPSTREAM_TOTAL: Name =
        ("limani_upstream_connections_total", "Connections opened to endpoints.", &["cluster"]);
    pub(super) const CONNECT_FAILURES: Name =
        ("limani_upstream_connect_failures_total", "Connections that could not be opened.", &["cluster"]);
    pub(super) const LOG_DROPPED: Name =
        ("limani_access_log_dropped_total", "Access log lines that could not be written.", &[]);
    pub(super) const IDENTITY_EXPIRY: Name = (
        "limani_identity_expiry_seconds",
        "How long our certificate in the mesh is still valid; below 0: it has ended.",
        &[],
    );
    pub(super) const IDENTITY_FAILURES: Name =
        ("limani_identity_failures_total", "Failures of the source of our identity in the mesh.", &["source"]);
    pub(super) const CERTIFICATE_ENDS: Name = (
        "limani_certificate_not_after_seconds",
        "When certificates in force end, in seconds since 1970; at most 1000, those that end first.",
        &["certificate"],
    );
    pub(super) const CERTIFICATE_RENEWALS: Name = (
        "limani_certificate_next_renewal_seconds",
        "When certificates are to be renewed, in seconds since 1970; at most 1000, those that come first.",
        &["certificate"],
    );
    pub(super) const CERTIFICATES: Name = ("limani_certificates", "Certificates that are kept, by state.", &["state"]);
    pub(super) const ORDERS: Name =
        ("limani_certificate_orders_total", "Orders of certificates by issuer and result.", &["issuer", "result"]);
    pub(super) const SELF_CHECKS: Name = (
        "limani_certificate_self_checks_total",
        "What the gateway was shown by itself after a renewal: the new certificate, an old one, or none nowhere.",
        &["result"],
    );
    pub(super) const ON_DEMAND: Name = (
        "limani_certificate_on_demand_total",
        "Names that a handshake asked a certificate for, by result.",
        &["result"],
    );
    pub(super) const OVERFLOW: Name =
        ("limani_request_series_overflow_total", "Look-ups that met the limit of label tuples.", &[]);
}

/// All numbers of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: SeriesTable,
    tcp_opened: IntCounterVec,
    tcp_closed: IntCounterVec,
    tcp_sent: IntCounterVec,
    tcp_received: IntCounterVec,
    generation: IntGauge,
    reloads: IntCounterVec,
    last_success: Gauge,
    findings: IntGaugeVec,
    rejected: IntGaugeVec,
    certificate_problems: IntGaugeVec,
    downstream_active: IntGaugeVec,
    downstream_total: IntCounterVec,
    accept_errors: IntCounterVec,
    handshakes: IntCounterVec,
    challenges: IntCounterVec,
    protocol_errors: IntCounterVec,
    upstream_active: IntGaugeVec,
    upstream_idle: IntGaugeVec,
    upstream_total: IntCounterVec,
    connect_failures: IntCounterVec,
    log_dropped: IntCounter,
    overflow: IntCounter,
    identity_expiry: IntGaugeVec,
    /// When our certificate in the mesh ends, in seconds since 1970; 0: there is none.
    identity_end: AtomicI64,
    identity_failures: IntCounterVec,
    certificate_ends: IntGaugeVec,
    certificate_renewals: IntGaugeVec,
    certificates: IntGaugeVec,
    orders: IntCounterVec,
    self_checks: IntCounterVec,
    on_demand: IntCounterVec,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    /// In force, as a whole.
    Success,
    /// In force, but for the objects that were refused.
    Partial,
    /// The last good configuration stays.
    Failure,
}

impl Metrics {
    pub(crate) fn new(source: SourceLabels) -> Self {
        let registry = Registry::new();
        let counters = |name| registered(&registry, counters(name));
        let gauges = |name| registered(&registry, gauges(name));
        let counter = |name| registered(&registry, counter(name));
        let of_tcp = |(name, help)| {
            let labels = tcp_labels();
            registered(&registry, valid(IntCounterVec::new(Opts::new(name, help), &labels)))
        };
        gauges(names::BUILD).with_label_values(&["proxy", env!("CARGO_PKG_VERSION")]).set(1);
        Metrics {
            requests: SeriesTable::new(source),
            tcp_opened: of_tcp(names::TCP_OPENED),
            tcp_closed: of_tcp(names::TCP_CLOSED),
            tcp_sent: of_tcp(names::TCP_SENT),
            tcp_received: of_tcp(names::TCP_RECEIVED),
            generation: gauges(names::GENERATION).with_label_values::<&str>(&[]),
            reloads: counters(names::RELOADS),
            last_success: registered(&registry, valid(Gauge::with_opts(options(names::LAST_SUCCESS)))),
            findings: gauges(names::FINDINGS),
            rejected: gauges(names::REJECTED),
            certificate_problems: gauges(names::CERTIFICATE_PROBLEMS),
            downstream_active: gauges(names::DOWNSTREAM_ACTIVE),
            downstream_total: counters(names::DOWNSTREAM_TOTAL),
            accept_errors: counters(names::ACCEPT_ERRORS),
            handshakes: counters(names::HANDSHAKES),
            challenges: counters(names::CHALLENGES),
            protocol_errors: counters(names::PROTOCOL_ERRORS),
            upstream_active: gauges(names::UPSTREAM_ACTIVE),
            upstream_idle: gauges(names::UPSTREAM_IDLE),
            upstream_total: counters(names::UPSTREAM_TOTAL),
            connect_failures: counters(names::CONNECT_FAILURES),
            log_dropped: counter(names::LOG_DROPPED),
            overflow: counter(names::OVERFLOW),
            certificate_ends: gauges(names::CERTIFICATE_ENDS),
            certificate_renewals: gauges(names::CERTIFICATE_RENEWALS),
            certificates: gauges(names::CERTIFICATES),
            orders: counters(names::ORDERS),
            self_checks: counters(names::SELF_CHECKS),
            on_demand: counters(names::ON_DEMAND),
            identity_expiry: gauges(names::IDENTITY_EXPIRY),
            identity_end: AtomicI64::new(0),
            identity_failures: counters(names::IDENTITY_FAILURES),
            registry,
        }
    }

    /// Says who we are from now on (`source_*` of Istio's labels).
    pub(crate) fn identify(&self, source: SourceLabels) {
        self.requests.identify(source);
    }

    /// The handle for one kind of request, for use on this thread. Slow: keep it as long as the configuration.
    pub(crate) fn request_series(&self, labels: &RequestLabels<'_>) -> Arc<RequestSeries> {
        let (series, overflown) = self.requests.find(labels);
        if overflown {
            self.overflow.inc();
        }
        series
    }

    /// The handles for one kind of connection that is not HTTP.
    pub(crate) fn tcp_series(&self, labels: &RequestLabels<'_>) -> TcpSeries {
        let values = self.requests.tcp_values(labels);
        TcpSeries {
            opened: self.tcp_opened.with_label_values(&values),
            closed: self.tcp_closed.with_label_values(&values),
            sent: self.tcp_sent.with_label_values(&values),
            received: self.tcp_received.with_label_values(&values),
        }
    }

    /// A configuration was put in force at `when`.
    pub(crate) fn published(&self, generation: u64, when: SystemTime) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(since.as_millis() as f64 / 1000.0);
    }

    pub(crate) fn reloaded(&self, result: ReloadResult) {
        let result = match result {
            ReloadResult::Success => "success",
            ReloadResult::Partial => "partial",
            ReloadResult::Failure => "failure",
        };
        self.reloads.with_label_values(&[result]).inc();
    }

    /// How many findings of a severity the last reload had.
    pub(crate) fn found(&self, severity: &str, count: usize) {
        self.findings.with_label_values(&[severity]).set(clamped(count));
    }

    /// How many objects of each kind the last reload left out; kinds not named have none.
    pub(crate) fn rejected(&self, by_kind: &BTreeMap<&str, usize>) {
        self.rejected.reset();
        for (kind, count) in by_kind {
            self.rejected.with_label_values(&[kind]).set(clamped(*count));
        }
    }

    /// How many certificates and keys the last reload found something wrong with; kinds not named have none.
    pub(crate) fn certificate_problems(&self, by_kind: &BTreeMap<&str, usize>) {
        self.certificate_problems.reset();
        for (kind, count) in by_kind {
            self.certificate_problems.with_label_values(&[kind]).set(clamped(*count));
        }
    }

    /// The handles of one listener, named by its address.
    pub(crate) fn listener(&self, address: &str) -> ListenerMetrics {
        let labels = &[address];
        ListenerMetrics {
            active: self.downstream_active.with_label_values(labels),
            total: self.downstream_total.with_label_values(labels),
            accept_errors: self.accept_errors.with_label_values(labels),
        }
    }

    /// The handles of one cluster.
    pub(crate) fn cluster(&self, name: &str) -> ClusterMetrics {
        let labels = &[name];
        ClusterMetrics {
            active: self.upstream_active.with_label_values(labels),
            idle: self.upstream_idle.with_label_values(labels),
            total: self.upstream_total.with_label_values(labels),
            failures: self.connect_failures.with_label_values(labels),
        }
    }

    /// Takes a cluster that is gone out of the exposition.
    pub(crate) fn forget_cluster(&self, name: &str) {
        let labels = &[name];
        // An error says that nothing was counted for it.
        let _ = self.upstream_active.remove_label_values(labels);
        let _ = self.upstream_idle.remove_label_values(labels);
        let _ = self.upstream_total.remove_label_values(labels);
        let _ = self.connect_failures.remove_label_values(labels);
    }

    /// `version` such as `TLSv1.3`, empty if none was agreed; `result` is `success` or a short word for the failure.
    pub(crate) fn tls_handshake(&self, version: &str, result: &str) {
        self.handshakes.with_label_values(&[version, result]).inc();
    }

    /// A CA's question was answered; `kind` is `http-01` or `tls-alpn-01`.
    pub(crate) fn challenge_answered(&self, kind: &str) {
        self.challenges.with_label_values(&[kind]).inc();
    }

    /// A request was refused for its form; `detail` as in the access log, such as `http1.codec_error`.
    pub(crate) fn protocol_error(&self, detail: &str) {
        self.protocol_errors.with_label_values(&[detail]).inc();
    }

    /// When our certificate in the mesh ends, in seconds since 1970; `None`: there is none.
    pub(crate) fn identity_ends(&self, when: Option<i64>) {
        self.identity_end.store(when.unwrap_or_default(), Ordering::Relaxed);
    }

    /// A source of our identity could not be asked, or gave nothing that can be used.
    pub(crate) fn identity_failed(&self, source: &str) {
        self.identity_failures.with_label_values(&[source]).inc();
    }

    /// When each certificate in force ends, in seconds since 1970; those not named are gone.
    pub(crate) fn certificate_ends<'a>(&self, ends: impl Iterator<Item = (&'a str, i64)>) {
        show_all(&self.certificate_ends, ends);
    }

    /// When each certificate is to be renewed, in seconds since 1970; those not named are gone.
    pub(crate) fn certificate_renewals<'a>(&self, renewals: impl Iterator<Item = (&'a str, i64)>) {
        show_all(&self.certificate_renewals, renewals);
    }

    /// How many certificates that are kept are in a state.
    pub(crate) fn certificates(&self, state: &str, count: usize) {
        self.certificates.with_label_values(&[state]).set(clamped(count));
    }

    /// An order ended: `issued`, or a word for the failure. `issuer` is empty if none was asked.
    pub(crate) fn certificate_ordered(&self, issuer: &str, result: &str) {
        self.orders.with_label_values(&[issuer, result]).inc();
    }

    /// The gateway looked whether it serves a new certificate.
    pub(crate) fn self_check(&self, result: &str) {
        self.self_checks.with_label_values(&[result]).inc();
    }

    /// A handshake asked for a certificate that was not known.
    pub(crate) fn on_demand(&self, result: &str) {
        self.on_demand.with_label_values(&[result]).inc();
    }

    pub(super) fn access_log_dropped(&self) -> Dropped {
        Dropped(self.log_dropped.clone())
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub(crate) fn render(&self) -> String {
        self.identity_expiry.reset();
        let end = self.identity_end.load(Ordering::Relaxed);
        if end != 0 {
            self.identity_expiry.with_label_values::<&str>(&[]).set(end - clock::now());
        }
        let mut families = request_families(&self.requests.scrape(Instant::now()));
        families.extend(self.registry.gather());
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics cannot be shown");
        }
        text
    }
}

/// The numbers of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerMetrics {
    active: IntGauge,
    total: IntCounter,
    accept_errors: IntCounter,
}

impl ListenerMetrics {
    /// Counts a connection, which is active until the returned value is dropped.
    pub(crate) fn open(&self) -> Active {
        self.total.inc();
        Active::new(&self.active)
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.inc();
    }
}

/// The numbers of one kind of connection that is not HTTP.
#[derive(Clone, Debug)]
pub(crate) struct TcpSeries {
    opened: IntCounter,
    closed: IntCounter,
    sent: IntCounter,
    received: IntCounter,
}

impl TcpSeries {
    pub(crate) fn opened(&self) {
        self.opened.inc();
    }

    pub(crate) fn closed(&self) {
        self.closed.inc();
    }

    /// Bytes from and to the client.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }
}

/// The numbers of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterMetrics {
    active: IntGauge,
    idle: IntGauge,
    total: IntCounter,
    failures: IntCounter,
}

impl ClusterMetrics {
    /// Counts a connection, which is active until the returned value is dropped.
    pub(crate) fn open(&self) -> Active {
        self.total.inc();
        Active::new(&self.active)
    }

    /// Counts a connection unless `most` are active already, those of other threads too.
    pub(crate) fn open_below(&self, most: u32) -> Option<Active> {
        let active = Active::new(&self.active);
        if self.active.get() > i64::from(most) {
            return None;
        }
        self.total.inc();
        Some(active)
    }

    /// Counts a connection as waiting in the pool until the returned value is dropped.
    pub(crate) fn rest(&self) -> Active {
        Active::new(&self.idle)
    }

    pub(crate) fn connect_failed(&self) {
        self.failures.inc();
    }
}

/// One unit of a gauge.
#[derive(Debug)]
pub(crate) struct Active(IntGauge);

impl Active {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Active(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts access log lines that were lost.
#[derive(Clone, Debug)]
pub(super) struct Dropped(IntCounter);

impl Dropped {
    pub(super) fn add(&self, lines: u64) {
        self.0.inc_by(lines);
    }
}

fn options((name, help, _): names::Name) -> Opts {
    Opts::new(name, help)
}

fn counters(name: names::Name) -> IntCounterVec {
    valid(IntCounterVec::new(options(name), name.2))
}

fn gauges(name: names::Name) -> IntGaugeVec {
    valid(IntGaugeVec::new(options(name), name.2))
}

fn counter(name: names::Name) -> IntCounter {
    valid(IntCounter::with_opts(options(name)))
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    valid(registry.register(Box::new(metric.clone())));
    metric
}

/// Names and labels are constants of this file, so a test that builds `Metrics` once shows that all are good.
#[allow(clippy::expect_used, reason = "constants of this file, held by a test")]
fn valid<T>(result: prometheus::Result<T>) -> T {
    result.expect("the list of names is sound")
}

fn show_all<'a>(gauge: &IntGaugeVec, values: impl Iterator<Item = (&'a str, i64)>) {
    gauge.reset();
    for (label, value) in values {
        gauge.with_label_values(&[label]).set(value);
    }
}

fn clamped(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn request_families(totals: &[SeriesTotal]) -> Vec<MetricFamily> {
    if totals.is_empty() {
        return Vec::new();
    }
    let family = |(name, help): (&str, &str), kind: MetricType, value: &dyn Fn(&SeriesTotal, &mut Metric)| {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(totals.iter().map(|total| with_labels(total, value)).collect());
        family
    };
    let histogram = MetricType::HISTOGRAM;
    vec![
        family(names::REQUESTS, MetricType::COUNTER, &|total, metric| {
            let mut counter = proto::Counter::default();
            counter.set_value(total.duration.count() as f64);
            metric.set_counter(counter);
        }),
        family(names::DURATION, histogram, &|total, metric| metric.set_histogram(shown(&total.duration))),
        family(names::REQUEST_BYTES, histogram, &|total, metric| metric.set_histogram(shown(&total.request_bytes))),
        family(names::RESPONSE_BYTES, histogram, &|total, metric| metric.set_histogram(shown(&total.response_bytes))),
    ]
}

fn with_labels(total: &SeriesTotal, value: &dyn Fn(&SeriesTotal, &mut Metric)) -> Metric {
    let labels = LABELS.iter().zip(&total.labels).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value.clone());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    value(total, &mut metric);
    metric
}

fn shown(total: &HistogramTotal) -> proto::Histogram {
    let mut cumulative = 0;
    let buckets = bounds().zip(total.counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(total.count());
    histogram.set_sample_sum(total.sum);
    histogram
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::requests::RequestProtocol;
    use super::*;

    fn gateway() -> Metrics {
        Metrics::new(SourceLabels {
            workload: "istio-ingressgateway".into(),
            namespace: "istio-system".into(),
            cluster: "Kubernetes".into(),
            ..SourceLabels::default()
        })
    }

    #[test]
    fn a_request_is_shown_with_istios_labels_in_their_order() {
        let metrics = gateway();
        let labels = RequestLabels {
            destination_workload: "web-v1",
            destination_workload_namespace: "shop",
            destination_service: "web.shop.svc.cluster.local",
            destination_service_name: "web",
            destination_service_namespace: "shop",
            ..RequestLabels::unrouted(RequestProtocol::Http, 200, Default::default())
        };
        metrics.request_series(&labels).record(Duration::from_millis(7), 100, 2000);
        let text = metrics.render();
        let expected = concat!(
            r#"istio_requests_total{reporter="source",source_workload="istio-ingressgateway","#,
            r#"source_canonical_service="unknown",source_canonical_revision="latest","#,
            r#"source_workload_namespace="istio-system",source_principal="unknown",source_app="unknown","#,
            r#"source_version="unknown",source_cluster="Kubernetes",destination_workload="web-v1","#,
            r#"destination_workload_namespace="shop",destination_principal="unknown",destination_app="unknown","#,
            r#"destination_version="unknown",destination_service="web.shop.svc.cluster.local","#,
            r#"destination_canonical_service="unknown",destination_canonical_revision="latest","#,
            r#"destination_service_name="web",destination_service_namespace="shop",destination_cluster="Kubernetes","#,
            r#"request_protocol="http",response_code="200",grpc_response_status="",response_flags="-","#,
            r#"connection_security_policy="unknown"} 1"#
        );
        assert!(text.lines().any(|line| line == expected), "{text}");
        for part in [r#"le="5"} 0"#, r#"le="10"} 1"#, r#"le="0.5"} 0"#, r#"le="+Inf"} 1"#, r#"le="3600000"} 1"#] {
            assert!(text.lines().any(|l| l.starts_with("istio_request_duration_m") && l.ends_with(part)), "{part}");
        }
        assert!(text.contains("# TYPE istio_request_duration_milliseconds histogram"));
        assert!(!text.contains("_created"));
    }

    #[test]
    fn gauges_follow_what_they_count() {
        let metrics = gateway();
        let listener = metrics.listener("0.0.0.0:80");
        let first = listener.open();
        let _second = listener.open();
        drop(first);
        metrics.published(3, UNIX_EPOCH + Duration::from_millis(1500));
        metrics.rejected(&BTreeMap::from([("Gateway", 2)]));
        metrics.rejected(&BTreeMap::from([("Secret", 1)]));
        let text = metrics.render();
        for line in [
            r#"limani_downstream_connections_active{listener="0.0.0.0:80"} 1"#,
            r#"limani_downstream_connections_total{listener="0.0.0.0:80"} 2"#,
            "limani_config_generation 3",
            "limani_config_last_success_timestamp_seconds 1.5",
            r#"limani_config_rejected_objects{kind="Secret"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
        assert!(!text.contains(r#"kind="Gateway""#));
    }
}
