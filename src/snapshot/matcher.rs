//! Does a request meet a rule's conditions, and which rules of a long list need to be asked?

use std::sync::Arc;

use http::HeaderName;
use regex::Regex;

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
    Prefix {
        text: Box<str>,
        ignore_case: bool,
    },
    /// Full match.
    Regex(Arc<Regex>),
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
    Query {
        name: Box<str>,
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
    Regex(Arc<Regex>),
}

/// Finds the rules whose path condition may hold, without walking them all. Filled by `PathIndex::new`.
#[derive(Debug, Default)]
pub(crate) struct PathIndex {}
