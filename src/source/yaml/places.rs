//! At which line does a path of a value stand?

use saphyr_parser::{Event, Parser, StrInput};

use super::{YamlError, leniently, position, syntax_error};
use crate::resource::finding::Location;
use crate::resource::meta::Origin;

/// The place of a path in the document of `origin`; of its longest part that exists, if it leads nowhere.
pub(crate) fn locate(origin: &Origin, path: &str) -> Location {
    let whole = match (origin.within.as_str(), path) {
        ("", path) => path.to_owned(),
        (within, "") => within.to_owned(),
        (within, path) => format!("{within}.{path}"),
    };
    let path = segments(&whole);
    match leniently(&origin.text, |text| find(text, &path)) {
        Ok(Some((line, column))) => {
            Location { file: origin.file.to_string(), line: origin.line.saturating_add(line - 1), column }
        }
        _ => origin.start(),
    }
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

/// Reads `spec.http[0].headers["x.y"]`.
pub(crate) fn segments(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let Some((key, after)) = quoted.split_once("\"]") else { break };
            segments.push(Segment::Key(key.to_owned()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let Some((index, after)) = index.split_once(']') else { break };
            segments.push(Segment::Index(index.parse().unwrap_or(usize::MAX)));
            rest = after;
        } else {
            let plain = rest.strip_prefix('.').unwrap_or(rest);
            let end = plain.find(['.', '[']).unwrap_or(plain.len());
            let Some((key, after)) = plain.split_at_checked(end).filter(|_| end > 0) else { break };
            segments.push(Segment::Key(key.to_owned()));
            rest = after;
        }
    }
    segments
}

/// A container that is being walked; `level` is how many segments lead to it, if it stands on the path.
struct Walked {
    level: Option<usize>,
    mapping: bool,
    /// Of a mapping: the key that was read, until its value comes.
    key: Option<String>,
    index: usize,
}

/// Line and column of the key, or of the list item, that the path names in the first document of `text`.
pub(super) fn find(text: &str, path: &[Segment]) -> Result<Option<(u32, u32)>, YamlError> {
    let mut best: Option<(u32, u32)> = None;
    let mut best_level = 0;
    let mut stack: Vec<Walked> = Vec::new();
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(&error))?;
        let opens = match event {
            Event::MappingStart(..) => Some(true),
            Event::SequenceStart(..) => Some(false),
            Event::Scalar(..) | Event::Alias(_) => None,
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
                continue;
            }
            Event::DocumentEnd => break,
            _ => continue,
        };
        let mut level = if stack.is_empty() { Some(0) } else { None };
        if let Some(parent) = stack.last_mut() {
            let step = if !parent.mapping {
                parent.index += 1;
                Segment::Index(parent.index - 1)
            } else if let Some(key) = parent.key.take() {
                Segment::Key(key)
            } else {
                let name = if let Event::Scalar(name, ..) = &event { name.to_string() } else { String::new() };
                if let Some(at) = parent.level.filter(|at| path.get(*at).is_some_and(|step| same_key(step, &name))) {
                    improve(&mut best, &mut best_level, at + 1, position(span.start));
                }
                parent.key = Some(name);
                continue;
            };
            let here = parent.level.filter(|at| path.get(*at).is_some_and(|wanted| same_step(wanted, &step)));
            level = here.map(|at| at + 1);
            if let (Some(level), Segment::Index(_)) = (level, &step) {
                improve(&mut best, &mut best_level, level, position(span.start));
            }
        } else if best.is_none() {
            best = Some(position(span.start));
        }
        if best_level == path.len() && best_level > 0 {
            break;
        }
        if let Some(mapping) = opens {
            stack.push(Walked { level, mapping, key: None, index: 0 });
        }
    }
    Ok(best)
}

fn improve(best: &mut Option<(u32, u32)>, best_level: &mut usize, level: usize, place: (u32, u32)) {
    if level > *best_level {
        *best = Some(place);
        *best_level = level;
    }
}

fn same_step(wanted: &Segment, step: &Segment) -> bool {
    match step {
        Segment::Index(_) => wanted == step,
        Segment::Key(key) => same_key(wanted, key),
    }
}

/// Paths name fields in camel case; the document may have them in snake case.
fn same_key(wanted: &Segment, key: &str) -> bool {
    matches!(wanted, Segment::Key(name) if name == key || *name == camel_case(key))
}

/// `http_status` as `httpStatus`; other names as they are.
pub(crate) fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_line() {
        let text = "---\nspec:\n  http:\n  - match:\n    - uri: {exact: /a}\n    - headers:\n        x.y: {}\n  - redirect_code: 3\n";
        let line = |path: &str| find(text, &segments(path)).unwrap().unwrap();
        assert_eq!(line("spec.http[0].match[0].uri.exact"), (5, 13));
        assert_eq!(line("spec.http[0].match[1].headers[\"x.y\"]"), (7, 9));
        assert_eq!(line("spec.http[1].redirectCode"), (8, 5));
        assert_eq!(line("spec.http[1].nothing"), (8, 5));
        assert_eq!(line("spec.http[7]"), (3, 3));
    }
}
