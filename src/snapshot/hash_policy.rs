//! Which part of a request decides its endpoint? Pure: a number that is the same for requests that belong together.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use twox_hash::XxHash64;

/// Istio consistentHash: what is hashed. The policies of all destinations of a rule count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashPolicy {
    Header(HeaderName),
    /// The headers `host` and `:authority`.
    Authority,
    Cookie(Box<Cookie>),
    SourceIp,
    /// The name as it is written in the query.
    Query(Box<str>),
}

/// A cookie that is read, and set for who has none if it has a `ttl`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub name: Box<str>,
    pub path: Box<str>,
    /// Zero is a cookie of the session.
    pub ttl: Option<Duration>,
    /// A name and what is said of it, which may be empty.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

/// What of a request can be hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashFacts<'a> {
    pub headers: &'a HeaderMap,
    pub authority: &'a str,
    pub query: Option<&'a str>,
    /// The trusted address of the client.
    pub client: IpAddr,
    /// The two ends of the connection, of which new cookies are made.
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// What came of hashing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// `None`: the request has nothing of what is hashed.
    pub key: Option<u64>,
    /// Set-Cookie for the client.
    pub cookies: Vec<HeaderValue>,
}

/// xxHash64, as Envoy hashes.
pub(crate) fn hash(bytes: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// The number of an address.
pub(crate) fn of_address(address: IpAddr) -> u64 {
    hash(address.to_string().as_bytes(), 0)
}

/// The number of a request under all policies.
pub(crate) fn key(policies: &[HashPolicy], facts: &HashFacts<'_>) -> Hashed {
    let mut hashed = Hashed::default();
    for policy in policies {
        let Some(new) = policy.key(facts, &mut hashed.cookies) else { continue };
        // Turned, so that two equal policies do not cancel each other out.
        hashed.key = Some(hashed.key.map_or(0, |old| old.rotate_left(1)) ^ new);
    }
    hashed
}

impl HashPolicy {
    fn key(&self, facts: &HashFacts<'_>, cookies: &mut Vec<HeaderValue>) -> Option<u64> {
        match self {
            HashPolicy::Header(name) => of_values(facts.headers, name),
            HashPolicy::Authority => Some(hash(facts.authority.as_bytes(), 0)),
            HashPolicy::SourceIp => Some(of_address(facts.client)),
            HashPolicy::Query(name) => Some(hash(parameter(facts.query?, name)?.as_bytes(), 0)),
            HashPolicy::Cookie(cookie) => {
                if let Some(value) = cookie.value(facts.headers).filter(|value| !value.is_empty()) {
                    return Some(hash(value.as_bytes(), 0));
                }
                cookie.ttl?;
                let value = format!("{:016x}", hash(format!("{}{}", facts.peer, facts.local).as_bytes(), 0));
                cookies.extend(cookie.set(&value));
                Some(hash(value.as_bytes(), 0))
            }
        }
    }
}

/// All values, in whatever order they stand.
fn of_values(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.sort_unstable();
    values.first()?;
    Some(values.iter().fold(0, |seed, value| hash(value, seed)))
}

/// The first value of a parameter, as it is written.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl Cookie {
    /// The first value that the request has, without quotes.
    fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(key, _)| key.trim() == &*self.name)?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(bare.unwrap_or(value))
    }

    fn set(&self, value: &str) -> Option<HeaderValue> {
        let mut text = format!("{}=\"{value}\"", self.name);
        let seconds = self.ttl.map_or(0, |ttl| ttl.as_secs());
        if seconds > 0 {
            text.push_str(&format!("; Max-Age={seconds}"));
        }
        if !self.path.is_empty() {
            text.push_str(&format!("; Path={}", self.path));
        }
        for (name, value) in &self.attributes {
            text.push_str(&if value.is_empty() { format!("; {name}") } else { format!("; {name}={value}") });
        }
        text.push_str("; HttpOnly");
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(policies: &[HashPolicy], lines: &[(&'static str, &str)], query: Option<&str>) -> Hashed {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let address: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let (client, authority) = (address.ip(), "a.test");
        key(policies, &HashFacts { headers: &headers, authority, query, client, peer: address, local: address })
    }

    fn of(text: &str) -> Option<u64> {
        Some(hash(text.as_bytes(), 0))
    }

    #[test]
    fn the_named_part_is_hashed() {
        assert_eq!(hash(b"", 0), 0xef46_db37_51d8_e999, "the test value of xxHash");
        let user = || HashPolicy::Header(HeaderName::from_static("x-user"));
        let cookie = |name: &str| HashPolicy::Cookie(Box::new(Cookie { name: name.into(), ..Cookie::default() }));
        let query = |name: &str| HashPolicy::Query(name.into());
        for (policy, lines, asked, expected) in [
            (user(), &[("x-user", "a")][..], None, of("a")),
            (user(), &[("x-user", "")], None, of("")),
            (user(), &[], None, None),
            (HashPolicy::Authority, &[], None, of("a.test")),
            (HashPolicy::SourceIp, &[], None, of("10.0.0.1")),
            (query("q"), &[], Some("p=1&q=2&q=3"), of("2")),
            (query("q"), &[], Some("q"), of("")),
            (query("q"), &[], Some("Q=1"), None),
            (cookie("c"), &[("cookie", "a=1; c=\"x\""), ("cookie", "c=y")], None, of("x")),
            (cookie("c"), &[("cookie", "C=1; c=")], None, None),
        ] {
            assert_eq!(
                ask(std::slice::from_ref(&policy), lines, asked),
                Hashed { key: expected, cookies: vec![] },
                "{policy:?}"
            );
        }
        let both = |first, second| ask(&[user()], &[("x-user", first), ("x-user", second)], None).key;
        assert_eq!(both("a", "b"), both("b", "a"));
        let two = ask(&[user(), HashPolicy::SourceIp], &[("x-user", "a")], None).key.unwrap();
        assert_eq!(two, of("a").unwrap().rotate_left(1) ^ of("10.0.0.1").unwrap());
    }

    #[test]
    fn a_cookie_is_set_for_who_has_none() {
        let cookie = |ttl, path: &str, attributes: &[(&str, &str)]| {
            HashPolicy::Cookie(Box::new(Cookie {
                name: "user".into(),
                path: path.into(),
                ttl: Some(Duration::from_millis(ttl)),
                attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            }))
        };
        for (policy, expected) in [
            (cookie(0, "/shop", &[]), "; Path=/shop; HttpOnly"),
            (cookie(1500, "", &[]), "; Max-Age=1; HttpOnly"),
            (
                cookie(60_000, "/", &[("SameSite", "Strict"), ("Secure", "")]),
                "; Max-Age=60; Path=/; SameSite=Strict; Secure; HttpOnly",
            ),
        ] {
            let hashed = ask(&[policy], &[("cookie", "user=")], None);
            let set = hashed.cookies[0].to_str().unwrap();
            let value = set.strip_prefix("user=\"").and_then(|rest| rest.strip_suffix(expected)).unwrap();
            assert_eq!(hashed.key, of(value.trim_end_matches('"')), "the next request comes to the same endpoint");
        }
    }
}
