//! Where do access log lines go? A thread of their own writes them; nobody who carries traffic waits for it.
//!
//! Every thread appends to a buffer of its own. The writer empties all buffers together, a few milliseconds after the
//! first line. A buffer that is full because the target does not keep up drops lines, and counts them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cell;
use super::metrics::Dropped;
use super::record::{Format, Record};

/// How long lines are gathered before they are written together.
const GATHERING: Duration = Duration::from_millis(20);
/// Bytes that one buffer may hold.
const MOST_BYTES: usize = 4 << 20;
const BUFFERS: usize = 64;

const OFF: u8 = 0;
const TEXT: u8 = 1;
const JSON: u8 = 2;

/// The front door of the log.
#[derive(Debug)]
pub(crate) struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    buffers: Vec<Mutex<Vec<u8>>>,
    /// Whether the writer knows that there are lines.
    rung: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    written: Condvar,
    dropped: Dropped,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    next: Option<Sink>,
    flushes_wanted: u64,
    flushes_done: u64,
    closing: bool,
}

#[derive(Debug)]
enum Sink {
    Nowhere,
    Stdout(io::Stdout),
    File(File),
}

impl AccessLog {
    /// Starts the writer; the log is off.
    pub(super) fn start(dropped: Dropped) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(OFF),
            buffers: std::iter::repeat_with(Mutex::default).take(BUFFERS).collect(),
            rung: AtomicBool::new(false),
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
            dropped,
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
        Ok(AccessLog(shared))
    }

    /// Writes to `path` from now on (`/dev/stdout` is the process's own output; `None` turns the log off). The file
    /// is opened again even if the path is the old one, so that a rotated log is let go. On an error all stays.
    pub(crate) fn reconfigure(&self, path: Option<&Path>, format: Format) -> io::Result<()> {
        let sink = match path {
            None => Sink::Nowhere,
            Some(path) if path == Path::new("/dev/stdout") => Sink::Stdout(io::stdout()),
            Some(path) => Sink::File(OpenOptions::new().append(true).create(true).open(path)?),
        };
        let mode = match (path, format) {
            (None, _) => OFF,
            (_, Format::Text) => TEXT,
            (_, Format::Json) => JSON,
        };
        lock(&self.0.state).next = Some(sink);
        self.0.wake.notify_one();
        self.0.mode.store(mode, Ordering::Relaxed);
        Ok(())
    }

    /// Whether lines are wanted: callers may save themselves the record.
    pub(crate) fn is_on(&self) -> bool {
        self.0.mode.load(Ordering::Relaxed) != OFF
    }

    /// Hands a line to the writer. Never waits for the target.
    pub(crate) fn write(&self, record: &Record<'_>) {
        let format = match self.0.mode.load(Ordering::Relaxed) {
            TEXT => Format::Text,
            JSON => Format::Json,
            _ => return,
        };
        let Some(buffer) = self.0.buffers.get(cell::of_this_thread() % BUFFERS) else { return };
        let mut buffer = lock(buffer);
        if buffer.len() >= MOST_BYTES {
            return self.0.dropped.add(1);
        }
        record.write(format, &mut buffer);
        drop(buffer);
        self.0.ring();
    }

    /// Waits until all lines handed in are written, or for `limit`; says whether they are.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let mut state = lock(&self.0.state);
        state.flushes_wanted += 1;
        let mine = state.flushes_wanted;
        self.0.wake.notify_one();
        let waiting = self.0.written.wait_timeout_while(state, limit, |state| state.flushes_done < mine);
        !waiting.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        lock(&self.0.state).closing = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn ring(&self) {
        // The plain look comes first: under load the writer knows already, and the line in the cache stays shared.
        if !self.rung.load(Ordering::Relaxed) && !self.rung.swap(true, Ordering::AcqRel) {
            lock(&self.state).rung = true;
            self.wake.notify_one();
        }
    }

    fn run(&self) {
        let mut sink = Sink::Nowhere;
        let mut lines = Vec::new();
        let mut failing = false;
        loop {
            let mut state = self.wait_for_work();
            let flushed = state.flushes_wanted;
            let closing = state.closing;
            if let Some(next) = state.next.take() {
                sink = next;
            }
            state.rung = false;
            drop(state);
            self.rung.store(false, Ordering::Release);
            for buffer in &self.buffers {
                std::mem::swap(&mut *lock(buffer), &mut lines);
                self.pass_on(&mut sink, &lines, &mut failing);
                lines.clear();
            }
            lock(&self.state).flushes_done = flushed;
            self.written.notify_all();
            if closing {
                return;
            }
        }
    }

    /// Returns when there is something to do and lines had time to gather; flushes and the end do not wait for that.
    fn wait_for_work(&self) -> MutexGuard<'_, State> {
        let urgent = |state: &State| state.closing || state.flushes_done < state.flushes_wanted;
        let idle = |state: &mut State| !state.rung && state.next.is_none() && !urgent(state);
        let state = self.wake.wait_while(lock(&self.state), idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = self.wake.wait_timeout_while(state, GATHERING, |state| !urgent(state));
        gathering.unwrap_or_else(PoisonError::into_inner).0
    }

    fn pass_on(&self, sink: &mut Sink, lines: &[u8], failing: &mut bool) {
        if lines.is_empty() {
            return;
        }
        let result = match sink {
            Sink::Nowhere => Ok(()),
            Sink::Stdout(stdout) => stdout.write_all(lines).and_then(|()| stdout.flush()),
            Sink::File(file) => file.write_all(lines),
        };
        if let Err(error) = &result {
            self.dropped.add(lines.iter().filter(|byte| **byte == b'\n').count() as u64);
            if !*failing {
                tracing::warn!(%error, "access log cannot be written; lines are dropped");
            }
        }
        *failing = result.is_err();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::Telemetry;
    use super::super::record::tests::answered;
    use super::super::requests::SourceLabels;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    #[test]
    fn lines_reach_the_file_and_a_rotated_file_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let telemetry = Telemetry::new(SourceLabels::default()).unwrap();
        let log = &telemetry.access_log;
        log.write(&answered());
        log.reconfigure(Some(&path), Format::Text).unwrap();
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| (0..100).for_each(|_| log.write(&answered())));
            }
        });
        assert!(log.flush(SOON));
        assert_eq!(lines(&path), 200);
        std::fs::rename(&path, &rotated).unwrap();
        log.reconfigure(Some(&path), Format::Json).unwrap();
        log.write(&answered());
        assert!(log.flush(SOON));
        assert_eq!((lines(&rotated), lines(&path)), (200, 1));
        log.reconfigure(None, Format::Text).unwrap();
        log.write(&answered());
        assert!(log.flush(SOON));
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn a_target_that_fails_costs_lines_but_nobody_waits() {
        let telemetry = Telemetry::new(SourceLabels::default()).unwrap();
        let log = &telemetry.access_log;
        assert!(log.reconfigure(Some(Path::new("/nowhere/at/all.log")), Format::Text).is_err());
        log.reconfigure(Some(Path::new("/dev/full")), Format::Text).unwrap();
        (0..3).for_each(|_| log.write(&answered()));
        assert!(log.flush(SOON));
        assert!(telemetry.metrics.render().contains("limani_access_log_dropped_total 3"));
    }
}
