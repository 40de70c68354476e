//! Is a record worth a line? Telemetry's `filter.expression`, in CEL over Envoy's attributes.

use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value};
use http::HeaderMap;

use super::record::{Record, RecordKind};

/// Signs that may each nest an expression once more. The library goes down with them, and a thread's stack has an end.
const MOST_SIGNS: usize = 400;

/// An expression that was understood.
#[derive(Clone)]
pub(crate) struct Filter {
    /// As written: tells which attributes are worth being made.
    text: Arc<str>,
    program: Arc<Program>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({})", self.text)
    }
}

static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let signs = text.bytes().filter(|byte| b"+-*/%[({<>=!?:.".contains(byte)).count() + text.matches("in").count();
        if signs > MOST_SIGNS {
            return Err(format!("it has more than {MOST_SIGNS} operators"));
        }
        let program = Program::compile(text).map_err(|error| error.to_string())?;
        Ok(Filter { text: text.into(), program: Arc::new(program) })
    }

    /// Whether it looks at headers.
    pub(super) fn reads_headers(&self) -> bool {
        self.text.contains("headers") || self.text.contains("trailers")
    }

    /// Whether the record is to be written. An expression that fails, or is no boolean, says no.
    pub(crate) fn admits(&self, record: &Record<'_>) -> bool {
        let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
        for (name, make) in ROOTS {
            if self.text.contains(name) {
                let mut attributes = Attributes { filter: &self.text, map: Vec::new() };
                make(record, &mut attributes);
                let map = Map { map: Arc::new(attributes.map.into_iter().collect()) };
                context.add_variable_from_value(name, Value::Map(map));
            }
        }
        matches!(self.program.execute(&context), Ok(Value::Bool(true)))
    }
}

type Make = fn(&Record<'_>, &mut Attributes<'_>);

const ROOTS: [(&str, Make); 10] = [
    ("request", request),
    ("response", response),
    ("connection", connection),
    ("upstream", upstream),
    ("source", source),
    ("destination", destination),
    ("xds", xds),
    ("metadata", |_, _| {}),
    ("filter_state", |_, _| {}),
    ("upstream_filter_state", |_, _| {}),
];

/// The attributes of one root; what the expression never names is not made, and what is not known is not there.
struct Attributes<'a> {
    filter: &'a str,
    map: Vec<(Key, Value)>,
}

impl Attributes<'_> {
    fn put(&mut self, name: &'static str, value: impl FnOnce() -> Option<Value>) {
        if self.filter.contains(name)
            && let Some(value) = value()
        {
            self.map.push((Key::from(name), value));
        }
    }

    /// An empty text is not known.
    fn text(&mut self, name: &'static str, text: &[u8]) {
        self.put(name, || (!text.is_empty()).then(|| shown(text)));
    }

    fn number(&mut self, name: &'static str, number: Option<u64>) {
        self.put(name, || number.map(|number| Value::Int(i64::try_from(number).unwrap_or(i64::MAX))));
    }

    fn headers(&mut self, name: &'static str, headers: Option<&HeaderMap>, pseudo: &[(&'static str, &[u8])]) {
        self.put(name, || {
            let mut map: Vec<(Key, Value)> = Vec::new();
            for name in headers.into_iter().flat_map(HeaderMap::keys) {
                let lines: Vec<&[u8]> =
                    headers.into_iter().flat_map(|all| all.get_all(name)).map(http::HeaderValue::as_bytes).collect();
                map.push((Key::from(name.as_str()), shown(&lines.join(&b","[..]))));
            }
            let known = pseudo.iter().filter(|(_, text)| !text.is_empty());
            map.extend(known.map(|(name, text)| (Key::from(*name), shown(text))));
            Some(Value::Map(Map { map: Arc::new(map.into_iter().collect()) }))
        });
    }

    fn address(&mut self, address: Option<std::net::SocketAddr>) {
        self.put("address", || address.map(|address| Value::String(Arc::new(address.to_string()))));
        self.number("port", address.map(|address| address.port().into()));
    }

    fn duration(&mut self, name: &'static str, duration: Option<std::time::Duration>) {
        self.put(name, || chrono::Duration::from_std(duration?).ok().map(Value::Duration));
    }
}

fn shown(text: &[u8]) -> Value {
    Value::String(Arc::new(String::from_utf8_lossy(text).into_owned()))
}

fn request(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    if record.kind != RecordKind::Http || record.method.is_empty() {
        return;
    }
    let mut parts = record.path.splitn(2, |byte| *byte == b'?');
    attributes.text("path", record.path);
    attributes.text("url_path", parts.next().unwrap_or_default());
    attributes.put("query", || Some(shown(parts.next().unwrap_or_default())));
    attributes.text("host", record.authority);
    attributes.text("scheme", record.scheme.as_bytes());
    attributes.text("method", record.method);
    attributes.text("protocol", record.protocol.as_bytes());
    let header = |name: &str| record.request_headers.and_then(|all| all.get(name)).map_or(&b""[..], |v| v.as_bytes());
    attributes.text("referer", header("referer"));
    attributes.text("useragent", header("user-agent"));
    attributes.text("id", header("x-request-id"));
    let pseudo = [
        (":method", record.method),
        (":path", record.path),
        (":authority", record.authority),
        (":scheme", record.scheme.as_bytes()),
    ];
    attributes.headers("headers", record.request_headers, &pseudo);
    attributes.number("size", Some(record.bytes_received));
    attributes.number("total_size", Some(record.bytes_received + record.head_received));
    attributes.duration("duration", Some(record.duration));
    attributes
        .put("time", || Some(Value::Timestamp(chrono::DateTime::<chrono::Utc>::from(record.start).fixed_offset())));
}

fn response(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    attributes.number("code", Some(u64::from(record.response_code)).filter(|code| *code > 0));
    attributes.text("code_details", record.response_code_details.as_bytes());
    attributes.number("flags", Some(record.flags.bits()));
    attributes.number("grpc_status", record.grpc_status.filter(|_| record.is_grpc).map(u64::from));
    attributes.headers("headers", record.response_headers, &[]);
    attributes.headers("trailers", record.trailers, &[]);
    attributes.number("size", Some(record.bytes_sent));
    attributes.number("total_size", Some(record.bytes_sent + record.head_sent));
    let latency = record.response_time.zip(record.request_time).and_then(|(to, from)| to.checked_sub(from));
    attributes.duration("backend_latency", latency);
}

fn connection(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    let peer = record.tls.and_then(|tls| tls.peer);
    attributes.number("id", Some(record.connection_id));
    attributes.put("mtls", || Some(Value::Bool(peer.is_some())));
    attributes.text("requested_server_name", record.requested_server_name.as_bytes());
    attributes.text("tls_version", record.tls.map_or("", |tls| tls.version).as_bytes());
    attributes.text("termination_details", record.connection_termination_details.as_bytes());
    let peer = peer.unwrap_or_default();
    attributes.text("subject_peer_certificate", peer.subject.as_bytes());
    attributes.text("dns_san_peer_certificate", peer.dns.first().map_or("", String::as_str).as_bytes());
    attributes.text("uri_san_peer_certificate", peer.uris.first().map_or("", String::as_str).as_bytes());
    attributes.text("sha256_peer_certificate_digest", peer.sha256.as_bytes());
}

fn upstream(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    attributes.address(record.upstream_host);
    let local = record.upstream_local_address;
    attributes.put("local_address", || local.map(|address| Value::String(Arc::new(address.to_string()))));
    attributes.text("transport_failure_reason", record.upstream_transport_failure_reason.as_bytes());
    attributes.number("request_attempt_count", Some(record.attempts.into()));
}

fn source(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    attributes.address(record.downstream_remote_address);
}

fn destination(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    attributes.address(record.downstream_local_address);
}

fn xds(record: &Record<'_>, attributes: &mut Attributes<'_>) {
    attributes.text("cluster_name", record.upstream_cluster.as_bytes());
    attributes.text("route_name", record.route_name.as_bytes());
    // Envoy's number for outbound, which is what a gateway's listeners are.
    attributes.number("listener_direction", Some(2));
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{answered, refused};
    use super::*;

    #[test]
    fn expressions_see_envoys_attributes() {
        for (expression, of_answered, of_refused) in [
            ("response.code >= 400", false, true),
            ("response.code < 400 || response.flags != 0", true, true),
            ("!request.path.startsWith('/health') && request.method == 'GET'", true, true),
            ("request.url_path == '/productpage' && request.query == 'u=normal'", true, true),
            ("request.headers['x-none'] == 'yes'", false, false),
            ("request.headers['x-none'] == 'yes' || request.url_path == '/productpage'", true, true),
            ("'x-forwarded-for' in request.headers", true, false),
            ("request.useragent.matches('^curl')", true, false),
            ("connection.mtls || !has(upstream.local_address)", false, true),
            ("response.flags == 32800", false, true),
            ("request.duration > duration('20ms')", true, true),
            ("xds.route_name == 'shop.beta'", false, true),
            ("source.port == 51044 && destination.address == '10.244.0.5:8443'", true, false),
            ("response.code", false, false),
            ("nothing.here == 1", false, false),
        ] {
            let filter = Filter::parse(expression).unwrap();
            assert_eq!(
                (filter.admits(&answered()), filter.admits(&refused())),
                (of_answered, of_refused),
                "{expression}"
            );
        }
        assert!(Filter::parse("response.code >=").is_err());
    }

    #[test]
    fn no_expression_is_too_deep_for_a_thread() {
        for (unit, end) in
            [("1+", "1"), ("-1-", "1"), ("1 in ", "[1]"), ("x[", "0"), ("!", "true"), ("(", "1"), ("a.", "b")]
        {
            for count in [199, 20_000] {
                // What matters is that it comes back.
                let _ = Filter::parse(&(unit.repeat(count) + end)).map(|filter| filter.admits(&answered()));
            }
        }
        let long = Filter::parse(&["response.code == 404"; 60].join(" || ")).unwrap();
        assert!(!long.admits(&refused()), "many alternatives are not deep");
    }
}
