//! What does a failure look like to the client and in the log? The one table of local replies (Envoy's words).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::snapshot::fault::Abort;
use crate::telemetry::flags::{Flag, ResponseFlags};
use crate::upstream::Report;
use crate::upstream::connect::ConnectError;

use super::guard::Refusal;
use super::headers::BadConnection;

/// Why a request could not be answered by its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The route names a cluster that does not exist.
    NoCluster,
    NoEndpoint,
    Connect(ConnectError),
    /// The endpoint closed its connection before it answered, or within its answer.
    Terminated {
        /// Nothing came: on a reused connection the request may never have been read.
        unseen: bool,
    },
    /// The endpoint reset the stream.
    Reset,
    /// The endpoint reset the stream before it looked at it.
    Refused,
    /// The endpoint broke the protocol.
    Protocol,
    /// The route's timeout is over.
    Timeout,
    /// The time for one try is over.
    TryTimeout,
    /// The request cannot be written in the endpoint's protocol.
    BadRequest,
    /// The client's own framing is wrong.
    ClientMalformed,
    /// Nobody is there to be answered.
    ClientGone,
}

/// An answer of our own.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
    pub flags: ResponseFlags,
    pub details: Cow<'static, str>,
    pub location: Option<HeaderValue>,
    /// What a gRPC request is told, if it does not follow from `status`.
    pub grpc_status: Option<u8>,
    /// Why the endpoint could not be connected to.
    pub transport_failure: Option<Arc<str>>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, body: &'static str, details: &'static str) -> Self {
        Reply { status, body: Bytes::from_static(body.as_bytes()), details: details.into(), ..Reply::default() }
    }

    fn flagged(mut self, flag: Flag) -> Self {
        self.flags.set(flag);
        self
    }

    /// No virtual host or no rule for the request.
    pub(super) fn not_found() -> Self {
        Reply::new(StatusCode::NOT_FOUND, "", "route_not_found").flagged(Flag::NoRouteFound)
    }

    /// The name is served on this port, but by other rules than this connection was made under.
    pub(super) fn misdirected() -> Self {
        Reply::new(StatusCode::MISDIRECTED_REQUEST, "", "misdirected_request")
    }

    pub(super) fn upgrade_refused() -> Self {
        Reply::new(StatusCode::FORBIDDEN, "", "upgrade_failed")
    }

    pub(super) fn bad_path() -> Self {
        Reply::new(StatusCode::BAD_REQUEST, "", "path_normalization_failed")
    }

    /// The client is to ask for the canonical form of its path.
    pub(super) fn canonical_path(location: String) -> Self {
        let details = Cow::Borrowed("path_normalization_failed");
        Reply { details, ..Reply::redirect(StatusCode::TEMPORARY_REDIRECT, location) }
    }

    pub(super) fn bad_method() -> Self {
        Reply::new(StatusCode::BAD_REQUEST, "", "invalid_method")
    }

    /// The rule cannot do what it asks for.
    pub(super) fn invalid_rule() -> Self {
        Reply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "invalid_rule")
    }

    /// The rule's fault injection ends the request.
    pub(super) fn aborted(abort: Abort) -> Self {
        let (status, grpc_status) = match abort {
            Abort::Http(status) => (status, None),
            Abort::Grpc(number) => (StatusCode::OK, Some(number)),
        };
        let reply = Reply::new(status, "fault filter abort", "fault_filter_abort").flagged(Flag::FaultInjected);
        Reply { grpc_status, ..reply }
    }

    /// A preflight gets its answer; the headers are those of the policy.
    pub(super) fn preflight() -> Self {
        Reply::new(StatusCode::OK, "", "cors_response")
    }

    pub(super) fn redirect(status: StatusCode, location: String) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => {
                Reply { status, location: Some(location), details: "direct_response".into(), ..Reply::default() }
            }
            Err(_) => Reply::bad_path(),
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let (status, body, details) = match refusal {
            Refusal::Malformed | Refusal::BadHost => (StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error"),
            Refusal::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request Header Fields Too Large",
                "http1.headers_too_large",
            ),
            Refusal::Underscore => (StatusCode::BAD_REQUEST, "Bad Request", "http1.unexpected_underscore"),
            Refusal::AmbiguousLength => {
                (StatusCode::BAD_REQUEST, "Bad Request", "http1.content_length_and_chunked_not_allowed")
            }
            Refusal::UnknownCoding => {
                (StatusCode::NOT_IMPLEMENTED, "Not Implemented", "http1.invalid_transfer_encoding")
            }
            Refusal::Version => (StatusCode::UPGRADE_REQUIRED, "Upgrade Required", "low_version"),
            Refusal::SchemeMismatch => (StatusCode::FORBIDDEN, "Forbidden", "http1.invalid_scheme"),
            Refusal::MissingHost => return Reply::new(StatusCode::BAD_REQUEST, "", "missing_host_header"),
            Refusal::Query => return Reply::bad_method(),
            Refusal::NoRoute => return Reply::not_found(),
            Refusal::TooSlow => {
                return Reply::new(StatusCode::REQUEST_TIMEOUT, "stream timeout", "request_header_timeout");
            }
        };
        Reply::new(status, body, details).flagged(Flag::DownstreamProtocolError)
    }
}

impl From<BadConnection> for Reply {
    fn from(bad: BadConnection) -> Self {
        let body = match bad {
            BadConnection::Host => "",
            BadConnection::Owned => "Bad Request",
        };
        Reply::new(StatusCode::BAD_REQUEST, body, "connection_header_rejected")
    }
}

impl Failure {
    /// What it tells of the endpoint that was asked.
    pub(super) fn report(&self) -> Option<Report> {
        match self {
            Failure::Connect(_)
            | Failure::Terminated { .. }
            | Failure::Reset
            | Failure::Refused
            | Failure::Protocol => Some(Report::Failed),
            Failure::Timeout | Failure::TryTimeout => Some(Report::TimedOut),
            Failure::NoCluster
            | Failure::NoEndpoint
            | Failure::BadRequest
            | Failure::ClientMalformed
            | Failure::ClientGone => None,
        }
    }

    /// The flag of a failure; there may be an answer already.
    pub(super) fn flag(&self) -> Option<Flag> {
        match self {
            Failure::NoCluster => Some(Flag::NoClusterFound),
            Failure::NoEndpoint => Some(Flag::NoHealthyUpstream),
            Failure::Connect(ConnectError::Overflow { .. }) => Some(Flag::UpstreamOverflow),
            Failure::Connect(_) => Some(Flag::UpstreamConnectionFailure),
            Failure::Terminated { .. } => Some(Flag::UpstreamConnectionTermination),
            Failure::Reset | Failure::Refused => Some(Flag::UpstreamRemoteReset),
            Failure::Protocol => Some(Flag::UpstreamProtocolError),
            Failure::Timeout | Failure::TryTimeout => Some(Flag::UpstreamRequestTimeout),
            Failure::ClientMalformed => Some(Flag::DownstreamProtocolError),
            Failure::ClientGone => Some(Flag::DownstreamConnectionTermination),
            Failure::BadRequest => None,
        }
    }

    /// The answer in place of the endpoint's; `tries` were made.
    pub(super) fn reply(&self, tries: u32) -> Reply {
        let mut reply = match self {
            Failure::NoCluster => Reply::new(StatusCode::SERVICE_UNAVAILABLE, "", "cluster_not_found"),
            Failure::NoEndpoint => {
                Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "no_healthy_upstream")
            }
            Failure::Timeout => Reply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", "response_timeout"),
            Failure::TryTimeout => {
                Reply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", "upstream_per_try_timeout")
            }
            Failure::Protocol => reset(StatusCode::BAD_GATEWAY, "protocol error", None, tries),
            Failure::Terminated { .. } => unavailable("connection termination", None, tries),
            Failure::Reset | Failure::Refused => unavailable("remote reset", None, tries),
            Failure::Connect(ConnectError::Overflow { .. }) => unavailable("overflow", None, tries),
            Failure::Connect(ConnectError::Timeout) => unavailable("connection timeout", None, tries),
            Failure::Connect(failure) => connect_failure(failure, tries),
            Failure::ClientMalformed => Reply::new(StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error"),
            Failure::BadRequest => Reply::new(StatusCode::BAD_REQUEST, "", "request_not_expressible"),
            Failure::ClientGone => Reply::new(StatusCode::OK, "", "downstream_remote_disconnect"),
        };
        if let Some(flag) = self.flag() {
            reply.flags.set(flag);
        }
        reply
    }
}

/// The body tells why TLS failed; why TCP did stands in the log alone.
fn connect_failure(failure: &ConnectError, tries: u32) -> Reply {
    let mut reply = unavailable("remote connection failure", failure.transport_failure(), tries);
    if let ConnectError::Tls(text) | ConnectError::Unavailable(text) = failure {
        reply.body = [&reply.body[..], b", transport failure reason: ", text.as_bytes()].concat().into();
    }
    reply
}

fn unavailable(reason: &str, transport_failure: Option<&str>, tries: u32) -> Reply {
    reset(StatusCode::SERVICE_UNAVAILABLE, reason, transport_failure, tries)
}

fn reset(status: StatusCode, reason: &str, transport_failure: Option<&str>, tries: u32) -> Reply {
    let retried = if tries > 1 { "retried and the latest " } else { "" };
    let detail = transport_failure.map_or(String::new(), |text| format!("|{}", text.replace(' ', "_")));
    let body = format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}");
    Reply {
        status,
        body: body.into(),
        details: format!("upstream_reset_before_response_started{{{}{detail}}}", reason.replace(' ', "_")).into(),
        transport_failure: transport_failure.map(Into::into),
        ..Reply::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_speak_envoys_words() {
        let refused = Failure::Connect(ConnectError::Failed("Connection refused".into()));
        let untrusted = Failure::Connect(ConnectError::Tls("bad certificate".into()));
        let shown = |failure: &Failure, tries| {
            let reply = failure.reply(tries);
            (reply.status.as_u16(), reply.flags.to_string(), String::from_utf8(reply.body.to_vec()).unwrap())
        };
        let body = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
                    remote connection failure";
        assert_eq!(shown(&refused, 3), (503, "UF".into(), body.into()));
        assert!(refused.reply(1).details.ends_with("{remote_connection_failure|Connection_refused}"));
        assert!(shown(&untrusted, 1).2.ends_with("failure, transport failure reason: bad certificate"));
        assert_eq!(shown(&Failure::Timeout, 1), (504, "UT".into(), "upstream request timeout".into()));
        assert_eq!(shown(&Failure::NoCluster, 1), (503, "NC".into(), String::new()));
        assert_eq!(shown(&Failure::NoEndpoint, 1), (503, "UH".into(), "no healthy upstream".into()));
        let (status, flags, body) = shown(&Failure::Protocol, 1);
        assert!((status, flags.as_str()) == (502, "UPE") && body.ends_with("headers. reset reason: protocol error"));
        assert_eq!(
            Failure::Connect(ConnectError::Timeout).reply(1).details,
            "upstream_reset_before_response_started{connection_timeout}"
        );
    }

    #[test]
    fn refusals_keep_their_bodies() {
        for (refusal, status, body, flags) in [
            (Refusal::Malformed, 400, "Bad Request", "DPE"),
            (Refusal::TooLarge, 431, "Request Header Fields Too Large", "DPE"),
            (Refusal::UnknownCoding, 501, "Not Implemented", "DPE"),
            (Refusal::Version, 426, "Upgrade Required", "DPE"),
            (Refusal::MissingHost, 400, "", "-"),
            (Refusal::NoRoute, 404, "", "NR"),
            (Refusal::TooSlow, 408, "stream timeout", "-"),
        ] {
            let reply = Reply::from(refusal);
            assert_eq!(
                (reply.status.as_u16(), &reply.body[..], reply.flags.to_string().as_str()),
                (status, body.as_bytes(), flags)
            );
        }
    }
}
