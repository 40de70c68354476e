//! What is the canonical form of a request's path? (MeshConfig pathNormalization.)

use std::borrow::Cow;

use super::PathNormalization;

/// The path cannot be made canonical: it does not begin with `/`, or holds NUL, escaped or not. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path does not begin with a slash or holds NUL")]
pub(crate) struct BadPath;

/// The path, and what is behind its first `?`.
pub(crate) fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    }
}

/// Whether the client is sent to the canonical form of its path instead of being served.
pub(crate) fn is_redirected(path_and_query: &str, level: PathNormalization) -> bool {
    let path = split_query(path_and_query).0;
    level == PathNormalization::RedirectEscapedSlashes
        && path.match_indices('%').any(|(at, _)| path.get(at..).is_some_and(is_escaped_slash))
}

/// Makes the path of `path_and_query` canonical; the query stays as it is, a fragment is cut off.
///
/// BASE resolves dot segments (also escaped ones), decodes escaped unreserved characters, turns `\` into `/` and
/// escapes what a URL may not hold. Borrows its input when nothing changes.
pub(crate) fn normalize(path_and_query: &str, level: PathNormalization) -> Result<Cow<'_, str>, BadPath> {
    if !path_and_query.starts_with('/') {
        return Err(BadPath);
    }
    let cut = match path_and_query.find('#') {
        Some(fragment) => path_and_query.get(..fragment).unwrap_or_default(),
        None => path_and_query,
    };
    if level == PathNormalization::None {
        return Ok(Cow::Borrowed(cut));
    }
    let end = cut.find('?').unwrap_or(cut.len());
    let (path, query) = cut.split_at_checked(end).unwrap_or((cut, ""));
    if is_canonical(path.as_bytes(), level != PathNormalization::Base) {
        return Ok(Cow::Borrowed(cut));
    }
    let decoded = match level {
        PathNormalization::DecodeAndMergeSlashes | PathNormalization::RedirectEscapedSlashes => {
            Cow::Owned(decode_slashes(path))
        }
        _ => Cow::Borrowed(path),
    };
    let mut canonical = resolve(decoded.as_bytes())?;
    if level != PathNormalization::Base {
        canonical = merge_slashes(&canonical);
    }
    canonical.push_str(query);
    Ok(Cow::Owned(canonical))
}

/// Whether no rule can change the path: one scan. A `.` is only looked at behind a slash.
fn is_canonical(path: &[u8], merge: bool) -> bool {
    let mut previous = 0;
    path.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'\\' => false,
            b'.' => previous != b'/',
            b'/' => !merge || previous != b'/',
            other => !needs_escape(other),
        };
        previous = byte;
        plain
    })
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_escaped_slash(text: &str) -> bool {
    text.get(..3).is_some_and(|escape| escape.eq_ignore_ascii_case("%2f") || escape.eq_ignore_ascii_case("%5c"))
}

/// `%2F` and `%5C` become slashes.
fn decode_slashes(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, ""));
        decoded.push_str(before);
        let slash = is_escaped_slash(escape);
        decoded.push(if slash { '/' } else { '%' });
        rest = escape.get(if slash { 3 } else { 1 }..).unwrap_or_default();
    }
    decoded.push_str(rest);
    decoded
}

/// Runs of slashes become one; a path of slashes alone becomes `//`, as in Envoy.
fn merge_slashes(path: &str) -> String {
    if !path.contains("//") {
        return path.to_owned();
    }
    let mut merged = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        merged.push('/');
        merged.push_str(segment);
    }
    if merged.is_empty() {
        merged.push('/');
    }
    if path.ends_with('/') {
        merged.push('/');
    }
    merged
}

/// The rules of BASE, byte by byte.
fn resolve(path: &[u8]) -> Result<String, BadPath> {
    let mut canonical: Vec<u8> = Vec::with_capacity(path.len() + 8);
    // Where the last `%` that escapes nothing was written.
    let mut bare = None;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        if canonical.last() == Some(&b'/')
            && let Some(segment) = dot_segment(path, at)
        {
            if segment.up {
                pop_segment(&mut canonical);
                bare = None;
            }
            at = segment.end;
            continue;
        }
        match byte {
            0 => return Err(BadPath),
            b'\\' => canonical.push(b'/'),
            b'%' => match escaped(path, at) {
                Some(0) => return Err(BadPath),
                Some(value) if is_unreserved(value) => {
                    canonical.push(value);
                    at += 2;
                    keep_bare(&mut canonical, bare, path.get(at + 1));
                }
                Some(_) => canonical.push(b'%'),
                None => {
                    bare = Some(canonical.len());
                    canonical.push(b'%');
                }
            },
            other if needs_escape(other) => {
                canonical.extend_from_slice(&[b'%', hex_digit(other >> 4), hex_digit(other & 15)]);
            }
            other => canonical.push(other),
        }
        at += 1;
    }
    // All bytes written are ASCII.
    String::from_utf8(canonical).map_err(|_| BadPath)
}

/// A byte that was decoded behind a bare `%` must not make an escape of it, or `%%32e` would become `%2e`: the `%` is
/// escaped then, as googleurl does it. `next` is what follows in the path as sent.
fn keep_bare(canonical: &mut Vec<u8>, bare: Option<usize>, next: Option<&u8>) {
    let Some(behind) = bare.map(|bare| bare + 1) else { return };
    let escapes = match canonical.get(behind..) {
        Some([first]) => first.is_ascii_hexdigit() && next.is_some_and(u8::is_ascii_hexdigit),
        Some([first, second]) => first.is_ascii_hexdigit() && second.is_ascii_hexdigit(),
        _ => false,
    };
    if escapes {
        canonical.splice(behind..behind, *b"25");
    }
}

/// A segment that means this or the upper folder.
struct DotSegment {
    up: bool,
    /// Behind the segment and its slash.
    end: usize,
}

/// Whether a segment of one or two dots stands at `at`, which is behind a slash. Parameters (`..;a=b`) do not hide it.
fn dot_segment(path: &[u8], at: usize) -> Option<DotSegment> {
    let first = dot(path, at)?;
    let second = dot(path, first);
    let mut end = second.unwrap_or(first);
    if path.get(end) == Some(&b';') {
        end += path.get(end..)?.iter().position(|b| is_slash(*b)).unwrap_or(path.len() - end);
    }
    match path.get(end) {
        None => Some(DotSegment { up: second.is_some(), end }),
        Some(byte) if is_slash(*byte) => Some(DotSegment { up: second.is_some(), end: end + 1 }),
        Some(_) => None,
    }
}

/// Behind a dot at `at`, plain or escaped.
fn dot(path: &[u8], at: usize) -> Option<usize> {
    match path.get(at)? {
        b'.' => Some(at + 1),
        b'%' if escaped(path, at) == Some(b'.') => Some(at + 3),
        _ => None,
    }
}

fn is_slash(byte: u8) -> bool {
    byte == b'/' || byte == b'\\'
}

/// The byte that the escape at `at` stands for; `None` if it is no escape.
fn escaped(path: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| path.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'A' + value - 10,
    }
}

/// `/a/b/` becomes `/a/`; the root stays.
fn pop_segment(canonical: &mut Vec<u8>) {
    canonical.pop();
    while canonical.last().is_some_and(|byte| *byte != b'/') {
        canonical.pop();
    }
    if canonical.is_empty() {
        canonical.push(b'/');
    }
}

#[cfg(test)]
mod tests {
    use super::PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    use super::*;

    #[test]
    fn each_level_makes_its_form() {
        for (level, path, expected) in [
            (None, "/a/../b?x#f", "/a/../b?x"),
            (None, "/%00", "/%00"),
            (Base, "/a/b?x=/../y", "/a/b?x=/../y"),
            (Base, "/../admin", "/admin"),
            (Base, "/a/./b/../c", "/a/c"),
            (Base, "/a/b/..", "/a/"),
            (Base, "/a/%2e%2E/b", "/b"),
            (Base, "/a/.", "/a/"),
            (Base, "/.hidden/..x", "/.hidden/..x"),
            (Base, "//admin", "//admin"),
            (Base, "/a//../b", "/a/b"),
            (Base, "/a%2fb", "/a%2fb"),
            (Base, "/\\admin", "//admin"),
            (Base, "/%41dmin", "/Admin"),
            (Base, "/%2561", "/%2561"),
            (Base, "/%zz%", "/%zz%"),
            (Base, "/x/%%32e%%32e/y", "/x/%252e%252e/y"),
            (Base, "/%%33%33", "/%2533"),
            (Base, "/%3%33", "/%2533"),
            (Base, "/%%7a%33", "/%z3"),
            (Base, "/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
            (Base, "/x/..;a=b/y", "/y"),
            (Base, "/x/%2e%2e;/admin", "/admin"),
            (Base, "/x;v=1/y", "/x;v=1/y"),
            (Base, "/é", "/%C3%A9"),
            (Base, "/a#b?c", "/a"),
            (MergeSlashes, "/a//b///c//", "/a/b/c/"),
            (MergeSlashes, "//", "//"),
            (MergeSlashes, "///", "//"),
            (MergeSlashes, "/a?x=//", "/a?x=//"),
            (MergeSlashes, "/", "/"),
            (DecodeAndMergeSlashes, "/a%2F%5cb%2f..%2Fc", "/a/c"),
            (DecodeAndMergeSlashes, "/a%25", "/a%25"),
        ] {
            assert_eq!(normalize(path, level).as_deref(), Ok(expected), "{path} {level:?}");
        }
    }

    #[test]
    fn some_paths_have_no_form() {
        for (level, path) in
            [(Base, "/a%00"), (Base, "/a\0"), (Base, "a"), (None, "*"), (Base, ""), (MergeSlashes, "/%00")]
        {
            assert_eq!(normalize(path, level), Err(BadPath), "{path}");
        }
    }

    #[test]
    fn nothing_is_copied_when_nothing_changes() {
        assert!(matches!(normalize("/productpage/v1.2?u=normal", Base), Ok(Cow::Borrowed(_))));
    }

    proptest::proptest! {
        #[test]
        fn the_form_is_stable(path in "/[a-c./%2eE\\\\;]{0,24}") {
            if let Ok(once) = normalize(&path, Base) {
                // Decoded characters may form new escapes (`%%32e`); apart from them a second pass changes nothing.
                if !path.contains('%') {
                    let twice = normalize(&once, Base);
                    proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
                }
                proptest::prop_assert!(!once.contains("/../") && !once.ends_with("/.."));
            }
        }
    }
}
