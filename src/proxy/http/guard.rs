//! Is this HTTP/1 head one that nobody can read in two ways? Judged on the raw bytes, before any parser.
//!
//! Stricter than Envoy where a request could be understood differently by a backend (RFC 9112 2.2, 3.2, 5, 6.3): bare
//! line feeds, folded lines, two Host fields and control bytes are refused.

use std::ops::Range;

/// Why a head is refused. `fail` turns it into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Anything that is no HTTP/1.1.
    Malformed,
    /// More bytes or fields than allowed.
    TooLarge,
    /// Both Content-Length and Transfer-Encoding.
    AmbiguousLength,
    /// A header name holds `_`, and the settings allow none.
    Underscore,
    /// A transfer coding other than exactly `chunked`.
    UnknownCoding,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    MissingHost,
    /// The method QUERY, which Envoy refuses by name.
    Query,
    /// A Host that names no host.
    BadHost,
    /// `https://` in the target of a plaintext request.
    SchemeMismatch,
    /// A target of `*` or of CONNECT, which no route serves.
    NoRoute,
    /// The head did not come in time.
    TooSlow,
}

/// What a good head says, as far as it has to be known before it is parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub http10: bool,
    /// Bytes of the head.
    pub length: usize,
    /// For a target in absolute form: where its authority and its path stand.
    pub absolute: Option<(Range<usize>, Range<usize>)>,
}

/// Judges a whole head, with the empty line at its end.
pub(super) fn judge(head: &[u8], max_headers: usize, tls: bool) -> Result<Judged, Refusal> {
    let mut lines = Lines { head, at: 0 };
    let first = lines.next_line()?.ok_or(Refusal::Malformed)?;
    let mut judged = Judged { length: head.len(), ..Judged::default() };
    request_line(head, first, tls, &mut judged)?;
    let mut fields = Fields::default();
    while let Some(line) = lines.next_line()? {
        fields.count += 1;
        if fields.count > max_headers {
            return Err(Refusal::TooLarge);
        }
        field(head.get(line).unwrap_or_default(), &mut fields)?;
    }
    fields.verdict(&judged)?;
    Ok(judged)
}

/// Walks the lines of a head up to the empty one.
struct Lines<'a> {
    head: &'a [u8],
    at: usize,
}

impl Lines<'_> {
    fn next_line(&mut self) -> Result<Option<Range<usize>>, Refusal> {
        let rest = self.head.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or(Refusal::Malformed)?;
        let Some((b'\r', line)) = rest.get(..end).and_then(<[u8]>::split_last) else {
            return Err(Refusal::Malformed);
        };
        let start = self.at;
        self.at += end + 1;
        Ok((!line.is_empty()).then(|| start..start + line.len()))
    }
}

fn request_line(head: &[u8], line: Range<usize>, tls: bool, judged: &mut Judged) -> Result<(), Refusal> {
    let start = line.start;
    let bytes = head.get(line).unwrap_or_default();
    let mut words = bytes.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (version, more) = (words.next(), words.next());
    if more.is_some() || target.is_empty() || !target.iter().all(|byte| (0x21..=0x7e).contains(byte)) {
        return Err(Refusal::Malformed);
    }
    match version {
        Some(b"HTTP/1.1") => {}
        Some(b"HTTP/1.0") => judged.http10 = true,
        None => return Err(Refusal::Version),
        Some(other) if is_version(other) => return Err(Refusal::Version),
        Some(_) => return Err(Refusal::Malformed),
    }
    if method == b"CONNECT" {
        let is_authority = matches!(std::str::from_utf8(target).ok().and_then(|text| text.rsplit_once(':')),
            Some((host, port)) if is_host(host.as_bytes()) && !host.is_empty() && port.parse::<u16>().is_ok());
        return Err(if is_authority { Refusal::NoRoute } else { Refusal::Malformed });
    }
    if method == b"QUERY" {
        return Err(Refusal::Query);
    }
    if !is_known_method(method) {
        return Err(Refusal::Malformed);
    }
    let at = start + method.len() + 1;
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Err(Refusal::NoRoute),
        _ => absolute_form(target, at, tls, judged),
    }
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 9112 3.2.2: the authority of the target replaces the Host field.
fn absolute_form(target: &[u8], at: usize, tls: bool, judged: &mut Judged) -> Result<(), Refusal> {
    let scheme_end = target.windows(3).position(|three| three == b"://").ok_or(Refusal::Malformed)?;
    let (scheme, rest) = target.split_at(scheme_end);
    let rest = rest.get(3..).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"https") && !tls {
        return Err(Refusal::SchemeMismatch);
    }
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Refusal::Malformed);
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let user = authority.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1);
    let host = authority.get(user..).unwrap_or_default();
    if host.is_empty() || !is_host(host) {
        return Err(Refusal::Malformed);
    }
    let begin = at + scheme_end + 3;
    judged.absolute = Some((begin + user..begin + end, begin + end..at + target.len()));
    Ok(())
}

/// What the fields say of framing and of the host.
#[derive(Default)]
struct Fields {
    count: usize,
    hosts: u8,
    lengths: u8,
    codings: u8,
    coding_is_chunked: bool,
}

fn field(line: &[u8], fields: &mut Fields) -> Result<(), Refusal> {
    // A folded line begins with a space, which is no token byte.
    let colon = line.iter().position(|&byte| !is_token(byte)).ok_or(Refusal::Malformed)?;
    let (name, rest) = line.split_at(colon);
    let Some((b':', value)) = rest.split_first() else {
        return Err(Refusal::Malformed);
    };
    if name.is_empty() || value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(Refusal::Malformed);
    }
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => {
            fields.hosts = fields.hosts.saturating_add(1);
            let value = value.trim_ascii();
            if !value.is_empty() && !is_host(value) {
                return Err(Refusal::BadHost);
            }
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            fields.lengths = fields.lengths.saturating_add(1);
            length(value.trim_ascii())?;
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            fields.codings = fields.codings.saturating_add(1);
            fields.coding_is_chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
        _ => {}
    }
    Ok(())
}

impl Fields {
    fn verdict(&self, judged: &Judged) -> Result<(), Refusal> {
        if self.codings > 0 {
            if self.lengths > 0 {
                return Err(Refusal::AmbiguousLength);
            }
            if self.codings > 1 || !self.coding_is_chunked {
                return Err(Refusal::UnknownCoding);
            }
            if judged.http10 {
                return Err(Refusal::Malformed);
            }
        }
        if self.lengths > 1 || self.hosts > 1 {
            return Err(Refusal::Malformed);
        }
        if self.hosts == 0 && judged.absolute.is_none() && !judged.http10 {
            return Err(Refusal::MissingHost);
        }
        Ok(())
    }
}

/// Digits alone (RFC 9110 8.6), within what a signed number holds.
fn length(value: &[u8]) -> Result<(), Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Malformed);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Refusal::Malformed)?;
    digits.parse::<i64>().map(drop).map_err(|_| Refusal::Malformed)
}

/// Whether the text may stand as `host[:port]`: no comma, slash, user, space or open bracket.
pub(super) fn is_host(value: &[u8]) -> bool {
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';')
            || matches!(byte, b'=' | b':' | b'%')
    };
    match value {
        [b':', ..] => false,
        [b'[', rest @ ..] => match rest.iter().position(|&byte| byte == b']') {
            Some(end) => {
                let (address, port) = rest.split_at(end);
                let port = port.get(1..).unwrap_or_default();
                address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'%'))
                    && (port.is_empty() || port.first() == Some(&b':') && port.iter().all(plain))
            }
            None => false,
        },
        _ => value.iter().all(plain),
    }
}

/// RFC 9110 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~'
        )
}

/// The methods that Envoy's HTTP/1 parser knows, CONNECT aside.
fn is_known_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"POST"
            | b"HEAD"
            | b"PUT"
            | b"DELETE"
            | b"PATCH"
            | b"OPTIONS"
            | b"TRACE"
            | b"ACL"
            | b"BIND"
            | b"CHECKOUT"
            | b"COPY"
            | b"LINK"
            | b"LOCK"
            | b"MERGE"
            | b"MKACTIVITY"
            | b"MKCALENDAR"
            | b"MKCOL"
            | b"MOVE"
            | b"MSEARCH"
            | b"NOTIFY"
            | b"PROPFIND"
            | b"PROPPATCH"
            | b"PURGE"
            | b"REBIND"
            | b"REPORT"
            | b"SEARCH"
            | b"SOURCE"
            | b"SUBSCRIBE"
            | b"UNBIND"
            | b"UNLINK"
            | b"UNLOCK"
            | b"UNSUBSCRIBE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(head: &str) -> Option<Refusal> {
        judge(head.as_bytes(), 100, false).err()
    }

    #[test]
    fn ordinary_heads_pass() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
            "GET /a?b=%zz HTTP/1.1\r\nhost:a.com:8080\r\nx: \t caf\u{e9}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
            "PURGE / HTTP/1.1\r\nHost: a:abc\r\nContent-Length: 7\r\n\r\n",
        ] {
            assert_eq!(refusal(head), None, "{head:?}");
        }
    }

    #[test]
    fn odd_heads_are_refused() {
        use Refusal::*;
        let host = "\r\nHost: a\r\n";
        for (line, fields, expected) in [
            ("get / HTTP/1.1", "", Malformed),
            ("M-SEARCH / HTTP/1.1", "", Malformed),
            ("GET  / HTTP/1.1", "", Malformed),
            ("GET / HTTP/1.1 ", "", Malformed),
            ("GET /a b HTTP/1.1", "", Malformed),
            ("GET /\u{1} HTTP/1.1", "", Malformed),
            ("GET /\u{e9} HTTP/1.1", "", Malformed),
            ("GET c/x HTTP/1.1", "", Malformed),
            ("GET * HTTP/1.1", "", Malformed),
            ("OPTIONS * HTTP/1.1", "", NoRoute),
            ("CONNECT a:443 HTTP/1.1", "", NoRoute),
            ("CONNECT a HTTP/1.1", "", Malformed),
            ("GET / HTTP/1.2", "", Version),
            ("GET / HTTP/2.0", "", Version),
            ("GET /", "", Version),
            ("GET / HTTQ/1.1", "", Malformed),
            ("GET https://a/ HTTP/1.1", "", SchemeMismatch),
            ("GET ftp://a/ HTTP/1.1", "", Malformed),
            ("GET http:/// HTTP/1.1", "", Malformed),
            ("GET / HTTP/1.1", "Host: a\r\n", Malformed),
            ("GET / HTTP/1.1", "x : y\r\n", Malformed),
            ("GET / HTTP/1.1", ": y\r\n", Malformed),
            ("GET / HTTP/1.1", "x\r\n", Malformed),
            ("GET / HTTP/1.1", "x: y\r\n z\r\n", Malformed),
            ("GET / HTTP/1.1", "x: y\n", Malformed),
            ("GET / HTTP/1.1", "x: \0\r\n", Malformed),
            ("GET / HTTP/1.1", "x: a\rb\r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: 5\r\nContent-Length: 5\r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: 5, 5\r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: +5\r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: \r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: 9223372036854775808\r\n", Malformed),
            ("GET / HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", AmbiguousLength),
            ("GET / HTTP/1.1", "Transfer-Encoding: chunked, chunked\r\n", UnknownCoding),
            ("GET / HTTP/1.1", "Transfer-Encoding: gzip\r\n", UnknownCoding),
            ("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", UnknownCoding),
            ("GET / HTTP/1.0", "Transfer-Encoding: chunked\r\n", Malformed),
        ] {
            assert_eq!(refusal(&format!("{line}{host}{fields}\r\n")), Some(expected), "{line:?} {fields:?}");
        }
        assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), Some(MissingHost));
        for bad in ["a,b", "a/b", "u@a", "a b", ":abc", "[::1", "[::1]x"] {
            assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n")), Some(BadHost), "{bad}");
        }
        let many = "x: y\r\n".repeat(100);
        assert_eq!(refusal(&format!("GET / HTTP/1.1{host}{many}\r\n")), Some(TooLarge));
    }

    #[test]
    fn an_absolute_target_names_authority_and_path() {
        let head = b"GET http://u@a.com:80/x?y HTTP/1.1\r\n\r\n";
        let (authority, path) = judge(head, 100, false).unwrap().absolute.unwrap();
        assert_eq!((&head[authority], &head[path]), (&b"a.com:80"[..], &b"/x?y"[..]));
    }
}
