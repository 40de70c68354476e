//! May this request talk to the admin port? A web page in the operator's browser may not.
//!
//! A page of another site can send requests to 127.0.0.1, by a name of its own that it points there (DNS rebinding) or
//! by a form. So the Host has to be an address or a local name, and what a browser sends has to come from our page.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the Host header has to be an IP address or localhost")]
    ForeignHost,
    #[error("requests from other sites are refused")]
    ForeignOrigin,
}

/// Judges the headers of a request.
pub(super) fn judge(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return Err(Refusal::ForeignHost);
    };
    if !is_local(name_of(host)) {
        return Err(Refusal::ForeignHost);
    }
    let site = headers.get(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site == "cross-site" || site == "same-site") {
        return Err(Refusal::ForeignOrigin);
    }
    match headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default()) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => Err(Refusal::ForeignOrigin),
        _ => Ok(()),
    }
}

/// `name:port` or `[address]:port` without the port and the brackets.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_local(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_and_our_own_page() {
        type Sent = &'static [(&'static str, &'static str)];
        let cases: &[(Sent, Result<(), Refusal>)] = &[
            (&[("host", "127.0.0.1:15000")], Ok(())),
            (&[("host", "localhost")], Ok(())),
            (&[("host", "admin.localhost:15000")], Ok(())),
            (&[("host", "[::1]:15000")], Ok(())),
            (&[("host", "10.0.0.7:15000")], Ok(())),
            (&[], Err(Refusal::ForeignHost)),
            (&[("host", "evil.example:15000")], Err(Refusal::ForeignHost)),
            (&[("host", "127.0.0.1.evil.example")], Err(Refusal::ForeignHost)),
            (&[("host", "[::1")], Err(Refusal::ForeignHost)),
            (&[("host", "")], Err(Refusal::ForeignHost)),
            (&[("host", "localhost"), ("host", "evil.example")], Err(Refusal::ForeignHost)),
            (&[("host", "localhost:1"), ("origin", "http://localhost:1")], Ok(())),
            (&[("host", "localhost:1"), ("origin", "http://localhost:2")], Err(Refusal::ForeignOrigin)),
            (&[("host", "localhost:1"), ("origin", "null")], Err(Refusal::ForeignOrigin)),
            (&[("host", "localhost:1"), ("sec-fetch-site", "cross-site")], Err(Refusal::ForeignOrigin)),
            (&[("host", "localhost:1"), ("sec-fetch-site", "same-origin")], Ok(())),
        ];
        for (sent, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *sent {
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(judge(&headers), *expected, "{sent:?}");
        }
    }
}
