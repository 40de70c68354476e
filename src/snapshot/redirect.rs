//! Where does a redirect lead, and what does a rewrite make of a path?

use std::borrow::Cow;

use super::route::{AuthorityRewrite, PathRewrite, Redirect, RequestFacts};

impl PathRewrite {
    /// The new path for the one that was matched; neither has the query. The new text is taken as written.
    pub(crate) fn apply(&self, path: &str) -> String {
        match self {
            PathRewrite::Prefix { matched, with } => format!("{with}{}", path.get(*matched..).unwrap_or_default()),
            PathRewrite::Full(with) => with.to_string(),
            PathRewrite::Regex { pattern, with } => pattern.replace_all(path, with),
        }
    }
}

impl Redirect {
    /// The `location` for a request: absolute, with the scheme given, else the request's. The query stays unless the
    /// new path has one.
    pub(crate) fn location(&self, facts: &RequestFacts<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(facts.scheme);
        let authority = self.new_authority(facts, scheme);
        let path = match &self.path {
            Some(rewrite) => Cow::Owned(rewrite.apply(facts.path)),
            None => Cow::Borrowed(facts.path),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let query = facts.query.filter(|_| self.path.is_none() || !path.contains('?'));
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        format!("{scheme}://{authority}{slash}{path}{mark}{query}")
    }

    /// What response operations see as the path and query: changed only where a prefix is replaced, as in Envoy.
    pub(crate) fn seen_path(&self, facts: &RequestFacts<'_>) -> Option<String> {
        let Some(rewrite @ PathRewrite::Prefix { .. }) = &self.path else { return None };
        let (mark, query) = facts.query.map_or(("", ""), |query| ("?", query));
        Some(format!("{}{mark}{query}", rewrite.apply(facts.path)))
    }

    fn new_authority<'a>(&'a self, facts: &RequestFacts<'a>, scheme: &str) -> Cow<'a, str> {
        let authority = match (&self.authority, self.port) {
            (Some(authority), _) => authority,
            (None, Some(_)) => host_of(facts.authority),
            (None, None) => without_default_port(facts, scheme),
        };
        match self.port {
            Some(port) => Cow::Owned(format!("{authority}:{port}")),
            None => Cow::Borrowed(authority),
        }
    }
}

/// The `location` of httpsRedirect: the request's own URL, with https.
pub(crate) fn https_location(facts: &RequestFacts<'_>) -> String {
    let (mark, query) = facts.query.map_or(("", ""), |query| ("?", query));
    format!("https://{}{}{mark}{query}", facts.authority, facts.path)
}

/// The authority without its port; brackets of IPv6 stay.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if authority.rfind(']').is_none_or(|bracket| bracket < colon) => {
            authority.get(..colon).unwrap_or_default()
        }
        _ => authority,
    }
}

/// Only a change between http and https drops the old scheme's own port.
fn without_default_port<'a>(facts: &RequestFacts<'a>, scheme: &str) -> &'a str {
    let dropped = match (facts.scheme, scheme) {
        ("http", "https") => ":80",
        ("https", "http") => ":443",
        _ => return facts.authority,
    };
    facts.authority.strip_suffix(dropped).unwrap_or(facts.authority)
}

impl AuthorityRewrite {
    /// The new authority as text.
    pub(crate) fn text(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn locations_are_made_as_istio_makes_them() {
        let plain = || Redirect { code: StatusCode::FOUND, scheme: None, authority: None, port: None, path: None };
        let full = |text: &str| Some(PathRewrite::Full(text.into()));
        for (redirect, scheme, authority, target, expected) in [
            (plain(), "http", "A.com:80", "/x?y", "http://A.com:80/x?y"),
            (Redirect { scheme: Some("https".into()), ..plain() }, "http", "a.com:80", "/", "https://a.com/"),
            (Redirect { scheme: Some("https".into()), ..plain() }, "http", "a.com:8080", "/", "https://a.com:8080/"),
            (Redirect { scheme: Some("https".into()), ..plain() }, "https", "a.com:80", "/", "https://a.com:80/"),
            (Redirect { port: Some(8081), ..plain() }, "http", "a.com:99", "/", "http://a.com:8081/"),
            (
                Redirect { authority: Some("new:9000".into()), port: Some(8081), ..plain() },
                "http",
                "a.com",
                "/",
                "http://new:9000:8081/",
            ),
            (Redirect { path: full("https://x/y"), ..plain() }, "http", "a", "/p?q", "http://a/https://x/y?q"),
            (Redirect { path: full("/n?m"), ..plain() }, "http", "a", "/p?q", "http://a/n?m"),
            (Redirect { path: full("/n#f"), ..plain() }, "http", "a", "/p?q", "http://a/n#f?q"),
            (
                Redirect { path: Some(PathRewrite::Prefix { matched: 4, with: "/new".into() }), ..plain() },
                "ftp",
                "a",
                "/old/x",
                "ftp://a/new/x",
            ),
        ] {
            let (path, query) = super::super::path::split_query(target);
            let headers = HeaderMap::new();
            let facts = RequestFacts { method: "GET", scheme, authority, path, query, headers: &headers, claims: None };
            assert_eq!(redirect.location(&facts), expected);
        }
    }

    #[test]
    fn the_port_is_cut_at_the_last_colon() {
        for (authority, host) in [
            ("a", "a"),
            ("a:80", "a"),
            ("a:80:80", "a:80"),
            ("a:abc", "a"),
            ("a:", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
