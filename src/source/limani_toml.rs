//! What does `limani.toml` say, and at which line? Wrong values and unknown keys become findings.

mod acme;
mod keys;

use std::sync::Arc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use self::keys::{Keys, Normalization, Route, RouteTls, apply};

use super::decode::decode;
use super::yaml::{Segment, segments};
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::Origin;

/// A settings file that was understood: what it says, still without defaults.
#[derive(Debug)]
pub(super) struct SettingsFile {
    pub keys: Keys,
    pub findings: Vec<Finding>,
    /// Where each `[[route]]` stands.
    pub route_origins: Vec<Origin>,
}

/// Reads the text of a settings file.
///
/// # Errors
///
/// Findings that say what is wrong and at which line.
pub(super) fn read(file: &str, text: &str) -> Result<SettingsFile, Vec<Finding>> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        vec![Finding::new(&codes::SETTINGS, place(file, text, offset), error.message())]
    })?;
    let locate = |path: &str| place(file, text, offset_of(&table, &segments(path)));
    let decoded = decode::<Keys>(&object(table.get_ref()), "")
        .map_err(|error| vec![Finding::new(&codes::SETTINGS, locate(&error.path), error.message)])?;
    let fault = |(path, message): acme::Fault| Finding::new(&codes::SETTINGS, locate(&path), message);
    let faults: Vec<Finding> = decoded.value.acme.faults().into_iter().map(fault).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let findings = decoded.unknown.iter().map(|key| {
        Finding::new(&codes::SETTINGS_UNKNOWN, locate(&key.path), format!("`{}` is no setting", key.path))
            .hint(key.hint("conf/limani.toml lists every key"))
    });
    let (file_name, whole): (Arc<str>, Arc<str>) = (file.into(), text.into());
    let route_origins = (0..decoded.value.route.len()).map(|index| Origin {
        file: file_name.clone(),
        text: whole.clone(),
        line: locate(&format!("route[{index}]")).line,
        ..Origin::default()
    });
    Ok(SettingsFile { findings: findings.collect(), route_origins: route_origins.collect(), keys: decoded.value })
}

fn place(file: &str, text: &str, offset: usize) -> Location {
    let before = text.get(..offset.min(text.len())).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Location { file: file.to_owned(), line: number(line), column: number(column) }
}

fn object(table: &DeTable<'_>) -> Value {
    Value::Object(
        table.iter().map(|(key, item)| (key.get_ref().to_string(), value(item.get_ref()))).collect::<Map<_, _>>(),
    )
}

fn value(item: &DeValue<'_>) -> Value {
    match item {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(word) => Value::Bool(*word),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| value(item.get_ref())).collect()),
        DeValue::Table(table) => object(table),
    }
}

/// The first byte of the longest part of the path that exists.
fn offset_of(table: &Spanned<DeTable<'_>>, path: &[Segment]) -> usize {
    let Some((Segment::Key(first), rest)) = path.split_first() else { return table.span().start };
    let Some((key, item)) = table.get_ref().iter().find(|(key, _)| key.get_ref() == first) else {
        return table.span().start;
    };
    let (mut offset, mut item) = (key.span().start, item);
    for segment in rest {
        item = match (segment, item.get_ref()) {
            (Segment::Key(name), DeValue::Table(table)) => {
                let Some((key, item)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
                offset = key.span().start;
                item
            }
            (Segment::Index(index), DeValue::Array(items)) => {
                let Some(item) = items.get(*index) else { break };
                offset = item.span().start;
                item
            }
            _ => break,
        };
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_line() {
        let error = |text: &str| read("l.toml", text).map(|_| ()).unwrap_err()[0].to_string();
        assert!(error("[http]\nhead_timeout = 5\n").starts_with("l.toml:2: error [LIM0001] text is expected here"));
        assert!(
            error("[admin]\n\naddress = \"x\"\n").starts_with("l.toml:3: error [LIM0001] `x`: invalid socket address")
        );
        assert!(error("[admin\n").starts_with("l.toml:1: error"));
        let file = read("l.toml", "[http]\nhead_limit = 5\n").unwrap();
        assert_eq!(
            file.findings[0].to_string(),
            "l.toml:2: warning [LIM0002] `http.head_limit` is no setting (conf/limani.toml lists every key)"
        );
    }
}
