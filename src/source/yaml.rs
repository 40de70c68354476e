//! Which values does a YAML text hold?
//!
//! Values are read as Kubernetes reads them: YAML 1.1 words and numbers, merge keys, JSON as a subset.

mod places;

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Number, Value};

pub(crate) use self::places::{Segment, camel_case, locate, segments};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 100;
/// Most values that the aliases of one document may stand for, against alias bombs.
const MAX_ALIASED: usize = 100_000;

/// A part of a file between two `---`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub text: &'a str,
    /// First line in the file, from 1.
    pub line: u32,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    /// From 1, in the text given.
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// Cuts a file at its document markers, without parsing: a broken document does not hide the next one.
///
/// YAML 1.2, 9.1.2: a line that begins with `---` or `...` is a marker wherever it stands.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line) = (0, 1);
    let (mut offset, mut line) = (0, 1);
    for full_line in text.split_inclusive('\n') {
        let after = offset + full_line.len();
        if is_marker(full_line, "---") {
            push_part(&mut parts, text, begin, offset, begin_line);
            (begin, begin_line) = (offset, line);
        } else if is_marker(full_line, "...") {
            push_part(&mut parts, text, begin, offset, begin_line);
            (begin, begin_line) = (after, line + 1);
        }
        offset = after;
        line += 1;
    }
    push_part(&mut parts, text, begin, text.len(), begin_line);
    parts
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push_part<'a>(parts: &mut Vec<Part<'a>>, file: &'a str, begin: usize, end: usize, line: u32) {
    let Some(text) = file.get(begin..end) else { return };
    let meaningful = |line: &str| {
        let line = line.trim_start_matches('\u{feff}');
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
    };
    if text.lines().any(meaningful) {
        parts.push(Part { text, line });
    }
}

/// The value of one document; `Null` if it is empty.
pub(crate) fn parse(text: &str) -> Result<Value, YamlError> {
    leniently(text, parse_strictly)
}

/// Most brackets of one document that are moved.
const MAX_MOVED: usize = 64;

/// Moves a closing bracket to the right where it stands as far left as the key it belongs to. YAML 1.2 forbids that,
/// but Kubernetes' parser takes it and many manifests have it. Lines keep their numbers.
fn leniently<R>(text: &str, read: impl Fn(&str) -> Result<R, YamlError>) -> Result<R, YamlError> {
    let mut result = read(text);
    let mut moved = Cow::Borrowed(text);
    for _ in 0..MAX_MOVED {
        let Err(error) = &result else { break };
        let Some(index) = usize::try_from(error.line).ok().and_then(|line| line.checked_sub(1)) else { break };
        let mut lines: Vec<&str> = moved.split('\n').collect();
        let Some(line) = lines.get_mut(index) else { break };
        if line.starts_with(MARGIN) || !line.trim_start().starts_with([']', '}']) {
            break;
        }
        let indented = format!("{MARGIN}{line}");
        *line = &indented;
        moved = Cow::Owned(lines.join("\n"));
        result = read(&moved);
    }
    result
}

/// Further right than the keys of real documents.
const MARGIN: &str = "                                                                                ";

fn parse_strictly(text: &str) -> Result<Value, YamlError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(&error))?;
        match event {
            Event::DocumentEnd | Event::StreamEnd => break,
            event => builder.take(event).map_err(|message| error_at(span.start, message))?,
        }
    }
    Ok(builder.done.unwrap_or(Value::Null))
}

fn syntax_error(error: &ScanError) -> YamlError {
    error_at(*error.marker(), error.info().to_owned())
}

fn error_at(marker: Marker, message: String) -> YamlError {
    let (line, column) = position(marker);
    YamlError { line, column, message }
}

fn position(marker: Marker) -> (u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(marker.line()), number(marker.col()).saturating_add(1))
}

/// A value with what it costs to copy it.
#[derive(Clone)]
struct Anchored {
    value: Value,
    size: usize,
    depth: usize,
}

enum Frame {
    Sequence { items: Vec<Value>, anchor: usize },
    Mapping { entries: Map<String, Value>, merged: Vec<Value>, key: Option<Key>, anchor: usize },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    aliased: usize,
    done: Option<Value>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Frame::Mapping { key: key @ None, .. }) = self.stack.last_mut() {
                    let merge = style == ScalarStyle::Plain && text == "<<";
                    *key = Some(if merge { Key::Merge } else { Key::Name(key_name(&text, style)) });
                    if anchor != 0 {
                        self.remember(anchor, &Value::String(text.into_owned()))?;
                    }
                    return self.refuse_repeated_key();
                }
                let text_tag = tag.is_some_and(|tag| tag.suffix == "str" || tag.suffix == "binary");
                let value = match style {
                    ScalarStyle::Plain if !text_tag => plain_scalar(&text),
                    _ => Value::String(text.into_owned()),
                };
                self.put(value, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Frame::Sequence { items: Vec::new(), anchor }),
            Event::MappingStart(anchor, _) => {
                self.open(Frame::Mapping { entries: Map::new(), merged: Vec::new(), key: None, anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id),
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), String> {
        if let Some(Frame::Mapping { key: None, .. }) = self.stack.last() {
            return Err("a list or mapping cannot be a key".into());
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        match self.stack.pop() {
            Some(Frame::Sequence { items, anchor }) => self.put(Value::Array(items), anchor),
            Some(Frame::Mapping { mut entries, merged, anchor, .. }) => {
                for source in merged {
                    let Value::Object(source) = source else {
                        return Err("`<<` merges mappings only".into());
                    };
                    for (name, value) in source {
                        entries.entry(name).or_insert(value);
                    }
                }
                self.put(Value::Object(entries), anchor)
            }
            None => Ok(()),
        }
    }

    fn alias(&mut self, id: usize) -> Result<(), String> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err("an alias to something that is not complete".into());
        };
        self.aliased = self.aliased.saturating_add(anchored.size);
        if self.aliased > MAX_ALIASED {
            return Err(format!("aliases stand for more than {MAX_ALIASED} values"));
        }
        if self.stack.len() + anchored.depth > MAX_DEPTH {
            return Err(format!("aliases nest deeper than {MAX_DEPTH} levels"));
        }
        let value = anchored.value.clone();
        if let Some(Frame::Mapping { key: key @ None, .. }) = self.stack.last_mut() {
            let Value::String(name) = value else { return Err("only text can be a key".into()) };
            *key = Some(Key::Name(name));
            return self.refuse_repeated_key();
        }
        self.put(value, 0)
    }

    fn refuse_repeated_key(&self) -> Result<(), String> {
        match self.stack.last() {
            Some(Frame::Mapping { entries, key: Some(Key::Name(name)), .. }) if entries.contains_key(name) => {
                Err(format!("the key `{name}` stands here twice"))
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.remember(anchor, &value)?;
        }
        match self.stack.last_mut() {
            None => self.done = Some(value),
            Some(Frame::Sequence { items, .. }) => items.push(value),
            Some(Frame::Mapping { entries, merged, key, .. }) => match (key.take(), value) {
                (Some(Key::Merge), Value::Array(list)) => merged.extend(list),
                (Some(Key::Merge), value) => merged.push(value),
                (Some(Key::Name(name)), value) => {
                    entries.insert(name, value);
                }
                (None, _) => return Err("a list or mapping cannot be a key".into()),
            },
        }
        Ok(())
    }

    /// Anchors are copies, so they count as much as aliases.
    fn remember(&mut self, anchor: usize, value: &Value) -> Result<(), String> {
        let (size, depth) = measure(value);
        self.aliased = self.aliased.saturating_add(size);
        if self.aliased > MAX_ALIASED {
            return Err(format!("anchors and aliases stand for more than {MAX_ALIASED} values"));
        }
        self.anchors.insert(anchor, Anchored { value: value.clone(), size, depth });
        Ok(())
    }
}

/// Number of values and depth; the depth of `value` is bounded by `MAX_DEPTH`.
fn measure(value: &Value) -> (usize, usize) {
    let total = |(size, depth): (usize, usize), (s, d): (usize, usize)| (size + s, depth.max(d));
    let (size, depth) = match value {
        Value::Array(items) => items.iter().map(measure).fold((0, 0), total),
        Value::Object(entries) => entries.values().map(measure).fold((0, 0), total),
        _ => return (1, 0),
    };
    (size + 1, depth + 1)
}

/// Kubernetes writes keys that are no text as JSON would: `on` becomes `true`, `0x10` becomes `16`.
fn key_name(text: &str, style: ScalarStyle) -> String {
    if style != ScalarStyle::Plain {
        return text.to_owned();
    }
    match plain_scalar(text) {
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        _ => text.to_owned(),
    }
}

/// An unquoted word by the rules of YAML 1.1, as Kubernetes' parser applies them.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    if let Some(value) = integer(digits) {
        return match (negative, value) {
            (false, value) => u64::try_from(value).ok().map(Number::from),
            (true, value) => i64::try_from(value).ok().and_then(i64::checked_neg).map(Number::from),
        };
    }
    let is_float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits.contains(|c: char| c.is_ascii_digit())
        && !digits.starts_with(['e', 'E', '+', '-']);
    let value: f64 = if is_float { digits.parse().ok()? } else { return None };
    Number::from_f64(if negative { -value } else { value })
}

fn integer(digits: &str) -> Option<u128> {
    let prefixed = [("0x", 16), ("0b", 2), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((radix, digits.strip_prefix(prefix)?)));
    let octal = || digits.strip_prefix('0').filter(|rest| !rest.is_empty()).map(|rest| (8, rest));
    let (radix, digits) = prefixed.or_else(octal).unwrap_or((10, digits));
    let plain = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    if plain { u128::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::places::find;
    use super::*;

    #[test]
    fn words_are_read_as_kubernetes_reads_them() {
        let text = "a: yes\nb: 'yes'\nc: 0644\nd: 1_000\ne: 1.5\nf: ~\ng: 10.0.0.1\nh: -3\ni: 1e3\nj: 2001:db8::1\non: 1\nk: !!str 12\nl: 0x1F\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": true, "b": "yes", "c": 420, "d": 1000, "e": 1.5, "f": null, "g": "10.0.0.1", "h": -3,
                "i": 1000.0, "j": "2001:db8::1", "true": 1, "k": "12", "l": 31})
        );
    }

    #[test]
    fn merges_and_aliases_are_filled_in() {
        let text = "base: &b {x: 1, z: 2}\nmore:\n  <<: *b\n  z: 3\nlist: [*b]\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"base": {"x": 1, "z": 2}, "more": {"z": 3, "x": 1}, "list": [{"x": 1, "z": 2}]})
        );
    }

    #[test]
    fn bombs_and_towers_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{}]\n", previous.trim_end_matches(", "));
        }
        assert!(parse(&bomb).unwrap_err().message.contains("stand for more"));
        assert!(parse(&"[".repeat(100_000)).is_err());
        let mut tower = "a0: &a0 [x]\n".to_owned();
        for level in 1..200 {
            tower += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(parse(&tower).unwrap_err().message.contains("nest deeper"));
    }

    #[test]
    fn errors_have_their_line() {
        let at = |text: &str| parse(text).map_err(|e| (e.line, e.message)).unwrap_err();
        assert_eq!(at("a: 1\nb: 2\na: 3\n"), (3, "the key `a` stands here twice".into()));
        assert_eq!(at("a:\n  - b\n c: d\n").0, 3);
    }

    #[test]
    fn brackets_may_stand_under_their_key() {
        let text = "a:\n- b: [\n    1,\n  ]\n  c: {\n  }\n";
        assert_eq!(parse(text).unwrap(), json!({"a": [{"b": [1], "c": {}}]}));
    }

    #[test]
    fn documents_are_cut_at_their_markers() {
        let text = "# only a comment\n---\na: 1\n--- # again\nb: |\n  x\n---\n\n...\nc: 3\n";
        let parts: Vec<_> = parts(text).iter().map(|p| (p.line, parse(p.text).unwrap())).collect();
        assert_eq!(parts, [(2, json!({"a": 1})), (4, json!({"b": "x\n"})), (10, json!({"c": 3}))]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), path in ".{0,20}") {
            let text = String::from_utf8_lossy(&bytes);
            for part in parts(&text) {
                let _ = parse(part.text);
            }
            let _ = find(&text, &segments(&path));
        }

        #[test]
        fn no_yaml_like_text_makes_it_panic(text in "[-a&*<:{}\\[\\]\n ,'\"|>#?!.0x_]{0,60}") {
            for part in parts(&text) {
                let _ = parse(part.text);
            }
            let _ = find(&text, &segments("a[0].a"));
        }
    }
}
