//! What went wrong while compiling? Each problem is told once, however many servers meet it.

use std::collections::HashMap;

use crate::resource::codes::Code;
use crate::resource::finding::Finding;
use crate::resource::meta::{Kind, Object};

/// Gathers findings; the place of a finding is only looked up for the first of its kind.
#[derive(Default)]
pub(super) struct Problems {
    /// The place of each in `findings`.
    told: HashMap<Key, usize>,
    findings: Vec<Finding>,
    /// What results in the making have met, innermost last.
    met: Vec<Vec<Problem>>,
}

/// Code, object, path and message.
type Key = (&'static str, String, String, String);

/// A problem that can be told again with a result that is used again.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    path: String,
    finding: Finding,
}

impl Problems {
    /// Reports a path of an object, such as `spec.http[0]`.
    pub(super) fn report<T: Kind>(&mut self, object: &Object<T>, code: &Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        let key = (code.id, object.title(), path.to_owned(), message.clone());
        let known = self.told.get(&key).and_then(|place| self.findings.get(*place)).cloned();
        let finding = known.unwrap_or_else(|| {
            let finding = object.finding(code, path, message);
            self.tell(key, finding.clone());
            finding
        });
        if let Some(met) = self.met.last_mut() {
            met.push(Problem { path: path.to_owned(), finding });
        }
    }

    /// Reports what is not about a path of an object alone; once for its code, object, path and message.
    pub(super) fn report_finding(&mut self, finding: Finding) {
        let path = finding.path.clone();
        let key = (finding.code, finding.object.clone(), path.clone(), finding.message.clone());
        if !self.told.contains_key(&key) {
            self.tell(key, finding.clone());
        }
        if let Some(met) = self.met.last_mut() {
            met.push(Problem { path, finding });
        }
    }

    /// From here on problems belong to a result in the making.
    pub(super) fn begin(&mut self) {
        self.met.push(Vec::new());
    }

    /// The problems that the innermost result in the making has met.
    pub(super) fn end(&mut self) -> Vec<Problem> {
        self.met.pop().unwrap_or_default()
    }

    /// Tells the problems of a result that is used again.
    pub(super) fn repeat(&mut self, problems: &[Problem]) {
        for Problem { path, finding } in problems {
            let key = (finding.code, finding.object.clone(), path.clone(), finding.message.clone());
            if !self.told.contains_key(&key) {
                self.tell(key, finding.clone());
            }
        }
    }

    fn tell(&mut self, key: Key, finding: Finding) {
        self.told.insert(key, self.findings.len());
        self.findings.push(finding);
    }

    /// Reports what is wrong with no object.
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}
