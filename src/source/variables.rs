//! What does `${NAME}` stand for in a manifest? `$${` is a plain `${`; text without variables is not copied.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A text with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled<'a> {
    pub text: Cow<'a, str>,
    /// Names that nothing is known about, with their line in the text from 1. Those in comment lines do not count.
    pub undefined: Vec<(String, u32)>,
}

/// Fills in `${NAME}`; what is undefined, or no name at all, stays as it is.
pub(super) fn fill<'a>(text: &'a str, variables: &BTreeMap<String, String>) -> Filled<'a> {
    let mut undefined = Vec::new();
    if !text.contains("${") {
        return Filled { text: Cow::Borrowed(text), undefined };
    }
    let mut filled = String::with_capacity(text.len());
    for (line, number) in text.split_inclusive('\n').zip(1u32..) {
        let comment = line.trim_start().starts_with('#');
        fill_line(line, variables, &mut filled, |name| {
            if !comment {
                undefined.push((name.to_owned(), number));
            }
        });
    }
    Filled { text: Cow::Owned(filled), undefined }
}

fn fill_line(line: &str, variables: &BTreeMap<String, String>, filled: &mut String, mut missing: impl FnMut(&str)) {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        filled.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                match variables.get(name) {
                    Some(value) => filled.push_str(value),
                    None => {
                        missing(name);
                        filled.extend(["${", name, "}"]);
                    }
                }
                rest = after;
            }
            _ => {
                filled.push_str("${");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_escapes_kept() {
        let variables = BTreeMap::from([("D".to_owned(), "example.com".to_owned())]);
        for (text, wanted) in [
            ("a.${D}:${D}", "a.example.com:example.com"),
            ("$${D} ${D", "${D} ${D"),
            ("${D:-x} ${}", "${D:-x} ${}"),
            ("no variable", "no variable"),
        ] {
            let filled = fill(text, &variables);
            assert_eq!((filled.text.as_ref(), filled.undefined.len()), (wanted, 0));
        }
        let filled = fill("# ${A}\n- ${B}\n", &variables);
        assert_eq!(filled, Filled { text: "# ${A}\n- ${B}\n".into(), undefined: vec![("B".into(), 2)] });
    }
}
