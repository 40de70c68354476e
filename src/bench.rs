//! The door for benches/: the private parts that they measure, without the sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;

use crate::control::build::{Built, Kept, build};
use crate::snapshot::Snapshot;
use crate::snapshot::listener::ConnectionFacts;
use crate::snapshot::route::RequestFacts;

/// A configuration that is read, compiled and asked as the gateway does.
pub struct Configuration {
    settings: PathBuf,
    kept: Kept,
    snapshot: Arc<Snapshot>,
}

impl Configuration {
    /// Reads the settings file and its manifests. The error is what there is to say if nothing could be read.
    pub fn load(settings: &Path) -> Result<Self, String> {
        let mut kept = Kept::default();
        let (built, findings) = build(settings, &mut kept, 1, false);
        match built {
            Built::Changed { snapshot, .. } => {
                Ok(Configuration { settings: settings.to_owned(), kept, snapshot: Arc::new(snapshot) })
            }
            Built::Unchanged { .. } | Built::Failed => Err(format!("{findings:?}")),
        }
    }

    /// Reads it again, as a reload does, with what the last run left. Returns the number of rules in force.
    pub fn reload(&mut self) -> usize {
        let (built, _) = build(&self.settings, &mut self.kept, self.snapshot.generation + 1, false);
        if let Built::Changed { snapshot, .. } = built {
            self.snapshot = Arc::new(snapshot);
        }
        self.rules()
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
