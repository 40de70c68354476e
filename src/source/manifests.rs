//! Which objects do the manifest files hold now? Unchanged files are not read again, and what breaks keeps its last
//! good version.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::{self, Stamp, Unreadable};
use super::kinds::{Class, Effect, Harvest, Key, Resource, classify, harvest};
use super::variables::fill;
use super::yaml::{self, Part};
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::Origin;
use crate::resource::settings::Settings;

/// What the manifest files gave, kept from one read to the next.
#[derive(Default)]
pub(super) struct Manifests {
    files: HashMap<PathBuf, File>,
    /// The settings that the meaning of a file depends on.
    reading: Reading,
}

/// The settings that the meaning of a file depends on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    variables: BTreeMap<String, String>,
    default_namespace: String,
}

struct File {
    stamp: Stamp,
    resources: Vec<Resource>,
    findings: Vec<Finding>,
    documents: Vec<Document>,
}

/// What one document of a file gave; it is not read again while its text and its line stay.
#[derive(Clone)]
struct Document {
    line: u32,
    /// With its variables filled in.
    text: Arc<str>,
    harvest: Arc<Harvest>,
}

impl Manifests {
    /// Reads what changed and adds all objects to `set`.
    pub(super) fn gather(&mut self, settings: &Settings, set: &mut ResourceSet, findings: &mut Vec<Finding>) {
        let reading = Reading {
            variables: settings.source.variables.clone(),
            default_namespace: settings.gateway.default_namespace.clone(),
        };
        let same_reading = self.reading == reading;
        self.reading = reading;
        let (found, failed) = directory::list(&settings.source.manifests);
        let mut order: Vec<PathBuf> = Vec::with_capacity(found.len());
        for file in found {
            self.refresh(&file.path, file.stamp, same_reading, findings);
            order.push(file.path);
        }
        for Unreadable { path, error } in failed {
            let kept = self.below(&path);
            findings.push(unreadable(&path, &error, kept.len()));
            order.extend(kept);
        }
        let wanted: HashSet<&PathBuf> = order.iter().collect();
        self.files.retain(|path, _| wanted.contains(path));
        self.collect(&order, set, findings);
    }

    /// Files that were read earlier from a path that cannot be looked at now.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        let mut kept: Vec<PathBuf> = self.files.keys().filter(|file| file.starts_with(path)).cloned().collect();
        kept.sort();
        kept
    }

    fn refresh(&mut self, path: &Path, stamp: Stamp, same_reading: bool, findings: &mut Vec<Finding>) {
        if let Some(file) = self.files.get(path)
            && same_reading
            && file.stamp.proves_unchanged(&stamp)
        {
            return;
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let kept = self.files.get(path).map_or(0, |file| file.resources.len());
                return findings.push(unreadable(path, &error, kept));
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let earlier = self.files.remove(path);
        let (resources, known) = earlier.map(|file| (file.resources, file.documents)).unwrap_or_default();
        let known = if same_reading { known } else { Vec::new() };
        let documents = read_text(&path.display().to_string(), &text, &self.reading, known);
        let mut out = Harvest::default();
        documents.iter().for_each(|document| out.append(&document.harvest));
        keep_last_good(&mut out, resources);
        let Harvest { resources, findings, .. } = out;
        self.files.insert(path.to_owned(), File { stamp, resources, findings, documents });
    }

    fn collect(&self, order: &[PathBuf], set: &mut ResourceSet, findings: &mut Vec<Finding>) {
        let mut places: HashMap<Key, &Origin> = HashMap::new();
        for file in order.iter().filter_map(|path| self.files.get(path)) {
            findings.extend(file.findings.iter().cloned());
            for resource in &file.resources {
                let key = resource.key();
                match places.get(&key) {
                    Some(_) if !resource.matters() => {}
                    Some(first) => findings.push(
                        Finding::new(&codes::DUPLICATE_OBJECT, resource.origin().locate("metadata.name"), {
                            format!("the same object stands at {}; that one is in force", first.start())
                        })
                        .about(key.title()),
                    ),
                    None => {
                        places.insert(key, resource.origin());
                        resource.add_to(set);
                    }
                }
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error, kept: usize) -> Finding {
    let location = Location { file: path.display().to_string(), line: 0, column: 0 };
    let finding = Finding::new(&codes::UNREADABLE, location, format!("it cannot be read: {error}"));
    match kept {
        0 => finding,
        _ => finding.hint("what it held stays in force"),
    }
}

/// The documents of one text. Those that are `known` are not read again.
fn read_text(file: &str, raw: &str, reading: &Reading, known: Vec<Document>) -> Vec<Document> {
    let known: HashMap<u32, Document> = known.into_iter().map(|document| (document.line, document)).collect();
    let file: Arc<str> = file.into();
    let parts = fill_parts(raw, &reading.variables);
    let read = parts.into_iter().map(|part| match known.get(&part.line) {
        Some(document) if *document.text == part.text => document.clone(),
        _ => {
            let mut harvest = Harvest::default();
            let text: Arc<str> = part.text.as_ref().into();
            read_part(&file, &text, &part, reading, &mut harvest);
            Document { line: part.line, text, harvest: Arc::new(harvest) }
        }
    });
    read.collect()
}

fn read_part(file: &Arc<str>, text: &Arc<str>, part: &FilledPart<'_>, reading: &Reading, out: &mut Harvest) {
    let origin = Origin {
        file: file.clone(),
        text: text.clone(),
        line: part.line,
        within: String::new(),
        locator: yaml::locate,
    };
    match yaml::parse(text) {
        Ok(value) if value.is_null() => {}
        Ok(value) => read_document(&value, &origin, part, reading, out),
        Err(_) if !part.undefined.is_empty() => {
            out.failed.push(None);
            tell_undefined(part, &origin, out);
        }
        Err(error) => {
            out.failed.push(None);
            let line = part.line.saturating_add(error.line.saturating_sub(1));
            let location = Location { file: file.to_string(), line, column: error.column };
            out.findings.push(Finding::new(&codes::SYNTAX, location, error.message));
        }
    }
}

fn read_document(
    value: &serde_json::Value,
    origin: &Origin,
    part: &FilledPart<'_>,
    reading: &Reading,
    out: &mut Harvest,
) {
    let text = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let matters = match classify(text("apiVersion"), text("kind")) {
        Class::Known(_, effect) => effect != Effect::LookedAt,
        class => class == Class::List,
    };
    if part.undefined.is_empty() || !matters {
        return harvest(value, origin, &reading.default_namespace, out);
    }
    tell_undefined(part, origin, out);
    // Its objects count as failed, under the names that can be read.
    let mut refused = Harvest::default();
    harvest(value, origin, &reading.default_namespace, &mut refused);
    out.failed.extend(refused.resources.iter().map(|resource| Some(resource.key())));
    out.failed.extend(refused.failed);
}

fn tell_undefined(part: &FilledPart<'_>, origin: &Origin, out: &mut Harvest) {
    for (name, line) in &part.undefined {
        let location = Location { file: origin.file.to_string(), line: part.line + line - 1, column: 0 };
        out.findings.push(
            Finding::new(&codes::UNDEFINED_VARIABLE, location, format!("the variable `{name}` is not defined"))
                .hint("set it in [source] variables, or write $${ for a plain ${"),
        );
    }
}

/// A document whose variables are filled in.
struct FilledPart<'a> {
    text: Cow<'a, str>,
    line: u32,
    /// Undefined names with their line in the document.
    undefined: Vec<(String, u32)>,
}

/// Fills in the variables of every document but Secrets; line numbers stay as they are.
fn fill_parts<'a>(raw: &'a str, variables: &BTreeMap<String, String>) -> Vec<FilledPart<'a>> {
    let filled = yaml::parts(raw).into_iter().map(|part| {
        if is_secret(&part) {
            return FilledPart { text: Cow::Borrowed(part.text), line: part.line, undefined: Vec::new() };
        }
        let filled = fill(part.text, variables);
        FilledPart { text: filled.text, line: part.line, undefined: filled.undefined }
    });
    filled.collect()
}

fn is_secret(part: &Part<'_>) -> bool {
    let kind = |line: &str| {
        let value = line.strip_prefix("kind:").or_else(|| line.trim_start().strip_prefix("\"kind\":"));
        value.is_some_and(|value| value.trim().trim_matches([',', '"', '\'']) == "Secret")
    };
    part.text.lines().any(kind)
}

/// What failed keeps its earlier version: the object of the same name, or all that vanished if no name could be read.
fn keep_last_good(out: &mut Harvest, earlier: Vec<Resource>) {
    if out.failed.is_empty() {
        return;
    }
    let present: HashSet<Key> = out.resources.iter().map(Resource::key).collect();
    let nameless = out.failed.iter().any(Option::is_none);
    let failed: HashSet<&Key> = out.failed.iter().flatten().collect();
    for resource in earlier {
        let key = resource.key();
        if present.contains(&key) || !(nameless || failed.contains(&key)) {
            continue;
        }
        let message = "its last good version stays in force until the faults of its file are corrected";
        let place = Location { line: 0, column: 0, ..resource.origin().start() };
        out.findings.push(Finding::new(&codes::KEPT_LAST_GOOD, place, message).about(key.title()));
        out.resources.push(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Folder {
        dir: tempfile::TempDir,
        settings: Settings,
        manifests: Manifests,
    }

    impl Folder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut settings = Settings::default();
            settings.source.manifests = vec![dir.path().to_owned()];
            settings.source.variables.insert("D".into(), "example.com".into());
            Folder { dir, settings, manifests: Manifests::default() }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// The names of the gateways, with their first host, and the findings without the folder.
        fn gather(&mut self) -> (Vec<String>, Vec<String>) {
            let (mut set, mut findings) = (ResourceSet::default(), Vec::new());
            self.manifests.gather(&self.settings, &mut set, &mut findings);
            let host =
                |g: &crate::resource::networking::Gateway| g.servers.first().map_or("", |s| &s.hosts[0]).to_owned();
            let prefix = format!("{}/", self.dir.path().display());
            (
                set.gateways.iter().map(|g| format!("{} {}", g.meta.name, host(&g.spec))).collect(),
                findings.iter().map(|f| f.to_string().replace(&prefix, "")).collect(),
            )
        }
    }

    fn gateway(name: &str, host: &str) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  servers:\n  - hosts: [{host}]\n"
        )
    }

    #[test]
    fn one_broken_document_stops_no_other_and_keeps_its_last_good_version() {
        let mut folder = Folder::new();
        folder.write("a.yaml", &(gateway("one", "a.com") + &gateway("two", "b.com")));
        assert_eq!(folder.gather().0, ["one a.com", "two b.com"]);
        folder.write("a.yaml", &(gateway("one", "[") + &gateway("two", "c.com")));
        let (names, findings) = folder.gather();
        assert_eq!(names, ["two c.com", "one a.com"]);
        assert!(findings[0].starts_with("a.yaml:8: error [LIM0010]"), "{findings:?}");
        assert!(
            findings[1].starts_with("a.yaml: warning [LIM0015] Gateway default/one: its last good"),
            "{findings:?}"
        );
        folder.write("a.yaml", &(gateway("one", "a.com") + &gateway("two", "3")));
        let (names, findings) = folder.gather();
        assert_eq!(names, ["one a.com", "two c.com"]);
        assert!(
            findings[0].starts_with("a.yaml:14: error [LIM0012] Gateway default/two: spec.servers[0].hosts[0]: text"),
            "{findings:?}"
        );
        folder.write("a.yaml", &gateway("two", "d.com"));
        assert_eq!(folder.gather(), (vec!["two d.com".into()], vec![]));
    }

    #[test]
    fn variables_are_filled_in_but_never_guessed() {
        let mut folder = Folder::new();
        folder.write("a.yaml", &(gateway("one", "a.${D}") + &gateway("two", "a.${E}")));
        let (names, findings) = folder.gather();
        assert_eq!(names, ["one a.example.com"]);
        assert!(findings[0].starts_with("a.yaml:14: error [LIM0014] the variable `E`"), "{findings:?}");
        folder.settings.source.variables.insert("E".into(), "e.com".into());
        assert_eq!(folder.gather().0, ["one a.example.com", "two a.e.com"]);
    }

    #[test]
    fn what_is_odd_is_told() {
        let mut folder = Folder::new();
        folder.write("a.yaml", &gateway("one", "a.com"));
        folder.write(
            "b.yaml",
            &(gateway("one", "b.com")
                + "  selectors: {}\n---\nkind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\n"),
        );
        folder.write("c.json", r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "deny"}}]}"#);
        let (names, findings) = folder.gather();
        assert_eq!(names, ["one a.com"]);
        assert_eq!(
            findings,
            [
                "b.yaml:8: warning [LIM0013] Gateway default/one: spec.selectors: there is no such field (did you mean `selector`?)",
                "b.yaml:10: info [LIM0018] Deployment default/d: Deployment means nothing to a gateway",
                "b.yaml:4: error [LIM0019] Gateway default/one: the same object stands at PLACE; that one is in force"
                    .replace("PLACE", "a.yaml:1")
                    .as_str(),
                "c.json:1: warning [LIM0017] AuthorizationPolicy default/deny: AuthorizationPolicy is not in force yet: traffic is NOT protected by it",
            ]
        );
    }

    #[test]
    fn a_folder_that_vanishes_keeps_its_objects() {
        let mut folder = Folder::new();
        folder.write("a.yaml", &gateway("one", "a.com"));
        folder.gather();
        let elsewhere = folder.dir.path().with_extension("gone");
        fs::rename(folder.dir.path(), &elsewhere).unwrap();
        let (names, findings) = folder.gather();
        fs::rename(&elsewhere, folder.dir.path()).unwrap();
        assert_eq!(names, ["one a.com"]);
        assert_eq!(findings.len(), 1);
        fs::remove_file(folder.dir.path().join("a.yaml")).unwrap();
        assert_eq!(folder.gather(), (vec![], vec![]));
    }

    #[test]
    fn a_volume_of_kubernetes_is_followed_through_its_swap() {
        let mut folder = Folder::new();
        let at = |folder: &Folder, name: &str| folder.dir.path().join(name);
        for (version, host) in [("..1", "a.com"), ("..2", "b.com")] {
            fs::create_dir(at(&folder, version)).unwrap();
            fs::write(at(&folder, version).join("g.yaml"), gateway("one", host)).unwrap();
        }
        std::os::unix::fs::symlink("..1", at(&folder, "..data")).unwrap();
        std::os::unix::fs::symlink("..data/g.yaml", at(&folder, "g.yaml")).unwrap();
        assert_eq!(folder.gather().0, ["one a.com"]);
        std::os::unix::fs::symlink("..2", at(&folder, "..data_tmp")).unwrap();
        fs::rename(at(&folder, "..data_tmp"), at(&folder, "..data")).unwrap();
        assert_eq!(folder.gather().0, ["one b.com"]);
    }

    #[test]
    fn every_sample_is_accepted() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
        if !samples.is_dir() {
            return println!("skipped: {} is not there", samples.display());
        }
        let mut settings = Settings::default();
        settings.source.variables.insert("INGRESS_DOMAIN".into(), "example.com".into());
        settings.source.manifests = ["authored", "istio-samples", "tutorial"].map(|name| samples.join(name)).into();
        let (mut set, mut findings) = (ResourceSet::default(), Vec::new());
        Manifests::default().gather(&settings, &mut set, &mut findings);
        let not_plain = std::fs::read_to_string(samples.join("INDEX.json")).unwrap();
        let not_plain: serde_json::Value = serde_json::from_str(&not_plain).unwrap();
        let expected_to_fail: Vec<String> = not_plain
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry.get("parse").is_some())
            .map(|entry| samples.join(entry["file"].as_str().unwrap()).display().to_string())
            .collect();
        let faults: Vec<String> = findings
            .iter()
            .filter(|f| {
                [
                    codes::SYNTAX.id,
                    codes::WRONG_TYPE.id,
                    codes::UNREADABLE.id,
                    codes::UNDEFINED_VARIABLE.id,
                    codes::UNKNOWN_FIELD.id,
                ]
                .contains(&f.code)
            })
            .filter(|f| !expected_to_fail.contains(&f.location.file))
            .map(ToString::to_string)
            .collect();
        assert_eq!(faults, Vec::<String>::new());
        assert!(set.gateways.len() > 3 && set.virtual_services.len() > 5);
    }
}
