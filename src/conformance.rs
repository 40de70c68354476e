//! What is a set of cases? How they are read, how one is judged, and which expectations it has.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::source::yaml;

/// One folder of cases.
pub(crate) struct Set {
    pub folder: &'static str,
    pub read: fn(&Path) -> Vec<Case>,
    pub judge: fn(&Case) -> Verdict,
    /// The case once for each of its expectations, with that expectation made false.
    pub falsify: fn(&Case) -> Vec<Falsified>,
}

/// One case, as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub name: String,
    /// Cases of one kind are counted together.
    pub kind: String,
    pub content: Value,
    /// The folder of the set: cases may name files in it.
    pub folder: PathBuf,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// What was found instead.
    Failed(String),
    /// Why it cannot be judged; never because it differs.
    Skipped(String),
}

/// A case that has to fail.
pub(crate) struct Falsified {
    /// Which expectation is false now.
    pub what: String,
    pub case: Case,
}

impl Case {
    /// The case with the value at `pointer` (RFC 6901) replaced.
    pub(crate) fn with(&self, pointer: &str, value: Value) -> Falsified {
        let mut case = self.clone();
        if let Some(place) = case.content.pointer_mut(pointer) {
            *place = value;
        }
        Falsified { what: pointer.to_owned(), case }
    }

    /// The value at `pointer` made false by [`other`].
    pub(crate) fn contradict(&self, pointer: &str) -> Option<Falsified> {
        Some(self.with(pointer, other(self.content.pointer(pointer)?)))
    }
}

/// Every YAML file of a folder is a case; its field `kind` tells the kind.
pub(crate) fn yaml_files(folder: &Path, kind: &str) -> Vec<Case> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let case = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let content = yaml::parse(&fs::read_to_string(file).unwrap()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let kind = content[kind].as_str().unwrap_or_default().to_owned();
        Case { name, kind, content, folder: folder.to_owned() }
    };
    files.iter().map(case).collect()
}

/// A value of the same type that says something else.
pub(crate) fn other(value: &Value) -> Value {
    match value {
        Value::Null => json!("something"),
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_f64().unwrap_or_default() as i64 + 1),
        Value::String(text) => json!(format!("{text}-else")),
        Value::Array(list) => Value::Array(list.iter().cloned().chain([json!("something-else")]).collect()),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), other(value))).collect(),
    }
}
