//! What did a validation find, and at which path? Paths are written out only for what is wrong.

use std::fmt;

/// A place in an object, as a chain of steps that lives on the stack.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field,
    Item(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A field of the whole object, such as `spec`.
    pub(super) fn root(name: &'a str) -> Self {
        At { parent: None, name, step: Step::Field }
    }

    /// `….name`
    pub(super) fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), name, step: Step::Field }
    }

    /// `….name[index]`
    pub(super) fn item(&'a self, name: &'a str, index: usize) -> At<'a> {
        At { parent: Some(self), name, step: Step::Item(index) }
    }

    /// `….name["key"]`
    pub(super) fn key(&'a self, name: &'a str, key: &'a str) -> At<'a> {
        At { parent: Some(self), name, step: Step::Key(key) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.step {
            Step::Field => Ok(()),
            Step::Item(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[\"{key}\"]"),
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub path: String,
    pub message: String,
}

/// Everything that was found in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// The object is refused if there is one.
    pub errors: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Most errors and most warnings of one object that are told.
const MAX_FAULTS: usize = 20;

impl Faults {
    pub(super) fn error(&mut self, at: At<'_>, message: impl Into<String>) {
        if self.errors.len() < MAX_FAULTS {
            self.errors.push(Fault { path: at.to_string(), message: message.into() });
        }
    }

    pub(super) fn warn(&mut self, at: At<'_>, message: impl Into<String>) {
        if self.warnings.len() < MAX_FAULTS {
            self.warnings.push(Fault { path: at.to_string(), message: message.into() });
        }
    }

    /// Takes the error of a check.
    pub(super) fn check(&mut self, at: At<'_>, result: Result<(), String>) {
        if let Err(message) = result {
            self.error(at, message);
        }
    }

    /// An error unless `good`.
    pub(super) fn require(&mut self, good: bool, at: At<'_>, message: &str) {
        if !good {
            self.error(at, message);
        }
    }
}
