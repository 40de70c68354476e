//! What does an access log line say? Envoy's default formats, as Istio configures them.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Timelike};

use super::flags::ResponseFlags;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Envoy's default text.
    #[default]
    Text,
    /// One object, its keys sorted.
    Json,
}

/// What is known of a request at its end. Empty texts and `None` are shown as `-` (text) or `null` (JSON).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub start: SystemTime,
    pub method: &'a [u8],
    /// With the query; before a rewrite.
    pub path: &'a [u8],
    /// `HTTP/1.1`, `HTTP/2`
    pub protocol: &'a str,
    /// 0 if none was sent.
    pub response_code: u16,
    pub flags: ResponseFlags,
    /// `via_upstream`, or why we answered ourselves.
    pub response_code_details: &'a str,
    pub connection_termination_details: &'a str,
    pub upstream_transport_failure_reason: &'a str,
    /// Bytes of the bodies.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// The answer's x-envoy-upstream-service-time in milliseconds.
    pub upstream_service_time: Option<u64>,
    pub x_forwarded_for: &'a [u8],
    pub user_agent: &'a [u8],
    pub request_id: &'a [u8],
    pub authority: &'a [u8],
    pub upstream_host: Option<SocketAddr>,
    pub upstream_cluster: &'a str,
    pub upstream_local_address: Option<SocketAddr>,
    pub downstream_local_address: Option<SocketAddr>,
    pub downstream_remote_address: Option<SocketAddr>,
    pub requested_server_name: &'a str,
    pub route_name: &'a str,
}

impl Record<'_> {
    /// Appends the line with its end.
    pub(crate) fn write(&self, format: Format, line: &mut Vec<u8>) {
        match format {
            Format::Text => self.write_text(line),
            Format::Json => self.write_json(line),
        }
    }

    fn write_text(&self, line: &mut Vec<u8>) {
        line.push(b'[');
        push_time(line, self.start);
        line.extend_from_slice(b"] \"");
        push_text(line, self.method);
        line.push(b' ');
        push_text(line, self.path);
        line.push(b' ');
        push_text(line, self.protocol.as_bytes());
        line.extend_from_slice(b"\" ");
        push_number(line, self.response_code.into());
        line.push(b' ');
        push_flags(line, self.flags);
        line.push(b' ');
        push_detail(line, self.response_code_details);
        line.push(b' ');
        push_detail(line, self.connection_termination_details);
        line.extend_from_slice(b" \"");
        push_detail(line, self.upstream_transport_failure_reason);
        line.extend_from_slice(b"\" ");
        push_number(line, self.bytes_received);
        line.push(b' ');
        push_number(line, self.bytes_sent);
        line.push(b' ');
        push_number(line, milliseconds(self.duration));
        line.push(b' ');
        match self.upstream_service_time {
            Some(time) => push_number(line, time),
            None => line.push(b'-'),
        }
        for header in [self.x_forwarded_for, self.user_agent, self.request_id, self.authority] {
            line.extend_from_slice(b" \"");
            push_text(line, header);
            line.push(b'"');
        }
        line.extend_from_slice(b" \"");
        push_address(line, self.upstream_host);
        line.extend_from_slice(b"\" ");
        push_text(line, self.upstream_cluster.as_bytes());
        for address in [self.upstream_local_address, self.downstream_local_address, self.downstream_remote_address] {
            line.push(b' ');
            push_address(line, address);
        }
        for name in [self.requested_server_name, self.route_name] {
            line.push(b' ');
            push_text(line, name.as_bytes());
        }
        line.push(b'\n');
    }

    fn write_json(&self, line: &mut Vec<u8>) {
        let mut object = Object { line, first: true };
        object.text("authority", self.authority);
        object.number("bytes_received", self.bytes_received);
        object.number("bytes_sent", self.bytes_sent);
        object.detail("connection_termination_details", self.connection_termination_details);
        object.address("downstream_local_address", self.downstream_local_address);
        object.address("downstream_remote_address", self.downstream_remote_address);
        object.number("duration", milliseconds(self.duration));
        object.text("method", self.method);
        object.text("path", self.path);
        object.text("protocol", self.protocol.as_bytes());
        object.text("request_id", self.request_id);
        object.text("requested_server_name", self.requested_server_name.as_bytes());
        object.number("response_code", self.response_code.into());
        object.detail("response_code_details", self.response_code_details);
        object.quoted("response_flags", |line| push_flags(line, self.flags));
        object.text("route_name", self.route_name.as_bytes());
        object.quoted("start_time", |line| push_time(line, self.start));
        object.text("upstream_cluster", self.upstream_cluster.as_bytes());
        object.address("upstream_host", self.upstream_host);
        object.address("upstream_local_address", self.upstream_local_address);
        match self.upstream_service_time {
            Some(time) => object.quoted("upstream_service_time", |line| push_number(line, time)),
            None => object.null("upstream_service_time"),
        }
        object.detail("upstream_transport_failure_reason", self.upstream_transport_failure_reason);
        object.text("user_agent", self.user_agent);
        object.text("x_forwarded_for", self.x_forwarded_for);
        line.extend_from_slice(b"}\n");
    }
}

/// A JSON object that is being written; the closing brace is left to the caller.
struct Object<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.line.extend_from_slice(if self.first { b"{\"" } else { b",\"" });
        self.first = false;
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.line.extend_from_slice(b"null");
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        push_number(self.line, number);
    }

    fn quoted(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.line.push(b'"');
        write(self.line);
        self.line.push(b'"');
    }

    fn text(&mut self, key: &str, text: &[u8]) {
        if text.is_empty() {
            return self.null(key);
        }
        self.quoted(key, |line| push_json(line, text));
    }

    /// As Envoy tells reasons: without spaces.
    fn detail(&mut self, key: &str, text: &str) {
        if text.contains(' ') {
            return self.text(key, text.replace(' ', "_").as_bytes());
        }
        self.text(key, text.as_bytes());
    }

    fn address(&mut self, key: &str, address: Option<SocketAddr>) {
        match address {
            None => self.null(key),
            Some(_) => self.quoted(key, |line| push_address(line, address)),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Header values are written raw, as Envoy does in text.
fn push_text(line: &mut Vec<u8>, text: &[u8]) {
    line.extend_from_slice(if text.is_empty() { b"-" } else { text });
}

fn push_detail(line: &mut Vec<u8>, text: &str) {
    if text.is_empty() {
        return line.push(b'-');
    }
    line.extend(text.bytes().map(|byte| if byte == b' ' { b'_' } else { byte }));
}

fn push_flags(line: &mut Vec<u8>, flags: ResponseFlags) {
    if flags.is_empty() {
        line.push(b'-');
    }
    for (place, flag) in flags.iter().enumerate() {
        if place > 0 {
            line.push(b',');
        }
        line.extend_from_slice(flag.name().as_bytes());
    }
}

fn push_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(digits.get(first..).unwrap_or_default());
}

fn push_address(line: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        None => line.push(b'-'),
        Some(SocketAddr::V4(v4)) => {
            for (place, octet) in v4.ip().octets().into_iter().enumerate() {
                if place > 0 {
                    line.push(b'.');
                }
                push_number(line, octet.into());
            }
            line.push(b':');
            push_number(line, v4.port().into());
        }
        // Writing to memory cannot fail.
        Some(v6) => _ = write!(line, "{v6}"),
    }
}

/// Bytes that are no UTF-8 become U+FFFD, so that the line stays JSON.
fn push_json(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => line.extend_from_slice(b"\\\""),
                b'\\' => line.extend_from_slice(b"\\\\"),
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                b'\t' => line.extend_from_slice(b"\\t"),
                0..0x20 | 0x7f => _ = write!(line, "\\u{byte:04x}"),
                _ => line.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// `2026-01-02T03:04:05.678Z`; the text of the second is kept for the lines that follow.
fn push_time(line: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        static SECOND: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            text.clear();
            push_second(text, *second);
        }
        line.extend_from_slice(text);
    });
    let millisecond = since.subsec_millis();
    let digit = |number: u32| b'0' + (number % 10) as u8;
    line.extend_from_slice(&[b'.', digit(millisecond / 100), digit(millisecond / 10), digit(millisecond), b'Z']);
}

fn push_second(text: &mut Vec<u8>, second: u64) {
    let time = DateTime::from_timestamp(i64::try_from(second).unwrap_or(i64::MAX), 0).unwrap_or_default();
    // Writing to memory cannot fail.
    let _ = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::flags::Flag;
    use super::*;

    pub(crate) fn answered() -> Record<'static> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_767_323_045_078),
            method: b"GET",
            path: b"/productpage?u=normal",
            protocol: "HTTP/1.1",
            response_code: 200,
            flags: ResponseFlags::default(),
            response_code_details: "via_upstream",
            connection_termination_details: "",
            upstream_transport_failure_reason: "",
            bytes_received: 0,
            bytes_sent: 5183,
            duration: Duration::from_micros(28_900),
            upstream_service_time: Some(27),
            x_forwarded_for: b"10.0.0.9",
            user_agent: b"curl/8.5.0",
            request_id: b"11111111-2222-4333-8444-555555555555",
            authority: b"bookinfo.example.com",
            upstream_host: Some(([10, 244, 0, 12], 9080).into()),
            upstream_cluster: "outbound|9080||productpage.default.svc.cluster.local",
            upstream_local_address: Some(([10, 244, 0, 5], 40712).into()),
            downstream_local_address: Some(([10, 244, 0, 5], 8443).into()),
            downstream_remote_address: Some(([10, 0, 0, 9], 51044).into()),
            requested_server_name: "bookinfo.example.com",
            route_name: "",
        }
    }

    fn refused() -> Record<'static> {
        let mut flags = ResponseFlags::from(Flag::UpstreamRetryLimitExceeded);
        flags.set(Flag::UpstreamConnectionFailure);
        Record {
            response_code: 503,
            flags,
            response_code_details: "upstream_reset_before_response_started{remote connection failure|no way}",
            upstream_transport_failure_reason: "delayed connect error: Connection refused",
            upstream_service_time: None,
            x_forwarded_for: b"",
            user_agent: b"a\"b\\\xff\x01",
            upstream_local_address: None,
            downstream_remote_address: Some("[::1]:0".parse().unwrap()),
            requested_server_name: "",
            route_name: "shop.beta",
            ..answered()
        }
    }

    fn line(record: &Record<'_>, format: Format) -> Vec<u8> {
        let mut line = Vec::new();
        record.write(format, &mut line);
        line
    }

    #[test]
    fn text_lines_are_envoys() {
        let expected = "[2026-01-02T03:04:05.078Z] \"GET /productpage?u=normal HTTP/1.1\" 200 - via_upstream - \"-\" 0 5183 \
            28 27 \"10.0.0.9\" \"curl/8.5.0\" \"11111111-2222-4333-8444-555555555555\" \"bookinfo.example.com\" \
            \"10.244.0.12:9080\" outbound|9080||productpage.default.svc.cluster.local 10.244.0.5:40712 10.244.0.5:8443 \
            10.0.0.9:51044 bookinfo.example.com -\n";
        assert_eq!(String::from_utf8(line(&answered(), Format::Text)).unwrap(), expected);
        let text = line(&refused(), Format::Text);
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(" 503 URX,UF upstream_reset_before_response_started{remote_connection_failure|no_way} - \"delayed_connect_error:_Connection_refused\" "), "{text}");
        assert!(text.ends_with(" - 10.244.0.5:8443 [::1]:0 - shop.beta\n"), "{text}");
    }

    #[test]
    fn json_lines_are_typed_sorted_and_always_json() {
        let text = line(&answered(), Format::Json);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted() && keys.len() == 24, "{keys:?}");
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["duration"], 28);
        assert_eq!(value["upstream_service_time"], "27");
        assert_eq!(value["response_flags"], "-");
        assert_eq!(value["route_name"], serde_json::Value::Null);
        assert_eq!(value["start_time"], "2026-01-02T03:04:05.078Z");
        let value: serde_json::Value = serde_json::from_slice(&line(&refused(), Format::Json)).unwrap();
        assert_eq!(value["user_agent"], "a\"b\\\u{fffd}\u{1}");
        assert_eq!(value["response_flags"], "URX,UF");
        assert_eq!(value["upstream_transport_failure_reason"], "delayed_connect_error:_Connection_refused");
    }
}
