//! Under which name is a host kept on disk? `*` and `:` are not for file names; everything else is checked.

use std::net::{IpAddr, Ipv6Addr};

/// In place of `*`. No host has an underscore, so no two hosts share a name.
const WILDCARD: &str = "_wildcard.";
/// Before an IPv6 address, whose colons become hyphens.
const IPV6: &str = "_ipv6-";
/// RFC 1035 section 2.3.4.
const LONGEST_HOST: usize = 253;
const LONGEST_LABEL: usize = 63;
/// What file systems take.
const LONGEST_FILE_NAME: usize = 255;

/// The file name for a host: a DNS name, one with `*.` in front, or an IP address. Case does not count. `None` for
/// anything else, whatever it was meant to be.
pub(crate) fn of_host(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("{IPV6}{}", address.to_string().replace(':', "-")),
        });
    }
    let host = host.to_ascii_lowercase();
    let name = match host.strip_prefix("*.") {
        Some(parent) if is_dns_name(parent) => format!("{WILDCARD}{parent}"),
        None if is_dns_name(&host) => host,
        _ => return None,
    };
    (name.len() <= LONGEST_FILE_NAME).then_some(name)
}

/// The host that a file name stands for; `None` if it is the name of no host.
pub(crate) fn to_host(name: &str) -> Option<String> {
    let host = if let Some(parent) = name.strip_prefix(WILDCARD) {
        format!("*.{parent}")
    } else if let Some(address) = name.strip_prefix(IPV6) {
        address.replace('-', ":").parse::<Ipv6Addr>().ok()?.to_string()
    } else {
        name.to_owned()
    };
    (of_host(&host).as_deref() == Some(name)).then_some(host)
}

/// Whether this is a host name that a public certificate may carry (RFC 1123 section 2.1): letters, digits and hyphens,
/// not only digits in its last label.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= LONGEST_HOST && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_names_and_come_back() {
        for (host, name) in [
            ("web.example.com", "web.example.com"),
            ("*.example.com", "_wildcard.example.com"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:db8::1", "_ipv6-2001-db8--1"),
            ("::", "_ipv6---"),
        ] {
            assert_eq!(of_host(host).as_deref(), Some(name), "{host}");
            assert_eq!(to_host(name).as_deref(), Some(host), "{name}");
        }
        assert_eq!(of_host("Web.Example.COM").as_deref(), Some("web.example.com"));
    }

    #[test]
    fn nothing_else_has_a_name() {
        let long = format!("{}.com", "a".repeat(64));
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(59)].join(".");
        for host in [
            "",
            ".",
            "..",
            "../etc/passwd",
            "a/b",
            "a..b",
            ".a",
            "a.",
            "*",
            "*.*.com",
            "a.*.com",
            "*a.com",
            "a_b.com",
            "-a.com",
            "a-.com",
            "a b",
            "a\0b",
            "a\n",
            "1.2.3",
            "1.2.3.4.5",
            "[::1]",
            "_wildcard.com",
            &long,
            "bücher.example",
            &format!("*.{longest}"),
        ] {
            assert_eq!(of_host(host), None, "{host:?}");
        }
        for name in ["_ipv6-x", "_ipv6-0-0-0-0-0-0-0-0", "_wildcard.", "Web.example.com", ".hidden", "_x.com"] {
            assert_eq!(to_host(name), None, "{name}");
        }
    }
}
