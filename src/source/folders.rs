//! Which Secrets stand in a folder of PEM files? As cert-manager and kubelet mount them, as certbot keeps them, and as
//! our own store has them.
//!
//! A folder with files such as `tls.crt` and `tls.key` is one Secret, named like the folder; a folder of folders is a
//! tree of them. Kubelet swaps all files of a volume at once, by renaming the link `..data`: a volume is read through the
//! folder that the link leads to, and again if it was swapped meanwhile, so that a Secret never mixes two generations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Stamp;
use crate::base::kept_name;
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::{Meta, Object, Origin};

/// File names with the keys of a Secret that they stand for. Certbot's names give way to others.
const FILES: [(&str, &str); 10] = [
    ("fullchain.pem", "tls.crt"),
    ("privkey.pem", "tls.key"),
    ("tls.crt", "tls.crt"),
    ("tls.key", "tls.key"),
    ("ca.crt", "ca.crt"),
    ("ca.crl", "ca.crl"),
    ("cert", "cert"),
    ("key", "key"),
    ("cacert", "cacert"),
    ("crl", "crl"),
];

/// The names of one identity in the mesh, in a folder of its own: as Istio, csi-driver-spiffe and GKE mount it.
const IDENTITY_FILES: [(&str, &str); 11] = [
    ("cert-chain.pem", "tls.crt"),
    ("key.pem", "tls.key"),
    ("root-cert.pem", "ca.crt"),
    ("ca-crl.pem", "ca.crl"),
    ("certificates.pem", "tls.crt"),
    ("private_key.pem", "tls.key"),
    ("ca_certificates.pem", "ca.crt"),
    ("tls.crt", "tls.crt"),
    ("tls.key", "tls.key"),
    ("ca.crt", "ca.crt"),
    ("ca.crl", "ca.crl"),
];

/// The link that kubelet swaps.
const GENERATION: &str = "..data";

/// How deep folders may be nested; a symbolic link that leads upwards ends here.
const MAX_DEPTH: usize = 8;

/// How often a volume is read that is swapped while it is read.
const TRIES: usize = 5;

/// A file that is longer is none of ours.
const MAX_BYTES: u64 = 1 << 20;

/// The folders that were read, with their last Secrets.
#[derive(Default)]
pub(super) struct Folders {
    /// By the folder as the settings name it, not by what `..data` leads to.
    known: HashMap<PathBuf, Known>,
    /// The folders of this reading.
    seen: HashSet<PathBuf>,
}

struct Known {
    /// By the key of the Secret.
    stamps: Vec<(&'static str, Stamp)>,
    secret: Arc<Object<Secret>>,
}

impl Known {
    fn is(&self, name: &str, namespace: &str) -> bool {
        self.secret.meta.name == name && self.secret.meta.namespace == namespace
    }

    fn proves_unchanged(&self, now: &[(&'static str, Stamp)]) -> bool {
        let same = |((a, earlier), (b, now)): (&(&str, Stamp), &(&str, Stamp))| a == b && earlier.proves_unchanged(now);
        self.stamps.len() == now.len() && self.stamps.iter().zip(now).all(same)
    }
}

/// What a reading gave.
#[derive(Default)]
pub(super) struct Reading {
    pub secrets: Vec<Arc<Object<Secret>>>,
    pub findings: Vec<Finding>,
    /// Files outside of the trees that links in them lead to: to be watched beside the trees.
    pub linked: Vec<PathBuf>,
}

impl Folders {
    /// The Secrets of the tree at `root`, in the order of their folders, in `namespace`. With a prefix such as `acme:`
    /// each is named `acme:` and the host that its folder is kept for.
    pub(super) fn tree(&mut self, root: &Path, prefix: &str, namespace: &str, reading: &mut Reading) {
        let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.or_else(|| Some(root.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned()));
        let mut visit = Visit { folders: self, root, prefix, namespace, names: &FILES, deepest: MAX_DEPTH, reading };
        visit.folder(root, root, &name.unwrap_or_default(), 0);
    }

    /// The Secret `name` of one folder that holds an identity in the mesh; folders in it do not matter.
    pub(super) fn identity(&mut self, root: &Path, name: &str, namespace: &str, reading: &mut Reading) {
        let names = &IDENTITY_FILES;
        let mut visit = Visit { folders: self, root, prefix: "", namespace, names, deepest: 0, reading };
        visit.folder(root, root, name, 0);
    }

    /// Forgets what this reading did not see.
    pub(super) fn finish(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.known.retain(|folder, _| seen.contains(folder));
    }
}

struct Visit<'a> {
    folders: &'a mut Folders,
    root: &'a Path,
    prefix: &'a str,
    namespace: &'a str,
    /// File names with the keys that they stand for.
    names: &'static [(&'static str, &'static str)],
    /// How deep folders are looked into.
    deepest: usize,
    reading: &'a mut Reading,
}

impl Visit<'_> {
    /// `shown` is the folder as the user knows it; `real`, where its files are now.
    fn folder(&mut self, shown: &Path, real: &Path, name: &str, depth: usize) {
        for tries in 1.. {
            let target = fs::read_link(real.join(GENERATION)).ok().map(|target| real.join(target));
            let before = (self.reading.secrets.len(), self.reading.findings.len(), self.reading.linked.len());
            let read = self.files(shown, target.as_deref().unwrap_or(real), name, depth, target.is_some());
            let now = fs::read_link(real.join(GENERATION)).ok().map(|target| real.join(target));
            if now != target && tries < TRIES {
                self.reading.secrets.truncate(before.0);
                self.reading.findings.truncate(before.1);
                self.reading.linked.truncate(before.2);
                continue;
            }
            if let Err(error) = read {
                self.keep_below(shown, &error);
            }
            return;
        }
    }

    /// `swapped` tells that `..data` led to `real`.
    fn files(&mut self, shown: &Path, real: &Path, name: &str, depth: usize, swapped: bool) -> io::Result<()> {
        if depth > self.deepest {
            return Err(io::Error::other(format!("nested deeper than {MAX_DEPTH} folders")));
        }
        let mut entries = fs::read_dir(real)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut found: BTreeMap<&'static str, PathBuf> = BTreeMap::new();
        let mut below = Vec::new();
        for entry in &entries {
            let (kind, path) = (entry.file_type()?, entry.path());
            let Ok(entry) = entry.file_name().into_string() else { continue };
            if let Some((file, key)) = self.names.iter().find(|(file, _)| *file == entry) {
                if file == key || !found.contains_key(key) {
                    found.insert(key, path.clone());
                }
                if kind.is_symlink() && !swapped {
                    self.reading.linked.extend(path.canonicalize().ok().filter(|to| !to.starts_with(self.root)));
                }
            } else if self.deepest > 0
                && !entry.starts_with('.')
                && (kind.is_dir() || kind.is_symlink() && path.is_dir())
            {
                below.push((entry, path));
            }
        }
        if !found.is_empty() {
            self.secret(shown, name, &found, swapped);
        }
        for (entry, path) in below {
            self.folder(&shown.join(&entry), &path, &entry, depth + 1);
        }
        Ok(())
    }

    fn secret(&mut self, shown: &Path, name: &str, found: &BTreeMap<&'static str, PathBuf>, swapped: bool) {
        let name = self.name(name);
        self.folders.seen.insert(shown.to_owned());
        let known = self.folders.known.get(shown);
        let known = known.filter(|known| known.is(&name, self.namespace));
        let keys = found.iter().filter(|(key, _)| !swapped && (**key == "tls.key" || **key == "key"));
        // Kubelet shows its files to everybody in the container, so its volumes are left alone.
        self.reading.findings.extend(keys.filter_map(|(_, path)| readable_by_others(path)));
        let secret = match read(found, known) {
            Ok(None) => known.map(|known| Arc::clone(&known.secret)),
            Ok(Some((stamps, data))) => {
                let same = known.filter(|known| known.secret.spec.data == data);
                let secret = same.map(|known| Arc::clone(&known.secret)).unwrap_or_else(|| {
                    let meta = Meta { name, namespace: self.namespace.to_owned(), ..Meta::default() };
                    let origin = Origin { file: shown.display().to_string().into(), ..Origin::default() };
                    Arc::new(Object { meta, spec: Secret { kind: "kubernetes.io/tls".into(), data }, origin })
                });
                self.folders.known.insert(shown.to_owned(), Known { stamps, secret: Arc::clone(&secret) });
                Some(secret)
            }
            Err((path, error)) => {
                let mut finding =
                    Finding::new(&codes::CERTIFICATE_FILE, place(path), error.to_string()).kind("unreadable");
                if known.is_some() {
                    finding = finding.hint(format!("what {} held stays in force", shown.display()));
                }
                self.reading.findings.push(finding);
                known.map(|known| Arc::clone(&known.secret))
            }
        };
        self.reading.secrets.extend(secret);
    }

    fn name(&self, folder: &str) -> String {
        match self.prefix {
            "" => folder.to_owned(),
            prefix => format!("{prefix}{}", kept_name::to_host(folder).as_deref().unwrap_or(folder)),
        }
    }

    /// A folder that cannot be looked at keeps all its Secrets.
    fn keep_below(&mut self, shown: &Path, error: &io::Error) {
        let mut kept: Vec<&PathBuf> = self.folders.known.keys().filter(|folder| folder.starts_with(shown)).collect();
        kept.sort();
        let mut finding = Finding::new(&codes::CERTIFICATE_FILE, place(shown), error.to_string()).kind("unreadable");
        if !kept.is_empty() {
            finding = finding.hint("what it held stays in force");
        }
        let secrets = kept.iter().filter_map(|folder| self.folders.known.get(*folder));
        self.reading.secrets.extend(secrets.map(|known| Arc::clone(&known.secret)));
        self.reading.findings.push(finding);
        let kept: Vec<PathBuf> = kept.into_iter().cloned().collect();
        self.folders.seen.extend(kept);
    }
}

/// A finding, if everybody on the machine may read a private key.
pub(super) fn readable_by_others(path: &Path) -> Option<Finding> {
    let metadata = fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode() & 0o777;
    (metadata.is_file() && mode & 0o007 != 0).then(|| {
        let message = format!("everybody on this machine may read the private key: its mode is {mode:04o}");
        Finding::new(&codes::KEY_READABLE, place(path), message)
            .hint(format!("chmod 600 {}", path.display()))
            .kind("readable_by_others")
    })
}

/// A pipe or a device, whose reading never ends, is none of ours.
fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    let is_other = !metadata.is_file() && !metadata.is_dir();
    if is_other { Err(io::Error::other("it is no plain file")) } else { fs::read(path) }
}

fn place(path: &Path) -> Location {
    Location { file: path.display().to_string(), line: 0, column: 0 }
}

/// What the files of a Secret hold, by its keys.
type Content = (Vec<(&'static str, Stamp)>, BTreeMap<String, Vec<u8>>);

/// Reads the files of a Secret; `None` if they are surely those that are known. Fails with the first that cannot be
/// read: what is left would be of another time.
fn read<'a>(
    found: &'a BTreeMap<&'static str, PathBuf>,
    known: Option<&Known>,
) -> Result<Option<Content>, (&'a Path, io::Error)> {
    let mut stamps = Vec::with_capacity(found.len());
    for (key, path) in found {
        stamps.push((*key, Stamp::of(path).map_err(|error| (path.as_path(), error))?));
    }
    if known.is_some_and(|known| known.proves_unchanged(&stamps)) {
        return Ok(None);
    }
    let mut data = BTreeMap::new();
    for ((key, path), (_, stamp)) in found.iter().zip(&stamps) {
        let is_long = stamp.size() > MAX_BYTES;
        let bytes = if is_long { Err(io::Error::other("it is longer than 1 MiB")) } else { read_plain(path) };
        data.insert((*key).to_owned(), bytes.map_err(|error| (path.as_path(), error))?);
    }
    Ok(Some((stamps, data)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Name, keys with their values, of each Secret; and the messages.
    fn read(folders: &mut Folders, root: &Path, prefix: &str) -> (Vec<String>, Vec<String>) {
        let mut reading = Reading::default();
        folders.tree(root, prefix, "edge", &mut reading);
        folders.finish();
        let show = |secret: &Arc<Object<Secret>>| {
            let data = secret.spec.data.iter().map(|(key, value)| format!(" {key}={}", String::from_utf8_lossy(value)));
            format!("{}{}", secret.meta.name, data.collect::<String>())
        };
        let findings = reading.findings.iter().map(|finding| format!("{} {}", finding.code, finding.hint));
        (reading.secrets.iter().map(show).collect(), findings.collect())
    }

    #[test]
    fn a_folder_is_a_secret_and_a_folder_of_folders_a_tree() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        write(&at("certs/web/tls.crt"), "1");
        write(&at("certs/web/tls.key"), "2");
        write(&at("certs/web/notes.txt"), "3");
        write(&at("certs/team/old/cert"), "4");
        write(&at("certs/team/old/key"), "5");
        write(&at("certs/.hidden/tls.crt"), "6");
        write(&at("archive/a/fullchain1.pem"), "7");
        write(&at("archive/a/privkey1.pem"), "8");
        fs::create_dir_all(at("certs/a.com")).unwrap();
        symlink("../../archive/a/fullchain1.pem", at("certs/a.com/fullchain.pem")).unwrap();
        symlink("../../archive/a/privkey1.pem", at("certs/a.com/privkey.pem")).unwrap();
        let mut folders = Folders::default();
        let (secrets, findings) = read(&mut folders, &at("certs"), "");
        assert_eq!(secrets, ["a.com tls.crt=7 tls.key=8", "old cert=4 key=5", "web tls.crt=1 tls.key=2"]);
        assert_eq!(findings, Vec::<String>::new());
        assert_eq!(read(&mut folders, &at("certs/web"), "").0, ["web tls.crt=1 tls.key=2"]);
        write(&at("hosts/_wildcard.a.com/tls.crt"), "9");
        write(&at("hosts/b.com/tls.crt"), "0");
        assert_eq!(read(&mut folders, &at("hosts"), "acme:").0, ["acme:*.a.com tls.crt=9", "acme:b.com tls.crt=0"]);
    }

    #[test]
    fn a_volume_is_read_through_its_generation() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        let generation = |number: u32| {
            write(&at(&format!("web/..{number}/tls.crt")), &format!("c{number}"));
            write(&at(&format!("web/..{number}/tls.key")), &format!("k{number}"));
            symlink(format!("..{number}"), at("web/..data_tmp")).unwrap();
            fs::rename(at("web/..data_tmp"), at("web/..data")).unwrap();
        };
        generation(1);
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), at(&format!("web/{file}"))).unwrap();
        }
        let mut folders = Folders::default();
        assert_eq!(read(&mut folders, &at("web"), "").0, ["web tls.crt=c1 tls.key=k1"]);
        generation(2);
        fs::remove_dir_all(at("web/..1")).unwrap();
        assert_eq!(read(&mut folders, &at("web"), "").0, ["web tls.crt=c2 tls.key=k2"]);
        fs::remove_dir_all(at("web/..2")).unwrap();
        let (secrets, findings) = read(&mut folders, &at("web"), "");
        assert_eq!((secrets.len(), findings.len()), (1, 1), "a broken volume keeps what it held");
    }

    #[test]
    fn what_cannot_be_read_stays_and_open_keys_are_told() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        write(&at("web/tls.crt"), "1");
        write(&at("web/tls.key"), "2");
        let mut folders = Folders::default();
        read(&mut folders, &at("web"), "");
        fs::set_permissions(at("web/tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let expected = format!("LIM0072 chmod 600 {}", at("web/tls.key").display());
        assert_eq!(read(&mut folders, &at("web"), ""), (vec!["web tls.crt=1 tls.key=2".to_owned()], vec![expected]));
        fs::remove_file(at("web/tls.key")).unwrap();
        fs::create_dir(at("web/tls.key")).unwrap();
        let (secrets, findings) = read(&mut folders, &at("web"), "");
        assert_eq!(secrets, ["web tls.crt=1 tls.key=2"]);
        assert!(findings[0].starts_with("LIM0021 what "), "{findings:?}");
        fs::rename(at("web"), at("gone")).unwrap();
        let (secrets, findings) = read(&mut folders, &at("web"), "");
        assert_eq!((secrets.len(), findings.len()), (1, 1));
        assert_eq!(read_plain(Path::new("/dev/zero")).unwrap_err().to_string(), "it is no plain file");
    }
}
