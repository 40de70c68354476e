//! Which rule answers a request, and what does it do? First the virtual host by name alone, then its rules in order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cluster::Cluster;
use super::cors::CorsPolicy;
use super::fault::FaultPolicy;
use super::hash_policy::HashPolicy;
use super::headers::HeaderOperations;
use super::issuance::CHALLENGE_PATH;
use super::matcher::{Condition, PathMatch, RequestMatch};
use super::path_index::PathIndex;
use super::pattern::Pattern;
use super::redirect::host_of;
use super::retry::RetryPolicy;
use super::share::Share;

/// The facts of a request that routing looks at: sanitised headers, normalised path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFacts<'a> {
    pub method: &'a str,
    /// HTTP/1: of the connection (or of a trusted proxy); HTTP/2: the client's own word. Lower-case.
    pub scheme: &'a str,
    /// Host or `:authority` as sent, with its port.
    pub authority: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    /// Behind the first `?`, without it; `None` if there is no `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Of a verified token.
    pub claims: Option<&'a serde_json::Value>,
}

/// The virtual hosts of one chain (Istio: `http.80`, `https.443.https.gw.ns`).
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub name: String,
    /// The Gateway server's port number: redirects and decorators show it.
    pub port: u16,
    pub exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `.example.com` for `*.example.com`, `-bar.com` for `*-bar.com`; by suffix.
    pub suffixes: HashMap<Box<str>, Arc<VirtualHost>>,
    /// The lengths of `suffixes`, longest first.
    pub suffix_lengths: Vec<usize>,
    pub any: Option<Arc<VirtualHost>>,
}

/// The rules of one host name.
#[derive(Debug)]
pub(crate) struct VirtualHost {
    /// Lower-case, `*` and `*.suffix` for wildcards.
    pub name: Box<str>,
    /// httpsRedirect: plaintext requests are answered 301 to https.
    pub require_tls: bool,
    /// In the order of precedence: the first that matches answers.
    pub rules: Vec<Arc<RouteRule>>,
    pub index: PathIndex,
    /// The headers that conditions and CORS policies of the rules look at, each once; `None` if there are none.
    pub looks_at: Option<Arc<[HeaderName]>>,
}

/// One condition and what follows from it.
#[derive(Debug)]
pub(crate) struct RouteRule {
    /// `%ROUTE_NAME%`: `route.match`, `.match`, or empty (logged as `-`).
    pub name: Box<str>,
    /// For explain: `VirtualService default/bookinfo http[0].match[2]`.
    pub origin: Box<str>,
    pub matches: RequestMatch,
    pub action: Action,
    /// For forwarded requests alone: neither redirects nor direct responses know CORS or faults.
    pub cors: Option<Box<CorsPolicy>>,
    pub fault: Option<Box<FaultPolicy>>,
    /// Beside the destination's own lists; compile has already joined the two where Istio makes them one.
    pub request_headers: HeaderOperations,
    pub response_headers: HeaderOperations,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(DirectResponse),
    /// What the rule asks for cannot be done, for the reason given: 500, so that no broader rule takes its requests.
    Invalid(Box<str>),
}

/// Istio HTTPRoute.route.
#[derive(Debug)]
pub(crate) struct Forward {
    /// At least one; those of weight 0 are left out unless there is only one.
    pub destinations: Vec<Destination>,
    /// The sum of their weights, more than 0.
    pub total_weight: u32,
    /// `None`: disabled. Counts from the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    /// `None` never tries again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What decides the endpoint: the policies of all destinations; `None` hashes nothing.
    pub hash: Option<Box<[HashPolicy]>>,
    /// Who gets a copy of the request.
    pub mirrors: Vec<Mirror>,
    pub path_rewrite: Option<PathRewrite>,
    pub authority_rewrite: Option<AuthorityRewrite>,
    /// `x-envoy-decorator-operation`, sent upstream.
    pub decorator: HeaderValue,
}

/// Istio HTTPRouteDestination.
#[derive(Debug)]
pub(crate) struct Destination {
    pub cluster: ClusterReference,
    pub weight: u32,
    /// Applied before the rule's own lists.
    pub request_headers: HeaderOperations,
    pub response_headers: HeaderOperations,
    /// `Host` in the header operations of one of several destinations; the rule's own rewrite wins.
    pub authority_rewrite: Option<AuthorityRewrite>,
}

/// Istio HTTPRoute.mirror, HTTPMirrorPolicy.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub cluster: Arc<Cluster>,
    /// How many requests are copied, never none.
    pub share: Share,
}

/// A cluster, or the name of one that does not exist (503 NC).
#[derive(Debug)]
pub(crate) enum ClusterReference {
    Known(Arc<Cluster>),
    Missing(Arc<str>),
}

/// Istio HTTPRewrite.uri and uriRegexRewrite.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// Replaces the first `matched` bytes of the path.
    Prefix {
        matched: usize,
        with: Box<str>,
    },
    Full(Box<str>),
    /// Every match is replaced; `with` is in Istio's form (`\1`).
    Regex {
        pattern: Arc<Pattern>,
        with: Box<str>,
    },
}

/// Istio HTTPRewrite.authority, or `Host` in header operations: taken literally.
#[derive(Debug)]
pub(crate) struct AuthorityRewrite {
    pub value: HeaderValue,
    pub source: RewriteSource,
}

/// Where an authority was written; decides which headers tell the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RewriteSource {
    /// rewrite.authority: `x-envoy-original-host`, and `x-forwarded-host` where that is on.
    Rewrite,
    /// Header operations of the rule: `x-envoy-original-host`.
    Operation,
    /// Header operations of one of several destinations: nothing.
    Destination,
}

/// Istio HTTPRedirect.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub code: StatusCode,
    pub scheme: Option<Box<str>>,
    pub authority: Option<Box<str>>,
    /// A configured port that counts (80 for http and 443 for https do not), FROM_REQUEST_PORT already filled in.
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
}

/// Istio HTTPDirectResponse.
#[derive(Debug)]
pub(crate) struct DirectResponse {
    pub status: StatusCode,
    pub body: Bytes,
}

impl RouteTable {
    /// The virtual host for `Host` or `:authority` as sent: the port is cut, case does not matter, an exact name
    /// comes before the longest suffix, and that before `*`.
    pub(crate) fn find(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = lower_case(host_of(authority));
        let by_suffix = |length: &usize| {
            let start = host.len().checked_sub(*length).filter(|start| *start > 0)?;
            self.suffixes.get(host.get(start..)?)
        };
        let exact = self.exact.get(&*host);
        exact.or_else(|| self.suffix_lengths.iter().find_map(by_suffix)).or(self.any.as_ref())
    }

    /// All virtual hosts, in the order of look-up.
    pub(crate) fn virtual_hosts(&self) -> Vec<&Arc<VirtualHost>> {
        let mut hosts: Vec<_> = self.exact.values().chain(self.suffixes.values()).chain(&self.any).collect();
        hosts.sort_by(|a, b| crate::base::host::by_specificity(&a.name, &b.name));
        hosts
    }

    /// Adds a virtual host under its name (`a.com`, `*.a.com`, `*`).
    pub(crate) fn insert(&mut self, host: Arc<VirtualHost>) {
        self.insert_under(host.name.clone(), host);
    }

    /// Adds a virtual host under one of several names, written as [`VirtualHost::name`] is.
    pub(crate) fn insert_under(&mut self, name: Box<str>, host: Arc<VirtualHost>) {
        match name.strip_prefix('*') {
            Some("") => self.any = Some(host),
            None => drop(self.exact.insert(name, host)),
            Some(suffix) => {
                if !self.suffix_lengths.contains(&suffix.len()) {
                    self.suffix_lengths.push(suffix.len());
                    self.suffix_lengths.sort_unstable_by(|a, b| b.cmp(a));
                }
                self.suffixes.insert(suffix.into(), host);
            }
        }
    }
}

impl VirtualHost {
    pub(crate) fn new(name: &str, require_tls: bool, rules: Vec<Arc<RouteRule>>) -> VirtualHost {
        let index = PathIndex::new(rules.iter().map(|rule| &rule.matches.path));
        let looks_at = headers_of(&rules);
        VirtualHost { name: name.into(), require_tls, rules, index, looks_at }
    }

    /// Whether a plaintext request is sent to https instead. A CA does not look there, so what a rule names exactly for it
    /// stays: cert-manager's solver does.
    pub(crate) fn wants_https(&self, facts: &RequestFacts<'_>) -> bool {
        let names_it = |rule: &Arc<RouteRule>| matches!(rule.matches.path, PathMatch::Exact { .. });
        self.require_tls && !(facts.path.starts_with(CHALLENGE_PATH) && self.find(facts).is_some_and(names_it))
    }

    /// The first rule whose conditions the request meets.
    pub(crate) fn find(&self, facts: &RequestFacts<'_>) -> Option<&Arc<RouteRule>> {
        let holds = |number: usize| self.rules.get(number).is_some_and(|rule| rule.matches.holds(facts));
        let number = self.index.first(facts.path, self.rules.len(), holds)?;
        self.rules.get(number)
    }
}

fn headers_of(rules: &[Arc<RouteRule>]) -> Option<Arc<[HeaderName]>> {
    let of_cors = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];
    let mut names: Vec<HeaderName> = Vec::new();
    let mut add = |name: &HeaderName| {
        if !names.contains(name) {
            names.push(name.clone());
        }
    };
    for rule in rules {
        rule.matches.conditions.iter().filter_map(Condition::header).for_each(&mut add);
        if rule.cors.is_some() {
            of_cors.iter().for_each(&mut add);
        }
    }
    (!names.is_empty()).then(|| names.into())
}

impl Forward {
    /// The destination that a random number falls on, by weight.
    pub(crate) fn choose(&self, random: u32) -> Option<&Destination> {
        let mut rest = random.checked_rem(self.total_weight)?;
        self.destinations.iter().find(|destination| match rest.checked_sub(destination.weight) {
            Some(left) => {
                rest = left;
                false
            }
            None => true,
        })
    }
}

impl ClusterReference {
    /// Istio's name of the cluster, known or not.
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            ClusterReference::Known(cluster) => &cluster.name,
            ClusterReference::Missing(name) => name,
        }
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::host;

    proptest! {
        #[test]
        fn the_most_specific_host_that_means_the_name_is_found(
            names in prop::collection::vec("(\\*|[ab]{0,2})([.-][ab]{1,2}){0,3}", 0..12),
            asked in "[ab]{1,2}([.-][ab]{1,2}){0,3}",
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let mut table = RouteTable::default();
            for name in &names {
                table.insert(Arc::new(VirtualHost::new(name, false, Vec::new())));
            }
            // A wildcard stands for one character at least.
            let means = |name: &&&str| host::matches(name, &asked) && (**name == asked || asked.len() >= name.len());
            let expected = names.iter().filter(means).min_by(|a, b| host::by_specificity(a, b));
            let expected = expected.copied().or(names.contains(&"*").then_some("*"));
            prop_assert_eq!(table.find(&asked).map(|host| &*host.name), expected);
        }
    }

    #[test]
    fn hosts_are_found_by_name_then_suffix_then_any() {
        let mut table = RouteTable::default();
        for name in ["a.com", "www.example.com", "*.example.com", "*-bar.example.com", "*.com", "a.com."] {
            table.insert(Arc::new(VirtualHost::new(name, false, Vec::new())));
        }
        let found = |table: &RouteTable, authority: &str| table.find(authority).map(|host| host.name.to_string());
        for (authority, expected) in [
            ("a.com", Some("a.com")),
            ("A.com:8080", Some("a.com")),
            ("a.com:abc", Some("a.com")),
            ("a.com:80:80", None),
            ("a.com.", Some("a.com.")),
            ("b.com", Some("*.com")),
            ("x.y.example.com", Some("*.example.com")),
            ("x-bar.example.com", Some("*-bar.example.com")),
            ("-bar.example.com", Some("*.example.com")),
            (".com", None),
            ("", None),
        ] {
            assert_eq!(found(&table, authority).as_deref(), expected, "{authority}");
        }
        table.insert(Arc::new(VirtualHost::new("*", false, Vec::new())));
        assert_eq!(found(&table, "").as_deref(), Some("*"));
        assert_eq!(found(&table, "[::1]:80").as_deref(), Some("*"));
    }

    #[test]
    fn weights_share_the_numbers() {
        let destination = |weight| Destination {
            cluster: ClusterReference::Missing(Arc::from(format!("w{weight}"))),
            weight,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
            authority_rewrite: None,
        };
        let forward = Forward {
            destinations: vec![destination(1), destination(3)],
            total_weight: 4,
            timeout: None,
            retry: None,
            hash: None,
            mirrors: Vec::new(),
            path_rewrite: None,
            authority_rewrite: None,
            decorator: HeaderValue::from_static("x"),
        };
        let weights: Vec<_> = (0..8).filter_map(|n| forward.choose(n)).map(|d| d.weight).collect();
        assert_eq!(weights, [1, 3, 3, 3, 1, 3, 3, 3]);
    }
}
