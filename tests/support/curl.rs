//! Requests by the real curl.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What curl got; status 0 if there was no answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As curl tells it: `1.1`, `2`.
    pub version: String,
    /// The last head's fields, names in lower case; repeated ones are joined with `, `.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// curl's exit code: 0 is success.
    pub exit: i32,
    pub error: String,
}

impl Answer {
    /// The body's first value; curl shows the trailers of HTTP/2 behind it.
    pub fn json(&self) -> Value {
        let first = serde_json::Deserializer::from_str(&self.body).into_iter().next();
        first.and_then(Result::ok).unwrap_or_else(|| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What the echoing backend got as this header; `None` if it did not get it.
    pub fn seen(&self, name: &str) -> Option<String> {
        self.json()["headers"].get(name).and_then(Value::as_str).map(str::to_owned)
    }

    /// The name of the backend that answered.
    pub fn backend(&self) -> String {
        self.json()["backend"].as_str().unwrap_or_default().to_owned()
    }
}

/// Runs curl on `url`; it gives up after 60 seconds.
pub fn curl(url: &str, arguments: &[&str]) -> Answer {
    let output = Command::new("curl")
        .args(["-sS", "-i", "--http1.1", "--max-time", "60", "--path-as-is", "--noproxy", "*"])
        .args(["-w", "\n%{http_code} %{http_version}"])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, summary) = text.rsplit_once('\n').unwrap_or(("", &text));
    let (status, version) = summary.split_once(' ').unwrap_or(("0", ""));
    let (headers, body) = split(text);
    Answer {
        status: status.parse().unwrap_or(0),
        version: version.to_owned(),
        headers,
        body: body.to_owned(),
        exit: output.status.code().unwrap_or(-1),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The last head (interim ones come before it) and the body.
fn split(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut rest = text;
    let mut headers = BTreeMap::new();
    while rest.starts_with("HTTP/") {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        headers.clear();
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let known: &mut String = headers.entry(name.to_ascii_lowercase()).or_default();
            if !known.is_empty() {
                known.push_str(", ");
            }
            known.push_str(value.trim());
        }
        rest = body;
        if !head.starts_with("HTTP/1.1 1") && !head.starts_with("HTTP/2 1") {
            break;
        }
    }
    (headers, rest)
}
