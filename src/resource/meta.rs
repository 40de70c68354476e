//! What do all objects have in common? Identity, labels, and the place where they were written.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// Kubernetes labels: keys and values in alphabetic order.
pub(crate) type Labels = BTreeMap<String, String>;

/// Kubernetes ObjectMeta, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub name: String,
    /// Never empty once the source has filled in its default namespace (cluster-wide kinds keep it empty).
    pub namespace: String,
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339 text; `None` for objects from files. RFC 3339 in UTC sorts as text.
    pub creation_timestamp: Option<String>,
}

/// One object of a known kind, with the place it came from.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    pub meta: Meta,
    pub spec: T,
    pub origin: Origin,
}

impl<T> Object<T> {
    /// Istio's order of objects: oldest first, then by name, then by namespace (`configCompareByCreationTime`).
    pub(crate) fn by_age(a: &Self, b: &Self) -> Ordering {
        (&a.meta.creation_timestamp, &a.meta.name, &a.meta.namespace).cmp(&(
            &b.meta.creation_timestamp,
            &b.meta.name,
            &b.meta.namespace,
        ))
    }

    /// `namespace/name`, as messages and route names show it.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.meta.namespace, self.meta.name)
    }
}

/// Where an object was written: a file, or a table of `limani.toml`, and the text of its document.
#[derive(Clone)]
pub(crate) struct Origin {
    pub file: Arc<str>,
    /// The whole text of the file, shared by its documents; kept so that findings can name lines without
    /// positions being stored for every value.
    pub text: Arc<str>,
    /// The first line of the document in the file, from 1.
    pub line: u32,
    /// The first byte of the document in `text`.
    pub offset: usize,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
