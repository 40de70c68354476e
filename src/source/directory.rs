//! Which files do the configured paths hold? Folders are walked with their subfolders, in alphabetic order.
//!
//! Symbolic links are followed. Entries whose name begins with `.` are skipped: editors' files, and the `..data` folder
//! of a Kubernetes volume, whose files are reached through the visible links.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How deep folders may be nested; a symbolic link that leads upwards ends here.
const MAX_DEPTH: usize = 16;

/// What tells that a file is still the same without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// False if the file was written so shortly before that a second write could have the same times.
    settled: bool,
}

impl Stamp {
    /// The stamp of a file now.
    pub(super) fn of(path: &Path) -> io::Result<Stamp> {
        fs::metadata(path).map(|metadata| Stamp::new(&metadata))
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn new(metadata: &fs::Metadata) -> Stamp {
        let age = metadata.modified().ok().and_then(|written| SystemTime::now().duration_since(written).ok());
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: age.is_some_and(|age| age > Duration::from_secs(1)),
        }
    }

    /// Whether a file that had this stamp when it was read, and has `now`, surely holds the same bytes.
    pub(super) fn proves_unchanged(&self, now: &Stamp) -> bool {
        self.settled && self == now
    }
}

/// A file to read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// A path that could not be looked at.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub path: PathBuf,
    pub error: io::Error,
}

/// All manifest files of `roots`, each once.
///
/// A root that is a file is taken whatever its name; in folders only `.yaml`, `.yml` and `.json` count.
pub(super) fn list(roots: &[PathBuf]) -> (Vec<Found>, Vec<Unreadable>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for root in roots {
        visit(root, 0, &mut found, &mut failed);
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|file: &Found| seen.insert(file.path.clone()));
    (found, failed)
}

fn visit(path: &Path, depth: usize, found: &mut Vec<Found>, failed: &mut Vec<Unreadable>) {
    let result = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_dir() {
            found.push(Found { path: path.to_owned(), stamp: Stamp::new(&metadata) });
            return Ok(Vec::new());
        }
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("nested deeper than {MAX_DEPTH} folders")));
        }
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        Ok(entries)
    });
    match result {
        Ok(mut entries) => {
            entries.sort();
            for entry in entries.iter().filter(|entry| is_wanted(entry)) {
                visit(entry, depth + 1, found, failed);
            }
        }
        Err(error) => failed.push(Unreadable { path: path.to_owned(), error }),
    }
}

fn is_wanted(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    !hidden && (manifest || path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_volumes_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("..2026")).unwrap();
        fs::create_dir_all(at("sub")).unwrap();
        for name in ["..2026/b.yaml", "a.yml", "sub/c.json", "notes.md", ".a.yaml.swp.yaml"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink("..2026", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/b.yaml", at("b.yaml")).unwrap();
        std::os::unix::fs::symlink(root.path(), at("sub/up")).unwrap();
        let (found, failed) = list(&[root.path().to_owned(), at("a.yml"), at("gone")]);
        let names: Vec<_> = found.iter().take(3).map(|f| f.path.strip_prefix(root.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("a.yml"), Path::new("b.yaml"), Path::new("sub/c.json")]);
        assert!(failed.iter().any(|f| f.path == at("gone")));
    }
}
