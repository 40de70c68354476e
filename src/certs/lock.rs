//! Who works on a name now? One process at a time, on one machine or on several that share a volume.
//!
//! The lock is the kernel's (`flock`): it ends with its process, however that ends, so nothing is ever stale. Linux
//! passes it on to NFS and SMB servers, so that it holds between machines too. Where a file system has none
//! (`Unsupported`), a lease takes its place: a file that is made anew, touched every few seconds and taken over when it
//! was not touched for a while.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::durable::make_folder;

/// How often a lease is touched, and after how long without a touch it is over.
const TOUCHED_EVERY: Duration = Duration::from_secs(5);
const OVER_AFTER: Duration = Duration::from_secs(30);
/// More is not said of a holder.
const LONGEST_HOLDER: u64 = 200;

/// Ours until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Let go when it is closed.
    Kernel { _file: File },
    /// Let go when it is dropped.
    Lease { _lease: Lease },
}

/// A file whose time is kept young by a thread.
#[derive(Debug)]
struct Lease {
    /// Dropped first, which ends the thread.
    alive: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    path: PathBuf,
}

/// The lock at `path`; `None` while somebody has it.
///
/// # Errors
/// The file system's.
pub(super) fn try_lock(path: &Path, now: SystemTime) -> io::Result<Option<Lock>> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    loop {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return lease(path, now);
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) if is_still(&file, path) => {
                // Who cannot say so has it nevertheless.
                let _ = tell(&mut file);
                return Ok(Some(Lock { path: path.to_owned(), _kind: Kind::Kernel { _file: file } }));
            }
            // Removed between opening and locking.
            Ok(()) => {}
        }
    }
}

/// Who has the lock at `path`, as it says itself; `None` if nobody has it.
pub(super) fn holder(path: &Path) -> Option<String> {
    let lease = lease_path(path);
    let path = if lease.exists() { &lease } else { path };
    let file = File::open(path).ok()?;
    if path != lease && !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST_HOLDER).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Lock {
    /// Removes the lock's file, for names that are gone; the lock ends with it.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Whether `path` still names this very file.
fn is_still(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (named.dev(), named.ino())
}

/// Writes down who we are, for people.
fn tell(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(ourselves().as_bytes())
}

fn ourselves() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    format!("process {} on {host}\n", std::process::id())
}

fn lease_path(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".lease");
    path.into()
}

fn lease(path: &Path, now: SystemTime) -> io::Result<Option<Lock>> {
    let lease = lease_path(path);
    if let Ok(touched) = fs::metadata(&lease).and_then(|metadata| metadata.modified())
        && now.duration_since(touched).is_ok_and(|age| age > OVER_AFTER)
    {
        // Moved away first: of several who find it over, one moves it, and the others find nothing to move.
        let over = lease.with_extension(format!("over-{:x}", fastrand::u64(..)));
        fs::rename(&lease, &over).and_then(|()| fs::remove_file(&over)).or_else(unless_gone)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lease) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
        Ok(mut file) => {
            let _ = tell(&mut file);
            let lease = Lease::keep(lease, file)?;
            Ok(Some(Lock { path: path.to_owned(), _kind: Kind::Lease { _lease: lease } }))
        }
    }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

impl Lease {
    /// A thread of its own: a runtime that is busy must not let the lease run out.
    fn keep(path: PathBuf, file: File) -> io::Result<Lease> {
        let (alive, ended) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("lease".to_owned()).spawn(move || {
            while ended.recv_timeout(TOUCHED_EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = file.set_modified(SystemTime::now()) {
                    tracing::warn!(%error, "a lease cannot be prolonged");
                }
            }
        })?;
        Ok(Lease { alive: Some(alive), thread: Some(thread), path })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_by_lock_and_by_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts/web");
        let now = SystemTime::now();
        for lock in [try_lock, |path: &Path, now| lease(path, now)] {
            let held = lock(&path, now).unwrap().expect("nobody has it");
            assert!(lock(&path, now).unwrap().is_none(), "somebody has it");
            assert!(holder(&path).unwrap().starts_with(&format!("process {} on ", std::process::id())));
            drop(held);
            assert_eq!(holder(&path), None);
            assert!(lock(&path, now).unwrap().is_some(), "let go");
        }
    }

    #[test]
    fn a_lease_that_nobody_touches_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web");
        fs::write(lease_path(&path), "process 1 on gone\n").unwrap();
        let now = SystemTime::now();
        assert!(lease(&path, now).unwrap().is_none());
        assert!(lease(&path, now + OVER_AFTER + TOUCHED_EVERY).unwrap().is_some());
    }

    #[test]
    fn a_removed_lock_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web");
        let now = SystemTime::now();
        let held = try_lock(&path, now).unwrap().unwrap();
        held.remove().unwrap();
        assert!(!path.exists());
        assert!(try_lock(&path, now).unwrap().is_some());
    }
}
