//! Which numbers belong to one kind of request? Istio's label tuple is looked up once, then counted through a handle.
//!
//! Every thread that looks a tuple up gets a cell of its own; a scrape adds the cells. A worker keeps its handles as
//! long as the configuration they were made for; a tuple that no worker holds and that did not count for an hour is
//! forgotten at the next scrape. Beyond `MOST_SERIES` tuples everything is counted under one, called `overflow`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cell;
use super::flags::ResponseFlags;

/// The labels of Istio's request metrics, in the order in which they are shown.
pub(crate) const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// The labels of Istio's metrics of connections, in the order in which they are shown.
pub(crate) fn tcp_labels() -> Vec<&'static str> {
    LABELS.into_iter().filter(|name| is_tcp_label(name)).collect()
}

fn is_tcp_label(name: &str) -> bool {
    name != "response_code" && name != "grpc_response_status"
}

/// Upper bounds of Envoy's buckets in thousandths: microseconds, and thousandths of a byte.
const BOUNDS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// The bounds as they are shown: milliseconds and bytes alike.
pub(crate) fn bounds() -> impl Iterator<Item = f64> {
    BOUNDS.iter().map(|thousandths| *thousandths as f64 / 1000.0)
}

const MOST_SERIES: usize = 10_000;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
const SEPARATOR: char = '\n';

/// Who we are in Istio's metrics (`source_*`). Empty texts become `unknown`, an empty revision `latest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceLabels {
    pub workload: String,
    pub namespace: String,
    pub cluster: String,
    pub canonical_service: String,
    pub canonical_revision: String,
    pub app: String,
    pub version: String,
}

/// What is spoken: Istio's `request_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestProtocol {
    Http,
    Grpc,
    Tcp,
}

/// What is known of a finished request. Empty texts become `unknown`, an empty revision `latest`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLabels<'a> {
    pub source_principal: &'a str,
    pub destination_principal: &'a str,
    pub destination_workload: &'a str,
    pub destination_workload_namespace: &'a str,
    pub destination_app: &'a str,
    pub destination_version: &'a str,
    pub destination_canonical_service: &'a str,
    pub destination_canonical_revision: &'a str,
    /// The service's host, from the route; never the client's Host.
    pub destination_service: &'a str,
    pub destination_service_name: &'a str,
    pub destination_service_namespace: &'a str,
    pub protocol: RequestProtocol,
    /// 0 if none was sent.
    pub response_code: u16,
    /// The number that the gRPC answer carried.
    pub grpc_status: Option<u16>,
    pub flags: ResponseFlags,
}

impl RequestLabels<'_> {
    /// A request that met no route.
    pub(crate) fn unrouted(protocol: RequestProtocol, response_code: u16, flags: ResponseFlags) -> Self {
        RequestLabels {
            source_principal: "",
            destination_principal: "",
            destination_workload: "",
            destination_workload_namespace: "",
            destination_app: "",
            destination_version: "",
            destination_canonical_service: "",
            destination_canonical_revision: "",
            destination_service: "",
            destination_service_name: "",
            destination_service_namespace: "",
            protocol,
            response_code,
            grpc_status: None,
            flags,
        }
    }
}

/// The cell of one thread for one label tuple.
#[derive(Debug, Default)]
pub(crate) struct RequestSeries {
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    /// Counts one finished request; bytes with their heads, as they were on the client's wire.
    pub(crate) fn record(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.duration.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.observe(request_bytes.saturating_mul(1000));
        self.response_bytes.observe(response_bytes.saturating_mul(1000));
    }
}

/// Counts by bucket (the last one without bound) and the sum, in thousandths.
#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; 20],
    sum: AtomicU64,
}

impl Histogram {
    fn observe(&self, thousandths: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < thousandths);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }
}

/// The sum of several cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HistogramTotal {
    /// By bucket, not cumulated; the last one has no bound.
    pub counts: [u64; 20],
    pub sum: f64,
}

impl HistogramTotal {
    fn add(&mut self, cell: &Histogram) {
        for (total, count) in self.counts.iter_mut().zip(&cell.counts) {
            *total += count.load(Ordering::Relaxed);
        }
        self.sum += cell.sum.load(Ordering::Relaxed) as f64 / 1000.0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a scrape shows of one label tuple.
#[derive(Clone, Debug)]
pub(crate) struct SeriesTotal {
    /// In the order of `LABELS`.
    pub labels: Vec<String>,
    pub duration: HistogramTotal,
    pub request_bytes: HistogramTotal,
    pub response_bytes: HistogramTotal,
}

/// All label tuples that were met.
#[derive(Debug)]
pub(crate) struct SeriesTable {
    source: Mutex<SourceLabels>,
    series: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    cells: Vec<(usize, Arc<RequestSeries>)>,
    counted: u64,
    /// The scrape that last saw it count.
    changed: Instant,
}

impl SeriesTable {
    pub(crate) fn new(source: SourceLabels) -> Self {
        SeriesTable { source: Mutex::new(source), series: Mutex::default() }
    }

    /// Holds for tuples that are looked up from now on.
    pub(crate) fn identify(&self, source: SourceLabels) {
        *lock(&self.source) = source;
    }

    /// The values of a connection that is not HTTP, in the order of `tcp_labels`.
    pub(crate) fn tcp_values(&self, labels: &RequestLabels<'_>) -> Vec<String> {
        let all = values(&lock(&self.source), labels);
        LABELS.into_iter().zip(all).filter(|(name, _)| is_tcp_label(name)).map(|(_, value)| value).collect()
    }

    /// This thread's cell, and whether it is the one of the overflow.
    pub(crate) fn find(&self, labels: &RequestLabels<'_>) -> (Arc<RequestSeries>, bool) {
        let tuple = |labels| joined(&lock(&self.source), labels);
        let mut key = tuple(labels);
        let mut series = lock(&self.series);
        let full = series.len() >= MOST_SERIES && !series.contains_key(&key);
        if full {
            let nothing = RequestLabels::unrouted(labels.protocol, 0, ResponseFlags::default());
            key = tuple(&RequestLabels { destination_workload: "overflow", ..nothing });
        }
        let entry =
            series.entry(key).or_insert_with(|| Entry { cells: Vec::new(), counted: 0, changed: Instant::now() });
        let mine = cell::of_this_thread();
        if let Some((_, cell)) = entry.cells.iter().find(|(owner, _)| *owner == mine) {
            return (Arc::clone(cell), full);
        }
        let cell = Arc::<RequestSeries>::default();
        entry.cells.push((mine, Arc::clone(&cell)));
        (cell, full)
    }

    /// Everything counted so far, sorted by labels; forgets what has been idle at `now`.
    pub(crate) fn scrape(&self, now: Instant) -> Vec<SeriesTotal> {
        let mut totals = Vec::new();
        lock(&self.series).retain(|key, entry| {
            let total = entry.total(key);
            let counted = total.duration.count();
            if counted != entry.counted {
                (entry.counted, entry.changed) = (counted, now);
            }
            let held = entry.cells.iter().any(|(_, cell)| Arc::strong_count(cell) > 1);
            let stays = held || now.duration_since(entry.changed) < FORGOTTEN_AFTER;
            if stays && counted > 0 {
                totals.push(total);
            }
            stays
        });
        totals.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        totals
    }
}

impl Entry {
    fn total(&self, key: &str) -> SeriesTotal {
        let mut total = SeriesTotal {
            labels: key.split(SEPARATOR).map(str::to_owned).collect(),
            duration: HistogramTotal::default(),
            request_bytes: HistogramTotal::default(),
            response_bytes: HistogramTotal::default(),
        };
        for (_, cell) in &self.cells {
            total.duration.add(&cell.duration);
            total.request_bytes.add(&cell.request_bytes);
            total.response_bytes.add(&cell.response_bytes);
        }
        total
    }
}

/// The 25 values in one text, which is the key of the tuple.
fn joined(source: &SourceLabels, labels: &RequestLabels<'_>) -> String {
    values(source, labels).join("\n")
}

/// In the order of `LABELS`.
fn values(source: &SourceLabels, labels: &RequestLabels<'_>) -> [String; 25] {
    let known = |text: &str| if text.is_empty() { "unknown" } else { text }.replace(SEPARATOR, " ");
    let revision = |text: &str| if text.is_empty() { "latest" } else { text }.replace(SEPARATOR, " ");
    let destination_cluster = if labels.destination_workload.is_empty() { "" } else { source.cluster.as_str() };
    let protocol = match labels.protocol {
        RequestProtocol::Http => "http",
        RequestProtocol::Grpc => "grpc",
        RequestProtocol::Tcp => "tcp",
    };
    [
        "source".into(),
        known(&source.workload),
        known(&source.canonical_service),
        revision(&source.canonical_revision),
        known(&source.namespace),
        known(labels.source_principal),
        known(&source.app),
        known(&source.version),
        known(&source.cluster),
        known(labels.destination_workload),
        known(labels.destination_workload_namespace),
        known(labels.destination_principal),
        known(labels.destination_app),
        known(labels.destination_version),
        known(labels.destination_service),
        known(labels.destination_canonical_service),
        revision(labels.destination_canonical_revision),
        known(labels.destination_service_name),
        known(labels.destination_service_namespace),
        known(destination_cluster),
        protocol.into(),
        labels.response_code.to_string(),
        labels.grpc_status.map(|status| status.to_string()).unwrap_or_default(),
        labels.flags.to_string(),
        "unknown".into(),
    ]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found() -> RequestLabels<'static> {
        RequestLabels::unrouted(RequestProtocol::Http, 404, super::super::flags::Flag::NoRouteFound.into())
    }

    #[test]
    fn values_fall_into_envoys_buckets() {
        let bucket = |value: u64| BOUNDS.partition_point(|bound| *bound < value);
        let cases = [(0, 0), (500, 0), (501, 1), (1_000, 1), (7_000, 3), (3_600_000_000, 18), (u64::MAX, 19)];
        for (value, expected) in cases {
            assert_eq!(bucket(value), expected, "{value}");
        }
    }

    #[test]
    fn cells_of_several_threads_are_added() {
        let table = Arc::new(SeriesTable::new(SourceLabels::default()));
        for _ in 0..2 {
            let table = Arc::clone(&table);
            std::thread::spawn(move || table.find(&not_found()).0.record(Duration::from_millis(2), 10, 20))
                .join()
                .unwrap();
        }
        let totals = table.scrape(Instant::now());
        assert_eq!(totals.len(), 1);
        assert_eq!(totals[0].duration.count(), 2);
        assert_eq!(totals[0].duration.sum, 4.0);
        assert_eq!(totals[0].response_bytes.sum, 40.0);
    }

    #[test]
    fn a_tuple_that_nobody_holds_is_forgotten_after_an_hour() {
        let table = SeriesTable::new(SourceLabels::default());
        let (held, _) = table.find(&not_found());
        held.record(Duration::ZERO, 0, 0);
        let later = Instant::now() + FORGOTTEN_AFTER;
        assert_eq!(table.scrape(later).len(), 1);
        let much_later = later + FORGOTTEN_AFTER;
        assert_eq!(table.scrape(much_later).len(), 1);
        drop(held);
        assert_eq!(table.scrape(much_later).len(), 0);
    }
}
