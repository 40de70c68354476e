//! What is kept on disk? Certificates as kubelet lays out Secrets, accounts, challenges, states; whole at every instant.
//!
//! A certificate's folder, such as `hosts/web.example.com`:
//!
//! ```text
//! ..2026_11_20_10_00_00.000000000/{tls.crt,tls.key,meta.json}    the version before
//! ..2026_11_21_10_00_00.000000000/{tls.crt,tls.key,meta.json}
//! ..data -> ..2026_11_21_10_00_00.000000000                      renamed over, so that all files change at once
//! tls.crt -> ..data/tls.crt
//! tls.key -> ..data/tls.key
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::durable::{make_folder, replace, sweep, sync_folder};
use super::issue::Issued;
use super::lock::{self, Lock};

/// Certificates of hosts: `hosts/web.example.com` (`base::kept_name`).
pub(crate) const HOSTS: &str = "hosts";
/// Certificates under a name of their own: `secrets/web-tls`.
pub(crate) const SECRETS: &str = "secrets";
/// Certificates of the local CA.
pub(crate) const LOCAL: &str = "local";
/// Certificates of names that nobody wrote down.
pub(crate) const ON_DEMAND: &str = "on-demand";
/// Accounts at CAs: `accounts/ISSUER/..`.
pub(crate) const ACCOUNTS: &str = "accounts";
/// Answers that are awaited now, for every process that shares the storage.
pub(crate) const CHALLENGES: &str = "challenges";
/// What is remembered: of a certificate `state/hosts/web.example.com.json`.
pub(crate) const STATE: &str = "state";
/// Who is at work on what.
const LOCKS: &str = "locks";

/// Folders whose folders are certificates.
pub(crate) const OF_CERTIFICATES: [&str; 4] = [HOSTS, SECRETS, LOCAL, ON_DEMAND];

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const META: &str = "meta.json";
/// The link to the version in force, and the one that is to replace it.
const DATA: &str = "..data";
const NEXT_DATA: &str = "..data_next";
/// Bytes taken before anything is ordered, for each file: more than what comes.
const RESERVED: [(&str, usize); 3] = [(CERTIFICATE, 48 * 1024), (KEY, 16 * 1024), (META, 4 * 1024)];
/// Nothing of a certificate is longer than this.
const LONGEST_FILE: u64 = 1024 * 1024;
/// How often a certificate is read again that is renewed while it is read.
const TRIES: usize = 20;

/// The folder of all that is issued. Every method reads or writes the disk, and so belongs off the runtime's thread.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// One version of a certificate.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The leaf and its intermediates, in PEM.
    pub chain: String,
    /// In PEM. Never logged.
    pub key: String,
    pub meta: Meta,
}

/// What is kept beside a certificate that it does not say itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    /// The issuer's name; empty if nobody wrote it down.
    pub issuer: String,
    /// The issuer itself, such as the URL of its directory: a name may come to mean another one.
    pub authority: String,
    /// Seconds since 1970.
    pub issued: i64,
}

impl Store {
    /// Makes the folders, and removes what ended processes left unfinished.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(root: &Path) -> io::Result<Store> {
        for folder in [HOSTS, SECRETS, LOCAL, ON_DEMAND, ACCOUNTS, CHALLENGES, STATE, LOCKS] {
            make_folder(&root.join(folder))?;
        }
        Ok(Store { root: root.to_owned() })
    }

    /// Where something is kept. `name` is a path of plain names, such as `hosts/web.example.com`.
    ///
    /// # Errors
    /// `InvalidInput`: a part of `name` is empty, begins with a dot or has another character than letters, digits, `-`,
    /// `_` and `.`.
    pub(crate) fn place(&self, name: &str) -> io::Result<PathBuf> {
        let is_plain = |part: &str| {
            (1..=255).contains(&part.len())
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match name.split('/').all(is_plain) {
            true => Ok(self.root.join(name)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for a file"))),
        }
    }

    /// The version in force of a certificate; `None` if there is none, or none that is whole.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn read(&self, folder: &str) -> io::Result<Option<Kept>> {
        let folder = self.place(folder)?;
        // All files of one version, even if new ones come while they are read.
        for _ in 0..TRIES {
            let version = version_in_force(&folder);
            let read = read_version(&folder, version.as_deref());
            if version_in_force(&folder) == version {
                return read;
            }
        }
        Err(io::Error::other(format!("{} changes all the time", folder.display())))
    }

    /// Takes the room for a new version, so that a full disk is found out before anything is ordered. Whoever holds the
    /// lock of the folder may call this.
    ///
    /// # Errors
    /// The file system's, such as `StorageFull`.
    pub(crate) fn reserve(&self, folder: &str, now: SystemTime) -> io::Result<Reservation> {
        let folder = self.place(folder)?;
        make_folder(&folder)?;
        clean(&folder, None);
        let version = format!("..{}", DateTime::<Utc>::from(now).format("%Y_%m_%d_%H_%M_%S.%f"));
        let reservation = Reservation { folder, version, is_kept: false };
        let place = reservation.place();
        make_folder(&place)?;
        for (name, length) in RESERVED {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(place.join(name))?;
            file.write_all(&vec![b'\n'; length])?;
            file.sync_all()?;
        }
        link(&reservation.version, &reservation.folder.join(NEXT_DATA))?;
        for name in [CERTIFICATE, KEY] {
            point_into_data(&reservation.folder, name)?;
        }
        sync_folder(&reservation.folder)?;
        Ok(reservation)
    }

    /// The names of the folders below `kind`, one of `OF_CERTIFICATES`, in order.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn list(&self, kind: &str) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.place(kind)?)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| self.place(name).is_ok_and(|_| self.root.join(kind).join(name).is_dir()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes a certificate, its state and its lock. Whoever holds the lock of the folder may call this.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn remove(&self, lock: Lock, folder: &str) -> io::Result<()> {
        let place = self.place(folder)?;
        // Not there any more from one instant to the next.
        remove_if_there(&place.join(DATA))?;
        fs::remove_dir_all(&place)?;
        place.parent().map_or(Ok(()), sync_folder)?;
        self.remove_text(&state_of(folder))?;
        lock.remove()
    }

    /// Removes old versions and what ended processes left unfinished in a certificate's folder. Whoever holds its lock
    /// may call this.
    ///
    /// # Errors
    /// `folder` is no name.
    pub(crate) fn clean(&self, folder: &str) -> io::Result<()> {
        clean(&self.place(folder)?, None);
        Ok(())
    }

    /// Removes what ended processes left unfinished in a folder of files.
    ///
    /// # Errors
    /// `folder` is no name.
    pub(crate) fn sweep(&self, folder: &str, now: SystemTime) -> io::Result<()> {
        sweep(&self.place(folder)?, now);
        Ok(())
    }

    /// A file as text; `None` if it is not there.
    ///
    /// # Errors
    /// The file system's; what is no text.
    pub(crate) fn read_text(&self, name: &str) -> io::Result<Option<String>> {
        read_text(&self.place(name)?)
    }

    /// Writes a file as a whole, with the folders above it; on disk when this returns.
    ///
    /// # Errors
    /// The file system's; the old file stays.
    pub(crate) fn write_text(&self, name: &str, text: &str) -> io::Result<()> {
        replace(&self.place(name)?, text.as_bytes())
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn remove_text(&self, name: &str) -> io::Result<()> {
        remove_if_there(&self.place(name)?)
    }

    /// The lock of a name, such as `hosts/web.example.com` or `accounts/ISSUER`; `None` while somebody has it. Who has
    /// waited reads the store first: the work may be done.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn try_lock(&self, name: &str, now: SystemTime) -> io::Result<Option<Lock>> {
        self.place(name)?;
        lock::try_lock(&self.place(LOCKS)?.join(name), now)
    }

    /// Who has the lock of a name, for people; `None` if nobody says so.
    pub(crate) fn lock_holder(&self, name: &str) -> Option<String> {
        self.place(name).ok()?;
        lock::holder(&self.place(LOCKS).ok()?.join(name))
    }
}

/// The file in which a certificate's state is kept.
pub(crate) fn state_of(folder: &str) -> String {
    format!("{STATE}/{folder}.json")
}

/// Room for a new version, under a name that nobody reads yet. Given back if it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    folder: PathBuf,
    /// The name of the version's folder.
    version: String,
    is_kept: bool,
}

impl Reservation {
    /// Writes the version into the room that was taken, and puts it in force. May be called again after an error.
    ///
    /// # Errors
    /// The file system's; what was in force stays.
    pub(crate) fn keep(&mut self, issued: &Issued, meta: &Meta) -> io::Result<()> {
        let place = self.place();
        make_folder(&place)?;
        let meta = serde_json::to_string_pretty(meta)?;
        for (name, text) in [(CERTIFICATE, &issued.chain), (KEY, &issued.key), (META, &meta)] {
            // Written over, not anew: its blocks are ours already.
            let path = place.join(name);
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            file.sync_all()?;
        }
        sync_folder(&place)?;
        let before = version_in_force(&self.folder);
        let next = self.folder.join(NEXT_DATA);
        if fs::read_link(&next).ok().as_deref() != Some(Path::new(&self.version)) {
            link(&self.version, &next)?;
        }
        fs::rename(&next, self.folder.join(DATA))?;
        self.is_kept = true;
        sync_folder(&self.folder)?;
        clean(&self.folder, before.as_deref());
        Ok(())
    }

    fn place(&self) -> PathBuf {
        self.folder.join(&self.version)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(self.folder.join(NEXT_DATA));
            let _ = fs::remove_dir_all(self.place());
        }
    }
}

/// What a version holds; without versions, as in a copy without links, the files of the folder themselves.
fn read_version(folder: &Path, version: Option<&str>) -> io::Result<Option<Kept>> {
    let place = version.map_or_else(|| folder.to_owned(), |version| folder.join(version));
    let (Some(chain), Some(key)) = (read_text(&place.join(CERTIFICATE))?, read_text(&place.join(KEY))?) else {
        return Ok(None);
    };
    let meta = read_text(&place.join(META))?.and_then(|meta| serde_json::from_str(&meta).ok());
    Ok(Some(Kept { chain, key, meta: meta.unwrap_or_default() }))
}

/// The name of the folder that `..data` points to, if it is one of ours.
fn version_in_force(folder: &Path) -> Option<String> {
    let target = fs::read_link(folder.join(DATA)).ok()?.into_os_string().into_string().ok()?;
    (is_version(&target) && folder.join(&target).is_dir()).then_some(target)
}

fn is_version(name: &str) -> bool {
    name.starts_with("..") && name.as_bytes().get(2).is_some_and(u8::is_ascii_digit) && !name.contains('/')
}

/// Removes all versions but the one in force and `before`, or else the newest before it that was in force.
fn clean(folder: &Path, before: Option<&str>) {
    let Some(current) = version_in_force(folder) else {
        // A first version that never came into force.
        return remove_versions(folder, |_| false);
    };
    let _ = fs::remove_file(folder.join(NEXT_DATA));
    let is_whole = |name: &str| folder.join(name).join(META).metadata().is_ok_and(|meta| meta.len() < 4096);
    let before = before
        .map(str::to_owned)
        .or_else(|| versions(folder).into_iter().filter(|name| *name < current && is_whole(name)).max());
    remove_versions(folder, |name| *name == current || Some(name) == before.as_deref());
}

fn remove_versions(folder: &Path, stays: impl Fn(&str) -> bool) {
    for name in versions(folder).iter().filter(|name| !stays(name)) {
        if let Err(error) = fs::remove_dir_all(folder.join(name)) {
            tracing::debug!(folder = %folder.display(), name, %error, "an old version stays");
        }
    }
}

fn versions(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_version(name)).collect()
}

/// Makes `folder/name` a link into the version in force, whatever it was before.
fn point_into_data(folder: &Path, name: &str) -> io::Result<()> {
    let (target, path) = (Path::new(DATA).join(name), folder.join(name));
    if fs::read_link(&path).is_ok_and(|present| present == target) {
        return Ok(());
    }
    // A plain file, as in a copy, stays what is read until the first version of ours comes.
    if path.is_file() && version_in_force(folder).is_none() {
        adopt(folder)?;
    }
    let next = folder.join(format!("..{name}_next"));
    link(target.as_os_str(), &next)?;
    fs::rename(&next, &path)
}

/// Turns plain files into a version, so that they are served until a new one comes.
fn adopt(folder: &Path) -> io::Result<()> {
    // Older than every version that is made from now on.
    let version = "..0000_00_00_00_00_00.000000000";
    let place = folder.join(version);
    make_folder(&place)?;
    for name in [CERTIFICATE, KEY, META] {
        if let Some(text) = read_text(&folder.join(name))? {
            replace(&place.join(name), text.as_bytes())?;
        }
    }
    sync_folder(&place)?;
    let next = folder.join(NEXT_DATA);
    let reserved = fs::read_link(&next).ok();
    link(version, &next)?;
    fs::rename(&next, folder.join(DATA))?;
    match reserved {
        Some(reserved) => link(reserved, &next),
        None => Ok(()),
    }
}

/// A new link, in place of one that was left there.
fn link(target: impl AsRef<OsStr>, path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    symlink(target.as_ref(), path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn read_text(path: &Path) -> io::Result<Option<String>> {
    use io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const FOLDER: &str = "hosts/web.example.com";
    /// Where the child of a test works.
    const CHILD: &str = "LIMANI_TEST_STORE";

    fn issued(mark: u32) -> Issued {
        // Both files say which version they are of, at both ends.
        let text = |kind: &str| format!("{mark} {kind}\n{}{mark}\n", "x".repeat(6000));
        Issued { chain: text("chain"), key: text("key") }
    }

    fn keep(store: &Store, mark: u32) -> io::Result<()> {
        let meta = Meta { issuer: "ca".into(), authority: "https://ca/".into(), issued: i64::from(mark) };
        store.reserve(FOLDER, SystemTime::now())?.keep(&issued(mark), &meta)
    }

    /// The mark of what is in force, if both files are whole and of one version.
    fn mark(store: &Store) -> Option<u32> {
        let kept = store.read(FOLDER).unwrap()?;
        let mark: u32 = kept.chain.split_once(' ').unwrap().0.parse().unwrap();
        assert!(kept.chain == issued(mark).chain && kept.key == issued(mark).key, "a mixture");
        assert_eq!(kept.meta.issued, i64::from(mark));
        Some(mark)
    }

    fn shown(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_version_comes_into_force_at_once_and_the_one_before_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("a/b")).unwrap();
        assert!(mark(&store).is_none());
        for version in 1..=3 {
            keep(&store, version).unwrap();
            assert_eq!(mark(&store), Some(version));
        }
        let folder = store.place(FOLDER).unwrap();
        let names = shown(&folder);
        assert_eq!(names.iter().filter(|name| is_version(name)).count(), 2, "{names:?}");
        assert!(names.ends_with(&["tls.crt".into(), "tls.key".into()]) && names.len() == 5, "{names:?}");
        assert!(fs::read_to_string(folder.join("tls.key")).unwrap().starts_with("3 key"));
        for (path, mode) in [("tls.key", 0o600), ("tls.crt", 0o600), ("..data", 0o700), ("", 0o700)] {
            assert_eq!(fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
        }
        drop(store.reserve(FOLDER, SystemTime::now()).unwrap());
        assert_eq!(shown(&folder), names, "what was not needed is given back");
        assert_eq!(store.list(HOSTS).unwrap(), ["web.example.com"]);
        let lock = store.try_lock(FOLDER, SystemTime::now()).unwrap().unwrap();
        store.remove(lock, FOLDER).unwrap();
        assert!(mark(&store).is_none() && store.list(HOSTS).unwrap().is_empty());
    }

    #[test]
    fn foreign_and_half_written_files_do_no_harm() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let folder = store.place(FOLDER).unwrap();
        keep(&store, 1).unwrap();
        fs::create_dir(folder.join("..2999_01_01_00_00_00.000000000")).unwrap();
        fs::write(folder.join("..2999_01_01_00_00_00.000000000/tls.crt"), "half").unwrap();
        symlink("..2999_01_01_00_00_00.000000000", folder.join(NEXT_DATA)).unwrap();
        fs::write(folder.join("notes.txt"), "mine").unwrap();
        fs::create_dir(folder.join(".snapshot")).unwrap();
        fs::write(store.place(HOSTS).unwrap().join("a file"), "").unwrap();
        fs::create_dir(store.place(HOSTS).unwrap().join("not a name")).unwrap();
        assert_eq!(mark(&store), Some(1));
        assert_eq!(store.list(HOSTS).unwrap(), ["web.example.com"]);
        keep(&store, 2).unwrap();
        assert_eq!(mark(&store), Some(2));
        let names = shown(&folder);
        assert!(names.contains(&"notes.txt".into()) && names.contains(&".snapshot".into()), "{names:?}");
        assert_eq!(names.iter().filter(|name| is_version(name)).count(), 2, "{names:?}");

        fs::write(folder.join("..data/meta.json"), "{").unwrap();
        assert_eq!(store.read(FOLDER).unwrap().unwrap().meta, Meta::default());
        fs::remove_file(folder.join(DATA)).unwrap();
        symlink("../../../etc", folder.join(DATA)).unwrap();
        assert!(version_in_force(&folder).is_none(), "only versions are followed");
    }

    #[test]
    fn a_copy_without_links_is_read_and_served_until_the_next_version() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let folder = store.place(FOLDER).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(CERTIFICATE), issued(7).chain).unwrap();
        fs::write(folder.join(KEY), issued(7).key).unwrap();
        fs::write(folder.join(META), r#"{"issued": 7}"#).unwrap();
        assert_eq!(mark(&store), Some(7));
        let mut reservation = store.reserve(FOLDER, SystemTime::now()).unwrap();
        assert_eq!(mark(&store), Some(7));
        assert!(
            fs::read_to_string(folder.join(KEY)).unwrap().starts_with("7 key"),
            "served while an order is under way"
        );
        reservation.keep(&issued(8), &Meta { issued: 8, ..Meta::default() }).unwrap();
        assert_eq!(mark(&store), Some(8));
    }

    #[test]
    fn names_from_outside_stay_below_the_storage() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for name in ["", "..", "a/../b", "/etc", "a//b", "a/.b", "a\0b", "*.example.com", "a b", "ä", &"a".repeat(256)]
        {
            assert_eq!(store.place(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(store.place("hosts/_wildcard.example.com").is_ok());
        store.write_text("state/a/b.json", "1").unwrap();
        store.write_text("state/a/b.json", "2").unwrap();
        assert_eq!(store.read_text("state/a/b.json").unwrap().as_deref(), Some("2"));
        fs::write(store.place("state/a").unwrap().join(".1-2-3.unfinished"), "").unwrap();
        store.sweep("state/a", SystemTime::now()).unwrap();
        assert_eq!(shown(&store.place("state/a").unwrap()).len(), 2, "it may still be written");
        store.sweep("state/a", SystemTime::now() + Duration::from_secs(7200)).unwrap();
        assert_eq!(shown(&store.place("state/a").unwrap()), ["b.json"]);
        store.remove_text("state/a/b.json").unwrap();
        assert_eq!(store.read_text("state/a/b.json").unwrap(), None);
    }

    /// What the children of the tests below do: renews for ever, with every second order given up.
    #[test]
    #[ignore = "the part of a child"]
    fn child() {
        let store = Store::open(Path::new(&std::env::var_os(CHILD).expect("a folder"))).unwrap();
        loop {
            let Some(_lock) = store.try_lock(FOLDER, SystemTime::now()).unwrap() else { continue };
            // Who has waited reads first.
            let next = mark(&store).map_or(1, |mark| mark + 1);
            drop(store.reserve(FOLDER, SystemTime::now()).unwrap());
            keep(&store, next).unwrap();
            store.write_text("orders", &format!("{next}")).unwrap();
        }
    }

    fn start_child(root: &Path) -> std::process::Child {
        let test = "certs::store::tests::child";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", test]).env(CHILD, root).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    #[test]
    fn two_processes_are_killed_at_any_point_and_the_store_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut last = 0;
        for round in 0..25 {
            let mut children = [start_child(root.path()), start_child(root.path())];
            // Until something was done in this round, and then until some point of what comes next.
            let began = std::time::Instant::now();
            while mark(&store).unwrap_or(0) <= last && began.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(fastrand::u64(..8000)));
            for child in &mut children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            let now = mark(&store).expect("what was in force stays");
            assert!(now > last, "round {round}: the lock of a killed process is free");
            last = now;
        }
        keep(&store, last + 1).unwrap();
        let names = shown(&store.place(FOLDER).unwrap());
        assert!(names.len() == 5 && mark(&store) == Some(last + 1), "{names:?}");
    }

    #[test]
    fn a_full_disk_is_found_out_before_anything_is_ordered() {
        let root = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(root.path()).output();
        if !mount.is_ok_and(|done| done.status.success()) {
            println!("skipped: this user may not mount");
            return;
        }
        let store = Store::open(root.path()).unwrap();
        keep(&store, 1).unwrap();
        let mut reservation = store.reserve(FOLDER, SystemTime::now()).unwrap();
        let filler = root.path().join("filler");
        let full = fs::write(&filler, vec![0; 512 * 1024]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let meta = Meta { issued: 2, ..Meta::default() };
        let kept = reservation.keep(&issued(2), &meta);
        let refused = store.reserve(FOLDER, SystemTime::now()).map(drop);
        let in_force = mark(&store);
        fs::remove_file(&filler).unwrap();
        let again = keep(&store, 3);
        let last = mark(&store);
        drop(reservation);
        Command::new("umount").arg(root.path()).status().unwrap();
        kept.expect("there is room for what was ordered");
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(in_force, Some(2));
        again.unwrap();
        assert_eq!(last, Some(3));
    }
}
