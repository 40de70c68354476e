//! What do the named files hold? Settings and manifests as the gateway would read them, without a gateway.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::DEFAULT_SETTINGS;
use crate::analysis::{self, Look, View};
use crate::base::clock;
use crate::compile;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;
use crate::source::{self, Gathered};

/// Which configuration is meant.
#[derive(Debug, Args)]
pub(super) struct Files {
    /// Manifests: files and folders of YAML, or one settings file (.toml) [default: what the settings name].
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The settings file [default: none if there are PATHs, else as for `run`].
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What ${NAME} stands for in manifests; may be given several times.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
}

/// A configuration as it would come into force.
pub(super) struct Loaded {
    /// `None` if the settings are unusable.
    pub snapshot: Option<Snapshot>,
    /// What the snapshot was made of.
    pub accepted: (ResourceSet, Settings),
    pub findings: Vec<Finding>,
}

impl Files {
    /// Puts a path before the others.
    pub(super) fn add_first(&mut self, path: Option<String>) {
        self.paths.splice(0..0, path.map(PathBuf::from));
    }

    /// Reads, analyzes and compiles. Faults are findings; unusable settings give no snapshot.
    ///
    /// # Errors
    ///
    /// No settings file is where it should be.
    pub(super) fn load(self, view: View) -> anyhow::Result<Loaded> {
        let gathered = match self.gather()? {
            Ok(gathered) => gathered,
            Err(findings) => return Ok(Loaded { snapshot: None, accepted: Default::default(), findings }),
        };
        let mut findings = gathered.findings;
        let now = clock::now();
        let memory = &mut analysis::Memory::default();
        let (accepted, analyzed) =
            analysis::analyze(&gathered.resources, &gathered.settings, Look { view, now }, memory);
        findings.extend(analyzed);
        let memory = &mut compile::Memory::default();
        let (snapshot, compiled) = compile::compile(&accepted, &gathered.settings, 1, now, memory);
        // Sources of identities are only asked by a gateway that runs.
        findings.extend(compiled.into_iter().filter(|finding| finding.code != codes::IDENTITY_AWAITED.id));
        findings.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(Loaded { snapshot: Some(snapshot), accepted: (accepted, gathered.settings), findings })
    }

    fn gather(mut self) -> anyhow::Result<Result<Gathered, Vec<Finding>>> {
        if let [path] = self.paths.as_slice()
            && path.extension().is_some_and(|extension| extension == "toml")
        {
            self.config = self.config.or(self.paths.pop());
        }
        let cache = &mut source::Cache::default();
        let settings = match (self.config, self.paths.is_empty()) {
            (None, false) => None,
            (config, _) => Some(settings_path(config)?),
        };
        let change = |settings: &mut Settings| {
            if !self.paths.is_empty() {
                settings.source.manifests = self.paths;
            }
            settings.source.variables.extend(self.variables);
        };
        Ok(match settings {
            Some(path) => source::gather_changed(&path, cache, change),
            None => {
                let mut settings = Settings::default();
                change(&mut settings);
                Ok(source::gather_manifests(settings, cache))
            }
        })
    }
}

/// The settings file that is meant.
///
/// # Errors
///
/// There is none.
pub(super) fn settings_path(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(path) if path.exists() => Ok(path),
        Some(path) => bail!("the settings file {} does not exist", path.display()),
        None => DEFAULT_SETTINGS.iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf).with_context(
            || format!("there is no settings file: neither {}; name one with -c", DEFAULT_SETTINGS.join(" nor ")),
        ),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}
