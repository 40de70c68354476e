//! What does a `%COMMAND%` of an access log stand for? Envoy's command operators, read once, asked for each record.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::record::{CertificateRecord, Record, TlsRecord};
use super::value::Value;
use crate::base::{grpc, uuid};

/// A piece of a format.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operator {
    Literal(Box<str>),
    /// `%REQ(a?b):n%`
    Request(Names),
    /// `%REQ_WITHOUT_QUERY(a?b):n%`
    RequestWithoutQuery(Names),
    /// `%RESP(a?b):n%`
    Response(Names),
    /// `%TRAILER(a?b):n%`
    Trailer(Names),
    /// `%PATH(query:which):n%`
    Path {
        query: bool,
        which: WhichPath,
        at_most: Option<usize>,
    },
    /// `%QUERY_PARAM(name):n%`
    QueryParameter {
        name: Box<str>,
        at_most: Option<usize>,
    },
    /// `%START_TIME(format)%`
    StartTime(TimeFormat),
    /// `%COMMON_DURATION(from:to:unit)%` and its short forms.
    Span {
        from: Point,
        to: Point,
        unit: Unit,
    },
    /// `%DOWNSTREAM_PEER_CERT_V_START(format)%` or of the endpoint, or the end.
    Validity {
        whose: Whose,
        end: bool,
        format: TimeFormat,
    },
    /// `%GRPC_STATUS(form)%`
    GrpcStatus(GrpcForm),
    Fact(Fact),
    /// `%ENVIRONMENT(NAME):n%` and what else never changes; `None` is not known.
    Constant(Option<Box<str>>),
    UniqueId,
}

/// Header names to look at, and how much of the value is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    main: Name,
    or_else: Option<Name>,
    at_most: Option<usize>,
}

/// One header, or a fact that HTTP/2 writes as one.
#[derive(Clone, Debug, PartialEq)]
enum Name {
    Method,
    Path,
    Authority,
    Scheme,
    OriginalPath,
    Status,
    ServiceTime,
    Field(HeaderName),
    /// A name that no header can have.
    Nothing,
}

/// Whose path: as it came, as it was sent, or the first of these that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhichPath {
    Original,
    Sent,
    OriginalOrSent,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TimeFormat {
    /// RFC 3339 with milliseconds.
    Default,
    /// As `strftime`, in UTC.
    Pattern(Box<str>),
}

/// A moment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Start,
    RequestEnd,
    ResponseBegin,
    End,
    /// One that is not measured.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The client's.
    Peer,
    /// Our own, as the client saw it.
    Local,
    Endpoint,
    /// Our own, as the endpoint saw it.
    Ours,
}

/// What is shown of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Subject,
    Issuer,
    Uris,
    Dns,
    Emails,
    Addresses,
    Serial,
    Fingerprint256,
    Fingerprint1,
    Pem,
    ChainSerials,
    ChainFingerprints256,
    ChainFingerprints1,
}

/// What is shown of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Whole,
    Host,
    Port,
}

/// Operators without argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    Flags,
    FlagsLong,
    BytesReceived,
    BytesSent,
    RequestHeadBytes,
    ResponseHeadBytes,
    WireReceived,
    WireSent,
    Duration,
    Attempts,
    UpstreamHost,
    /// The same, once there was a connection.
    UpstreamRemote(Shown),
    UpstreamLocal(Shown),
    UpstreamCluster,
    UpstreamClusterRaw,
    DownstreamRemote(Shown),
    DownstreamDirectRemote(Shown),
    DownstreamLocal(Shown),
    ConnectionId,
    TlsVersion,
    TlsCipher,
    UpstreamTlsVersion,
    UpstreamTlsCipher,
    Certificate(Whose, Part),
    ServerName,
    RouteName,
    LogType,
}

/// What the records have to keep for a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    Request(&'a HeaderName),
    Response(&'a HeaderName),
    Trailer(&'a HeaderName),
}

impl Operator {
    /// Reads a text with operators. An operator that does not exist is an error, as is a lone `%`.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Operator>, String> {
        let (mut operators, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, behind)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(tail) = behind.strip_prefix('%') {
                literal.push('%');
                rest = tail;
                continue;
            }
            let place = text.len() - behind.len() - 1;
            let (command, tail) =
                Command::parse(behind).ok_or_else(|| format!("the `%` at position {place} begins no operator"))?;
            if !literal.is_empty() {
                operators.push(Operator::Literal(std::mem::take(&mut literal).into()));
            }
            operators.push(command.operator()?);
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() || operators.is_empty() {
            operators.push(Operator::Literal(literal.into()));
        }
        Ok(operators)
    }

    /// What it stands for in a record.
    pub(super) fn value<'a>(&'a self, record: &Record<'a>) -> Value<'a> {
        match self {
            Operator::Literal(text) => Value::Text(text.as_bytes()),
            Operator::Fact(fact) => fact.value(record),
            Operator::Request(names) => names.value(|name| name.of_request(record)),
            Operator::RequestWithoutQuery(names) => match names.value(|name| name.of_request(record)) {
                Value::Text(text) => Value::Text(text.split(|byte| *byte == b'?').next().unwrap_or_default()),
                other => other,
            },
            Operator::Response(names) => names.value(|name| name.of_response(record)),
            Operator::Trailer(names) => names.value(|name| match name {
                Name::Field(name) => field(record.trailers, name),
                _ => Value::Absent,
            }),
            Operator::Path { query, which, at_most } => {
                let path = match which {
                    WhichPath::Original => record.original_path,
                    WhichPath::Sent => record.path,
                    WhichPath::OriginalOrSent if record.original_path.is_empty() => record.path,
                    WhichPath::OriginalOrSent => record.original_path,
                };
                let end = if *query { None } else { path.iter().position(|byte| *byte == b'?') };
                cut(path.get(..end.unwrap_or(path.len())).unwrap_or_default(), *at_most)
            }
            Operator::QueryParameter { name, at_most } => match query_parameter(record.path, name.as_bytes()) {
                Some(value) => cut(value, *at_most),
                None => Value::Absent,
            },
            Operator::StartTime(format) => format.value(record.start),
            Operator::Validity { whose, end, format } => match whose.of(record) {
                None => Value::Absent,
                Some(certificate) => {
                    let second = if *end { certificate.not_after } else { certificate.not_before };
                    format.value(UNIX_EPOCH + Duration::from_secs(u64::try_from(second).unwrap_or_default()))
                }
            },
            Operator::Span { from, to, unit } => span(record, *from, *to, *unit),
            Operator::GrpcStatus(form) => match record.grpc_status.filter(|_| record.is_grpc) {
                Some(status) => grpc_status(status, *form),
                None => Value::Absent,
            },
            Operator::Constant(value) => value.as_ref().map_or(Value::Absent, |text| Value::Text(text.as_bytes())),
            Operator::UniqueId => Value::Made(unique_id()),
        }
    }

    /// Whether it is the time between two moments.
    pub(super) fn is_span(&self) -> bool {
        matches!(self, Operator::Span { .. })
    }

    /// The headers that it looks at, beside those that every record has.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        type Make = for<'a> fn(&'a HeaderName) -> Wanted<'a>;
        let (names, make): (Option<&Names>, Make) = match self {
            Operator::Request(names) | Operator::RequestWithoutQuery(names) => {
                (Some(names), |name| Wanted::Request(name))
            }
            Operator::Response(names) => (Some(names), |name| Wanted::Response(name)),
            Operator::Trailer(names) => (Some(names), |name| Wanted::Trailer(name)),
            _ => (None, |name| Wanted::Request(name)),
        };
        let names = names.into_iter().flat_map(|names| [Some(&names.main), names.or_else.as_ref()]).flatten();
        names.filter_map(move |name| if let Name::Field(name) = name { Some(make(name)) } else { None })
    }
}

impl Fact {
    fn value<'a>(self, record: &Record<'a>) -> Value<'a> {
        let tls = |of: &Option<TlsRecord<'a>>, read: fn(&TlsRecord<'a>) -> &'a str| {
            of.as_ref().map_or(Value::Absent, |tls| Value::text(read(tls).as_bytes()))
        };
        match self {
            Fact::Protocol => Value::text(record.protocol.as_bytes()),
            Fact::UpstreamProtocol => Value::text(record.upstream_protocol.as_bytes()),
            Fact::ResponseCode => Value::Number(record.response_code.into()),
            Fact::ResponseCodeDetails => Value::detail(record.response_code_details),
            Fact::ConnectionTerminationDetails => Value::detail(record.connection_termination_details),
            Fact::UpstreamTransportFailureReason => Value::detail(record.upstream_transport_failure_reason),
            Fact::Flags => Value::Flags(record.flags),
            Fact::FlagsLong => Value::FlagsLong(record.flags),
            Fact::BytesReceived => Value::Number(record.bytes_received),
            Fact::BytesSent => Value::Number(record.bytes_sent),
            Fact::RequestHeadBytes => Value::Number(record.head_received),
            Fact::ResponseHeadBytes => Value::Number(record.head_sent),
            Fact::WireReceived => Value::Number(record.bytes_received + record.head_received),
            Fact::WireSent => Value::Number(record.bytes_sent + record.head_sent),
            Fact::Duration => Value::milliseconds(record.duration),
            Fact::Attempts => Value::number(Some(u64::from(record.attempts)).filter(|tries| *tries > 0)),
            Fact::UpstreamHost => address(record.upstream_host, Shown::Whole),
            Fact::UpstreamRemote(shown) if record.upstream_is_connected() => address(record.upstream_host, shown),
            Fact::UpstreamRemote(_) => Value::Absent,
            Fact::UpstreamLocal(shown) => address(record.upstream_local_address, shown),
            Fact::UpstreamCluster if record.upstream_cluster.is_empty() => Value::Absent,
            Fact::UpstreamCluster => Value::Ended(record.upstream_cluster, b';'),
            Fact::UpstreamClusterRaw => Value::text(record.upstream_cluster.as_bytes()),
            Fact::DownstreamRemote(shown) => address(record.downstream_remote_address, shown),
            Fact::DownstreamDirectRemote(shown) => address(record.downstream_direct_remote_address, shown),
            Fact::DownstreamLocal(shown) => address(record.downstream_local_address, shown),
            Fact::ConnectionId => Value::number(Some(record.connection_id).filter(|id| *id > 0)),
            Fact::TlsVersion => tls(&record.tls, |tls| tls.version),
            Fact::TlsCipher => tls(&record.tls, |tls| tls.cipher),
            Fact::UpstreamTlsVersion => tls(&record.upstream_tls, |tls| tls.version),
            Fact::UpstreamTlsCipher => tls(&record.upstream_tls, |tls| tls.cipher),
            Fact::Certificate(whose, part) => whose.of(record).map_or(Value::Absent, |one| part.value(&one)),
            Fact::ServerName => Value::text(record.requested_server_name.as_bytes()),
            Fact::RouteName => Value::text(record.route_name.as_bytes()),
            Fact::LogType => Value::Text(match record.kind {
                super::record::RecordKind::Http => b"DownstreamEnd",
                super::record::RecordKind::Tcp => b"TcpConnectionEnd",
                super::record::RecordKind::Listener => b"NotSet",
            }),
        }
    }
}

impl TimeFormat {
    fn value<'a>(&self, time: SystemTime) -> Value<'a> {
        let TimeFormat::Pattern(pattern) = self else { return Value::Time(time) };
        let mut text = String::new();
        match write!(text, "{}", DateTime::<Utc>::from(time).format(pattern)) {
            Ok(()) => Value::Made(text),
            Err(_) => Value::Absent,
        }
    }
}

impl Whose {
    fn of<'a>(self, record: &Record<'a>) -> Option<CertificateRecord<'a>> {
        match self {
            Whose::Peer => record.tls?.peer,
            Whose::Local => record.tls?.local,
            Whose::Endpoint => record.upstream_tls?.peer,
            Whose::Ours => record.upstream_tls?.local,
        }
    }
}

impl Part {
    fn value<'a>(self, certificate: &CertificateRecord<'a>) -> Value<'a> {
        let several = |texts: &'a [String]| if texts.is_empty() { Value::Absent } else { Value::Joined(texts) };
        match self {
            Part::Subject => Value::text(certificate.subject.as_bytes()),
            Part::Issuer => Value::text(certificate.issuer.as_bytes()),
            Part::Uris => several(certificate.uris),
            Part::Dns => several(certificate.dns),
            Part::Emails => several(certificate.emails),
            Part::Addresses if certificate.addresses.is_empty() => Value::Absent,
            Part::Addresses => {
                let texts: Vec<String> = certificate.addresses.iter().map(ToString::to_string).collect();
                Value::Made(texts.join(","))
            }
            Part::Serial => Value::text(certificate.serial.as_bytes()),
            Part::Fingerprint256 => Value::text(certificate.sha256.as_bytes()),
            Part::Fingerprint1 => Value::text(certificate.sha1.as_bytes()),
            Part::Pem => Value::text(certificate.escaped_pem.as_bytes()),
            Part::ChainSerials => several(certificate.chain_serials),
            Part::ChainFingerprints256 => several(certificate.chain_sha256),
            Part::ChainFingerprints1 => several(certificate.chain_sha1),
        }
    }
}

impl Names {
    fn value<'a>(&self, find: impl Fn(&Name) -> Value<'a>) -> Value<'a> {
        let found = match (find(&self.main), &self.or_else) {
            (Value::Absent, Some(name)) => find(name),
            (found, _) => found,
        };
        match found {
            Value::Text(text) => Value::Text(text.get(..self.at_most.unwrap_or(usize::MAX)).unwrap_or(text)),
            other => other,
        }
    }
}

impl Name {
    fn of_request<'a>(&self, record: &Record<'a>) -> Value<'a> {
        match self {
            Name::Method => Value::text(record.method),
            Name::Path => Value::text(record.path),
            Name::Authority => Value::text(record.authority),
            Name::Scheme => Value::text(record.scheme.as_bytes()),
            Name::OriginalPath => Value::text(record.original_path),
            Name::Field(name) => field(record.request_headers, name),
            Name::Status | Name::ServiceTime | Name::Nothing => Value::Absent,
        }
    }

    fn of_response<'a>(&self, record: &Record<'a>) -> Value<'a> {
        match self {
            Name::Status if record.response_code > 0 => Value::NumberText(record.response_code.into()),
            // A header, and so a text.
            Name::ServiceTime => record.upstream_service_time.map_or(Value::Absent, Value::NumberText),
            Name::Field(name) => field(record.response_headers, name),
            _ => Value::Absent,
        }
    }
}

/// The first line of a header; an empty one is there.
fn field<'a>(headers: Option<&'a HeaderMap>, name: &HeaderName) -> Value<'a> {
    headers
        .and_then(|headers| headers.get(name))
        .map_or(Value::Absent, |value| Value::Text(HeaderValue::as_bytes(value)))
}

fn cut(text: &[u8], at_most: Option<usize>) -> Value<'_> {
    Value::text(text.get(..at_most.unwrap_or(usize::MAX)).unwrap_or(text))
}

fn address<'a>(address: Option<std::net::SocketAddr>, shown: Shown) -> Value<'a> {
    match (address, shown) {
        (None, _) => Value::Absent,
        (Some(address), Shown::Whole) => Value::Address(address),
        (Some(address), Shown::Host) => Value::Host(address),
        (Some(address), Shown::Port) => Value::Number(address.port().into()),
    }
}

fn span<'a>(record: &Record<'_>, from: Point, to: Point, unit: Unit) -> Value<'a> {
    let at = |point| match point {
        Point::Start => Some(Duration::ZERO),
        Point::RequestEnd => record.request_time,
        Point::ResponseBegin => record.response_time,
        Point::End => Some(record.duration),
        Point::Unknown => None,
    };
    let (Some(from), Some(to)) = (at(from), at(to)) else { return Value::Absent };
    let Some(span) = to.checked_sub(from) else { return Value::Absent };
    let number = match unit {
        Unit::Milliseconds => span.as_millis(),
        Unit::Microseconds => span.as_micros(),
        Unit::Nanoseconds => span.as_nanos(),
    };
    Value::Number(u64::try_from(number).unwrap_or(u64::MAX))
}

fn grpc_status<'a>(status: u16, form: GrpcForm) -> Value<'a> {
    match (form, grpc::STATUSES.get(usize::from(status))) {
        (GrpcForm::Number, _) => Value::Number(status.into()),
        (GrpcForm::Camel, Some((camel, _))) => Value::Text(camel.as_bytes()),
        (GrpcForm::Snake, Some((_, snake))) => Value::Text(snake.as_bytes()),
        (_, None) => Value::Made(status.to_string()),
    }
}

fn query_parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let query = path.splitn(2, |byte| *byte == b'?').nth(1)?;
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (parts.next()? == name).then(|| parts.next().unwrap_or_default())
    })
}

/// A UUID by chance.
fn unique_id() -> String {
    let random = (u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..));
    uuid::version_4(random).iter().copied().map(char::from).collect()
}

/// A command as it is written: `NAME(argument):length`.
struct Command<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    at_most: Option<usize>,
}

impl<'a> Command<'a> {
    /// The command behind a `%`, and what follows its closing `%`.
    fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let end = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')?;
        let (name, rest) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
        let Some(inside) = rest.strip_prefix('(') else {
            let (at_most, rest) = Self::end(rest)?;
            return Some((Command { name, argument: None, at_most }, rest));
        };
        // The argument may hold `)` and `%`: it ends where the command can end.
        inside.match_indices(')').find_map(|(place, _)| {
            let (argument, behind) = inside.split_at_checked(place)?;
            let (at_most, rest) = Self::end(behind.strip_prefix(')')?)?;
            Some((Command { name, argument: Some(argument), at_most }, rest))
        })
    }

    /// `:n%` or `%`.
    fn end(text: &str) -> Option<(Option<usize>, &str)> {
        match text.strip_prefix(':') {
            None => Some((None, text.strip_prefix('%')?)),
            Some(number) => {
                let (digits, rest) = number.split_once('%')?;
                Some((Some(digits.parse().ok()?), rest))
            }
        }
    }

    fn operator(&self) -> Result<Operator, String> {
        let name = self.name;
        if let Some(fact) = fact(name) {
            self.takes(false, false)?;
            return Ok(Operator::Fact(fact));
        }
        Ok(match name {
            "REQ" => Operator::Request(self.names()?),
            "REQ_WITHOUT_QUERY" => Operator::RequestWithoutQuery(self.names()?),
            "RESP" => Operator::Response(self.names()?),
            "TRAILER" => Operator::Trailer(self.names()?),
            "PATH" => self.path()?,
            "QUERY_PARAM" => {
                let name = self.argument.filter(|name| !name.is_empty());
                let name = name.ok_or("QUERY_PARAM needs the name of a parameter")?.into();
                Operator::QueryParameter { name, at_most: self.at_most }
            }
            "START_TIME" | "EMIT_TIME" => Operator::StartTime(self.time()?),
            "DOWNSTREAM_PEER_CERT_V_START" => self.validity(Whose::Peer, false)?,
            "DOWNSTREAM_PEER_CERT_V_END" => self.validity(Whose::Peer, true)?,
            "UPSTREAM_PEER_CERT_V_START" => self.validity(Whose::Endpoint, false)?,
            "UPSTREAM_PEER_CERT_V_END" => self.validity(Whose::Endpoint, true)?,
            "REQUEST_DURATION" => self.span(Point::Start, Point::RequestEnd)?,
            "REQUEST_TX_DURATION" => self.span(Point::Start, Point::RequestEnd)?,
            "RESPONSE_DURATION" => self.span(Point::Start, Point::ResponseBegin)?,
            "RESPONSE_TX_DURATION" => self.span(Point::ResponseBegin, Point::End)?,
            "COMMON_DURATION" => self.common_duration()?,
            "RESPONSE_CODE_DETAILS" => Operator::Fact(Fact::ResponseCodeDetails),
            "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcForm::Number),
            "GRPC_STATUS" => Operator::GrpcStatus(match self.argument.unwrap_or_default() {
                "" | "CAMEL_STRING" => GrpcForm::Camel,
                "SNAKE_STRING" => GrpcForm::Snake,
                "NUMBER" => GrpcForm::Number,
                _ => return Err("GRPC_STATUS knows CAMEL_STRING, SNAKE_STRING and NUMBER".to_owned()),
            }),
            "STREAM_ID" => {
                self.takes(false, false)?;
                let name = Name::Field(HeaderName::from_static("x-request-id"));
                Operator::Request(Names { main: name, or_else: None, at_most: None })
            }
            "ENVIRONMENT" => {
                let name = self.argument.filter(|name| !name.is_empty());
                let value = std::env::var(name.ok_or("ENVIRONMENT needs the name of a variable")?).ok();
                let cut = |text: String| text.chars().take(self.at_most.unwrap_or(usize::MAX)).collect::<String>();
                Operator::Constant(value.map(|text| cut(text).into()))
            }
            "HOSTNAME" => {
                self.takes(false, false)?;
                let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                Operator::Constant(Some(text.trim()).filter(|name| !name.is_empty()).map(Into::into))
            }
            "UNIQUE_ID" => {
                self.takes(false, false)?;
                Operator::UniqueId
            }
            name if UNKNOWN_HERE.contains(&name) => Operator::Constant(None),
            name => return Err(format!("`%{name}%` is no operator")),
        })
    }

    /// Checks that nothing is given that the operator does not take.
    fn takes(&self, argument: bool, length: bool) -> Result<(), String> {
        if (self.argument.is_some_and(|text| !text.is_empty()) && !argument) || (self.at_most.is_some() && !length) {
            return Err(format!(
                "`%{}%` takes no {}",
                self.name,
                if length { "argument" } else { "argument or length" }
            ));
        }
        Ok(())
    }

    fn names(&self) -> Result<Names, String> {
        let names = self.argument.filter(|names| !names.is_empty());
        let names = names.ok_or_else(|| format!("`%{}%` needs the name of a header", self.name))?;
        let (main, or_else) = names.split_once('?').map_or((names, None), |(main, other)| (main, Some(other)));
        if or_else.is_some_and(|other| other.contains('?')) {
            return Err(format!("`%{}({names})%` has more than one alternative", self.name));
        }
        let or_else = or_else.filter(|name| !name.is_empty()).map(header);
        Ok(Names { main: header(main), or_else, at_most: self.at_most })
    }

    fn path(&self) -> Result<Operator, String> {
        let (query, which) = self.argument.map_or(("", ""), |text| text.split_once(':').unwrap_or((text, "")));
        let query = match query {
            "" | "WQ" => true,
            "NQ" => false,
            other => return Err(format!("`{other}` is no way to show a path; write WQ or NQ")),
        };
        let which = match which {
            "" | "ORIG_OR_PATH" => WhichPath::OriginalOrSent,
            "ORIG" => WhichPath::Original,
            "PATH" => WhichPath::Sent,
            other => return Err(format!("`{other}` is no path; write PATH, ORIG or ORIG_OR_PATH")),
        };
        Ok(Operator::Path { query, which, at_most: self.at_most })
    }

    fn validity(&self, whose: Whose, end: bool) -> Result<Operator, String> {
        Ok(Operator::Validity { whose, end, format: self.time()? })
    }

    fn time(&self) -> Result<TimeFormat, String> {
        self.takes(true, false)?;
        let Some(pattern) = self.argument.filter(|pattern| !pattern.is_empty()) else {
            return Ok(TimeFormat::Default);
        };
        let pattern = pattern.strip_suffix("_local").unwrap_or(pattern);
        // Envoy's `%3f` are the digits alone; `%f` are nine.
        let mut shown = String::new();
        let mut rest = pattern;
        while let Some((before, behind)) = rest.split_once('%') {
            shown.push_str(before);
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            rest = match (behind.get(..digits), behind.get(digits..)) {
                (Some(number), Some(tail)) if tail.starts_with('f') => {
                    shown.push_str(match number {
                        "1" | "2" | "3" => "%3f",
                        "4" | "5" | "6" => "%6f",
                        _ => "%9f",
                    });
                    tail.get(1..).unwrap_or_default()
                }
                (_, Some(tail)) if tail.starts_with('%') => {
                    shown.push_str("%%");
                    tail.get(1..).unwrap_or_default()
                }
                _ => {
                    shown.push('%');
                    behind
                }
            };
        }
        shown.push_str(rest);
        if chrono::format::StrftimeItems::new(&shown).any(|item| matches!(item, chrono::format::Item::Error)) {
            return Err(format!("`{pattern}` is no time format"));
        }
        Ok(TimeFormat::Pattern(shown.into()))
    }

    fn span(&self, from: Point, to: Point) -> Result<Operator, String> {
        self.takes(false, false)?;
        Ok(Operator::Span { from, to, unit: Unit::Milliseconds })
    }

    fn common_duration(&self) -> Result<Operator, String> {
        self.takes(true, false)?;
        let parts: Vec<&str> = self.argument.unwrap_or_default().split(':').collect();
        let (from, to, unit) = match parts[..] {
            [from, to] => (from, to, "ms"),
            [from, to, unit] => (from, to, unit),
            _ => return Err("COMMON_DURATION needs two points in time".to_owned()),
        };
        let unit = match unit {
            "ms" => Unit::Milliseconds,
            "us" => Unit::Microseconds,
            "ns" => Unit::Nanoseconds,
            other => return Err(format!("`{other}` is no unit of COMMON_DURATION; write ms, us or ns")),
        };
        Ok(Operator::Span { from: point(from), to: point(to), unit })
    }
}

/// Envoy's names of moments; own ones are never set here.
fn point(name: &str) -> Point {
    match name {
        "DS_RX_BEG" => Point::Start,
        "DS_RX_END" | "US_TX_END" => Point::RequestEnd,
        "US_RX_BEG" | "DS_TX_BEG" => Point::ResponseBegin,
        "US_RX_END" | "DS_TX_END" => Point::End,
        _ => Point::Unknown,
    }
}

fn header(name: &str) -> Name {
    match name.to_ascii_lowercase().as_str() {
        ":method" => Name::Method,
        ":path" => Name::Path,
        ":authority" | "host" => Name::Authority,
        ":scheme" => Name::Scheme,
        ":status" => Name::Status,
        "x-envoy-original-path" => Name::OriginalPath,
        "x-envoy-upstream-service-time" => Name::ServiceTime,
        name => HeaderName::from_bytes(name.as_bytes()).map_or(Name::Nothing, Name::Field),
    }
}

fn fact(name: &str) -> Option<Fact> {
    use Shown::{Host, Port, Whole};
    Some(match name {
        "PROTOCOL" => Fact::Protocol,
        "UPSTREAM_PROTOCOL" => Fact::UpstreamProtocol,
        "RESPONSE_CODE" => Fact::ResponseCode,
        "CONNECTION_TERMINATION_DETAILS" => Fact::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Fact::UpstreamTransportFailureReason,
        "RESPONSE_FLAGS" => Fact::Flags,
        "RESPONSE_FLAGS_LONG" => Fact::FlagsLong,
        "BYTES_RECEIVED" => Fact::BytesReceived,
        "BYTES_SENT" => Fact::BytesSent,
        "REQUEST_HEADERS_BYTES" | "DOWNSTREAM_HEADER_BYTES_RECEIVED" | "UPSTREAM_HEADER_BYTES_SENT" => {
            Fact::RequestHeadBytes
        }
        "RESPONSE_HEADERS_BYTES" | "DOWNSTREAM_HEADER_BYTES_SENT" | "UPSTREAM_HEADER_BYTES_RECEIVED" => {
            Fact::ResponseHeadBytes
        }
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" | "UPSTREAM_WIRE_BYTES_SENT" => Fact::WireReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" | "UPSTREAM_WIRE_BYTES_RECEIVED" => Fact::WireSent,
        "DURATION" => Fact::Duration,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Fact::Attempts,
        "UPSTREAM_HOST" => Fact::UpstreamHost,
        "UPSTREAM_REMOTE_ADDRESS" => Fact::UpstreamRemote(Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::UpstreamRemote(Host),
        "UPSTREAM_REMOTE_PORT" => Fact::UpstreamRemote(Port),
        "UPSTREAM_LOCAL_ADDRESS" => Fact::UpstreamLocal(Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Fact::UpstreamLocal(Host),
        "UPSTREAM_LOCAL_PORT" => Fact::UpstreamLocal(Port),
        "UPSTREAM_CLUSTER" => Fact::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Fact::UpstreamClusterRaw,
        "DOWNSTREAM_REMOTE_ADDRESS" => Fact::DownstreamRemote(Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamRemote(Host),
        "DOWNSTREAM_REMOTE_PORT" => Fact::DownstreamRemote(Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Fact::DownstreamDirectRemote(Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Fact::DownstreamDirectRemote(Host),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Fact::DownstreamDirectRemote(Port),
        "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Fact::DownstreamLocal(Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Fact::DownstreamLocal(Host)
        }
        "DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT" => Fact::DownstreamLocal(Port),
        "CONNECTION_ID" => Fact::ConnectionId,
        "DOWNSTREAM_TLS_VERSION" => Fact::TlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Fact::TlsCipher,
        "UPSTREAM_TLS_VERSION" => Fact::UpstreamTlsVersion,
        "UPSTREAM_TLS_CIPHER" => Fact::UpstreamTlsCipher,
        "REQUESTED_SERVER_NAME" => Fact::ServerName,
        "ROUTE_NAME" => Fact::RouteName,
        "ACCESS_LOG_TYPE" => Fact::LogType,
        name => return certificate(name),
    })
}

/// `DOWNSTREAM_PEER_SUBJECT`, `UPSTREAM_LOCAL_URI_SAN` and the like.
fn certificate(name: &str) -> Option<Fact> {
    const SIDES: [(&str, Whose); 4] = [
        ("DOWNSTREAM_PEER_", Whose::Peer),
        ("DOWNSTREAM_LOCAL_", Whose::Local),
        ("UPSTREAM_PEER_", Whose::Endpoint),
        ("UPSTREAM_LOCAL_", Whose::Ours),
    ];
    let (part, whose) = SIDES.into_iter().find_map(|(prefix, whose)| Some((name.strip_prefix(prefix)?, whose)))?;
    let of_other_side = matches!(whose, Whose::Peer | Whose::Endpoint);
    let part = match part {
        "SUBJECT" => Part::Subject,
        "URI_SAN" => Part::Uris,
        "DNS_SAN" => Part::Dns,
        "IP_SAN" => Part::Addresses,
        "EMAIL_SAN" if matches!(whose, Whose::Peer | Whose::Local) => Part::Emails,
        "ISSUER" if of_other_side => Part::Issuer,
        "CERT" if of_other_side => Part::Pem,
        "SERIAL" if whose == Whose::Peer => Part::Serial,
        "FINGERPRINT_256" if whose == Whose::Peer => Part::Fingerprint256,
        "FINGERPRINT_1" if whose == Whose::Peer => Part::Fingerprint1,
        "CHAIN_SERIALS" if whose == Whose::Peer => Part::ChainSerials,
        "CHAIN_FINGERPRINTS_256" if whose == Whose::Peer => Part::ChainFingerprints256,
        "CHAIN_FINGERPRINTS_1" if whose == Whose::Peer => Part::ChainFingerprints1,
        _ => return None,
    };
    Some(Fact::Certificate(whose, part))
}

/// Operators of Envoy whose value is never known here.
const UNKNOWN_HERE: &[&str] = &[
    "CEL",
    "CLUSTER_METADATA",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DYNAMIC_METADATA",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "RESPONSE_TRAILERS_BYTES",
    "ROUNDTRIP_DURATION",
    "SPAN_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_METADATA",
    "UPSTREAM_TLS_SESSION_ID",
    "VIRTUAL_CLUSTER_NAME",
];
