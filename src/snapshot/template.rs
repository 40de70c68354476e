//! What is the value of a header that holds `%OPERATOR%`s? (Envoy's substitution format.)

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::certificate::Certificate;
use super::matcher::query_parameter;

/// A value with `%OPERATOR%`s, parsed once.
#[derive(Clone, Debug)]
pub(crate) enum ValueTemplate {
    /// No operator in it; `None` is the empty text, which makes the operation void.
    Fixed(Option<HeaderValue>),
    Parts(Vec<TemplatePart>),
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TemplatePart {
    Text(Box<str>),
    /// `%REQ(a?b):n%`: the first value of the request header a, else of b, at most n characters of it.
    Request(HeaderSource),
    /// `%RESP(a?b):n%`
    Response(HeaderSource),
    /// `%PATH(NQ)%` and the like: whether the query is included.
    Path {
        query: bool,
    },
    QueryParameter(Box<str>),
    Protocol,
    ResponseCode,
    ResponseFlags,
    /// `%START_TIME(format)%`; the default is RFC 3339 with milliseconds.
    StartTime(Option<Box<str>>),
    Hostname,
    /// The port of the endpoint that answers.
    UpstreamPort,
    /// Of the body, which has not begun when headers are written: none.
    BytesSent,
    UpstreamHost {
        port: bool,
    },
    /// With a `;` behind it, as Envoy writes it, unless raw.
    UpstreamCluster {
        raw: bool,
    },
    Attempts,
    Address {
        whose: Whose,
        shown: Shown,
    },
    RequestedServerName,
    TlsVersion,
    TlsCipher,
    /// Of the client's certificate, or of our own.
    Certificate {
        whose: Holder,
        part: CertificatePart,
    },
    RouteName,
    ResponseCodeDetails,
    BytesReceived,
    /// An operator of Envoy that tells nothing here: of upstream TLS, or known only afterwards.
    Absent(Box<str>),
}

/// Header names to look at, with a limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeaderSource {
    pub name: Box<str>,
    pub or_else: Option<Box<str>>,
    pub at_most: Option<usize>,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Whose {
    /// The client, as trusted proxies name it.
    Remote,
    /// The peer of the connection.
    DirectRemote,
    Local,
}

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Holder {
    Client,
    /// Our own, towards the client.
    Server,
}

/// What is shown of a certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CertificatePart {
    Subject,
    Issuer,
    Serial,
    Sha256,
    Sha1,
    Uris,
    DnsNames,
    Addresses,
    Emails,
    /// Escaped.
    Pem,
    /// With a format; the default is that of `%START_TIME%`.
    NotBefore(Option<Box<str>>),
    NotAfter(Option<Box<str>>),
}

/// What is shown of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shown {
    Whole,
    Host,
    Port,
}

/// What operators can tell; borrowed from the request for one call.
#[derive(Clone, Debug)]
pub(crate) struct TemplateFacts<'a> {
    /// The request's headers while those of a response are changed; `None` means that the headers being changed are
    /// the request's.
    pub request: Option<&'a HeaderMap>,
    pub method: &'a str,
    pub scheme: &'a str,
    pub authority: &'a str,
    /// With the query.
    pub path: &'a str,
    /// 0 in requests and on the proxy's own answers.
    pub response_code: u16,
    /// Envoy's short names joined with `,`; `-` if none.
    pub response_flags: Cow<'a, str>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    pub start: SystemTime,
    pub remote: SocketAddr,
    pub direct_remote: SocketAddr,
    pub local: SocketAddr,
    pub server_name: Option<&'a str>,
    /// `TLSv1.3`
    pub tls_version: Option<&'a str>,
    pub tls_cipher: Option<&'a str>,
    /// The client's certificate.
    pub client_certificate: Option<&'a Certificate>,
    /// Our own, towards the client.
    pub server_certificate: Option<&'a Certificate>,
    /// This machine's name.
    pub hostname: &'a str,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_cluster: Option<&'a str>,
    /// Tries so far, 1 or more once the request goes upstream.
    pub attempts: u32,
    pub route_name: &'a str,
    /// Envoy's word on how the answer came about.
    pub details: &'a str,
    /// Bytes of the request's body so far.
    pub received: u64,
}

impl ValueTemplate {
    /// Reads a value as it stands in a manifest. Fails on a lone `%`, an unknown operator and control characters.
    pub(crate) fn parse(text: &str) -> Result<ValueTemplate, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(tail) = behind.strip_prefix('%') {
                literal.push('%');
                rest = tail;
                continue;
            }
            let (part, tail) = operator(behind)
                .ok_or_else(|| format!("`{text}` has a `%` that begins no operator; write %% for a percent sign"))?;
            if !literal.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(part?);
            rest = tail;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return ValueTemplate::fixed(&literal);
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(literal.into()));
        }
        let texts = parts.iter().filter_map(|part| if let TemplatePart::Text(text) = part { Some(text) } else { None });
        for text in texts {
            ValueTemplate::fixed(text)?;
        }
        Ok(ValueTemplate::Parts(parts))
    }

    fn fixed(text: &str) -> Result<ValueTemplate, String> {
        let value = HeaderValue::from_str(text).map_err(|_| format!("{text:?} holds control characters"))?;
        Ok(ValueTemplate::Fixed(Some(value).filter(|value| !value.is_empty())))
    }

    /// The operators that tell nothing here, to be reported.
    pub(crate) fn absent(&self) -> impl Iterator<Item = &str> {
        let parts = match self {
            ValueTemplate::Fixed(_) => &[][..],
            ValueTemplate::Parts(parts) => parts,
        };
        parts.iter().filter_map(|part| if let TemplatePart::Absent(name) = part { Some(&**name) } else { None })
    }

    /// The value; `None` makes the operation void. `changed` are the headers before the list.
    pub(crate) fn value(&self, changed: &HeaderMap, facts: &TemplateFacts<'_>) -> Option<HeaderValue> {
        match self {
            ValueTemplate::Fixed(value) => value.clone(),
            ValueTemplate::Parts(parts) => {
                let mut text = Vec::new();
                parts.iter().for_each(|part| part.write(&mut text, changed, facts));
                HeaderValue::from_bytes(&text).ok().filter(|value| !value.is_empty())
            }
        }
    }
}

impl TemplatePart {
    /// Appends what the part stands for; nothing if it is not known.
    fn write(&self, text: &mut Vec<u8>, changed: &HeaderMap, facts: &TemplateFacts<'_>) {
        match self {
            TemplatePart::Text(literal) => text.extend_from_slice(literal.as_bytes()),
            TemplatePart::Request(source) => source.write(text, |name| match name {
                ":path" => Some(facts.path.as_bytes()),
                ":authority" | "host" => Some(facts.authority.as_bytes()),
                ":method" => Some(facts.method.as_bytes()),
                ":scheme" => Some(facts.scheme.as_bytes()),
                name => facts.request.unwrap_or(changed).get(name).map(HeaderValue::as_bytes),
            }),
            TemplatePart::Response(source) => {
                let response = facts.request.map(|_| changed);
                source.write(text, |name| response?.get(name).map(HeaderValue::as_bytes));
            }
            TemplatePart::Path { query: true } => text.extend_from_slice(facts.path.as_bytes()),
            TemplatePart::Path { query: false } => {
                text.extend_from_slice(facts.path.split('?').next().unwrap_or_default().as_bytes())
            }
            TemplatePart::QueryParameter(name) => {
                let query = facts.path.split_once('?').map(|(_, query)| query);
                let value = query_parameter(query, name).unwrap_or_default();
                text.extend(percent_encoding::percent_decode_str(value));
            }
            TemplatePart::Protocol => text.extend_from_slice(facts.protocol.as_bytes()),
            TemplatePart::ResponseCode => put(text, facts.response_code),
            TemplatePart::ResponseFlags => text.extend_from_slice(facts.response_flags.as_bytes()),
            TemplatePart::StartTime(format) => put_time(text, facts.start.into(), format.as_deref()),
            TemplatePart::Hostname => text.extend_from_slice(facts.hostname.as_bytes()),
            TemplatePart::UpstreamHost { port } => match (facts.upstream_host, port) {
                (Some(address), true) => put(text, address),
                (Some(address), false) => put(text, address.ip()),
                (None, _) => {}
            },
            TemplatePart::UpstreamPort => {
                if let Some(address) = facts.upstream_host {
                    put(text, address.port());
                }
            }
            TemplatePart::BytesSent => text.push(b'0'),
            TemplatePart::UpstreamCluster { raw } => {
                if let Some(name) = facts.upstream_cluster {
                    put(text, format_args!("{name}{}", if *raw { "" } else { ";" }));
                }
            }
            TemplatePart::Attempts => put(text, facts.attempts),
            TemplatePart::Address { whose, shown } => {
                let address = match whose {
                    Whose::Remote => facts.remote,
                    Whose::DirectRemote => facts.direct_remote,
                    Whose::Local => facts.local,
                };
                match shown {
                    Shown::Whole => put(text, address),
                    Shown::Host => put(text, address.ip()),
                    Shown::Port => put(text, address.port()),
                }
            }
            TemplatePart::RequestedServerName => {
                text.extend_from_slice(facts.server_name.unwrap_or_default().as_bytes())
            }
            TemplatePart::TlsVersion => text.extend_from_slice(facts.tls_version.unwrap_or_default().as_bytes()),
            TemplatePart::TlsCipher => text.extend_from_slice(facts.tls_cipher.unwrap_or_default().as_bytes()),
            TemplatePart::Certificate { whose, part } => {
                let certificate = match whose {
                    Holder::Client => facts.client_certificate,
                    Holder::Server => facts.server_certificate,
                };
                if let Some(certificate) = certificate {
                    part.write(text, certificate);
                }
            }
            TemplatePart::ResponseCodeDetails => text.extend_from_slice(facts.details.as_bytes()),
            TemplatePart::BytesReceived => put(text, facts.received),
            TemplatePart::RouteName => text.extend_from_slice(facts.route_name.as_bytes()),
            TemplatePart::Absent(_) => {}
        }
    }
}

impl CertificatePart {
    fn write(&self, text: &mut Vec<u8>, certificate: &Certificate) {
        let time = |seconds: i64| DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        match self {
            CertificatePart::Subject => text.extend_from_slice(certificate.subject.as_bytes()),
            CertificatePart::Issuer => text.extend_from_slice(certificate.issuer.as_bytes()),
            CertificatePart::Serial => text.extend_from_slice(certificate.serial.as_bytes()),
            CertificatePart::Sha256 => text.extend_from_slice(certificate.sha256.as_bytes()),
            CertificatePart::Sha1 => text.extend_from_slice(certificate.sha1.as_bytes()),
            CertificatePart::Uris => text.extend_from_slice(certificate.uris.join(",").as_bytes()),
            CertificatePart::DnsNames => text.extend_from_slice(certificate.dns.join(",").as_bytes()),
            CertificatePart::Emails => text.extend_from_slice(certificate.emails.join(",").as_bytes()),
            CertificatePart::Addresses => {
                let addresses: Vec<_> = certificate.addresses.iter().map(ToString::to_string).collect();
                text.extend_from_slice(addresses.join(",").as_bytes());
            }
            CertificatePart::Pem => text.extend_from_slice(certificate.escaped_pem.as_bytes()),
            CertificatePart::NotBefore(format) => put_time(text, time(certificate.not_before), format.as_deref()),
            CertificatePart::NotAfter(format) => put_time(text, time(certificate.not_after), format.as_deref()),
        }
    }
}

impl HeaderSource {
    fn write<'a>(&self, text: &mut Vec<u8>, find: impl Fn(&str) -> Option<&'a [u8]>) {
        let value = find(&self.name).or_else(|| self.or_else.as_deref().and_then(&find)).unwrap_or_default();
        let length = self.at_most.map_or(value.len(), |most| most.min(value.len()));
        text.extend_from_slice(value.get(..length).unwrap_or_default());
    }
}

/// Appends a time; the default is RFC 3339 with milliseconds.
fn put_time(text: &mut Vec<u8>, time: DateTime<Utc>, format: Option<&str>) {
    put(text, time.format(format.unwrap_or("%Y-%m-%dT%H:%M:%S%.3fZ")));
}

/// Appends a displayable value; formats that cannot be written leave nothing.
fn put(text: &mut Vec<u8>, value: impl fmt::Display) {
    let mut shown = String::new();
    if write!(shown, "{value}").is_ok() {
        text.extend_from_slice(shown.as_bytes());
    }
}

/// The operator behind a `%`, and what follows its closing `%`. `None`: this is no operator at all.
fn operator(text: &str) -> Option<(Result<TemplatePart, String>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')?;
    let (name, mut rest) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (within, behind) = inside.split_once(')')?;
        argument = Some(within);
        rest = behind;
    }
    let mut at_most = None;
    if let Some(number) = rest.strip_prefix(':') {
        let (digits, behind) = number.split_at_checked(number.find('%')?)?;
        at_most = Some(digits.parse().ok()?);
        rest = behind;
    }
    let rest = rest.strip_prefix('%')?;
    Some((part(name, argument, at_most), rest))
}

fn part(name: &str, argument: Option<&str>, at_most: Option<usize>) -> Result<TemplatePart, String> {
    if let Some(part) = certificate_part(name, argument) {
        return Ok(part);
    }
    let address = |whose, shown| TemplatePart::Address { whose, shown };
    let part = match (name, argument) {
        ("REQ", Some(names)) => TemplatePart::Request(header_source(names, at_most)?),
        ("RESP", Some(names)) => TemplatePart::Response(header_source(names, at_most)?),
        ("PATH", form) => TemplatePart::Path { query: form.is_none_or(|form| !form.starts_with("NQ")) },
        ("QUERY_PARAM", Some(name)) => TemplatePart::QueryParameter(name.into()),
        ("START_TIME", format) => TemplatePart::StartTime(format.filter(|f| !f.is_empty()).map(Into::into)),
        (_, Some(_)) => return known_elsewhere(name, argument),
        ("PROTOCOL", None) => TemplatePart::Protocol,
        ("RESPONSE_CODE", None) => TemplatePart::ResponseCode,
        ("RESPONSE_FLAGS", None) => TemplatePart::ResponseFlags,
        ("HOSTNAME", None) => TemplatePart::Hostname,
        ("UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS", None) => TemplatePart::UpstreamHost { port: true },
        ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", None) => TemplatePart::UpstreamHost { port: false },
        ("UPSTREAM_REMOTE_PORT", None) => TemplatePart::UpstreamPort,
        ("UPSTREAM_CLUSTER", None) => TemplatePart::UpstreamCluster { raw: false },
        ("UPSTREAM_CLUSTER_RAW", None) => TemplatePart::UpstreamCluster { raw: true },
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", None) => TemplatePart::Attempts,
        ("DOWNSTREAM_REMOTE_ADDRESS", None) => address(Whose::Remote, Shown::Whole),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", None) => address(Whose::Remote, Shown::Host),
        ("DOWNSTREAM_REMOTE_PORT", None) => address(Whose::Remote, Shown::Port),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", None) => address(Whose::DirectRemote, Shown::Whole),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", None) => address(Whose::DirectRemote, Shown::Host),
        ("DOWNSTREAM_DIRECT_REMOTE_PORT", None) => address(Whose::DirectRemote, Shown::Port),
        ("DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS", None) => address(Whose::Local, Shown::Whole),
        ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", None) => {
            address(Whose::Local, Shown::Host)
        }
        ("DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT", None) => address(Whose::Local, Shown::Port),
        ("REQUESTED_SERVER_NAME", None) => TemplatePart::RequestedServerName,
        ("DOWNSTREAM_TLS_VERSION", None) => TemplatePart::TlsVersion,
        ("DOWNSTREAM_TLS_CIPHER", None) => TemplatePart::TlsCipher,
        ("RESPONSE_CODE_DETAILS", None) => TemplatePart::ResponseCodeDetails,
        ("BYTES_SENT", None) => TemplatePart::BytesSent,
        ("BYTES_RECEIVED", None) => TemplatePart::BytesReceived,
        ("ROUTE_NAME", None) => TemplatePart::RouteName,
        _ => return known_elsewhere(name, argument),
    };
    Ok(part)
}

/// `DOWNSTREAM_PEER_…` tells of the client's certificate, `DOWNSTREAM_LOCAL_…` of ours.
fn certificate_part(name: &str, form: Option<&str>) -> Option<TemplatePart> {
    let rest = name.strip_prefix("DOWNSTREAM_")?;
    let (whose, name) = match (rest.strip_prefix("PEER_"), rest.strip_prefix("LOCAL_")) {
        (Some(name), _) => (Holder::Client, name),
        (None, Some(name)) => (Holder::Server, name),
        (None, None) => return None,
    };
    let format = form.filter(|format| !format.is_empty()).map(Into::into);
    let part = match (whose, name) {
        (Holder::Client, "CERT_V_START") => CertificatePart::NotBefore(format),
        (Holder::Client, "CERT_V_END") => CertificatePart::NotAfter(format),
        _ if form.is_some() => return None,
        (_, "SUBJECT") => CertificatePart::Subject,
        (_, "URI_SAN") => CertificatePart::Uris,
        (_, "DNS_SAN") => CertificatePart::DnsNames,
        (_, "IP_SAN") => CertificatePart::Addresses,
        (_, "EMAIL_SAN") => CertificatePart::Emails,
        (Holder::Client, "ISSUER") => CertificatePart::Issuer,
        (Holder::Client, "SERIAL") => CertificatePart::Serial,
        (Holder::Client, "FINGERPRINT_256") => CertificatePart::Sha256,
        (Holder::Client, "FINGERPRINT_1") => CertificatePart::Sha1,
        (Holder::Client, "CERT") => CertificatePart::Pem,
        _ => return None,
    };
    Some(TemplatePart::Certificate { whose, part })
}

fn header_source(names: &str, at_most: Option<usize>) -> Result<HeaderSource, String> {
    let (name, or_else) = names.split_once('?').map_or((names, None), |(name, other)| (name, Some(other)));
    let checked = |name: &str| -> Result<Box<str>, String> {
        let plain = name.strip_prefix(':').unwrap_or(name);
        HeaderName::from_bytes(plain.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        Ok(name.to_ascii_lowercase().into())
    };
    Ok(HeaderSource { name: checked(name)?, or_else: or_else.map(checked).transpose()?, at_most })
}

/// Operators of Envoy that have no value here; any other name is an error.
fn known_elsewhere(name: &str, argument: Option<&str>) -> Result<TemplatePart, String> {
    const PLAIN: &[&str] = &[
        "ACCESS_LOG_TYPE",
        "CONNECTION_ID",
        "CONNECTION_TERMINATION_DETAILS",
        "CUSTOM_FLAGS",
        "DOWNSTREAM_DETECTED_CLOSE_TYPE",
        "DOWNSTREAM_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_HEADER_BYTES_SENT",
        "DOWNSTREAM_LOCAL_CLOSE_REASON",
        "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
        "DOWNSTREAM_PEER_CHAIN_SERIALS",
        "DOWNSTREAM_PEER_OTHERNAME_SAN",
        "DOWNSTREAM_TLS_SESSION_ID",
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
        "DOWNSTREAM_WIRE_BYTES_RECEIVED",
        "DOWNSTREAM_WIRE_BYTES_SENT",
        "DURATION",
        "EMIT_TIME",
        "FILTER_CHAIN_NAME",
        "GRPC_STATUS",
        "GRPC_STATUS_NUMBER",
        "LOCAL_REPLY_BODY",
        "REQUEST_DURATION",
        "REQUEST_HEADERS_BYTES",
        "REQUEST_TX_DURATION",
        "RESPONSE_DURATION",
        "RESPONSE_FLAGS_LONG",
        "RESPONSE_HEADERS_BYTES",
        "RESPONSE_TRAILERS_BYTES",
        "RESPONSE_TX_DURATION",
        "ROUNDTRIP_DURATION",
        "STREAM_ID",
        "TLS_JA3_FINGERPRINT",
        "TLS_JA4_FINGERPRINT",
        "TRACE_ID",
        "UNIQUE_ID",
        "UPSTREAM_CONNECTION_ID",
        "UPSTREAM_CONNECTION_POOL_READY_DURATION",
        "UPSTREAM_DETECTED_CLOSE_TYPE",
        "UPSTREAM_HEADER_BYTES_RECEIVED",
        "UPSTREAM_HEADER_BYTES_SENT",
        "UPSTREAM_HOST_NAME",
        "UPSTREAM_HOST_NAME_WITHOUT_PORT",
        "UPSTREAM_LOCAL_ADDRESS",
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "UPSTREAM_LOCAL_CLOSE_REASON",
        "UPSTREAM_LOCAL_DNS_SAN",
        "UPSTREAM_LOCAL_IP_SAN",
        "UPSTREAM_LOCAL_PORT",
        "UPSTREAM_LOCAL_SUBJECT",
        "UPSTREAM_LOCAL_URI_SAN",
        "UPSTREAM_PEER_CERT",
        "UPSTREAM_PEER_CERT_V_END",
        "UPSTREAM_PEER_CERT_V_START",
        "UPSTREAM_PEER_DNS_SAN",
        "UPSTREAM_PEER_IP_SAN",
        "UPSTREAM_PEER_ISSUER",
        "UPSTREAM_PEER_SUBJECT",
        "UPSTREAM_PEER_URI_SAN",
        "UPSTREAM_PROTOCOL",
        "UPSTREAM_TLS_CIPHER",
        "UPSTREAM_TLS_SESSION_ID",
        "UPSTREAM_TLS_VERSION",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        "UPSTREAM_WIRE_BYTES_RECEIVED",
        "UPSTREAM_WIRE_BYTES_SENT",
        "VIRTUAL_CLUSTER_NAME",
    ];
    const WITH_ARGUMENT: &[&str] = &[
        "CLUSTER_METADATA",
        "COMMON_DURATION",
        "DYNAMIC_METADATA",
        "EMIT_TIME",
        "ENVIRONMENT",
        "FILTER_STATE",
        "GRPC_STATUS",
        "METADATA",
        "TRAILER",
        "UPSTREAM_FILTER_STATE",
        "UPSTREAM_METADATA",
        "UPSTREAM_PEER_CERT_V_END",
        "UPSTREAM_PEER_CERT_V_START",
    ];
    let known = if argument.is_some() { WITH_ARGUMENT.contains(&name) } else { PLAIN.contains(&name) };
    if known { Ok(TemplatePart::Absent(name.into())) } else { Err(format!("`%{name}%` is no operator")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn facts<'a>(path: &'a str) -> TemplateFacts<'a> {
        TemplateFacts {
            request: None,
            method: "GET",
            scheme: "http",
            authority: "a.com:80",
            path,
            response_code: 0,
            response_flags: "-".into(),
            protocol: "HTTP/1.1",
            start: SystemTime::UNIX_EPOCH,
            remote: SocketAddr::from(([9, 9, 9, 9], 0)),
            direct_remote: SocketAddr::from(([127, 0, 0, 1], 5000)),
            local: SocketAddr::from(([127, 0, 0, 1], 80)),
            server_name: None,
            tls_version: None,
            tls_cipher: None,
            client_certificate: None,
            server_certificate: None,
            hostname: "me",
            upstream_host: None,
            upstream_cluster: Some("outbound|80||a.test"),
            attempts: 1,
            route_name: "rule",
            details: "via_upstream",
            received: 5,
        }
    }

    #[test]
    fn operators_tell_what_is_known() {
        let headers: HeaderMap = [("x-a", "abcdef"), ("x-a", "two")]
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .into_iter()
            .collect();
        let own = Certificate {
            subject: "CN=own".into(),
            dns: vec!["a.test".into(), "b.test".into()],
            ..Certificate::default()
        };
        let facts = TemplateFacts { server_certificate: Some(&own), ..facts("/p?q=a%20b") };
        for (text, expected) in [
            ("%REQ(x-a)%", Some("abcdef")),
            ("%REQ(X-A):3%", Some("abc")),
            ("%REQ(x-none?x-a)%", Some("abcdef")),
            ("%REQ(x-none)%", None),
            ("<%REQ(x-none)%>", Some("<>")),
            ("<%RESP(x-a)%>", Some("<>")),
            ("", None),
            ("100%%", Some("100%")),
            ("%REQ(:AUTHORITY)% %REQ(:PATH)% %PATH(NQ)%", Some("a.com:80 /p?q=a%20b /p")),
            ("%QUERY_PARAM(q)%", Some("a b")),
            ("%RESPONSE_CODE%", Some("0")),
            ("%UPSTREAM_HOST%", None),
            ("%UPSTREAM_CLUSTER%", Some("outbound|80||a.test;")),
            ("%START_TIME%", Some("1970-01-01T00:00:00.000Z")),
            ("a%START_TIME(-)%b", Some("a-b")),
            ("%START_TIME(%%)%", Some("%")),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Some("9.9.9.9")),
            ("%RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%", Some("via_upstream 5 0")),
            ("%DOWNSTREAM_DIRECT_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_PORT%", Some("127.0.0.1:80 80")),
            ("%UPSTREAM_REMOTE_PORT%%UPSTREAM_TLS_CIPHER%%TRACE_ID%%EMIT_TIME(%s)%%GRPC_STATUS_NUMBER%", None),
            ("%DOWNSTREAM_PEER_SUBJECT%", None),
            ("%DOWNSTREAM_LOCAL_SUBJECT% %DOWNSTREAM_LOCAL_DNS_SAN%", Some("CN=own a.test,b.test")),
            ("%DOWNSTREAM_PEER_CERT_V_END(%Y)%", None),
        ] {
            let value = ValueTemplate::parse(text).unwrap().value(&headers, &facts);
            assert_eq!(value.as_ref().map(|v| v.to_str().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_operator_is_an_error() {
        for bad in ["100%", "%REQ(x", "%NOPE%", "%REQ_WITHOUT_QUERY(:PATH)%", "%REQ()%", "a\nb", "%PREFIX()%"] {
            assert!(ValueTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
