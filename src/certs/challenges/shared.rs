//! Where do processes that share a storage find each other's answers? Only names that cannot leave the folder are looked up.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::certs::durable::replace;
use crate::certs::store::CHALLENGES;

/// The longest token or server name, and so the longest file name.
const LONGEST: usize = 253;
/// The longest answer that is read.
const LARGEST: u64 = 4096;
/// Files that a killed process left are swept when they are older.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The file of a token; `None` if it is none: characters of base64url alone (RFC 8555 section 8.1).
pub(super) fn http_file(storage: &Path, token: &str) -> Option<PathBuf> {
    let valid = !token.is_empty()
        && token.len() <= LONGEST
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then(|| storage.join(CHALLENGES).join("http").join(token))
}

/// The file of a server name in lower case; `None` if it is no host name.
pub(super) fn tls_file(storage: &Path, name: &str) -> Option<PathBuf> {
    let valid = name.len() <= LONGEST
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        });
    valid.then(|| storage.join(CHALLENGES).join("tls").join(name))
}

/// The content of an answer; `None` if there is none.
pub(super) async fn read(file: PathBuf) -> Option<String> {
    use tokio::io::AsyncReadExt;

    let file = tokio::fs::File::open(file).await.ok()?;
    let mut content = String::new();
    file.take(LARGEST).read_to_string(&mut content).await.ok()?;
    Some(content)
}

/// Writes an answer whole or not at all, and sweeps what others left.
pub(super) async fn write(file: PathBuf, content: String) -> io::Result<()> {
    tokio::task::spawn_blocking(move || {
        let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
        sweep(folder);
        replace(&file, content.as_bytes())
    })
    .await?
}

fn sweep(folder: &Path) {
    let now = SystemTime::now();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|about| about.modified());
        if written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > STALE)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
