//! Is a URL well formed? As far as Go's net/url looks before a fetch: the scheme, and the authority with its port.

/// What a URL begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// As it is written; `None` if there is none.
    pub scheme: Option<&'a str>,
    /// What follows `//`, up to the path.
    pub authority: Option<&'a str>,
}

/// Splits a URL, or a reference without a scheme.
pub(super) fn split(text: &str) -> Result<Url<'_>, String> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a URL has no control characters".into());
    }
    let (scheme, rest) = match text.split_once(':') {
        Some(("", _)) => return Err(format!("`{text}` has no scheme")),
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, text),
    };
    let authority = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    Ok(Url { scheme, authority })
}

fn is_scheme(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// `[user@]host[:port]`.
pub(super) fn check_authority(authority: &str) -> Result<(), String> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let good = user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%".contains(&byte));
            if !good {
                return Err(format!("`{user}@` cannot stand in a URL"));
            }
            host
        }
        None => authority,
    };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"-._~!$&'()*+,;=:%".contains(&byte);
    if !name.bytes().all(good) {
        return Err(format!("`{name}` is no host"));
    }
    match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(format!("`{host}` has no good port")),
    }
}
