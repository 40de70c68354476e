//! What becomes of the files? Gather, analyze and compile in one go, away from the runtime's thread.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::resource::ResourceSet;
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;
use crate::snapshot::Snapshot;

/// What one run leaves to the next.
#[derive(Default)]
pub(crate) struct Kept {
    /// What was read the last time, and with which settings; `None` before the first run.
    gathered: Option<(ResourceSet, Arc<Settings>)>,
    /// What was accepted of it, older versions included.
    accepted: ResourceSet,
}

/// What a configuration became.
pub(crate) enum Built {
    Changed {
        snapshot: Snapshot,
        settings: Arc<Settings>,
        findings: Vec<Finding>,
    },
    /// The same content as before; the findings are those of the last time.
    Unchanged {
        findings: Vec<Finding>,
    },
    /// No settings could be read at all.
    Failed {
        findings: Vec<Finding>,
    },
}
