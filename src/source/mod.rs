//! Where does the configuration come from? Settings, manifests and certificate files become typed objects.

use std::path::{Path, PathBuf};

use crate::resource::ResourceSet;
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;

/// What is kept between two reads, so that unchanged files cost nothing and faults leave the last good state.
#[derive(Default)]
pub(crate) struct Cache {}

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
pub(crate) fn gather(_settings_path: &Path, cache: &mut Cache) -> Result<Gathered, Vec<Finding>> {
    Ok(gather_manifests(Settings::default(), cache))
}

/// Reads the manifests that `settings` name, with settings made by the caller; relative paths start at the working
/// directory.
pub(crate) fn gather_manifests(settings: Settings, _cache: &mut Cache) -> Gathered {
    Gathered { settings, resources: ResourceSet::default(), findings: Vec::new(), watched: Vec::new() }
}
