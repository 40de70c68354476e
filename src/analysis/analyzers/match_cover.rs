//! Which earlier match takes every request of a later one? Found by look-up, however many matches there are.

use std::collections::HashMap;

use crate::resource::networking::{HttpMatchRequest, StringMatch};

/// Matches with what each stands for.
pub(super) struct Cover<T> {
    /// By the conditions beside the path.
    by_conditions: HashMap<String, Paths<T>>,
}

/// Paths under the same other conditions. A prefix of nothing stands for every path.
struct Paths<T> {
    prefixes: HashMap<String, T>,
    exact: HashMap<String, T>,
    patterns: HashMap<String, T>,
}

impl<T> Default for Cover<T> {
    fn default() -> Self {
        Cover { by_conditions: HashMap::new() }
    }
}

/// A path as a match names it.
enum Path<'a> {
    Prefix(&'a str),
    Exact(&'a str),
    Pattern(&'a str),
}

impl<T: Copy> Cover<T> {
    /// Adds a match; `None` takes everything.
    pub(super) fn add(&mut self, entry: Option<&HttpMatchRequest>, value: T) {
        let new = || Paths { prefixes: HashMap::new(), exact: HashMap::new(), patterns: HashMap::new() };
        let paths = self.by_conditions.entry(conditions(entry)).or_insert_with(new);
        let (map, text) = match path(entry) {
            Path::Prefix(text) => (&mut paths.prefixes, text),
            Path::Exact(text) => (&mut paths.exact, text),
            Path::Pattern(text) => (&mut paths.patterns, text),
        };
        map.entry(text.to_owned()).or_insert(value);
    }

    /// A match that takes every request of `entry`: it has the same conditions beside the path or none, and its path
    /// is the same or a beginning of it.
    pub(super) fn covering(&self, entry: Option<&HttpMatchRequest>) -> Option<T> {
        let own = conditions(entry);
        let ignores_case = entry.is_some_and(|entry| entry.ignore_uri_case);
        let with_own = self.by_conditions.get(&own).and_then(|paths| paths.covering(&path(entry)));
        let without = || {
            let paths = self.by_conditions.get("").filter(|_| !own.is_empty())?;
            // A path in any case is in a case that a stricter match does not take.
            let path = if ignores_case { Path::Prefix("") } else { path(entry) };
            paths.covering(&path)
        };
        with_own.or_else(without)
    }
}

impl<T: Copy> Paths<T> {
    fn covering(&self, path: &Path<'_>) -> Option<T> {
        let beginning = |text: &str| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.filter_map(|end| text.get(..end)).find_map(|start| self.prefixes.get(start)).copied()
        };
        match path {
            Path::Prefix(text) => beginning(text),
            Path::Exact(text) => self.exact.get(*text).copied().or_else(|| beginning(text)),
            Path::Pattern(text) => self.patterns.get(*text).or_else(|| self.prefixes.get("")).copied(),
        }
    }
}

/// Whether a match takes every request, so that it goes behind all others.
pub(super) fn is_catch_all(entry: &HttpMatchRequest) -> bool {
    matches!(path(Some(entry)), Path::Prefix("")) && conditions(Some(entry)).is_empty()
}

/// No path, `/` and the pattern `.*` mean every path.
fn path(entry: Option<&HttpMatchRequest>) -> Path<'_> {
    match entry.and_then(|entry| entry.uri.as_deref()) {
        Some(StringMatch { exact: Some(text), .. }) => Path::Exact(text),
        Some(StringMatch { prefix: Some(text), .. }) if text != "/" => Path::Prefix(text),
        Some(StringMatch { regex: Some(text), .. }) if text != ".*" => Path::Pattern(text),
        _ => Path::Prefix(""),
    }
}

/// The conditions beside the path as text; empty if there are none.
fn conditions(entry: Option<&HttpMatchRequest>) -> String {
    let Some(entry) = entry else { return String::new() };
    let by_path_alone = HttpMatchRequest { uri: entry.uri.clone(), ..HttpMatchRequest::default() };
    if *entry == by_path_alone {
        return String::new();
    }
    let (name, stat_prefix, gateways) = (String::new(), String::new(), Vec::new());
    let ignore_uri_case = entry.ignore_uri_case && !matches!(path(Some(entry)), Path::Prefix(""));
    let rest = HttpMatchRequest { name, stat_prefix, gateways, uri: None, ignore_uri_case, ..entry.clone() };
    if rest == HttpMatchRequest::default() { String::new() } else { format!("{rest:?}") }
}
