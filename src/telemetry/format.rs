//! How is a record written as a line? A format is a list of operators, or a JSON tree of them, made once.

use http::HeaderName;
use serde_json::{Map, Value as Json};

use super::filter::Filter;
use super::operator::{Operator, Wanted};
use super::record::Record;
use super::value::push_json;

/// Istio's default text.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's default keys of JSON.
const KEYS: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// A format that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogFormat {
    shape: Shape,
    /// Absent values are nothing in place of `-`, and absent keys in JSON.
    omit_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Text(Vec<Operator>),
    Json(Node),
}

/// A value of a JSON format.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// As it is written.
    Raw(Box<[u8]>),
    /// One operator alone keeps its type.
    One(Operator),
    /// A text of several.
    Text(Vec<Operator>),
    /// `"key":` and the value, in the order of keys.
    Object(Vec<(Box<[u8]>, Node)>),
    List(Vec<Node>),
}

impl LogFormat {
    /// A line of text with operators; the empty text is Istio's default. The end of the line is added if it is missing.
    ///
    /// # Errors
    ///
    /// What is no operator, in words.
    pub(crate) fn text(template: &str, omit_empty: bool) -> Result<Self, String> {
        let template = if template.is_empty() { TEXT } else { template };
        let end = if template.ends_with('\n') { "" } else { "\n" };
        let operators = Operator::parse_all(&format!("{template}{end}"))?;
        Ok(LogFormat { shape: Shape::Text(operators), omit_empty })
    }

    /// A JSON object whose texts hold operators; the empty object is Istio's default.
    ///
    /// # Errors
    ///
    /// What is no operator, in words.
    pub(crate) fn json(fields: &Map<String, Json>, omit_empty: bool) -> Result<Self, String> {
        let shape = match fields.is_empty() {
            true => object(KEYS.into_iter().map(|(key, text)| (key, Json::from(text))))?,
            false => object(fields.iter().map(|(key, value)| (key.as_str(), value.clone())))?,
        };
        Ok(LogFormat { shape: Shape::Json(shape), omit_empty })
    }

    /// Istio's default text.
    pub(crate) fn default_text() -> Self {
        LogFormat::text("", false).unwrap_or_else(|_| LogFormat::nothing())
    }

    /// Istio's default JSON.
    pub(crate) fn default_json() -> Self {
        LogFormat::json(&Map::new(), false).unwrap_or_else(|_| LogFormat::nothing())
    }

    /// Stands in for a default that could not be read, which cannot happen.
    fn nothing() -> Self {
        LogFormat { shape: Shape::Text(Vec::new()), omit_empty: true }
    }

    /// Appends the line with its end.
    pub(crate) fn write(&self, record: &Record<'_>, line: &mut Vec<u8>) {
        match &self.shape {
            Shape::Text(operators) => {
                for operator in operators {
                    if !operator.value(record).write_text(line) && !self.omit_empty {
                        line.push(b'-');
                    }
                }
            }
            Shape::Json(node) => {
                if !node.write(record, self.omit_empty, line) {
                    line.extend_from_slice(b"{}");
                }
                line.push(b'\n');
            }
        }
    }

    /// The headers that the format looks at.
    pub(super) fn needs(&self, needs: &mut Needs) {
        let mut operators = Vec::new();
        match &self.shape {
            Shape::Text(all) => operators.extend(all),
            Shape::Json(node) => node.operators(&mut operators),
        }
        needs.moments |= operators.iter().any(|operator| operator.is_span());
        for wanted in operators.into_iter().flat_map(Operator::wanted) {
            needs.add(wanted);
        }
    }
}

impl Node {
    fn of(value: Json) -> Result<Node, String> {
        Ok(match value {
            Json::String(text) => {
                let mut operators = Operator::parse_all(&text)?;
                match (operators.len(), operators.pop()) {
                    (1, Some(one)) => Node::One(one),
                    (_, Some(last)) => {
                        operators.push(last);
                        Node::Text(operators)
                    }
                    (_, None) => Node::Raw(b"\"\"".as_slice().into()),
                }
            }
            Json::Object(fields) => object(fields)?,
            Json::Array(items) => Node::List(items.into_iter().map(Node::of).collect::<Result<_, _>>()?),
            literal => Node::Raw(literal.to_string().into_bytes().into()),
        })
    }

    /// Appends the value; false, and nothing appended, if it is to be omitted.
    fn write(&self, record: &Record<'_>, omit_empty: bool, line: &mut Vec<u8>) -> bool {
        let before = line.len();
        match self {
            Node::Raw(text) => line.extend_from_slice(text),
            Node::One(operator) => {
                let value = operator.value(record);
                if omit_empty && value == super::value::Value::Absent {
                    return false;
                }
                value.write_json(line);
            }
            Node::Text(operators) => {
                line.push(b'"');
                for operator in operators {
                    if !operator.value(record).write_json_text(line) && !omit_empty {
                        line.push(b'-');
                    }
                }
                line.push(b'"');
                if omit_empty && line.len() == before + 2 {
                    line.truncate(before);
                    return false;
                }
            }
            Node::Object(fields) => {
                line.push(b'{');
                let mut first = true;
                for (key, value) in fields {
                    let start = line.len();
                    if !first {
                        line.push(b',');
                    }
                    line.extend_from_slice(key);
                    if value.write(record, omit_empty, line) {
                        first = false;
                    } else {
                        line.truncate(start);
                    }
                }
                if first && omit_empty {
                    line.truncate(before);
                    return false;
                }
                line.push(b'}');
            }
            Node::List(items) => {
                line.push(b'[');
                let mut first = true;
                for item in items {
                    let start = line.len();
                    if !first {
                        line.push(b',');
                    }
                    if item.write(record, omit_empty, line) {
                        first = false;
                    } else {
                        line.truncate(start);
                    }
                }
                line.push(b']');
            }
        }
        true
    }

    fn operators<'a>(&'a self, all: &mut Vec<&'a Operator>) {
        match self {
            Node::Raw(_) => {}
            Node::One(operator) => all.push(operator),
            Node::Text(operators) => all.extend(operators),
            Node::Object(fields) => fields.iter().for_each(|(_, value)| value.operators(all)),
            Node::List(items) => items.iter().for_each(|item| item.operators(all)),
        }
    }
}

fn object<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Json)>) -> Result<Node, String> {
    let mut all = Vec::new();
    for (key, value) in fields {
        let mut written = vec![b'"'];
        push_json(&mut written, key.as_ref().as_bytes());
        written.extend_from_slice(b"\":");
        all.push((written.into_boxed_slice(), Node::of(value)?));
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Node::Object(all))
}

/// Which headers have to be kept until a record is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    trailers: Vec<HeaderName>,
    /// Every header, for filters.
    all: bool,
    /// When the request ended and the answer began.
    moments: bool,
    /// A request header that only the copy sent to the endpoint has.
    of_router: bool,
}

/// Request headers that are set on the way to the endpoint, whatever the rule says.
const OF_ROUTER: [&str; 7] = [
    "grpc-timeout",
    "te",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-original-host",
    "x-forwarded-host",
];

impl Needs {
    fn add(&mut self, wanted: Wanted<'_>) {
        let (list, name) = match wanted {
            Wanted::Request(name) => {
                self.of_router |= OF_ROUTER.contains(&name.as_str());
                (&mut self.request, name)
            }
            Wanted::Response(name) => (&mut self.response, name),
            Wanted::Trailer(name) => (&mut self.trailers, name),
        };
        if !list.contains(name) {
            list.push(name.clone());
        }
    }

    /// What a filter may look at.
    pub(super) fn add_filter(&mut self, filter: &Filter) {
        self.moments = true;
        self.all |= filter.reads_headers();
        self.of_router |= filter.reads_headers();
    }

    /// Whether it matters when the request ended and the answer began.
    pub(crate) fn moments(&self) -> bool {
        self.moments
    }

    /// What to keep of a request's headers as they are sent; `changed`: the rule has operations on them.
    pub(crate) fn of_request(&self, headers: &http::HeaderMap, changed: bool) -> Option<http::HeaderMap> {
        if self.of_router || changed { self.keep(&self.request, headers) } else { None }
    }

    /// What to keep of an answer's headers.
    pub(crate) fn of_response(&self, headers: &http::HeaderMap) -> Option<http::HeaderMap> {
        self.keep(&self.response, headers)
    }

    /// What to keep of an answer's trailers.
    pub(crate) fn of_trailers(&self, trailers: &http::HeaderMap) -> Option<http::HeaderMap> {
        self.keep(&self.trailers, trailers)
    }

    fn keep(&self, names: &[HeaderName], headers: &http::HeaderMap) -> Option<http::HeaderMap> {
        if self.all {
            return Some(headers.clone());
        }
        if names.is_empty() {
            return None;
        }
        let found = names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        Some(found.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{answered, refused};
    use super::super::record::{CertificateRecord, RecordKind, TlsRecord};
    use super::*;

    fn line(format: &LogFormat, record: &Record<'_>) -> String {
        let mut line = Vec::new();
        format.write(record, &mut line);
        String::from_utf8_lossy(&line).into_owned()
    }

    fn text(template: &str, record: &Record<'_>) -> String {
        line(&LogFormat::text(template, false).unwrap(), record)
    }

    fn json(template: &str, omit_empty: bool, record: &Record<'_>) -> String {
        line(&LogFormat::json(&serde_json::from_str(template).unwrap(), omit_empty).unwrap(), record)
    }

    #[test]
    fn the_default_text_is_istios() {
        let expected = "[2026-01-02T03:04:05.078Z] \"GET /productpage?u=normal HTTP/1.1\" 200 - via_upstream - \"-\" 0 5183 \
            28 27 \"10.0.0.9\" \"curl/8.5.0\" \"11111111-2222-4333-8444-555555555555\" \"bookinfo.example.com\" \
            \"10.244.0.12:9080\" outbound|9080||productpage.default.svc.cluster.local 10.244.0.5:40712 10.244.0.5:8443 \
            10.0.0.9:51044 bookinfo.example.com -\n";
        assert_eq!(text("", &answered()), expected);
        let text = text("", &refused());
        assert!(text.contains(" 503 URX,UF upstream_reset_before_response_started{remote_connection_failure|no_way} - \"delayed_connect_error:_Connection_refused\" "), "{text}");
        assert!(text.ends_with(" - 10.244.0.5:8443 [::1]:0 - shop.beta\n"), "{text}");
    }

    #[test]
    fn the_default_json_is_typed_sorted_and_always_json() {
        let text = json("{}", false, &answered());
        let value: Json = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted() && keys.len() == 24, "{keys:?}");
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["duration"], 28);
        assert_eq!(value["upstream_service_time"], "27");
        assert_eq!(value["response_flags"], "-");
        assert_eq!(value["route_name"], Json::Null);
        assert_eq!(value["start_time"], "2026-01-02T03:04:05.078Z");
        let value: Json = serde_json::from_str(&json("{}", false, &refused())).unwrap();
        assert_eq!(value["user_agent"], "a\"b\\\u{fffd}\t");
        assert_eq!(value["response_flags"], "URX,UF");
        assert_eq!(value["upstream_transport_failure_reason"], "delayed_connect_error:_Connection_refused");
    }

    #[test]
    fn operators_say_what_envoy_says() {
        let mut answered = answered();
        answered.connection_id = 7;
        answered.is_grpc = true;
        answered.grpc_status = Some(5);
        let uris = ["spiffe://a".to_owned(), "b".to_owned()];
        let serials = ["1".to_owned(), "2f".to_owned()];
        let peer = CertificateRecord {
            subject: "CN=a",
            uris: &uris,
            not_after: 86400,
            chain_serials: &serials,
            ..CertificateRecord::default()
        };
        answered.tls = Some(TlsRecord { version: "TLSv1.3", cipher: "", peer: Some(peer), local: None });
        for (template, expected) in [
            ("%REQ(:METHOD)% %REQ(:PATH):5% %REQ_WITHOUT_QUERY(:PATH)%", "GET /prod /productpage"),
            ("%REQ(X-NONE?USER-AGENT):4% %REQ(X-NONE)% %RESP(X-NONE?:STATUS)%", "curl - 200"),
            ("%PATH(NQ)% %PATH(NQ:ORIG)% %QUERY_PARAM(u)% %QUERY_PARAM(v)%", "/productpage - normal -"),
            ("100%% %PROTOCOL%%%", "100% HTTP/1.1%"),
            ("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2026/01/02T03:04:05+0000 1767323045"),
            ("%START_TIME(%s.%3f)% %START_TIME(%6f)%", "1767323045.078 078000"),
            ("%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "1 28 0"),
            ("%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)% %COMMON_DURATION(US_CX_BEG:US_CX_END)%", "28000 -"),
            (
                "%UPSTREAM_CLUSTER% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%",
                "outbound|9080||productpage.default.svc.cluster.local; 10.244.0.12 9080",
            ),
            ("%CONNECTION_ID% %STREAM_ID% %ACCESS_LOG_TYPE%", "7 11111111-2222-4333-8444-555555555555 DownstreamEnd"),
            ("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%", "NotFound NOT_FOUND 5"),
            ("%DOWNSTREAM_PEER_CHAIN_SERIALS% %DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%", "1,2f -"),
            ("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER%", "TLSv1.3 CN=a -"),
            (
                "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_CERT_V_END% %DOWNSTREAM_LOCAL_SUBJECT%",
                "spiffe://a,b 1970-01-02T00:00:00.000Z -",
            ),
            ("%DYNAMIC_METADATA(a:b):9% %CEL(request.path.contains(\"x)\"))% %UPSTREAM_TLS_VERSION%", "- - -"),
            ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_PROTOCOL% %DOWNSTREAM_LOCAL_PORT%", "1 HTTP/1.1 8443"),
            ("%ENVIRONMENT(LIMANI_NO_SUCH_VARIABLE)%", "-"),
        ] {
            assert_eq!(text(template, &answered), format!("{expected}\n"), "{template}");
        }
        assert_eq!(text("%RESPONSE_FLAGS_LONG%", &refused()), "UpstreamRetryLimitExceeded,UpstreamConnectionFailure\n");
        let tcp = Record::empty(RecordKind::Tcp, answered.start);
        assert_eq!(
            text("%PROTOCOL% %RESPONSE_CODE% %CONNECTION_ID% %ACCESS_LOG_TYPE%", &tcp),
            "- 0 - TcpConnectionEnd\n"
        );
        assert_eq!(line(&LogFormat::text("[%REQ(X)%]", true).unwrap(), &tcp), "[]\n");
    }

    #[test]
    fn what_is_no_operator_is_an_error() {
        for bad in [
            "100%",
            "%REQ(x",
            "%NOPE%",
            "%REQ()%",
            "%PROTOCOL(x)%",
            "%PROTOCOL:3%",
            "%req(x)%",
            "%REQ(a?b?c)%",
            "%GRPC_STATUS(x)%",
            "%PATH(X)%",
            "%START_TIME(%Q)%",
            "%COMMON_DURATION(a)%",
            "%REQ(x):a%",
        ] {
            assert!(LogFormat::text(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_keeps_types_and_shape() {
        let template = r#"{"z": "%RESPONSE_CODE%", "text": "code %RESPONSE_CODE%", "in": {"list": ["%PROTOCOL%", 1.5, "%REQ(X)%"], "none": {"x": "%REQ(X)%"}}, "n": 5, "t": true, "null": null, "both": "%REQ(X)% %BYTES_SENT%"}"#;
        assert_eq!(
            json(template, false, &answered()),
            "{\"both\":\"- 5183\",\"in\":{\"list\":[\"HTTP/1.1\",1.5,null],\"none\":{\"x\":null}},\"n\":5,\"null\":null,\"t\":true,\"text\":\"code 200\",\"z\":200}\n"
        );
        assert_eq!(
            json(r#"{"a": "%REQ(X)%", "b": {"x": "%REQ(X)%"}, "c": ["%REQ(X)%", "%PROTOCOL%"]}"#, true, &answered()),
            "{\"c\":[\"HTTP/1.1\"]}\n"
        );
        assert_eq!(json(r#"{"a": "%REQ(X)%"}"#, true, &answered()), "{}\n");
    }

    #[test]
    fn only_headers_that_are_needed_are_kept() {
        let headers: http::HeaderMap =
            [("a", "1"), ("b", "2")].into_iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let needs = |template: &str| {
            let mut needs = Needs::default();
            LogFormat::text(template, false).unwrap().needs(&mut needs);
            needs
        };
        let default = needs("");
        assert!(default.of_request(&headers, false).is_none() && default.of_response(&headers).is_none());
        assert_eq!(needs("%RESP(A)%").of_response(&headers).unwrap().len(), 1);
        assert!(needs("%REQ(A)%").of_request(&headers, false).is_none());
        assert_eq!(needs("%REQ(A)%").of_request(&headers, true).unwrap().len(), 1);
        assert!(needs("%REQ(X-ENVOY-ATTEMPT-COUNT)%").of_request(&headers, false).is_some());
    }
}
