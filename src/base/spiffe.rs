//! What is a SPIFFE ID, and of which trust domain? (SPIFFE-ID.md sections 2.1 to 2.4.)

use std::fmt;

/// The longest ID that has to be understood.
const MOST_BYTES: usize = 2048;

/// `spiffe://cluster.local/ns/default/sa/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpiffeId {
    text: String,
    /// Where the trust domain ends in `text`.
    domain_end: usize,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Fails with a sentence.
    pub(crate) fn parse(text: &str) -> Result<SpiffeId, String> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| format!("`{text}` does not begin with spiffe://"))?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        if text.len() > MOST_BYTES {
            return Err("a SPIFFE ID has at most 2048 bytes".to_owned());
        }
        if !is_trust_domain(domain) {
            return Err(format!("`{domain}` is no trust domain"));
        }
        if let Some(bad) = path.into_iter().flat_map(|path| path.split('/')).find(|segment| !is_segment(segment)) {
            return Err(format!("`{text}`: `{bad}` is no part of a path"));
        }
        Ok(SpiffeId { text: text.to_owned(), domain_end: SCHEME.len() + domain.len() })
    }

    /// Istio's form. An `@` in the trust domain becomes a dot, as in Istio.
    pub(crate) fn of_workload(trust_domain: &str, namespace: &str, service_account: &str) -> Result<SpiffeId, String> {
        let trust_domain = trust_domain.replace('@', ".");
        SpiffeId::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.domain_end).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether this can be a trust domain: `cluster.local`.
pub(crate) fn is_trust_domain(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(text, "" | "." | "..") && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_judged_as_the_standard_says() {
        for (text, domain) in [
            ("spiffe://cluster.local/ns/a/sa/b", Some("cluster.local")),
            ("spiffe://td", Some("td")),
            ("spiffe://td/", None),
            ("spiffe://TD/a", None),
            ("spiffe:///a", None),
            ("spiffe://td/a//b", None),
            ("spiffe://td/a/../b", None),
            ("spiffe://td/a?b", None),
            ("spiffe://td:80/a", None),
            ("https://td/a", None),
        ] {
            let parsed = SpiffeId::parse(text).ok();
            assert_eq!(parsed.as_ref().map(SpiffeId::trust_domain), domain, "{text}");
        }
        let id = SpiffeId::of_workload("a@b", "ns", "web").unwrap();
        assert_eq!((id.as_str(), id.trust_domain()), ("spiffe://a.b/ns/ns/sa/web", "a.b"));
    }
}
