//! Where does the configuration come from? Settings, manifests and certificate files become typed objects.

mod certificates;
pub(crate) mod decode;
mod desugar;
mod directory;
mod folders;
mod identity;
mod kinds;
mod limani_toml;
mod manifests;
mod mesh;
mod mounts;
mod variables;
pub(crate) mod yaml;

use std::path::{Path, PathBuf};

use self::certificates::Certificates;
use self::kinds::Resource;
use self::manifests::Manifests;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::settings::Settings;

/// What is kept between two reads, so that unchanged files cost nothing and faults leave the last good state.
#[derive(Default)]
pub(crate) struct Cache {
    manifests: Manifests,
    certificates: Certificates,
    /// The last good text of the settings file.
    settings: Option<String>,
    /// The last good text of the mesh file.
    mesh: Option<String>,
    /// What the `[[route]]` lines of a settings text gave, so that unchanged lines are unchanged objects.
    routes: Option<(String, Vec<Resource>)>,
}

/// Everything that was read.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub settings: Settings,
    pub resources: ResourceSet,
    pub findings: Vec<Finding>,
    /// Files and folders whose change calls for another read: the settings, manifests, mesh and certificate files.
    pub watched: Vec<PathBuf>,
}

/// Reads the settings and all that they name.
///
/// # Errors
///
/// Findings, if the settings are unusable and there are no earlier good ones in `cache`.
pub(crate) fn gather(settings_path: &Path, cache: &mut Cache) -> Result<Gathered, Vec<Finding>> {
    gather_changed(settings_path, cache, |_| ())
}

/// As `gather`, with settings that the caller may change after they were read.
///
/// # Errors
///
/// As `gather`.
pub(crate) fn gather_changed(
    settings_path: &Path,
    cache: &mut Cache,
    change: impl FnOnce(&mut Settings),
) -> Result<Gathered, Vec<Finding>> {
    let mut understood = read_settings(settings_path, cache)?;
    change(&mut understood.settings);
    let folder = settings_path.parent().unwrap_or(Path::new(""));
    let mut gathered = gather_with(understood.settings, &understood.routes, folder, cache);
    gathered.findings.splice(0..0, understood.findings);
    gathered.watched.insert(0, settings_path.to_owned());
    Ok(gathered)
}

/// Reads the settings alone: a process has to know its ports before it reads anything else.
///
/// # Errors
///
/// Findings, if the settings are unusable.
pub(crate) fn settings(path: &Path) -> Result<Settings, Vec<Finding>> {
    Ok(read_settings(path, &mut Cache::default())?.settings)
}

/// Reads the manifests that `settings` name, with settings made by the caller; relative paths start at the working
/// directory.
pub(crate) fn gather_manifests(settings: Settings, cache: &mut Cache) -> Gathered {
    gather_with(settings, &[], Path::new(""), cache)
}

fn gather_with(settings: Settings, routes: &[Resource], folder: &Path, cache: &mut Cache) -> Gathered {
    let (mut resources, mut findings) = (ResourceSet::default(), Vec::new());
    routes.iter().for_each(|route| route.add_to(&mut resources));
    cache.manifests.gather(&settings, &mut resources, &mut findings);
    let mut watched = settings.source.manifests.clone();
    watched.extend(settings.source.mesh.clone());
    watched.extend(cache.certificates.gather(folder, &settings, &mut resources, &mut findings));
    Gathered { settings, resources, findings, watched }
}

/// Settings that were understood, with the objects of their `[[route]]` lines.
struct Understood {
    settings: Settings,
    routes: Vec<Resource>,
    findings: Vec<Finding>,
}

fn read_settings(path: &Path, cache: &mut Cache) -> Result<Understood, Vec<Finding>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Finding::new(&codes::SETTINGS, whole_file(path), format!("it cannot be read: {error}"))]);
    match text.and_then(|text| Ok((understand(path, &text, cache)?, text))) {
        Ok((understood, text)) => {
            cache.settings = Some(text);
            Ok(understood)
        }
        Err(faults) => {
            let Some(text) = cache.settings.clone() else { return Err(faults) };
            let mut understood = understand(path, &text, cache)?;
            understood.findings.splice(0..0, faults);
            let kept = Finding::new(&codes::SETTINGS_KEPT, whole_file(path), "the last good settings stay in force");
            understood.findings.push(kept);
            Ok(understood)
        }
    }
}

fn whole_file(path: &Path) -> Location {
    Location { file: path.display().to_string(), line: 0, column: 0 }
}

fn understand(path: &Path, text: &str, cache: &mut Cache) -> Result<Understood, Vec<Finding>> {
    let read = limani_toml::read(&path.display().to_string(), text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut settings, mut findings) = (Settings::default(), read.findings);
    if let Some(mesh) = &read.keys.source.mesh {
        findings.extend(read_mesh(&folder.join(mesh), cache, &mut settings));
    }
    limani_toml::apply(&read.keys, folder, &mut settings).map_err(|name| {
        let message = format!("the variable `{name}` has to stay on one line");
        vec![Finding::new(&codes::SETTINGS, whole_file(path), message)]
    })?;
    let routes = match &cache.routes {
        Some((known, routes)) if known == text => routes.clone(),
        _ => desugar::desugar(&read.keys.route, &read.route_origins, &settings.gateway)?,
    };
    cache.routes = Some((text.to_owned(), routes.clone()));
    Ok(Understood { settings, routes, findings })
}

/// Writes a mesh file over `settings`, as the settings file would that names it.
#[cfg(test)]
pub(crate) fn read_mesh_file(path: &Path, settings: &mut Settings) {
    read_mesh(path, &mut Cache::default(), settings);
}

/// Writes the mesh file over `settings`; a file that cannot be understood leaves its last good text in force.
fn read_mesh(path: &Path, cache: &mut Cache, settings: &mut Settings) -> Vec<Finding> {
    let file = path.display().to_string();
    let read = std::fs::read_to_string(path)
        .map_err(|error| {
            Box::new(Finding::new(&codes::UNREADABLE, whole_file(path), format!("it cannot be read: {error}")))
        })
        .and_then(|text| Ok((mesh::apply(&file, &text, settings)?, text)));
    match read {
        Ok((findings, text)) => {
            cache.mesh = Some(text);
            findings
        }
        Err(fault) => {
            let mut findings = vec![*fault];
            if let Some(text) = &cache.mesh {
                findings.extend(mesh::apply(&file, text, settings).unwrap_or_default());
            }
            findings
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_fatal_first_and_keep_the_last_good_ones_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limani.toml");
        let mut cache = Cache::default();
        std::fs::write(&path, "[admin]\naddress = 1\n").unwrap();
        assert_eq!(gather(&path, &mut cache).unwrap_err()[0].location.line, 2);
        std::fs::write(&path, "[[route]]\nhost = \"a.com\"\nto = \"http://127.0.0.1:1\"\n").unwrap();
        assert_eq!(gather(&path, &mut cache).unwrap().resources.gateways.len(), 1);
        std::fs::write(&path, "[[route]]\nhost = \"a.com\"\n").unwrap();
        let gathered = gather(&path, &mut cache).unwrap();
        assert_eq!(gathered.resources.gateways.len(), 1);
        let codes: Vec<_> = gathered.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [codes::SETTINGS.id, codes::SETTINGS_KEPT.id]);
    }
}
