//! Does a request meet a rule's conditions?

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::claims;
use super::pattern::Pattern;
use super::route::RequestFacts;

/// All conditions of one HTTPMatchRequest entry (they are AND-ed). Port, gateways and labels were decided by compile.
#[derive(Debug)]
pub(crate) struct RequestMatch {
    pub path: PathMatch,
    pub conditions: Vec<Condition>,
}

/// A condition on the path without its query.
#[derive(Clone, Debug)]
pub(crate) enum PathMatch {
    Any,
    /// With `ignore_case` the text is lower-case.
    Exact {
        text: Box<str>,
        ignore_case: bool,
    },
    /// With `ignore_case` the text is lower-case.
    Prefix {
        text: Box<str>,
        ignore_case: bool,
    },
    /// Full match.
    Regex(Arc<Pattern>),
}

/// A condition on anything else.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Method(ValueMatch),
    Scheme(ValueMatch),
    Authority(ValueMatch),
    /// The header name `:path`: path and query.
    PathAndQuery(ValueMatch),
    Header {
        name: HeaderName,
        value: ValueMatch,
    },
    /// Istio withoutHeaders: a missing header counts as the empty text, then the condition is negated.
    WithoutHeader {
        name: HeaderName,
        value: ValueMatch,
    },
    /// withoutHeaders with a pseudo header.
    Not(Box<Condition>),
    Query {
        name: Box<str>,
        value: ValueMatch,
    },
    /// Istio's header names `@request.auth.claims.a.b`.
    Claim {
        path: Vec<Box<str>>,
        value: ValueMatch,
    },
    /// A condition that nothing can meet here, with the reason for explain.
    Never(Box<str>),
}

/// Istio StringMatch.
#[derive(Clone, Debug)]
pub(crate) enum ValueMatch {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Full match.
    Regex(Arc<Pattern>),
}

impl RequestMatch {
    /// Whether every condition is met.
    pub(crate) fn holds(&self, facts: &RequestFacts<'_>) -> bool {
        self.path.holds(facts.path) && self.conditions.iter().all(|condition| condition.holds(facts))
    }

    /// Istio's catch-all: nothing but a path condition that is absent, prefix `/` or regex `.*`.
    pub(crate) fn is_catch_all(&self) -> bool {
        self.conditions.is_empty()
            && match &self.path {
                PathMatch::Any => true,
                PathMatch::Prefix { text, .. } => &**text == "/",
                PathMatch::Regex(pattern) => pattern.source() == ".*",
                PathMatch::Exact { .. } => false,
            }
    }
}

impl PathMatch {
    pub(crate) fn holds(&self, path: &str) -> bool {
        match self {
            PathMatch::Any => true,
            PathMatch::Exact { text, ignore_case: false } => path == &**text,
            PathMatch::Exact { text, ignore_case: true } => path.eq_ignore_ascii_case(text),
            PathMatch::Prefix { text, ignore_case: false } => path.starts_with(&**text),
            PathMatch::Prefix { text, ignore_case: true } => {
                path.as_bytes().get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
            }
            PathMatch::Regex(pattern) => pattern.is_match(path.as_bytes()),
        }
    }
}

impl Condition {
    /// The header that is looked at.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match self {
            Condition::Header { name, .. } | Condition::WithoutHeader { name, .. } => Some(name),
            _ => None,
        }
    }

    pub(crate) fn holds(&self, facts: &RequestFacts<'_>) -> bool {
        match self {
            Condition::Method(value) => value.holds(facts.method.as_bytes()),
            Condition::Scheme(value) => value.holds(facts.scheme.as_bytes()),
            Condition::Authority(value) => value.holds(facts.authority.as_bytes()),
            Condition::PathAndQuery(value) => match facts.query {
                None => value.holds(facts.path.as_bytes()),
                Some(query) => value.holds(format!("{}?{query}", facts.path).as_bytes()),
            },
            Condition::Header { name, value } => {
                facts.headers.get_all(name).iter().any(|line| value.holds(line.as_bytes()))
            }
            Condition::WithoutHeader { name, value } => without_header(facts, name, value),
            Condition::Not(condition) => !condition.holds(facts),
            Condition::Query { name, value } => {
                query_parameter(facts.query, name).is_some_and(|text| value.holds(text.as_bytes()))
            }
            Condition::Claim { path, value } => claims::holds(facts.claims, path, value),
            Condition::Never(_) => false,
        }
    }
}

impl ValueMatch {
    pub(crate) fn holds(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Present => true,
            ValueMatch::Exact(text) => value == text.as_bytes(),
            ValueMatch::Prefix(text) => value.starts_with(text.as_bytes()),
            ValueMatch::Regex(pattern) => pattern.is_match(value),
        }
    }
}

/// The first value of a query parameter, undecoded; `q` alone has the empty value.
pub(crate) fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn without_header(facts: &RequestFacts<'_>, name: &HeaderName, value: &ValueMatch) -> bool {
    let mut lines = facts.headers.get_all(name).iter().peekable();
    match (value, lines.peek()) {
        (ValueMatch::Present, line) => line.is_none(),
        (_, None) => !value.holds(b""),
        (_, Some(_)) => !lines.any(|line| value.holds(line.as_bytes())),
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = |ignored: &bool| if *ignored { " in any case" } else { "" };
        match self {
            PathMatch::Any => f.write_str("anything"),
            PathMatch::Exact { text, ignore_case } => write!(f, "exactly {text:?}{}", case(ignore_case)),
            PathMatch::Prefix { text, ignore_case } => write!(f, "with prefix {text:?}{}", case(ignore_case)),
            PathMatch::Regex(pattern) => write!(f, "as the regex `{}`", pattern.source()),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueMatch::Present => f.write_str("present"),
            ValueMatch::Exact(text) => write!(f, "exactly {text:?}"),
            ValueMatch::Prefix(text) => write!(f, "with prefix {text:?}"),
            ValueMatch::Regex(pattern) => write!(f, "as the regex `{}`", pattern.source()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Method(value) => write!(f, "method is {value}"),
            Condition::Scheme(value) => write!(f, "scheme is {value}"),
            Condition::Authority(value) => write!(f, "authority is {value}"),
            Condition::PathAndQuery(value) => write!(f, "path and query is {value}"),
            Condition::Header { name, value } => write!(f, "header {name} is {value}"),
            Condition::WithoutHeader { name, value } => write!(f, "header {name} is not {value}"),
            Condition::Not(condition) => write!(f, "not: {condition}"),
            Condition::Query { name, value } => write!(f, "query parameter {name} is {value}"),
            Condition::Claim { path, value } => write!(f, "claim {} is {value}", path.join(".")),
            Condition::Never(reason) => write!(f, "never: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn facts<'a>(path: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> RequestFacts<'a> {
        RequestFacts { method: "GET", scheme: "http", authority: "a.com:80", path, query, headers, claims: None }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn header_lines_are_matched_each_alone() {
        let name = || HeaderName::from_static("k");
        let exact = |text: &str| ValueMatch::Exact(text.into());
        let with = |value| Condition::Header { name: name(), value };
        let without = |value| Condition::WithoutHeader { name: name(), value };
        let any = || ValueMatch::Regex(Arc::new(Pattern::whole(".*").unwrap()));
        for (condition, lines, expected) in [
            (with(exact("b")), &[("k", "a"), ("k", "b")][..], true),
            (with(exact("b")), &[("k", "a,b")], false),
            (with(ValueMatch::Present), &[("k", "")], true),
            (with(ValueMatch::Present), &[], false),
            (with(exact("")), &[], false),
            (without(exact("a")), &[("k", "a"), ("k", "b")], false),
            (without(exact("a")), &[("k", "a,b")], true),
            (without(exact("a")), &[], true),
            (without(exact("")), &[], false),
            (without(any()), &[], false),
            (without(ValueMatch::Present), &[], true),
            (without(ValueMatch::Present), &[("k", "")], false),
        ] {
            let headers = headers(lines);
            let facts = facts("/", None, &headers);
            assert_eq!(condition.holds(&facts), expected, "{condition} on {lines:?}");
        }
    }

    #[test]
    fn query_parameters_are_compared_as_written() {
        for (query, expected) in [
            (None, None),
            (Some("q"), Some("")),
            (Some("q=1&q=2"), Some("1")),
            (Some("%71=1"), None),
            (Some("a=1;q=2"), None),
            (Some("a=1?q=2&q=3?4"), Some("3?4")),
        ] {
            assert_eq!(query_parameter(query, "q"), expected, "{query:?}");
        }
    }
}
