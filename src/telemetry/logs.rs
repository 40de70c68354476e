//! Which lines are written of a record, and where? The access logs that the configuration asks for.

use std::path::Path;
use std::sync::Arc;

use super::access_log::AccessLog;
use super::filter::Filter;
use super::flags::Flag;
use super::format::{LogFormat, Needs};
use super::record::{Record, RecordKind};

/// All access logs of one configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessLogs {
    logs: Vec<Log>,
    /// Whether connections that no server takes have a line.
    listeners: bool,
    needs: Needs,
}

/// One log: what is written, where, and of which records.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// A file, or `/dev/stdout`.
    pub path: Arc<Path>,
    pub format: LogFormat,
    /// `None` lets every record pass.
    pub filter: Option<Filter>,
}

impl AccessLogs {
    /// `listeners`: whether connections that no server takes have a line too.
    pub(crate) fn new(logs: Vec<Log>, listeners: bool) -> Self {
        let mut needs = Needs::default();
        for log in &logs {
            log.format.needs(&mut needs);
            if let Some(filter) = &log.filter {
                needs.add_filter(filter);
            }
        }
        AccessLogs { logs, listeners, needs }
    }

    /// Whether lines are wanted: callers may save themselves the record.
    pub(crate) fn is_on(&self) -> bool {
        !self.logs.is_empty()
    }

    /// What of a request has to be kept until its record.
    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The files that are written, each once.
    pub(crate) fn paths(&self) -> Vec<Arc<Path>> {
        let mut paths: Vec<Arc<Path>> = self.logs.iter().map(|log| Arc::clone(&log.path)).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Writes the record's line to every log that takes it.
    pub(crate) fn write(&self, record: &Record<'_>, target: &AccessLog) {
        // As Istio: the listener's own log holds nothing but what no server took.
        if record.kind == RecordKind::Listener && !(self.listeners && record.flags.contains(Flag::NoRouteFound)) {
            return;
        }
        for log in &self.logs {
            if log.filter.as_ref().is_none_or(|filter| filter.admits(record)) {
                target.write(&log.path, |line| log.format.write(record, line));
            }
        }
    }
}
