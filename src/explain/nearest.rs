//! Which of the names that are served is the nearest to the one that was asked for?

/// The name that has to be changed least, as a request would write it: `*` stands for what the request had there.
/// Equal ones by the alphabet. `None` if there is no name.
pub(super) fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let asked = asked.to_ascii_lowercase();
    let written = names.map(|name| concrete(name, &asked));
    let nearest = written.map(|name| (distance(&asked, &name), name)).min()?;
    Some(nearest.1)
}

/// A name that a wildcard means; the first label is kept.
fn concrete(name: &str, asked: &str) -> String {
    match name.to_ascii_lowercase().strip_prefix('*') {
        None => name.to_ascii_lowercase(),
        Some("") => asked.to_owned(),
        Some(suffix) => {
            let first = asked.split('.').next().filter(|label| !label.is_empty()).unwrap_or("any");
            format!("{first}{suffix}")
        }
    }
}

/// How many letters have to be inserted, removed or replaced (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (place, wanted) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = *place;
            left = replaced.min(*place + 1).min(left + 1);
            *place = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_change_wins() {
        for (asked, names, expected) in [
            ("shp.example.com", &["www.example.com", "shop.example.com"][..], Some("shop.example.com")),
            ("shop.example.org", &["*.example.com", "zzz.org"], Some("shop.example.com")),
            ("SHOP", &["a", "b"], Some("a")),
            ("x", &["*"], Some("x")),
            ("x", &[], None),
        ] {
            assert_eq!(nearest(asked, names.iter().copied()).as_deref(), expected, "{asked}");
        }
        for (from, to, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }
}
