//! How is one value of a record written? As text, or as JSON with its type.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Timelike};

use super::flags::ResponseFlags;

/// What an operator stands for in one record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Not known: `-`, or `null`.
    Absent,
    Text(&'a [u8]),
    /// A reason: spaces become `_`.
    Detail(&'a str),
    Number(u64),
    /// A number that is a text in JSON.
    NumberText(u64),
    Address(SocketAddr),
    /// An address without its port.
    Host(SocketAddr),
    /// Short names; `-` for none, also in JSON.
    Flags(ResponseFlags),
    FlagsLong(ResponseFlags),
    /// RFC 3339 in UTC with milliseconds.
    Time(SystemTime),
    /// `outbound|80||a;`: a text with one more byte.
    Ended(&'a str, u8),
    /// Several texts with `,` between them.
    Joined(&'a [String]),
    Made(String),
}

impl<'a> Value<'a> {
    /// An empty text is an absent one.
    pub(super) fn text(text: &'a [u8]) -> Self {
        if text.is_empty() { Value::Absent } else { Value::Text(text) }
    }

    /// As `text`, for reasons.
    pub(super) fn detail(text: &'a str) -> Self {
        if text.is_empty() { Value::Absent } else { Value::Detail(text) }
    }

    pub(super) fn number(number: Option<u64>) -> Self {
        number.map_or(Value::Absent, Value::Number)
    }

    /// Whole milliseconds.
    pub(super) fn milliseconds(duration: Duration) -> Self {
        Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Appends the text; false if there is none. Header values are written raw, as Envoy does.
    pub(super) fn write_text(&self, line: &mut Vec<u8>) -> bool {
        match self {
            Value::Absent => return false,
            Value::Text(text) => line.extend_from_slice(text),
            Value::Detail(text) => line.extend(text.bytes().map(|byte| if byte == b' ' { b'_' } else { byte })),
            Value::Number(number) | Value::NumberText(number) => push_number(line, *number),
            Value::Address(address) => push_address(line, *address),
            Value::Host(address) => push_host(line, *address),
            Value::Flags(flags) => push_flags(line, *flags, super::flags::Flag::name),
            Value::FlagsLong(flags) => push_flags(line, *flags, super::flags::Flag::long_name),
            Value::Time(time) => push_time(line, *time),
            Value::Ended(text, end) => {
                line.extend_from_slice(text.as_bytes());
                line.push(*end);
            }
            Value::Joined(texts) => {
                for (place, text) in texts.iter().enumerate() {
                    if place > 0 {
                        line.push(b',');
                    }
                    line.extend_from_slice(text.as_bytes());
                }
            }
            Value::Made(text) => line.extend_from_slice(text.as_bytes()),
        }
        true
    }

    /// Appends the value as JSON: numbers as numbers, `null` for what is absent.
    pub(super) fn write_json(&self, line: &mut Vec<u8>) {
        match self {
            Value::Absent => line.extend_from_slice(b"null"),
            Value::Number(number) => push_number(line, *number),
            _ => {
                line.push(b'"');
                self.write_json_text(line);
                line.push(b'"');
            }
        }
    }

    /// Appends the value as a part of a JSON text; false if it is absent.
    pub(super) fn write_json_text(&self, line: &mut Vec<u8>) -> bool {
        match self {
            Value::Text(text) => push_json(line, text),
            Value::Made(text) => push_json(line, text.as_bytes()),
            Value::Joined(texts) => push_json(line, texts.join(",").as_bytes()),
            Value::Detail(text) if text.contains(' ') => push_json(line, text.replace(' ', "_").as_bytes()),
            Value::Detail(text) => push_json(line, text.as_bytes()),
            Value::Ended(text, end) => {
                push_json(line, text.as_bytes());
                line.push(*end);
            }
            plain => return plain.write_text(line),
        }
        true
    }
}

fn push_flags(line: &mut Vec<u8>, flags: ResponseFlags, name: impl Fn(super::flags::Flag) -> &'static str) {
    if flags.is_empty() {
        line.push(b'-');
    }
    for (place, flag) in flags.iter().enumerate() {
        if place > 0 {
            line.push(b',');
        }
        line.extend_from_slice(name(flag).as_bytes());
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

fn push_address(line: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(_) => {
            push_host(line, address);
            line.push(b':');
            push_number(line, address.port().into());
        }
        // Writing to memory cannot fail.
        SocketAddr::V6(v6) => _ = write!(line, "{v6}"),
    }
}

fn push_host(line: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            for (place, octet) in v4.ip().octets().into_iter().enumerate() {
                if place > 0 {
                    line.push(b'.');
                }
                push_number(line, octet.into());
            }
        }
        // Writing to memory cannot fail.
        SocketAddr::V6(v6) => _ = write!(line, "{}", v6.ip()),
    }
}

/// Appends the inside of a JSON text. Bytes that are no UTF-8 become U+FFFD, so that the line stays JSON.
pub(super) fn push_json(line: &mut Vec<u8>, text: &[u8]) {
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
