//! How is a file put on disk so that a crash leaves the old one or the new one, and nothing in between?

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Ends the names of files that are being written.
const UNFINISHED: &str = ".unfinished";
/// A file that is still being written after this was left by a process that ended.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Makes a folder and those above it, for nobody but us, and on disk when this returns.
///
/// # Errors
/// The file system's.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Puts what was made, renamed or removed in a folder on disk.
///
/// # Errors
/// The file system's.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    // A relative path of one part has an empty parent.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Writes a file as a whole, readable by nobody but us.
///
/// # Errors
/// The file system's; the old file stays.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(folder) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    make_folder(folder)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Without the file's own name, which may be as long as a name can be; other machines may have our process id.
    let unfinished = folder.join(format!(".{:x}-{count:x}-{:x}{UNFINISHED}", std::process::id(), fastrand::u32(..)));
    let written = write_new(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_folder(folder)
}

/// Writes a file that is not there yet, and puts it on disk.
///
/// # Errors
/// The file system's.
pub(super) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Removes what ended processes left unfinished in a folder.
pub(super) fn sweep(folder: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_unfinished =
            entry.file_name().to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED));
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > ABANDONED_AFTER));
        if is_unfinished && is_old {
            let _ = fs::remove_file(entry.path());
        }
    }
}
