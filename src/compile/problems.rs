//! What went wrong while compiling? Each problem is told once, however many servers meet it.

use std::collections::HashSet;

use crate::resource::codes::Code;
use crate::resource::finding::Finding;
use crate::resource::meta::{Kind, Object};

/// Gathers findings; the place of a finding is only looked up for the first of its kind.
#[derive(Default)]
pub(super) struct Problems {
    seen: HashSet<(&'static str, String, String, String)>,
    findings: Vec<Finding>,
}

impl Problems {
    /// Reports a path of an object, such as `spec.http[0]`.
    pub(super) fn report<T: Kind>(&mut self, object: &Object<T>, code: &Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        if self.seen.insert((code.id, object.title(), path.to_owned(), message.clone())) {
            self.findings.push(object.finding(code, path, message));
        }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}
