//! What does the data plane see of the request that is to be explained?

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{Query, Recorded};
use crate::snapshot::headers::is_known_in_request;

/// The request in the data plane's words.
pub(super) struct Asked {
    pub method: String,
    /// `http`, `https` or `tcp`
    pub scheme: String,
    pub authority: String,
    /// Path and query as sent.
    pub target: String,
    pub port: u16,
    /// The bound address, where it is known.
    pub listener: Option<SocketAddr>,
    pub is_tls: bool,
    pub sni: Option<String>,
    pub headers: HeaderMap,
    pub from: IpAddr,
    /// What a token that was verified says.
    pub claims: Option<serde_json::Value>,
    /// Whether values that give access are kept out of the explanation: another one sent them.
    pub hides_secrets: bool,
}

/// Headers whose values give access.
const SECRETS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Whether the values of a header give access.
pub(super) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// Who asks: a gateway tells of its clients in headers, a sidecar leaves its workload's headers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Client,
    Workload,
}

impl Asked {
    /// A request that was served: its headers are as the rules saw them.
    pub(super) fn recorded(recorded: &Recorded) -> Asked {
        let mut headers = HeaderMap::new();
        for (name, value) in &recorded.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        Asked {
            method: recorded.method.clone(),
            scheme: recorded.scheme.clone(),
            authority: recorded.authority.clone(),
            target: recorded.target.clone(),
            port: recorded.listener.port(),
            listener: Some(recorded.listener),
            is_tls: recorded.is_tls,
            sni: recorded.sni.clone(),
            headers,
            from: recorded.from,
            claims: None,
            hides_secrets: true,
        }
    }

    pub(super) fn new(query: &Query, asker: Asker) -> Result<Asked, String> {
        let wrong = |why: &str| format!("`{}` cannot be explained: {why}; write http://host[:port]/path", query.url);
        let (scheme, rest) = query.url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let scheme = scheme.to_ascii_lowercase();
        if !["http", "https", "tcp"].contains(&scheme.as_str()) {
            return Err(wrong("the scheme has to be http, https or tcp"));
        }
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (written, target) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let parsed: Uri = format!("{scheme}://{written}/").parse().map_err(|_| wrong("the host is not readable"))?;
        let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        let own_port = if scheme == "https" { 443 } else { 80 };
        let port = match parsed.port_u16() {
            None if scheme == "tcp" => return Err(wrong("tcp needs a port")),
            written => written.unwrap_or(own_port),
        };
        let authority = if port == own_port { host.to_owned() } else { format!("{host}:{port}") };
        let from = query.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut asked = Asked {
            method: if query.method.is_empty() { "GET".to_owned() } else { query.method.clone() },
            is_tls: scheme == "https" || (scheme == "tcp" && query.sni.is_some()),
            sni: query.sni.clone().or_else(|| (scheme == "https").then(|| host.to_owned())),
            scheme,
            authority,
            target,
            port,
            listener: None,
            headers: HeaderMap::new(),
            from,
            claims: query.claims.clone(),
            hides_secrets: false,
        };
        asked.sni = asked.sni.filter(|name| !name.is_empty());
        asked.add_headers(query, asker)?;
        Ok(asked)
    }

    /// Headers as the proxy has them when it looks for a rule: its own are set, known ones joined.
    fn add_headers(&mut self, query: &Query, asker: Asker) -> Result<(), String> {
        let own = [
            ("x-forwarded-for", self.from.to_string()),
            ("x-forwarded-proto", self.scheme.clone()),
            ("x-envoy-external-address", self.from.to_string()),
            ("x-request-id", "00000000-0000-4000-8000-000000000000".to_owned()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let told = query.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect::<Vec<_>>();
        let is_added = |(name, _): &&(String, String)| match asker {
            Asker::Client => true,
            Asker::Workload => {
                !["x-forwarded-for", "x-envoy-external-address"].contains(&name.as_str()) && !told.contains(name)
            }
        };
        for (name, value) in query.headers.iter().chain(own.iter().filter(is_added)) {
            if name.eq_ignore_ascii_case("host") || name == ":authority" {
                self.authority.clone_from(value);
                continue;
            }
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
            let value = HeaderValue::from_str(value).map_err(|_| format!("`{value}` can be no header value"))?;
            let before = self.headers.get(&header).filter(|_| is_known_in_request(&header));
            match before.map(|before| [before.as_bytes(), b",", value.as_bytes()].concat()) {
                _ if ["x-forwarded-proto", "x-envoy-external-address", "x-request-id"].contains(&header.as_str()) => {
                    drop(self.headers.insert(header, value))
                }
                Some(joined) => {
                    let joined = HeaderValue::from_bytes(&joined).map_err(|error| error.to_string())?;
                    self.headers.insert(header, joined);
                }
                None => drop(self.headers.append(header, value)),
            }
        }
        Ok(())
    }
}
