//! How are a CA's words shown? In one line, and not all of them.

/// No more of a CA's words is shown.
const LONGEST: usize = 400;

/// Words from outside, fit for a line of a log: of one line, and not too long.
pub(super) fn quoted(text: &str) -> String {
    let words: String = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).fold(
        String::new(),
        |mut line, word| {
            if line.len() < LONGEST {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            line
        },
    );
    if words.chars().count() <= LONGEST {
        return words;
    }
    words.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_into_a_line() {
        assert_eq!(quoted(" no\r\n\tway\u{7}"), "no way");
        assert_eq!(quoted(&"ü".repeat(5000)).chars().count(), LONGEST + 1);
    }
}
