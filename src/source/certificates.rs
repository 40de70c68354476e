//! What is in the certificate files that manifests, routes and settings name? Each becomes a Secret in the gateway's
//! namespace.
//!
//! The Secret of `serverCertificate: /etc/a.pem` is named `file:/etc/a.pem` and has `tls.crt` and `tls.key`; a CA file is
//! the Secret `file:<path of the CA>` with `ca.crt`, a revocation list `file:<path of the list>` with `ca.crl`. Our own
//! certificate in the mesh is the Secret `builtin://`, as Istio names it, with all three. The secrets of session tickets
//! are the Secret `file:<path>` with `keys`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Stamp;
use super::folders::{Folders, Reading, readable_by_others};
use super::identity;
use super::mounts::Mounts;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::networking::{ClientTls, DestinationRule, Gateway, ServerTls};
use crate::resource::settings::Settings;

/// No file of certificates is longer; lists of revoked ones may be long.
const MOST_BYTES: u64 = 16 << 20;

/// The files that were read, with their last good content.
#[derive(Default)]
pub(super) struct Certificates {
    files: HashMap<PathBuf, (Stamp, Vec<u8>)>,
    secrets: HashMap<String, Arc<Object<Secret>>>,
    folders: Folders,
}

/// The folders below the storage, with what the names of their Secrets begin with.
const ISSUED: [(&str, &str); 4] = [("hosts", "acme:"), ("on-demand", "acme:"), ("secrets", ""), ("local", "local-ca:")];

/// Files that belong together, as an object names them.
struct Wanted<'a> {
    /// The field that names the certificate, such as `spec.servers[0].tls.serverCertificate`.
    field: String,
    certificate: &'a str,
    key: &'a str,
    authorities: &'a str,
    revocations: &'a str,
}

impl Certificates {
    /// Adds a Secret for every file that `set` names; answers with the files, to be watched.
    pub(super) fn gather(
        &mut self,
        folder: &Path,
        settings: &Settings,
        set: &mut ResourceSet,
        findings: &mut Vec<Finding>,
    ) -> Vec<PathBuf> {
        let mut reader = Reader { known: self, folder, settings, findings, secrets: Vec::new(), paths: Vec::new() };
        reader.read_identity();
        reader.read_ticket_keys();
        for gateway in &set.gateways {
            reader.read_all(&gateway.title(), &gateway.origin, &of_gateway(&gateway.spec));
        }
        for rule in &set.destination_rules {
            reader.read_all(&rule.title(), &rule.origin, &of_rule(&rule.spec));
        }
        let (secrets, mut paths) = (reader.secrets, reader.paths);
        let names: HashSet<&String> = secrets.iter().map(|secret| &secret.meta.name).collect();
        self.secrets.retain(|name, _| names.contains(name));
        let wanted: HashSet<&PathBuf> = paths.iter().collect();
        self.files.retain(|path, _| wanted.contains(path));
        set.secrets.extend(secrets);
        paths.extend(settings.tls.secrets.iter().cloned());
        paths.extend(identity::folder(&settings.identity));
        tell_frozen(&paths, findings);
        paths.extend(self.gather_folders(settings, set, findings));
        paths
    }

    /// The Secrets of folders, of `[tls] secrets` and of what was issued. A manifest's Secret of the same name wins.
    fn gather_folders(
        &mut self,
        settings: &Settings,
        set: &mut ResourceSet,
        findings: &mut Vec<Finding>,
    ) -> Vec<PathBuf> {
        let (mut reading, namespace) = (Reading::default(), &settings.gateway.namespace);
        for root in &settings.tls.secrets {
            self.folders.tree(root, "", namespace, &mut reading);
        }
        if let Some(root) = identity::folder(&settings.identity) {
            self.folders.identity(&root, "builtin://", namespace, &mut reading);
        }
        let issued = settings
            .acme
            .storage
            .iter()
            .flat_map(|storage| ISSUED.map(|(below, prefix)| (storage.join(below), prefix)));
        // Where there is no folder, nothing was issued yet.
        for (root, prefix) in issued.filter(|(root, _)| root.is_dir()) {
            self.folders.tree(&root, prefix, namespace, &mut reading);
        }
        self.folders.finish();
        let mut origins: HashMap<&str, &Origin> = HashMap::new();
        let ours = set.secrets.iter().filter(|secret| secret.meta.namespace == *namespace);
        origins.extend(ours.map(|secret| (secret.meta.name.as_str(), &secret.origin)));
        let mut added = Vec::with_capacity(reading.secrets.len());
        for secret in &reading.secrets {
            match origins.get(secret.meta.name.as_str()) {
                None => {
                    origins.insert(&secret.meta.name, &secret.origin);
                    added.push(Arc::clone(secret));
                }
                // A name that was got on demand may have been written down since.
                Some(_) if secret.meta.name.starts_with("acme:") => {}
                Some(first) => {
                    let message = format!("the same Secret stands at {}; that one is in force", first.start());
                    let finding = Finding::new(&codes::DUPLICATE_OBJECT, secret.origin.start(), message);
                    findings.push(finding.about(secret.title()).hint("rename the folder, or remove one of the two"));
                }
            }
        }
        set.secrets.extend(added);
        findings.extend(reading.findings);
        reading.linked
    }
}

/// Tells of certificates that no update will ever reach.
fn tell_frozen(paths: &[PathBuf], findings: &mut Vec<Finding>) {
    if paths.is_empty() {
        return;
    }
    for place in Mounts::read().frozen_among(paths) {
        let location = Location { file: place.display().to_string(), line: 0, column: 0 };
        let message = "it is mounted with subPath: only a new container sees a new version";
        findings.push(Finding::new(&codes::NEVER_UPDATED, location, message).kind("never_updated"));
    }
}

fn of_gateway(gateway: &Gateway) -> Vec<Wanted<'_>> {
    let tls = gateway.servers.iter().enumerate().filter_map(|(index, server)| Some((index, server.tls.as_ref()?)));
    tls.flat_map(|(index, tls)| of_server(&format!("spec.servers[{index}].tls"), tls)).collect()
}

fn of_server<'a>(path: &str, tls: &'a ServerTls) -> Vec<Wanted<'a>> {
    let own = Wanted {
        field: format!("{path}.serverCertificate"),
        certificate: &tls.server_certificate,
        key: &tls.private_key,
        authorities: &tls.ca_certificates,
        revocations: &tls.ca_crl,
    };
    let more = tls.tls_certificates.iter().enumerate().map(|(index, files)| Wanted {
        field: format!("{path}.tlsCertificates[{index}].serverCertificate"),
        certificate: &files.server_certificate,
        key: &files.private_key,
        authorities: &files.ca_certificates,
        revocations: "",
    });
    std::iter::once(own).chain(more).collect()
}

fn of_rule(rule: &DestinationRule) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::new();
    let policies = std::iter::once(("spec.trafficPolicy".to_owned(), rule.traffic_policy.as_ref())).chain(
        rule.subsets
            .iter()
            .enumerate()
            .map(|(index, subset)| (format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref())),
    );
    for (path, policy) in policies {
        let Some(policy) = policy else { continue };
        wanted.extend(policy.tls.as_ref().map(|tls| of_client(&format!("{path}.tls"), tls)));
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let path = format!("{path}.portLevelSettings[{index}].tls");
            wanted.extend(port.tls.as_ref().map(|tls| of_client(&path, tls)));
        }
    }
    wanted
}

fn of_client<'a>(path: &str, tls: &'a ClientTls) -> Wanted<'a> {
    let named = if tls.client_certificate.is_empty() { "caCertificates" } else { "clientCertificate" };
    Wanted {
        field: format!("{path}.{named}"),
        certificate: &tls.client_certificate,
        key: &tls.private_key,
        authorities: &tls.ca_certificates,
        revocations: &tls.ca_crl,
    }
}

struct Reader<'a> {
    known: &'a mut Certificates,
    folder: &'a Path,
    settings: &'a Settings,
    findings: &'a mut Vec<Finding>,
    secrets: Vec<Arc<Object<Secret>>>,
    paths: Vec<PathBuf>,
}

impl Reader<'_> {
    /// Puts the content of a file under a key of a Secret; a file that nobody named is none.
    fn read_into(&mut self, data: &mut BTreeMap<String, Vec<u8>>, key: &str, name: &str) -> Result<(), String> {
        if !name.is_empty() {
            data.insert(key.to_owned(), self.content(name)?);
            self.look_at_mode(key, name);
        }
        Ok(())
    }

    fn read_all(&mut self, object: &str, origin: &Origin, wanted: &[Wanted<'_>]) {
        for files in wanted {
            let mut data = BTreeMap::new();
            for (key, name) in [
                ("tls.crt", files.certificate),
                ("tls.key", files.key),
                ("ca.crt", files.authorities),
                ("ca.crl", files.revocations),
            ] {
                if let Err(error) = self.read_into(&mut data, key, name) {
                    let place = origin.locate(&files.field);
                    let finding = Finding::new(&codes::CERTIFICATE_FILE, place, format!("{name}: {error}"));
                    self.findings.push(finding.about(object).kind("unreadable"));
                }
            }
            // The rules that share a certificate may differ in their CA and its list, so they stand alone.
            for (key, file) in [("ca.crt", files.authorities), ("ca.crl", files.revocations)] {
                if let Some(bytes) = data.remove(key) {
                    self.add(&format!("file:{file}"), BTreeMap::from([(key.to_owned(), bytes)]), origin);
                }
            }
            if data.contains_key("tls.crt") && data.contains_key("tls.key") {
                self.add(&format!("file:{}", files.certificate), data, origin);
            }
        }
    }

    /// The bytes of a file; those read last, if it cannot be read now.
    fn content(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        self.paths.push(path.clone());
        let known = self.known.files.get(&path);
        let read = Stamp::of(&path).and_then(|stamp| match known {
            Some((earlier, bytes)) if earlier.proves_unchanged(&stamp) => Ok((stamp, bytes.clone())),
            _ => Ok((stamp, read(&path)?)),
        });
        match (read, known) {
            (Ok((stamp, bytes)), _) => {
                self.known.files.insert(path, (stamp, bytes.clone()));
                Ok(bytes)
            }
            (Err(error), None) => Err(error.to_string()),
            (Err(error), Some((_, bytes))) => {
                let bytes = bytes.clone();
                let location = Location { file: path.display().to_string(), line: 0, column: 0 };
                let finding = Finding::new(&codes::CERTIFICATE_FILE, location, error.to_string());
                self.findings.push(finding.hint("what it held stays in force").kind("unreadable"));
                Ok(bytes)
            }
        }
    }

    /// Tells once of a private key that everybody may read; not of volumes that kubelet mounts.
    fn look_at_mode(&mut self, key: &str, name: &str) {
        let path = self.folder.join(name);
        let mounted = path.parent().is_some_and(|parent| parent.join("..data").exists());
        if key == "tls.key" && !mounted {
            let told = readable_by_others(&path).filter(|finding| !self.findings.contains(finding));
            self.findings.extend(told);
        }
    }

    /// What `[identity]` of the settings names.
    fn read_identity(&mut self) {
        let identity = &self.settings.identity;
        if !identity.is_from_files() || identity::folder(identity).is_some() {
            return;
        }
        let mut data = BTreeMap::new();
        for (setting, key, name) in [
            ("certificate", "tls.crt", &identity.certificate),
            ("key", "tls.key", &identity.key),
            ("root", "ca.crt", &identity.root),
            ("crl", "ca.crl", &identity.crl),
        ] {
            if let Err(error) = self.read_into(&mut data, key, name) {
                let file = self.folder.join(name).display().to_string();
                let message = format!("`{setting}` of [identity]: {error}");
                let location = Location { file, line: 0, column: 0 };
                self.findings.push(Finding::new(&codes::CERTIFICATE_FILE, location, message));
            }
        }
        if !data.is_empty() {
            self.add("builtin://", data, &Origin::default());
        }
    }

    /// What `session_ticket_keys` of the settings names.
    fn read_ticket_keys(&mut self) {
        let name = &self.settings.tls.session_ticket_keys;
        if name.is_empty() || !self.settings.tls.session_tickets {
            return;
        }
        match self.content(name) {
            Ok(bytes) => {
                self.look_at_mode("key", name);
                let file = self.folder.join(name).display().to_string();
                let origin = Origin { file: file.into(), ..Origin::default() };
                self.add(&format!("file:{name}"), BTreeMap::from([("keys".to_owned(), bytes)]), &origin);
            }
            Err(error) => {
                let location = Location { file: self.folder.join(name).display().to_string(), line: 0, column: 0 };
                let message = format!("`session_ticket_keys` of [tls]: {error}");
                self.findings.push(Finding::new(&codes::CERTIFICATE_FILE, location, message));
            }
        }
    }

    fn add(&mut self, name: &str, data: BTreeMap<String, Vec<u8>>, origin: &Origin) {
        if self.secrets.iter().any(|secret| secret.meta.name == name) {
            return;
        }
        let namespace = &self.settings.gateway.namespace;
        let earlier =
            self.known.secrets.get(name).filter(|old| old.spec.data == data && old.meta.namespace == *namespace);
        let secret = earlier.cloned().unwrap_or_else(|| {
            let meta = Meta { name: name.to_owned(), namespace: namespace.clone(), ..Meta::default() };
            let spec = Secret { kind: "kubernetes.io/tls".into(), data };
            Arc::new(Object { meta, spec, origin: origin.clone() })
        });
        self.known.secrets.insert(name.to_owned(), secret.clone());
        self.secrets.push(secret);
    }
}

/// The bytes of a plain file. Whoever writes manifests may name any, such as one without an end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other("it is longer than 16 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_not_read() {
        for path in ["/dev/zero", "/dev/null", "/dev"] {
            assert_eq!(read(Path::new(path)).unwrap_err().to_string(), "it is no plain file");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(read(file.path()).unwrap_err().to_string(), "it is longer than 16 MiB");
    }

    #[test]
    fn files_become_secrets_and_stay_when_they_vanish() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.pem", "a.key", "ca.pem", "ca.crl"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let secret = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("a.key"), secret).unwrap();
        let tls = ServerTls {
            server_certificate: "a.pem".into(),
            private_key: "a.key".into(),
            ca_certificates: "ca.pem".into(),
            ca_crl: "ca.crl".into(),
            ..ServerTls::default()
        };
        let server = crate::resource::networking::Server { tls: Some(tls), ..Default::default() };
        let spec = Gateway { servers: vec![server], ..Gateway::default() };
        let gateway = Arc::new(Object { meta: Meta::default(), spec, origin: Origin::default() });
        let mut certificates = Certificates::default();
        let mut gather = || {
            let mut set = ResourceSet { gateways: vec![gateway.clone()], ..ResourceSet::default() };
            let mut findings = Vec::new();
            let mut settings = Settings::default();
            settings.identity.root = "ca.pem".into();
            certificates.gather(folder.path(), &settings, &mut set, &mut findings);
            let keys = |s: &Arc<Object<Secret>>| {
                (s.meta.name.clone(), s.spec.data.keys().cloned().collect::<Vec<_>>().join(" "))
            };
            (set.secrets.iter().map(keys).collect::<Vec<_>>(), findings.len())
        };
        let wanted = vec![
            ("builtin://".to_owned(), "ca.crt".to_owned()),
            ("file:ca.pem".to_owned(), "ca.crt".to_owned()),
            ("file:ca.crl".to_owned(), "ca.crl".to_owned()),
            ("file:a.pem".to_owned(), "tls.crt tls.key".to_owned()),
        ];
        assert_eq!(gather(), (wanted.clone(), 0));
        std::fs::remove_file(folder.path().join("a.key")).unwrap();
        assert_eq!(gather(), (wanted, 1));
    }
}
