//! What is there to say about a configuration? One sentence with a stable code, a place and a hint.

use std::fmt;

use serde::Serialize;

use super::codes::Code;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Accepted, but probably not what was meant, or not yet in force.
    Warning,
    /// Not in force: this object, rule or server does nothing until it is corrected.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// A file and a place in it; lines and columns count from 1, 0 means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Location {
    pub file: String,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One thing to tell the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable: an Istio analyzer code (`IST0101`) where one exists, else ours (`LIM0001`).
    pub code: &'static str,
    pub severity: Severity,
    /// `Kind namespace/name`, or empty for a finding about a file.
    pub object: String,
    /// The field in the object, such as `spec.servers[0].tls`; empty if none is meant.
    pub path: String,
    pub location: Location,
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// What is wrong with a certificate, as metrics name it, such as `expired`; empty for other findings.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: &'static str,
}

impl Finding {
    /// A finding with the severity of its code.
    pub(crate) fn new(code: &Code, location: Location, message: impl Into<String>) -> Self {
        Finding {
            code: code.id,
            severity: code.severity,
            object: String::new(),
            path: String::new(),
            location,
            message: message.into(),
            hint: String::new(),
            kind: "",
        }
    }

    /// Names the object: `Kind namespace/name`.
    pub(crate) fn about(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }

    /// Names the field, such as `spec.servers[0].tls`.
    pub(crate) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Says what is wrong with a certificate, in one word.
    pub(crate) fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.location.file.is_empty() {
            write!(f, "{}: ", self.location)?;
        }
        write!(f, "{} [{}]", self.severity, self.code)?;
        if !self.object.is_empty() {
            write!(f, " {}:", self.object)?;
        }
        write!(f, " {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}
