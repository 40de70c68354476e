//! Which short text does a regular expression match?

use regex_syntax::hir::{Class, Hir, HirKind};

/// Longer examples help nobody.
const LONGEST: usize = 256;
/// What people like to read, the best first.
const READABLE: &str = "a1x0A-_./ ";

/// A text that the expression matches as a whole, as far as its looks around (`\b`) do not forbid it: no repetition
/// more often than it must be, the shortest of alternatives.
pub(super) fn of(hir: &Hir) -> Option<String> {
    let mut text = Vec::new();
    append(hir, &mut text)?;
    String::from_utf8(text).ok()
}

fn append(hir: &Hir, text: &mut Vec<u8>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(class) => text.extend_from_slice(one_of(class)?.encode_utf8(&mut [0; 4]).as_bytes()),
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                append(&repetition.sub, text)?;
            }
        }
        HirKind::Capture(capture) => append(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| append(part, text))?,
        HirKind::Alternation(ways) => {
            let made = ways.iter().filter_map(|way| {
                let mut made = Vec::new();
                append(way, &mut made).map(|()| made)
            });
            text.extend(made.min_by_key(Vec::len)?);
        }
    }
    (text.len() <= LONGEST).then_some(())
}

fn one_of(class: &Class) -> Option<char> {
    match class {
        Class::Unicode(class) => {
            let contains = |c: &char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(c));
            let readable = READABLE.chars().chain('a'..='z').chain('!'..='~').find(contains);
            readable.or_else(|| class.ranges().first().map(|range| range.start()))
        }
        Class::Bytes(class) => {
            let contains = |c: &char| class.ranges().iter().any(|r| (r.start()..=r.end()).contains(&(*c as u8)));
            READABLE.chars().chain('a'..='z').chain('!'..='~').find(contains)
        }
    }
}
