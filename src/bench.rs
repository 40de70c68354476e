//! The door for benches/: the private parts that they measure, without the sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;

use crate::control::build::{Built, Kept, build, survey};
use crate::snapshot::Snapshot;
use crate::snapshot::listener::ConnectionFacts;
use crate::snapshot::route::RequestFacts;

/// A configuration that is read, compiled and asked as the gateway does.
pub struct Configuration {
    settings: PathBuf,
    kept: Kept,
    snapshot: Arc<Snapshot>,
}

/// A generation that is no longer in force.
pub struct Replaced {
    _snapshot: Arc<Snapshot>,
}

impl Configuration {
    /// Reads the settings file and its manifests. The error is what there is to say if nothing could be read.
    pub fn load(settings: &Path) -> Result<Self, String> {
        let mut kept = Kept::default();
        match build(settings, &mut kept, 1, false, &Default::default()) {
            Built::Changed { snapshot, .. } => {
                Ok(Configuration { settings: settings.to_owned(), kept, snapshot: Arc::new(snapshot) })
            }
            Built::Unchanged { findings, .. } | Built::Failed { findings } => Err(format!("{findings:?}")),
        }
    }

    /// Reads it again, as a reload does until the new rules are in force, with what the last run left. Returns what
    /// it replaced, to be dropped elsewhere.
    pub fn reload(&mut self) -> Replaced {
        match build(&self.settings, &mut self.kept, self.snapshot.generation + 1, false, &Default::default()) {
            Built::Changed { snapshot, .. } => {
                Replaced { _snapshot: std::mem::replace(&mut self.snapshot, Arc::new(snapshot)) }
            }
            Built::Unchanged { .. } | Built::Failed { .. } => Replaced { _snapshot: Arc::clone(&self.snapshot) },
        }
    }

    /// What a reload does afterwards: looks at all objects together. Returns the number of findings.
    pub fn survey(&mut self) -> usize {
        survey(&mut self.kept).len()
    }

    /// How many rules there are in all.
    pub fn rules(&self) -> usize {
        let chains = self.snapshot.listeners.iter().flat_map(|listener| listener.chains.all());
        let tables = chains.filter_map(|(_, chain)| chain.routes());
        tables.flat_map(|routes| routes.exact.values()).map(|host| host.rules.len()).sum()
    }

    /// The origin of the rule for a request on the first plaintext listener.
    pub fn route(&self, authority: &str, path: &str, headers: &HeaderMap) -> Option<&str> {
        let routes = self.snapshot.listeners.iter().find_map(|listener| {
            let chain = listener.chains.find(&ConnectionFacts::plain(listener.address.ip()))?;
            chain.routes()
        })?;
        let facts = RequestFacts { method: "GET", scheme: "http", authority, path, query: None, headers, claims: None };
        Some(&*routes.find(authority)?.find(&facts)?.origin)
    }
}
