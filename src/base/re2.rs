//! How does the regex crate write what RE2 writes? The words in which the two differ.

/// Writes RE2 syntax in the words of the regex crate, where the two differ.
pub(crate) fn translate(source: &str) -> String {
    let mut translated = String::with_capacity(source.len() + 16);
    let mut rest = source;
    let mut class = ClassState::Outside;
    while let Some(c) = rest.chars().next() {
        let tail = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = match (c, class) {
            ('\\', ClassState::Outside) if tail.starts_with('Q') => quote(tail, &mut translated),
            ('\\', _) => escape(tail, class, &mut translated),
            ('[', ClassState::Outside) => open_class(tail, &mut translated),
            ('{', ClassState::Outside) if !is_repetition(rest) => put(&mut translated, r"\{", tail),
            ('}', ClassState::Outside) if !closes_repetition(source, rest) => put(&mut translated, r"\}", tail),
            ('[', ClassState::Inside) if tail.starts_with(':') => posix_class(rest, &mut translated),
            ('[', ClassState::Inside) => put(&mut translated, r"\[", tail),
            ('&' | '~', ClassState::Inside) => {
                translated.push('\\');
                translated.push(c);
                tail
            }
            ('-', ClassState::Inside) if tail.starts_with('-') => put(&mut translated, r"\-", tail),
            _ => {
                translated.push(c);
                tail
            }
        };
        class = match (c, class) {
            ('[', ClassState::Outside) => ClassState::Inside,
            (']', ClassState::Inside) => ClassState::Outside,
            (_, state) => state,
        };
    }
    translated
}

#[derive(Clone, Copy, PartialEq)]
enum ClassState {
    Outside,
    Inside,
}

fn put<'a>(translated: &mut String, text: &str, tail: &'a str) -> &'a str {
    translated.push_str(text);
    tail
}

/// Behind a backslash.
fn escape<'a>(tail: &'a str, class: ClassState, translated: &mut String) -> &'a str {
    let Some(c) = tail.chars().next() else { return put(translated, "\\", tail) };
    let after = tail.get(c.len_utf8()..).unwrap_or_default();
    let text = match (c, class) {
        ('d', _) => "[0-9]",
        ('D', _) => "[^0-9]",
        ('w', _) => "[0-9A-Za-z_]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', _) => r"[\t\n\f\r ]",
        ('S', _) => r"[^\t\n\f\r ]",
        ('b', ClassState::Outside) => r"(?-u:\b)",
        ('B', ClassState::Outside) => r"(?-u:\B)",
        ('<', _) => "<",
        ('>', _) => ">",
        ('_', _) => "_",
        // The name of a Unicode class stands in braces.
        ('p' | 'P', _) if after.starts_with('{') => {
            let (name, rest) = after.split_once('}').unwrap_or((after, ""));
            translated.extend(['\\', c]);
            translated.push_str(name);
            translated.push('}');
            return rest;
        }
        _ => {
            translated.push('\\');
            translated.push(c);
            return after;
        }
    };
    put(translated, text, after)
}

/// `\Q...\E`: plain text.
fn quote<'a>(tail: &'a str, translated: &mut String) -> &'a str {
    let quoted = tail.get(1..).unwrap_or_default();
    let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
    translated.push_str(&regex_syntax::escape(text));
    after
}

/// Behind the `[` of a class: a `]` that comes first is a member.
fn open_class<'a>(tail: &'a str, translated: &mut String) -> &'a str {
    translated.push('[');
    let members = tail.strip_prefix('^').inspect(|_| translated.push('^')).unwrap_or(tail);
    match members.strip_prefix(']') {
        Some(after) => put(translated, r"\]", after),
        None => members,
    }
}

fn posix_class<'a>(rest: &'a str, translated: &mut String) -> &'a str {
    match rest.find(":]") {
        Some(end) => {
            translated.push_str(rest.get(..end + 2).unwrap_or_default());
            rest.get(end + 2..).unwrap_or_default()
        }
        None => put(translated, r"\[", rest.get(1..).unwrap_or_default()),
    }
}

/// Whether the text begins with `{n}`, `{n,}` or `{n,m}`; RE2 takes any other brace as itself.
fn is_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.get(1..).and_then(|inside| inside.split_once('}')) else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// Whether the `}` that `rest` begins with ends a repetition of `source`.
fn closes_repetition(source: &str, rest: &str) -> bool {
    let before = source.get(..source.len() - rest.len()).unwrap_or_default();
    before
        .rfind('{')
        .and_then(|open| source.get(open..))
        .is_some_and(|text| is_repetition(text) && text.find('}').is_some_and(|close| text.len() - close == rest.len()))
}
