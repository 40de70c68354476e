//! Where do access log lines go? A thread of their own writes them; nobody who carries traffic waits for it.
//!
//! Every thread appends to buffers of its own, one for each file. The writer empties all buffers together, a few
//! milliseconds after the first line. A buffer that is full because the target does not keep up drops lines, and counts
//! them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cell;
use super::metrics::Dropped;

/// How long lines are gathered before they are written together.
const GATHERING: Duration = Duration::from_millis(20);
/// How long a file that could not be opened is left alone.
const OPENED_AGAIN: Duration = Duration::from_secs(5);
/// Bytes that one buffer may hold.
const MOST_BYTES: usize = 4 << 20;
const BUFFERS: usize = 64;

/// The front door of the logs.
#[derive(Debug)]
pub(crate) struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// By thread.
    buffers: Vec<Mutex<Vec<Buffer>>>,
    /// Whether the writer knows that there are lines.
    rung: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    written: Condvar,
    dropped: Dropped,
}

/// The lines of one thread for one file.
#[derive(Debug)]
struct Buffer {
    path: Arc<Path>,
    lines: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    /// The files that are wanted from now on; `None` for one that could not be opened, so that an open one stays.
    next: Option<Vec<(Arc<Path>, Option<Sink>)>>,
    flushes_wanted: u64,
    flushes_done: u64,
    closing: bool,
}

#[derive(Debug)]
enum Sink {
    Stdout(io::Stdout),
    File(File),
    /// It could not be opened then.
    Closed(Instant),
}

impl AccessLog {
    /// Starts the writer.
    pub(super) fn start(dropped: Dropped) -> io::Result<Self> {
        let shared = Arc::new(Shared {
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

    /// Opens the files that are written from now on (`/dev/stdout` is the process's own output), again if they are
    /// open, so that rotated ones are let go; others are closed. Gives back those that cannot be opened: one that is
    /// open goes on, and the others are tried again while lines come.
    pub(crate) fn open(&self, paths: &[Arc<Path>]) -> Vec<(Arc<Path>, io::Error)> {
        let (mut next, mut failed) = (Vec::new(), Vec::new());
        for path in paths {
            match Sink::open(path) {
                Ok(sink) => next.push((Arc::clone(path), Some(sink))),
                Err(error) => {
                    next.push((Arc::clone(path), None));
                    failed.push((Arc::clone(path), error));
                }
            }
        }
        lock(&self.0.state).next = Some(next);
        self.0.wake.notify_one();
        failed
    }

    /// Hands a line for the file at `path` to the writer. Never waits for the target.
    pub(crate) fn write(&self, path: &Arc<Path>, append: impl FnOnce(&mut Vec<u8>)) {
        let Some(buffers) = self.0.buffers.get(cell::of_this_thread() % BUFFERS) else { return };
        let mut buffers = lock(buffers);
        let known = buffers.iter().position(|buffer| Arc::ptr_eq(&buffer.path, path) || buffer.path == *path);
        let place = known.unwrap_or(buffers.len());
        if known.is_none() {
            buffers.push(Buffer { path: Arc::clone(path), lines: Vec::new() });
        }
        let Some(buffer) = buffers.get_mut(place) else { return };
        if buffer.lines.len() >= MOST_BYTES {
            return self.0.dropped.add(1);
        }
        append(&mut buffer.lines);
        drop(buffers);
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

impl Sink {
    fn open(path: &Path) -> io::Result<Sink> {
        if path == Path::new("/dev/stdout") {
            return Ok(Sink::Stdout(io::stdout()));
        }
        OpenOptions::new().append(true).create(true).open(path).map(Sink::File)
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(stdout) => stdout.write_all(lines).and_then(|()| stdout.flush()),
            Sink::File(file) => file.write_all(lines),
            Sink::Closed(_) => Err(io::ErrorKind::NotFound.into()),
        }
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
        let mut writer = Writer { sinks: HashMap::new(), dropped: &self.dropped };
        let mut taken: Vec<Buffer> = Vec::new();
        loop {
            let mut state = self.wait_for_work();
            let flushed = state.flushes_wanted;
            let closing = state.closing;
            let next = state.next.take();
            state.rung = false;
            drop(state);
            if let Some(next) = next {
                writer.follow(next);
            }
            self.rung.store(false, Ordering::Release);
            for buffers in &self.buffers {
                std::mem::swap(&mut *lock(buffers), &mut taken);
                for buffer in &mut taken {
                    writer.pass_on(buffer);
                    buffer.lines.clear();
                }
                taken.retain(|buffer| writer.sinks.contains_key(&buffer.path));
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
}

/// What the writing thread owns.
struct Writer<'a> {
    /// The open files, and whether writing failed last.
    sinks: HashMap<Arc<Path>, (Sink, bool)>,
    dropped: &'a Dropped,
}

impl Writer<'_> {
    fn follow(&mut self, next: Vec<(Arc<Path>, Option<Sink>)>) {
        let mut before = std::mem::take(&mut self.sinks);
        for (path, sink) in next {
            let old = before.remove(&path);
            let sink = match (sink, old) {
                (Some(sink), _) => (sink, false),
                (None, Some(old)) => old,
                (None, None) => (Sink::Closed(Instant::now()), true),
            };
            self.sinks.insert(path, sink);
        }
    }

    fn pass_on(&mut self, buffer: &Buffer) {
        if buffer.lines.is_empty() {
            return;
        }
        let (sink, failing) = self.sinks.entry(Arc::clone(&buffer.path)).or_insert_with(|| {
            // A request that began under an earlier configuration has ended.
            (Sink::open(&buffer.path).unwrap_or_else(|_| Sink::Closed(Instant::now())), false)
        });
        if let Sink::Closed(since) = sink
            && since.elapsed() >= OPENED_AGAIN
        {
            *sink = Sink::open(&buffer.path).unwrap_or_else(|_| Sink::Closed(Instant::now()));
        }
        let result = sink.write(&buffer.lines);
        if let Err(error) = &result {
            self.dropped.add(buffer.lines.iter().filter(|byte| **byte == b'\n').count() as u64);
            if !*failing {
                let path = buffer.path.display();
                tracing::warn!(%path, %error, "access log cannot be written; lines are dropped");
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
    use super::super::requests::SourceLabels;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    fn log_line(log: &AccessLog, path: &Arc<Path>) {
        log.write(path, |line| line.extend_from_slice(b"line\n"));
    }

    #[test]
    fn lines_reach_their_files_and_a_rotated_file_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let rotated = folder.path().join("access.log.1");
        let (path, other) = (folder.path().join("access.log"), folder.path().join("other.log"));
        let (path, other): (Arc<Path>, Arc<Path>) = (path.into(), other.into());
        let telemetry = Telemetry::new(SourceLabels::default()).unwrap();
        let log = &telemetry.access_log;
        assert!(log.open(&[Arc::clone(&path), Arc::clone(&other)]).is_empty());
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    (0..100).for_each(|_| log_line(log, &path));
                    log_line(log, &other);
                });
            }
        });
        assert!(log.flush(SOON));
        assert_eq!((lines(&path), lines(&other)), (200, 2));
        std::fs::rename(&path, &rotated).unwrap();
        log.open(&[Arc::clone(&path)]);
        log_line(log, &Arc::from(&*path));
        log_line(log, &other);
        assert!(log.flush(SOON));
        assert_eq!((lines(&rotated), lines(&path), lines(&other)), (200, 1, 3));
    }

    #[test]
    fn a_target_that_fails_costs_lines_but_nobody_waits() {
        let telemetry = Telemetry::new(SourceLabels::default()).unwrap();
        let log = &telemetry.access_log;
        let (nowhere, full) = (Arc::from(Path::new("/nowhere/at/all.log")), Arc::from(Path::new("/dev/full")));
        let failed = log.open(&[Arc::clone(&nowhere), Arc::clone(&full)]);
        assert_eq!(failed.len(), 1);
        (0..3).for_each(|_| log_line(log, &full));
        log_line(log, &nowhere);
        assert!(log.flush(SOON));
        assert!(telemetry.metrics.render().contains("limani_access_log_dropped_total 4"));
    }
}
