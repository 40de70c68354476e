//! Does the house stand? The plan in src/lib.rs, held against what every file imports.
//!
//! Unit tests may come through every door: what stands under `#[cfg(test)]` is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Files longer than this, tests not counted, are named; they should be cut by question.
const LONG: usize = 500;
/// Files longer than this are an error.
const TOO_LONG: usize = 1000;
/// File names that answer no question.
const NAMELESS: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// One source file, cut to what the compiler sees of the product: comments, strings and tests are blank.
struct Source {
    /// Relative to src, with `/`.
    path: String,
    text: String,
    code: Vec<String>,
}

impl Source {
    /// The part of the house that the file belongs to.
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules lie above the file's own: 1 for src/net/mod.rs, 2 for src/net/link.rs.
    fn depth(&self) -> usize {
        self.path.trim_end_matches("/mod.rs").trim_end_matches(".rs").split('/').count()
    }
}

#[test]
fn parts_import_only_what_the_plan_allows() {
    let plan = table("Floor plan");
    let mut faults = Vec::new();
    for source in sources() {
        if matches!(source.path.as_str(), "lib.rs" | "main.rs") {
            continue;
        }
        let Some(allowed) = plan.get(source.room()) else {
            faults.push(format!("src/{}: the part `{}` is not in the plan", source.path, source.room()));
            continue;
        };
        for (line, part) in imported_parts(&source, &plan) {
            if part != source.room() && !allowed.contains(&part) {
                faults.push(format!("src/{}:{line}: `{}` may not import `{part}`", source.path, source.room()));
            }
        }
    }
    none("imports against the plan", &faults);
}

#[test]
fn the_plan_allows_nothing_that_nobody_needs() {
    let plan = table("Floor plan");
    let used: BTreeSet<(String, String)> = sources()
        .iter()
        .flat_map(|source| imported_parts(source, &plan).into_iter().map(|(_, part)| (source.room().to_owned(), part)))
        .collect();
    let allowed = plan.iter().flat_map(|(part, list)| list.iter().map(|other| (part.clone(), other.clone())));
    let faults: Vec<String> = allowed
        .filter(|pair| !used.contains(pair))
        .map(|(part, other)| format!("src/lib.rs: `{part}` lists `{other}`, which it does not import"))
        .collect();
    none("needless rows of the plan", &faults);
}

#[test]
fn the_plan_names_every_part_and_has_no_circle() {
    let text = read(&root().join("src/lib.rs"));
    let declared = Regex::new(r"(?m)^(?:pub(?:\(crate\))? )?mod (\w+);").expect("a pattern");
    let parts: Vec<&str> = declared.captures_iter(&text).filter_map(|found| found.get(1)).map(|m| m.as_str()).collect();
    let rows = rows("Floor plan");
    let mut faults = Vec::new();
    for part in &parts {
        if !rows.iter().any(|(name, _)| name == part) {
            faults.push(format!("src/lib.rs: `mod {part}` is not in the plan"));
        }
    }
    for (index, (name, allowed)) in rows.iter().enumerate() {
        if !parts.contains(&name.as_str()) {
            faults.push(format!("src/lib.rs: the plan names `{name}`, which is no module"));
        }
        for other in allowed {
            if !rows.iter().take(index).any(|(earlier, _)| earlier == other) {
                faults.push(format!("src/lib.rs: `{name}` lists `{other}`, which does not stand above it"));
            }
        }
    }
    none("faults of the plan itself", &faults);
}

#[test]
fn heavy_libraries_stay_at_home() {
    let homes = table("Homes of heavy libraries");
    let mut faults = Vec::new();
    for source in sources() {
        for (library, places) in &homes {
            let at_home = places.iter().any(|place| {
                source.path == *place
                    || source.path == format!("{place}.rs")
                    || source.path.starts_with(&format!("{place}/"))
            });
            if at_home {
                continue;
            }
            let named =
                Regex::new(&format!(r"(?:^|[^\w:.]){library}::|^\s*(?:pub\s+)?use {library}\b")).expect("a pattern");
            for (line, code) in lines(&source) {
                if named.is_match(code) {
                    faults.push(format!("src/{}:{line}: `{library}` lives in {}", source.path, places.join(", ")));
                }
            }
        }
    }
    none("libraries away from home", &faults);
}

#[test]
fn tasks_are_spawned_in_one_place() {
    let spawn = Regex::new(r"\btokio::(?:task::)?spawn(?:_local)?\(|\btokio::task::spawn\b").expect("a pattern");
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path != "base/task.rs") {
        for (line, _) in lines(source).filter(|(_, code)| spawn.is_match(code)) {
            faults.push(format!("src/{}:{line}: tasks come from base::task, which names them", source.path));
        }
    }
    none("tasks without a name", &faults);
}

#[test]
fn every_file_begins_with_its_question() {
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            faults.push(format!("src/{}:1: the first line has to say what the file is about (`//! ...`)", source.path));
        }
        if source.text.starts_with("//! (to be written)") {
            faults.push(format!("src/{}:1: the file is empty", source.path));
        }
        let name = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if NAMELESS.contains(&name) {
            faults.push(format!("src/{}: name the file after what it does", source.path));
        }
    }
    none("files without a question", &faults);
}

#[test]
fn files_are_small() {
    let mut faults = Vec::new();
    for source in sources() {
        let length = source.code.len();
        if length > LONG {
            println!("long: src/{} has {length} lines", source.path);
        }
        if length > TOO_LONG {
            faults.push(format!("src/{}: {length} lines, more than {TOO_LONG}", source.path));
        }
    }
    none("files that are too long", &faults);
}

/// The parts of the crate that a file names, with the line.
fn imported_parts(source: &Source, plan: &BTreeMap<String, Vec<String>>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let direct = Regex::new(r"\bcrate::(\w+)").expect("a pattern");
    let climbing = Regex::new(r"\b((?:super::)+)(\w+)").expect("a pattern");
    let group = Regex::new(r"\bcrate::\{").expect("a pattern");
    for (line, code) in lines(source) {
        let named = direct.captures_iter(code).filter_map(|c| c.get(1)).map(|m| m.as_str().to_owned());
        found.extend(named.filter(|part| plan.contains_key(part)).map(|part| (line, part)));
        for climb in climbing.captures_iter(code) {
            let (Some(supers), Some(name)) = (climb.get(1), climb.get(2)) else { continue };
            let steps = supers.as_str().len() / "super::".len();
            if steps >= source.depth() && plan.contains_key(name.as_str()) {
                found.push((line, name.as_str().to_owned()));
            }
        }
        if group.is_match(code) {
            found.push((line, "a group after crate:: (write one `use crate::part::...` for each part)".into()));
        }
    }
    found
}

/// The product's lines, counted from 1.
fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.code.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
}

/// Every file of src, in order; files that only tests use are left out.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    let texts: Vec<(String, String)> = paths
        .iter()
        .map(|path| (path.strip_prefix(&src).unwrap_or(path).to_string_lossy().replace('\\', "/"), read(path)))
        .collect();
    let only_tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts
        .into_iter()
        .filter(|(path, _)| {
            !only_tests.iter().any(|module| path == &format!("{module}.rs") || path.starts_with(&format!("{module}/")))
        })
        .map(|(path, text)| Source { code: product_lines(&text), path, text })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("an entry of src").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Modules that `#[cfg(test)] mod name;` declares, as paths below src without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let declared =
        Regex::new(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+);").expect("a pattern");
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod.rs")) => format!("{folder}/"),
        _ => match path {
            "lib.rs" | "main.rs" => String::new(),
            _ => format!("{}/", path.trim_end_matches(".rs")),
        },
    };
    declared
        .captures_iter(text)
        .filter_map(|found| found.get(1))
        .map(|name| format!("{folder}{}", name.as_str()))
        .collect()
}

/// The lines before the file's test module, without comments and without what stands in strings.
fn product_lines(text: &str) -> Vec<String> {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\s*\n(?:#\[[^\n]*\n)*mod \w+ \{").expect("a pattern");
    let end = tests.find(text).map_or(text.len(), |found| found.start());
    let string = Regex::new(r#""(?:[^"\\]|\\.)*""#).expect("a pattern");
    let product = text.get(..end).unwrap_or(text);
    product
        .lines()
        .map(|line| {
            let line = string.replace_all(line, "\"\"");
            line.split("//").next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// The rows `name <- a b c` of a table in the doc of src/lib.rs, in order.
fn rows(heading: &str) -> Vec<(String, Vec<String>)> {
    let text = read(&root().join("src/lib.rs"));
    let doc = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let block =
        doc.skip_while(|line| *line != format!("# {heading}")).skip_while(|line| !line.starts_with("```")).skip(1);
    let rows: Vec<_> = block
        .take_while(|line| !line.starts_with("```"))
        .filter_map(|line| line.split_once("<-"))
        .map(|(name, list)| (name.trim().to_owned(), list.split_whitespace().map(str::to_owned).collect()))
        .collect();
    assert!(!rows.is_empty(), "src/lib.rs has no table under `# {heading}`");
    rows
}

fn table(heading: &str) -> BTreeMap<String, Vec<String>> {
    rows(heading).into_iter().collect()
}

fn none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{} {what}:\n{}", faults.len(), faults.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
