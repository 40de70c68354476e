//! What does a regular expression of a manifest mean? RE2's words, matched as a whole or searched.

use std::sync::OnceLock;

use regex_automata::meta::Regex;
use regex_automata::nfa::thompson;
use regex_syntax::hir::{Hir, HirKind, Look};

use crate::base::re2::translate;

/// Longest pattern in bytes (Istio's validation).
const LONGEST: usize = 1024;
/// Most memory of a compiled program in bytes; stands for Envoy's limit of 32768 instructions.
const LARGEST: usize = 2 << 20;
/// Programs up to this size are walked as they are; larger ones are worth the memory of a lazy DFA. Ten thousand
/// rules have ten thousand patterns.
const SMALL: usize = 16 << 10;

/// A compiled RE2 pattern (Istio StringMatch.regex, RegexRewrite.match).
///
/// Perl classes and word boundaries are ASCII, alternation is leftmost-first. Texts are bytes.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    source: Box<str>,
    /// Whether the whole text has to match.
    whole: bool,
    literal_prefix: Box<[u8]>,
    /// What can be made is made when it is needed first: most of ten thousand patterns are seldom asked.
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// A pattern that has to match the whole text.
    pub(crate) fn whole(source: &str) -> Result<Pattern, String> {
        let translated = translate(checked_length(source)?);
        // Compiled without the anchors first: `a)(b` must not become valid by the group around it.
        let hir = parse(&translated)?;
        let mut literal_prefix = Vec::new();
        collect_prefix(&hir, &mut literal_prefix);
        Pattern::new(source, true, literal_prefix)
    }

    /// A pattern that is searched in the text.
    pub(crate) fn search(source: &str) -> Result<Pattern, String> {
        Pattern::new(checked_length(source)?, false, Vec::new())
    }

    /// Small programs are proven to fit, and made later; large ones are made now.
    fn new(source: &str, whole: bool, literal_prefix: Vec<u8>) -> Result<Pattern, String> {
        let pattern =
            Pattern { source: source.into(), whole, literal_prefix: literal_prefix.into(), regex: OnceLock::new() };
        let hir = parse(&pattern.translated())?;
        let limits = thompson::Config::new().nfa_size_limit(Some(LARGEST)).utf8(false);
        let program = thompson::Compiler::new().configure(limits).build_from_hir(&hir);
        if program.map_err(|error| one_line(&error.to_string()))?.memory_usage() > SMALL {
            let made = build(&hir)?;
            // Nobody else knows it yet.
            let _ = pattern.regex.set(Some(made));
        }
        Ok(pattern)
    }

    fn translated(&self) -> String {
        match self.whole {
            true => format!(r"\A(?:{})\z", translate(&self.source)),
            false => translate(&self.source),
        }
    }

    fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| build(&parse(&self.translated()).ok()?).ok()).as_ref()
    }

    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        text.starts_with(&self.literal_prefix) && self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// As the user wrote it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Every text that the whole pattern matches begins with these bytes.
    pub(crate) fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// A short text that matches as a whole; `None` if none comes to mind.
    pub(crate) fn example(&self) -> Option<String> {
        let text = super::example::of(&parse(&translate(&self.source)).ok()?)?;
        self.is_match(text.as_bytes()).then_some(text)
    }

    /// Replaces every match; `\1` names a group, `\0` the match (RE2 GlobalReplace). A group that does not exist
    /// leaves the text unchanged.
    pub(crate) fn replace_all(&self, text: &str, with: &str) -> String {
        let Some(regex) = self.regex() else { return text.to_owned() };
        let Some(pieces) = replacement(with, regex.captures_len()) else { return text.to_owned() };
        let mut replaced: Vec<u8> = Vec::with_capacity(text.len() + with.len());
        let mut end = 0;
        for found in regex.captures_iter(text.as_bytes()) {
            let Some(whole) = found.get_group(0) else { continue };
            replaced.extend_from_slice(text.as_bytes().get(end..whole.start).unwrap_or_default());
            for piece in &pieces {
                match piece {
                    Piece::Text(c) => replaced.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    Piece::Group(number) => {
                        let group = found.get_group(*number).and_then(|group| text.as_bytes().get(group.range()));
                        replaced.extend_from_slice(group.unwrap_or_default());
                    }
                }
            }
            end = whole.end;
        }
        replaced.extend_from_slice(text.as_bytes().get(end..).unwrap_or_default());
        String::from_utf8(replaced).unwrap_or_else(|_| text.to_owned())
    }
}

/// A piece of a replacement text.
enum Piece {
    Text(char),
    Group(usize),
}

fn replacement(with: &str, groups: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut chars = with.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            pieces.push(Piece::Text(c));
            continue;
        }
        match chars.next()? {
            '\\' => pieces.push(Piece::Text('\\')),
            digit => {
                let number = usize::try_from(digit.to_digit(10)?).ok()?;
                if number >= groups {
                    return None;
                }
                pieces.push(Piece::Group(number));
            }
        }
    }
    Some(pieces)
}

fn checked_length(source: &str) -> Result<&str, String> {
    match source.len() {
        0 => Err("the regular expression is empty".to_owned()),
        length if length > LONGEST => Err(format!("the regular expression is longer than {LONGEST} bytes")),
        _ => Ok(source),
    }
}

fn build(hir: &Hir) -> Result<Regex, String> {
    let build = |lazy_dfa| {
        let limits = Regex::config().nfa_size_limit(Some(LARGEST)).utf8_empty(false).dfa(false).hybrid(lazy_dfa);
        Regex::builder().configure(limits).build_from_hir(hir).map_err(|error| one_line(&error.to_string()))
    };
    let small = build(false)?;
    if small.memory_usage() <= SMALL { Ok(small) } else { build(true) }
}

fn parse(translated: &str) -> Result<Hir, String> {
    let parsed = regex_syntax::ParserBuilder::new().utf8(false).build().parse(translated);
    parsed.map_err(|error| one_line(&error.to_string()))
}

fn one_line(error: &str) -> String {
    let last = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(error);
    last.trim().trim_start_matches("error: ").to_owned()
}

/// Gathers the literal that the expression begins with; true while what follows still belongs to it.
fn collect_prefix(hir: &Hir, prefix: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start) => true,
        HirKind::Literal(literal) => {
            prefix.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => collect_prefix(&capture.sub, prefix),
        HirKind::Concat(parts) => parts.iter().all(|part| collect_prefix(part, prefix)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        Pattern::whole(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text.as_bytes())
    }

    #[test]
    fn patterns_are_read_as_re2_reads_them() {
        for (pattern, text, expected) in [
            ("a|ab", "ab", true),
            ("/users/{id}", "/users/{id}", true),
            (r"/\d{2,3}/\w+", "/123/a_b", true),
            (r"\d", "٣", false),
            (r"[\d.]+", "1.2", true),
            (r"[^\w]", "-", true),
            (r"[]a]+", "]a", true),
            (r"[a[b]+", "[ab", true),
            (r"[[:digit:]x]+", "1x", true),
            (r"[a&&b]+", "a&b", true),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b\E+", "axb", false),
            (r"(?i)/flag", "/FLAG", true),
            (r"a.c", "aéc", true),
            (r"\s", "\u{b}", false),
            (r"/\p{Greek}+", "/αβ", true),
            (r"foo\b.*", "foo bar", true),
            ("a", "ab", false),
            (r"^/x$", "/x", true),
        ] {
            assert_eq!(whole(pattern, text), expected, "{pattern} on {text}");
        }
        for bad in ["", "*", "a)(b", "(", r"\1", "(?=a)", "[a"] {
            assert!(Pattern::whole(bad).is_err(), "{bad}");
        }
        assert!(Pattern::whole(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn the_literal_beginning_is_known() {
        for (pattern, prefix) in [
            ("/api/[0-9]+", "/api/"),
            (r"^/v1\.0/.*", "/v1.0/"),
            ("(/a)b(c|d)", "/ab"),
            ("a|b", ""),
            ("(?i)/a", "/"),
            (".*", ""),
        ] {
            let found = Pattern::whole(pattern).map(|p| p.literal_prefix().to_vec());
            assert_eq!(found, Ok(prefix.as_bytes().to_vec()), "{pattern}");
        }
    }

    #[test]
    fn replacements_are_made_as_re2_makes_them() {
        for (pattern, with, text, expected) in [
            ("x*", "/", "/emptyxxy", "///e/m/p/t/y/y/"),
            (r"^/(\w+)/(\w+)", r"/\2/\1", "/a/b/c", "/b/a/c"),
            ("a", r"[\0]", "aba", "[a]b[a]"),
            ("a(b)?", r"<\1>", "a", "<>"),
            ("a", r"\1", "aa", "aa"),
        ] {
            assert_eq!(
                Pattern::search(pattern).map(|p| p.replace_all(text, with)),
                Ok(expected.to_owned()),
                "{pattern}"
            );
        }
    }
}
