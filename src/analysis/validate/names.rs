//! Is a name, label, address or duration well formed? Istio's and Kubernetes' rules (pkg/config/validation).

use std::net::IpAddr;
use std::time::Duration;

use crate::base::cidr::Cidr;
use crate::resource::meta::Labels;
use crate::resource::networking::GoDuration;

/// RFC 1123 label in any case, at most 63 bytes.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_edged(text, |b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Whether all bytes are allowed and the first and last are letters or digits.
fn is_edged(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| allowed(*byte))
}

/// A name of labels; the last may be empty (`istio.io.`) but not all digits.
pub(super) fn check_fqdn(name: &str) -> Result<(), String> {
    check_length(name)?;
    check_labels(name, name)
}

/// As `check_fqdn`, but the first label may be or begin with `*`.
pub(super) fn check_wildcard_domain(name: &str) -> Result<(), String> {
    check_length(name)?;
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let label = first.strip_prefix("*-").or_else(|| first.strip_prefix('*')).unwrap_or(first);
    if first != "*" && !is_dns_label(label) {
        return Err(format!("`{name}` is no host name: the part `{first}` is wrong"));
    }
    rest.map_or(Ok(()), |rest| check_labels(name, rest))
}

/// As `check_wildcard_domain`, and names of Istio's own SNI form: `outbound_.<port>_.<subset>_.<host>`.
pub(super) fn check_gateway_domain(name: &str) -> Result<(), String> {
    let inner = name.strip_prefix("outbound_.").and_then(|rest| {
        let (port, rest) = rest.split_once("_.")?;
        let (subset, host) = rest.split_once("_.")?;
        let good = port.bytes().all(|b| b.is_ascii_digit()) && (subset.is_empty() || is_dns_label(subset));
        good.then_some(host)
    });
    match inner {
        Some(host) => check_fqdn(host),
        None => check_wildcard_domain(name),
    }
}

fn check_length(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("a host name cannot be empty".into()),
        1..=255 => Ok(()),
        _ => Err(format!("`{name}` is longer than 255 bytes")),
    }
}

fn check_labels(name: &str, labels: &str) -> Result<(), String> {
    let last = labels.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{name}` is no host name: its last part cannot be a number"));
    }
    let labels = labels.strip_suffix('.').unwrap_or(labels);
    match labels.split('.').find(|label| !is_dns_label(label)) {
        Some(wrong) => Err(format!("`{name}` is no host name: the part `{wrong}` is wrong")),
        None => Ok(()),
    }
}

/// Whether `text` is an IPv4 or IPv6 address.
pub(super) fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An address or a range.
pub(super) fn check_subnet(text: &str) -> Result<(), String> {
    text.parse::<Cidr>().map(|_| ())
}

/// What follows `unix://`: an absolute path or an abstract name.
pub(super) fn check_unix_path(path: &str) -> Result<(), String> {
    match path {
        "" => Err("the unix socket has no path".into()),
        path if path.starts_with('@') => Ok(()),
        path if path.starts_with('/') && !path.ends_with('/') => Ok(()),
        path => Err(format!("the unix socket `{path}` has to be the absolute path of a file, or begin with @")),
    }
}

/// Kubernetes labels: keys with an optional prefix, values of at most 63 bytes.
pub(super) fn check_labels_of(labels: &Labels) -> Result<(), String> {
    for (key, value) in labels {
        check_label_key(key)?;
        if !is_label_value(value) {
            return Err(format!("`{value}` is no label value"));
        }
    }
    Ok(())
}

fn check_label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(prefix) = prefix {
        check_fqdn(prefix)?;
    }
    if name.len() <= 63 && is_edged(name, is_label_byte) { Ok(()) } else { Err(format!("`{key}` is no label name")) }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || value.len() <= 63 && is_edged(value, is_label_byte)
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// A selector has real keys and no wildcards.
pub(super) fn check_selector(labels: &Labels) -> Result<(), String> {
    for (key, value) in labels {
        if key.is_empty() {
            return Err("a selector's label name cannot be empty".into());
        }
        if key.contains('*') || value.contains('*') {
            return Err(format!("a selector has no wildcards: `{key}={value}`"));
        }
    }
    Ok(())
}

/// A plain name of a header: letters, digits, `-` and `_`.
pub(super) fn check_header_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a header needs a name".into()),
        name if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) => Ok(()),
        name => Err(format!("`{name}` is no header name")),
    }
}

/// At least a millisecond, and whole milliseconds.
pub(super) fn check_duration(duration: GoDuration) -> Result<(), String> {
    if duration.0 < Duration::from_millis(1) {
        return Err("a duration has to be at least 1ms".into());
    }
    if !duration.0.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("a duration has to be a whole number of milliseconds".into());
    }
    Ok(())
}

/// 1 to 65535.
pub(super) fn check_port(port: u32) -> Result<(), String> {
    if (1..=65_535).contains(&port) { Ok(()) } else { Err(format!("the port {port} is not between 1 and 65535")) }
}

/// Istio's protocol names, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tls,
    Tcp,
}

/// What a protocol name means; `None` if there is no such protocol.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "HTTP_PROXY" | "GRPC" | "GRPC-WEB" => Some(Protocol::Http),
        "HTTPS" | "TLS" => Some(Protocol::Tls),
        "TCP" | "UDP" | "MONGO" | "REDIS" | "MYSQL" | "HBONE" | "DOUBLEHBONE" => Some(Protocol::Tcp),
        _ => None,
    }
}

/// Each value once; `*` and `~` alone.
pub(super) fn check_export_to(namespaces: &[String], own: &str, none_allowed: bool) -> Result<(), String> {
    let mut seen = Vec::new();
    for name in namespaces {
        let name = if name == "." { own } else { name };
        if seen.contains(&name) {
            return Err(format!("exportTo names `{name}` twice"));
        }
        seen.push(name);
        match name {
            "*" => {}
            "~" if none_allowed => {}
            "~" => return Err("exportTo cannot be `~` here".into()),
            name if is_dns_label(name) => {}
            name => return Err(format!("exportTo: `{name}` is no namespace")),
        }
    }
    let alone = |word: &str| seen.contains(&word) && seen.len() > 1;
    if alone("*") || alone("~") {
        return Err("exportTo: `*` and `~` stand alone".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_istio() {
        for good in ["a", "a.b-c.com", "istio.io.", "*.a.com", "*a.com", "*-a.com", "*", "1.a"] {
            assert_eq!(check_wildcard_domain(good), Ok(()), "{good}");
        }
        for bad in ["", "a..b", "-a.com", "a.*.com", "10.0.0.1", "a b", "*.*.com", "**.com"] {
            assert!(check_wildcard_domain(bad).is_err(), "{bad}");
        }
    }
}
