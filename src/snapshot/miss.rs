//! Why does a request not meet a rule's conditions, and which small change of the request would meet them?

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::matcher::{Condition, PathMatch, RequestMatch, ValueMatch, query_parameter};
use super::path::split_query;
use super::route::RequestFacts;

/// A condition that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Miss {
    /// What was looked at: `path`, `header x-user`; or why the condition can never be met.
    pub subject: String,
    /// What was there; `None` if nothing was.
    pub seen: Option<String>,
    /// What was asked for; `None` if nothing can meet it.
    pub wanted: Option<String>,
}

/// One change of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "change")]
pub(crate) enum Change {
    Method {
        to: String,
    },
    Scheme {
        to: String,
    },
    Authority {
        to: String,
    },
    /// The query stays.
    Path {
        to: String,
    },
    /// Path and query.
    Target {
        to: String,
    },
    SetHeader {
        name: String,
        value: String,
    },
    RemoveHeader {
        name: String,
    },
    SetParameter {
        name: String,
        value: String,
    },
}

impl RequestMatch {
    /// The first condition that is not met; `None` if all are.
    pub(crate) fn first_miss(&self, facts: &RequestFacts<'_>) -> Option<Miss> {
        if !self.path.holds(facts.path) {
            return Some(miss("path", Some(facts.path), &self.path));
        }
        self.conditions.iter().find(|condition| !condition.holds(facts)).map(|condition| condition.miss(facts))
    }

    /// One change for each condition that is not met, so that all are met behind them; `None` if no such changes are
    /// known. Empty if all are met already.
    pub(crate) fn changes(&self, facts: &RequestFacts<'_>) -> Option<Vec<Change>> {
        let mut request = Altered::new(facts);
        let mut changes = Vec::new();
        if !self.path.holds(&request.path) {
            changes.push(Change::Path { to: self.path.example()? });
            request.apply(changes.last()?)?;
        }
        for condition in &self.conditions {
            if !condition.holds(&request.facts()) {
                changes.push(condition.change(&request.facts())?);
                request.apply(changes.last()?)?;
            }
        }
        self.holds(&request.facts()).then_some(changes)
    }
}

fn miss(subject: impl Into<String>, seen: Option<&str>, wanted: impl fmt::Display) -> Miss {
    Miss { subject: subject.into(), seen: seen.map(str::to_owned), wanted: Some(wanted.to_string()) }
}

impl PathMatch {
    fn example(&self) -> Option<String> {
        match self {
            PathMatch::Any => Some("/".to_owned()),
            PathMatch::Exact { text, .. } | PathMatch::Prefix { text, .. } => Some(text.to_string()),
            PathMatch::Regex(pattern) => pattern.example(),
        }
    }
}

impl ValueMatch {
    fn example(&self) -> Option<String> {
        match self {
            ValueMatch::Present => Some("any".to_owned()),
            ValueMatch::Exact(text) | ValueMatch::Prefix(text) => Some(text.to_string()),
            ValueMatch::Regex(pattern) => pattern.example(),
        }
    }

    /// One of some texts that does not match.
    fn counterexample(&self, texts: &[&str]) -> Option<String> {
        texts.iter().find(|text| !self.holds(text.as_bytes())).map(|text| (*text).to_owned())
    }
}

impl Condition {
    fn miss(&self, facts: &RequestFacts<'_>) -> Miss {
        match self {
            Condition::Method(value) => miss("method", Some(facts.method), value),
            Condition::Scheme(value) => miss("scheme", Some(facts.scheme), value),
            Condition::Authority(value) => miss("authority", Some(facts.authority), value),
            Condition::PathAndQuery(value) => miss("path and query", Some(&target(facts)), value),
            Condition::Header { name, value } => {
                miss(format!("header {name}"), header_text(facts, name).as_deref(), value)
            }
            Condition::WithoutHeader { name, value: ValueMatch::Present } => {
                miss(format!("header {name}"), header_text(facts, name).as_deref(), "absent")
            }
            Condition::WithoutHeader { name, value } => {
                let wanted = format!("not {value}, and an absent header counts as the empty text");
                miss(format!("header {name}"), header_text(facts, name).as_deref(), wanted)
            }
            Condition::Not(condition) => {
                let Miss { subject, seen, wanted } = condition.miss(facts);
                Miss { subject, seen, wanted: wanted.map(|wanted| format!("not {wanted}")) }
            }
            Condition::Query { name, value } => {
                miss(format!("query parameter {name}"), query_parameter(facts.query, name), value)
            }
            Condition::Claim { path, value } => miss(
                format!("claim {} of a verified token", path.join(".")),
                facts.claims.is_some().then_some("another"),
                value,
            ),
            Condition::Never(reason) => Miss { subject: reason.to_string(), seen: None, wanted: None },
        }
    }

    fn change(&self, facts: &RequestFacts<'_>) -> Option<Change> {
        Some(match self {
            Condition::Method(value) => Change::Method { to: value.example()? },
            Condition::Scheme(value) => Change::Scheme { to: value.example()? },
            Condition::Authority(value) => Change::Authority { to: value.example()? },
            Condition::PathAndQuery(value) => Change::Target { to: value.example()? },
            Condition::Header { name, value } => Change::SetHeader { name: name.to_string(), value: value.example()? },
            Condition::WithoutHeader { name, value } => {
                let absence_does = matches!(value, ValueMatch::Present) || !value.holds(b"");
                match absence_does {
                    true => Change::RemoveHeader { name: name.to_string() },
                    false => Change::SetHeader {
                        name: name.to_string(),
                        value: value.counterexample(&["any", "other", "1", "/"])?,
                    },
                }
            }
            Condition::Not(condition) => condition.contrary(facts)?,
            Condition::Query { name, value } => {
                Change::SetParameter { name: name.to_string(), value: value.example()? }
            }
            // No header can say what a token says.
            Condition::Claim { .. } | Condition::Never(_) => return None,
        })
    }

    /// The change that makes a pseudo header another one.
    fn contrary(&self, facts: &RequestFacts<'_>) -> Option<Change> {
        Some(match self {
            Condition::Method(value) => {
                Change::Method { to: value.counterexample(&["GET", "POST", "PUT", "DELETE", "HEAD"])? }
            }
            Condition::Scheme(value) => Change::Scheme { to: value.counterexample(&["http", "https"])? },
            Condition::Authority(value) => {
                let cut = super::redirect::host_of(facts.authority);
                Change::Authority { to: value.counterexample(&[cut, &format!("{cut}:80")])? }
            }
            Condition::PathAndQuery(value) => {
                let with_query = format!("{}?any", facts.path);
                Change::Target { to: value.counterexample(&[facts.path, &with_query, "/", "/other"])? }
            }
            _ => return None,
        })
    }
}

fn target(facts: &RequestFacts<'_>) -> String {
    match facts.query {
        None => facts.path.to_owned(),
        Some(query) => format!("{}?{query}", facts.path),
    }
}

fn header_text(facts: &RequestFacts<'_>, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> =
        facts.headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    (!lines.is_empty()).then(|| lines.join(" | "))
}

/// A request that is being changed.
struct Altered {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    /// What a token says cannot be altered.
    claims: Option<serde_json::Value>,
}

impl Altered {
    fn new(facts: &RequestFacts<'_>) -> Self {
        Altered {
            method: facts.method.to_owned(),
            scheme: facts.scheme.to_owned(),
            authority: facts.authority.to_owned(),
            path: facts.path.to_owned(),
            query: facts.query.map(str::to_owned),
            headers: facts.headers.clone(),
            claims: facts.claims.cloned(),
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            scheme: &self.scheme,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            claims: self.claims.as_ref(),
        }
    }

    /// `None` if the change cannot be sent.
    fn apply(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::Method { to } => self.method.clone_from(to),
            Change::Scheme { to } => self.scheme.clone_from(to),
            Change::Authority { to } => self.authority.clone_from(to),
            Change::Path { to } => self.path.clone_from(to),
            Change::Target { to } => {
                let (path, query) = split_query(to);
                (self.path, self.query) = (path.to_owned(), query.map(str::to_owned));
            }
            Change::SetHeader { name, value } => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                self.headers.insert(name, HeaderValue::from_str(value).ok()?);
            }
            Change::RemoveHeader { name } => drop(self.headers.remove(name.as_str())),
            Change::SetParameter { name, value } => {
                let others = self.query.iter().flat_map(|query| query.split('&'));
                let others = others.filter(|pair| pair.split_once('=').map_or(*pair, |(key, _)| key) != name);
                let own = format!("{name}={value}");
                self.query = Some(std::iter::once(own.as_str()).chain(others).collect::<Vec<_>>().join("&"));
            }
        }
        Some(())
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        let Some(wanted) = &self.wanted else { return Ok(()) };
        match &self.seen {
            Some(seen) => write!(f, " is {seen:?}")?,
            None => f.write_str(" is absent")?,
        }
        write!(f, " (wanted: {wanted})")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Method { to } => write!(f, "method {to}"),
            Change::Scheme { to } => write!(f, "scheme {to}"),
            Change::Authority { to } => write!(f, "host {to}"),
            Change::Path { to } => write!(f, "path {to}"),
            Change::Target { to } => write!(f, "path and query {to}"),
            Change::SetHeader { name, value } => write!(f, "{name}: {value}"),
            Change::RemoveHeader { name } => write!(f, "no {name}"),
            Change::SetParameter { name, value } => write!(f, "?{name}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::pattern::Pattern;
    use super::*;

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.into())
    }

    fn regex(text: &str) -> ValueMatch {
        ValueMatch::Regex(Arc::new(Pattern::whole(text).unwrap()))
    }

    fn told(path: PathMatch, conditions: Vec<Condition>) -> String {
        let lines = [("x-user", "bob"), ("cookie", "a=1")];
        let headers: HeaderMap =
            lines.into_iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let (authority, path_seen, query) = ("a.com:80", "/shop", Some("q=1&r=2"));
        let facts = RequestFacts {
            method: "GET",
            scheme: "http",
            authority,
            path: path_seen,
            query,
            headers: &headers,
            claims: None,
        };
        let rule = RequestMatch { path, conditions };
        let miss = rule.first_miss(&facts).map(|miss| miss.to_string());
        let changes =
            rule.changes(&facts).map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        format!("{}; {}", miss.as_deref().unwrap_or("-"), changes.as_deref().unwrap_or("nothing"))
    }

    #[test]
    fn the_smallest_change_meets_every_condition() {
        let name = |text: &'static str| HeaderName::from_static(text);
        let header = |text, value| Condition::Header { name: name(text), value };
        let without = |text, value| Condition::WithoutHeader { name: name(text), value };
        let prefix = |text: &str| PathMatch::Prefix { text: text.into(), ignore_case: true };
        let query = |name: &str, value| Condition::Query { name: name.into(), value };
        let not = |condition| Condition::Not(Box::new(condition));
        let any = || PathMatch::Any;
        for (path, conditions, expected) in [
            (any(), vec![], "-; "),
            (any(), vec![Condition::Method(exact("POST"))], r#"method is "GET" (wanted: exactly "POST"); method POST"#),
            (
                any(),
                vec![header("x-group", exact("test")), Condition::Scheme(exact("https"))],
                r#"header x-group is absent (wanted: exactly "test"); x-group: test, scheme https"#,
            ),
            (
                prefix("/api"),
                vec![header("x-user", regex("[a-z]+-(x|yy)"))],
                r#"path is "/shop" (wanted: with prefix "/api" in any case); path /api, x-user: a-x"#,
            ),
            (
                any(),
                vec![without("x-user", ValueMatch::Present)],
                r#"header x-user is "bob" (wanted: absent); no x-user"#,
            ),
            (
                any(),
                vec![without("x-none", regex(".*"))],
                "header x-none is absent (wanted: not as the regex `.*`, and an absent header counts as the empty text); nothing",
            ),
            (any(), vec![query("r", exact("3"))], r#"query parameter r is "2" (wanted: exactly "3"); ?r=3"#),
            (any(), vec![query("s", ValueMatch::Present)], "query parameter s is absent (wanted: present); ?s=any"),
            (
                any(),
                vec![not(Condition::Method(regex("G.*")))],
                "method is \"GET\" (wanted: not as the regex `G.*`); method POST",
            ),
            (any(), vec![Condition::Never("no such thing".into())], "no such thing; nothing"),
            (
                PathMatch::Exact { text: "/a".into(), ignore_case: false },
                vec![Condition::PathAndQuery(exact("/b"))],
                r#"path is "/shop" (wanted: exactly "/a"); nothing"#,
            ),
        ] {
            assert_eq!(told(path, conditions), expected);
        }
    }

    #[test]
    fn examples_of_patterns_match_them() {
        for (source, expected) in [
            ("/users/[0-9]+(/edit)?", Some("/users/1")),
            ("(?i)abc|x{3}", Some("abc")),
            (r"\d{4}-\d\d", Some("1111-11")),
            (r"^(.*?;)?(user=jason)(;.*)?$", Some("user=jason")),
            (".*", Some("")),
            (r"\bno\B.", Some("noa")),
            (r"a\b\B", None),
        ] {
            assert_eq!(Pattern::whole(source).unwrap().example().as_deref(), expected, "{source}");
        }
    }
}
