//! Where does the configuration come from? Settings, manifests and certificate files become typed objects.

pub(crate) mod decode;
mod directory;
mod kinds;
mod limani_toml;
mod manifests;
mod variables;
pub(crate) mod yaml;

use std::path::{Path, PathBuf};

use self::manifests::Manifests;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::settings::Settings;

/// What is kept between two reads, so that unchanged files cost nothing and faults leave the last good state.
#[derive(Default)]
pub(crate) struct Cache {
    manifests: Manifests,
    /// The last good text of the settings file.
    settings: Option<String>,
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
    let (settings, mut findings) = read_settings(settings_path, cache)?;
    let mut gathered = gather_manifests(settings, cache);
    findings.append(&mut gathered.findings);
    gathered.findings = findings;
    gathered.watched.insert(0, settings_path.to_owned());
    Ok(gathered)
}

/// Reads the manifests that `settings` name, with settings made by the caller; relative paths start at the working
/// directory.
pub(crate) fn gather_manifests(settings: Settings, cache: &mut Cache) -> Gathered {
    let (mut resources, mut findings) = (ResourceSet::default(), Vec::new());
    cache.manifests.gather(&settings, &mut resources, &mut findings);
    let watched = settings.source.manifests.clone();
    Gathered { settings, resources, findings, watched }
}

fn read_settings(path: &Path, cache: &mut Cache) -> Result<(Settings, Vec<Finding>), Vec<Finding>> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    let wrong = |message: String| {
        let location = Location { file: file.clone(), line: 0, column: 0 };
        vec![Finding::new(&codes::SETTINGS, location, message)]
    };
    let understood = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string())).and_then(|text| {
        let read = understand(&file, &text, folder, wrong)?;
        cache.settings = Some(text);
        Ok(read)
    });
    match (understood, &cache.settings) {
        (Err(mut findings), Some(text)) => {
            let (settings, _) = understand(&file, text, folder, wrong)?;
            let location = Location { file: file.clone(), line: 0, column: 0 };
            findings.push(Finding::new(&codes::SETTINGS_KEPT, location, "the last good settings stay in force"));
            Ok((settings, findings))
        }
        (understood, _) => understood,
    }
}

fn understand(
    file: &str,
    text: &str,
    folder: &Path,
    wrong: impl Fn(String) -> Vec<Finding>,
) -> Result<(Settings, Vec<Finding>), Vec<Finding>> {
    let read = limani_toml::read(file, text)?;
    let mut settings = Settings::default();
    limani_toml::apply(&read.keys, folder, &mut settings)
        .map_err(|path| wrong(format!("{path}: a variable has to stay on one line")))?;
    Ok((settings, read.findings))
}
