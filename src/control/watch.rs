//! When did the files of the configuration change? Folders, files, renames and symlink swaps, told once they are quiet.
//!
//! Kubernetes swaps a whole folder of mounted files by renaming the symlink `..data`; editors rename a new file into
//! place; folders vanish and come back. So every file is watched through its folder, and every folder also through its
//! parent. Watches are set anew after each change, because a folder that came back is not the one that was watched.
//! Some file systems, such as NFS and those of some CSI drivers, tell of nothing: files are also looked at every minute.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::pipeline::Reloader;
use super::status::Cause;

/// Files that never come to rest are read again at the latest after this many times the debounce.
const LONGEST_WAIT: u32 = 20;

/// How often files are looked at that nobody told of.
const POLL: Duration = Duration::from_secs(60);

/// What is to be watched, and how patiently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchPlan {
    /// The settings file, manifests (files and folders), certificates; absolute. Empty: nothing is watched.
    pub paths: BTreeSet<PathBuf>,
    /// How long files have to be quiet.
    pub debounce: Duration,
}

/// Asks for a reload whenever what the plan names has changed; follows the plan as it changes. Ends with the plan's
/// sender.
pub(crate) async fn follow(mut plan: watch::Receiver<WatchPlan>, reloader: Reloader) {
    loop {
        let current = plan.borrow_and_update().clone();
        let (tell, mut changes) = mpsc::channel(1);
        // Kept while waiting below: dropping it ends the watching.
        let watcher = set_watches(current.clone(), tell).await;
        if watcher.is_some() {
            // What changed between the last reading and these watches would be missed without this.
            reloader.request(Cause::File);
        }
        tokio::select! {
            changed = plan.changed() => if changed.is_err() { return },
            () = quiet_change(&mut changes, current.debounce) => {}
            () = look(&current, &reloader) => {}
        }
    }
}

/// Asks for a run every minute, which does nothing where files are the same. Never ends.
async fn look(plan: &WatchPlan, reloader: &Reloader) {
    if plan.paths.is_empty() {
        return std::future::pending().await;
    }
    loop {
        sleep(POLL).await;
        reloader.request(Cause::File);
    }
}

/// Waits for a change, and then until there was none for `debounce`.
async fn quiet_change(changes: &mut mpsc::Receiver<()>, debounce: Duration) {
    if changes.recv().await.is_none() {
        // Nothing is watched.
        return std::future::pending().await;
    }
    let at_the_latest = Instant::now() + debounce * LONGEST_WAIT;
    loop {
        let quiet = Instant::now() + debounce;
        match timeout_at(quiet.min(at_the_latest), changes.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Sets the watches off the runtime's thread: large trees take a while.
async fn set_watches(plan: WatchPlan, tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    if plan.paths.is_empty() {
        return None;
    }
    let set = tokio::task::spawn_blocking(move || watch_all(plan.paths, tell)).await;
    match set {
        Ok(Ok(watcher)) => Some(watcher),
        Ok(Err(error)) => {
            tracing::warn!(%error, "files are not watched; they are read every minute, and at SIGHUP and `limani reload`");
            None
        }
        Err(error) => {
            tracing::error!(%error, "watching files failed");
            None
        }
    }
}

fn watch_all(paths: BTreeSet<PathBuf>, tell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let places = places(&paths);
    let handler = move |event: notify::Result<Event>| {
        let matters = event.map_or(true, |event| changes_configuration(&event, &paths));
        if matters {
            // A full channel already holds the news.
            let _ = tell.try_send(());
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, Config::default())?;
    for (path, mode) in places {
        if let Err(error) = watcher.watch(&path, mode) {
            tracing::warn!(path = %path.display(), %error, "cannot be watched; it is read every minute, and at SIGHUP and `limani reload`");
        }
    }
    Ok(watcher)
}

/// The folders to watch for `paths`: a folder with all below it, and of everything the folder around it; where that
/// does not exist, the nearest that does.
fn places(paths: &BTreeSet<PathBuf>) -> Vec<(PathBuf, RecursiveMode)> {
    let mut trees: BTreeSet<PathBuf> = BTreeSet::new();
    let mut around: BTreeSet<PathBuf> = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            trees.insert(path.clone());
        }
        around.extend(nearest_folder(path));
        // A symlink in its own folder may stay while its target is renewed.
        if let Ok(target) = path.canonicalize()
            && &target != path
        {
            around.extend(nearest_folder(&target));
        }
    }
    let around = around.into_iter().filter(|folder| !trees.contains(folder));
    let around: Vec<_> = around.map(|folder| (folder, RecursiveMode::NonRecursive)).collect();
    trees.into_iter().map(|tree| (tree, RecursiveMode::Recursive)).chain(around).collect()
}

fn nearest_folder(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()).map(Path::to_path_buf)
}

/// Whether an event can have changed what is read. Our own reading, and files beside ours, do not count.
fn changes_configuration(event: &Event, paths: &BTreeSet<PathBuf>) -> bool {
    if event.need_rescan() {
        return true;
    }
    let kind_matters = match event.kind {
        EventKind::Access(kind) => matches!(kind, AccessKind::Close(AccessMode::Write)),
        _ => true,
    };
    kind_matters && event.paths.iter().any(|changed| concerns(changed, paths))
}

fn concerns(changed: &Path, paths: &BTreeSet<PathBuf>) -> bool {
    let name = changed.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // A swap of mounted files; it may stand behind any of the paths.
    name == "..data" || paths.iter().any(|path| path.starts_with(changed) || below(changed, path, name))
}

/// A manifest, a file of a certificate, or a folder, under the folder `tree`. Files of other kinds (editors' swap files, logs) are not read.
fn below(changed: &Path, tree: &Path, name: &str) -> bool {
    let read = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        None => true,
        Some(extension) => ["yaml", "yml", "json", "crt", "key", "crl", "pem"].contains(&extension),
    };
    read && changed.starts_with(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn only_what_is_read_concerns() {
        let paths = plan(&["/etc/limani/limani.toml", "/srv/manifests"]);
        for (changed, expected) in [
            ("/etc/limani/limani.toml", true),
            ("/etc/limani/access.log", false),
            ("/etc/limani", true),
            ("/etc/limani/..data", true),
            ("/srv/manifests/a.yaml", true),
            ("/srv/manifests/deep/b.yml", true),
            ("/srv/manifests/deep", true),
            ("/srv/manifests/web/tls.key", true),
            ("/srv/manifests/.a.yaml.swp", false),
            ("/srv/manifests", true),
            ("/srv/manifests/..data", true),
            ("/srv/other.yaml", false),
            ("/tmp/x", false),
        ] {
            assert_eq!(concerns(Path::new(changed), &paths), expected, "{changed}");
        }
    }

    #[test]
    fn reading_is_no_change() {
        let paths = plan(&["/srv/a.yaml"]);
        let event = |kind| Event::new(kind).add_path("/srv/a.yaml".into());
        assert!(!changes_configuration(&event(EventKind::Access(AccessKind::Open(AccessMode::Any))), &paths));
        assert!(changes_configuration(&event(EventKind::Access(AccessKind::Close(AccessMode::Write))), &paths));
        assert!(changes_configuration(&event(EventKind::Create(notify::event::CreateKind::File)), &paths));
    }

    #[test]
    fn a_missing_folder_is_awaited_at_its_nearest_parent() {
        let home = tempfile::tempdir().unwrap();
        let missing = home.path().join("a/b");
        assert_eq!(places(&BTreeSet::from([missing])), [(home.path().to_path_buf(), RecursiveMode::NonRecursive)]);
        let tree = home.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let expected = [(tree.clone(), RecursiveMode::Recursive), (home.path().into(), RecursiveMode::NonRecursive)];
        assert_eq!(places(&BTreeSet::from([tree])), expected);
    }
}
