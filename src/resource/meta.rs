//! What do all objects have in common? Identity, labels, and the place where they were written.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::codes::Code;
use super::finding::{Finding, Location};

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
    /// What controllers wrote about it; `None` if there is nothing of interest.
    #[serde(skip)]
    pub status: Option<Box<Status>>,
}

/// The `status` of an object, as far as analysis looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub conditions: Vec<StatusCondition>,
    /// Of a Pod: `Running` and the like.
    pub phase: String,
    /// Of a Pod.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Addresses that Istio gave a ServiceEntry.
    pub addresses: Vec<StatusAddress>,
    /// What the parents of a route say of it.
    pub parents: Vec<ParentStatus>,
}

/// Istio ServiceEntryAddress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct StatusAddress {
    pub value: String,
}

/// Gateway API RouteParentStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ParentStatus {
    pub conditions: Vec<StatusCondition>,
}

/// Kubernetes Condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct StatusCondition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// One object of a known kind, with the place it came from.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    pub meta: Meta,
    pub spec: T,
    pub origin: Origin,
}

/// A kind of object.
pub(crate) trait Kind {
    /// Unlike that of every other kind.
    const NAME: &'static str;
    /// What the user writes as `kind`.
    const WRITTEN: &'static str = Self::NAME;
}

impl<T: Kind> Object<T> {
    /// `Gateway namespace/name`, as findings name their object.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", T::WRITTEN, self.key())
    }

    /// A finding about a path of this object, such as `spec.servers[0].tls`.
    pub(crate) fn finding(&self, code: &Code, path: &str, message: impl Into<String>) -> Finding {
        Finding::new(code, self.origin.locate(path), message).about(self.title()).at(path)
    }
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

    /// Namespace and name.
    pub(crate) fn identity(&self) -> (&str, &str) {
        (&self.meta.namespace, &self.meta.name)
    }

    /// `namespace/name`, as messages and route names show it.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.meta.namespace, self.meta.name)
    }
}

/// Where an object was written: a file, or a table of `limani.toml`, and the text of its document.
///
/// Positions are not stored for every value: a finding that has to name a line reads the document again.
#[derive(Clone)]
pub(crate) struct Origin {
    pub file: Arc<str>,
    /// The text of the document.
    pub text: Arc<str>,
    /// The first line of the document in the file, from 1; 0 if unknown.
    pub line: u32,
    /// The path of the object in its document: empty, or such as `items[3]` for one of a `List`.
    pub within: String,
    /// Finds the line of a path; given by the source that knows the file's language.
    pub locator: Locator,
}

/// Finds the place of a path such as `spec.http[0].match[1].uri` or `spec.selector["app.kubernetes.io/name"]`.
/// A path that leads nowhere gives the place of its longest part that exists.
pub(crate) type Locator = fn(&Origin, &str) -> Location;

impl Origin {
    /// The place of a path of the object, such as `spec.http[0].match[1].uri`.
    pub(crate) fn locate(&self, path: &str) -> Location {
        (self.locator)(self, path)
    }

    /// The place where the document begins.
    pub(crate) fn start(&self) -> Location {
        Location { file: self.file.to_string(), line: self.line, column: 1 }
    }
}

impl Default for Origin {
    fn default() -> Self {
        Origin {
            file: Arc::default(),
            text: Arc::default(),
            line: 0,
            within: String::new(),
            locator: |origin, _| origin.start(),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
