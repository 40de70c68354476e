//! What does a request's verified token say? (Istio's header names `@request.auth.claims...`.)

use serde_json::Value;

use super::matcher::ValueMatch;

/// Claims whose text is a list with spaces between (RFC 8693 4.2 for `scope`).
const LISTS: [&str; 2] = ["scope", "permission"];

/// Whether the claim at a path, or one member of its list, is meant. What is neither text nor a list of texts is not.
pub(crate) fn holds(claims: Option<&Value>, path: &[Box<str>], value: &ValueMatch) -> bool {
    let claim = path.iter().try_fold(claims, |claim, name| Some(claim?.get(&**name))).flatten();
    let is_list = matches!(path, [name] if LISTS.contains(&&**name));
    match claim {
        Some(Value::String(text)) if is_list => text.split(' ').any(|text| value.holds(text.as_bytes())),
        Some(Value::String(text)) => value.holds(text.as_bytes()),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(|text| value.holds(text.as_bytes())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_or_lists_of_texts_at_a_path() {
        let claims =
            serde_json::json!({ "iss": "a", "groups": ["dev", "ops"], "x": { "y": "z" }, "scope": "read write" });
        for (path, text, expected) in [
            (&["iss"][..], "a", true),
            (&["iss"], "b", false),
            (&["groups"], "ops", true),
            (&["x", "y"], "z", true),
            (&["x"], "z", false),
            (&["scope"], "write", true),
            (&["none"], "", false),
        ] {
            let path: Vec<Box<str>> = path.iter().map(|name| (*name).into()).collect();
            assert_eq!(holds(Some(&claims), &path, &ValueMatch::Exact(text.into())), expected, "{path:?} {text}");
            assert!(!holds(None, &path, &ValueMatch::Exact(text.into())));
        }
    }
}
