//! What is known of one request, from its head to its end?

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};

use crate::proxy::connection::Connection;
use crate::snapshot::cluster::{Cluster, WorkloadFacts};
use crate::snapshot::headers::TemplateFacts;
use crate::snapshot::path::split_query;
use crate::snapshot::route::{RequestFacts, RouteRule};
use crate::snapshot::tls::{cipher_name, version_name};
use crate::telemetry::flags::{Flag, ResponseFlags};
use crate::upstream::Peer;

use super::fail::{Failure, Reply};

/// A request as it came, then as admission made it.
#[derive(Debug)]
pub(super) struct Request {
    pub method: Method,
    pub uri: Uri,
    /// The path and query, where normalisation changed them.
    pub normalized: Option<String>,
    /// Without Host.
    pub headers: HeaderMap,
    /// HTTP/1: of the connection, or of a trusted proxy; HTTP/2: the client's own word.
    pub scheme: Cow<'static, str>,
    /// Host or `:authority` as sent.
    pub authority: HeaderValue,
    pub has_body: bool,
    /// `Upgrade: websocket` was asked for properly.
    pub upgrade: bool,
    /// `te: trailers`
    pub trailers: bool,
    pub http2: bool,
    pub http10: bool,
}

impl Request {
    /// Normalised, with the query.
    pub(super) fn path(&self) -> &str {
        let as_sent = || self.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        self.normalized.as_deref().unwrap_or_else(as_sent)
    }

    pub(super) fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    pub(super) fn protocol(&self) -> &'static str {
        match (self.http2, self.http10) {
            (true, _) => "HTTP/2",
            (false, true) => "HTTP/1.0",
            (false, false) => "HTTP/1.1",
        }
    }

    /// What routing looks at.
    pub(super) fn facts(&self) -> RequestFacts<'_> {
        let (path, query) = split_query(self.path());
        RequestFacts {
            method: self.method.as_str(),
            scheme: &self.scheme,
            authority: self.authority(),
            path,
            query,
            headers: &self.headers,
            claims: None,
        }
    }
}

/// What happened to a request so far: the access log line and the metrics at its end.
#[derive(Debug)]
pub(super) struct Journal {
    pub start: Instant,
    pub time: SystemTime,
    /// The trusted client address: the peer, or what a trusted proxy told (then with port 0).
    pub client: SocketAddr,
    pub is_grpc: bool,
    pub rule: Option<Arc<RouteRule>>,
    /// The headers that rules of the host look at.
    pub looks_at: Option<Arc<[HeaderName]>>,
    pub cluster: Option<Arc<Cluster>>,
    pub workload: Option<Arc<WorkloadFacts>>,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    /// Whom TLS proved the endpoint to be.
    pub upstream_peer: Option<Arc<Peer>>,
    pub attempts: u32,
    /// 0 until an answer is sent.
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub flags: ResponseFlags,
    pub details: Cow<'static, str>,
    pub transport_failure: Option<Arc<str>>,
    /// Milliseconds from the request's end to the answer's head.
    pub service_time: Option<u64>,
    /// Bodies.
    pub received: u64,
    pub sent: u64,
    /// Set-Cookie of our own for the endpoint's answer.
    pub cookies: Vec<HeaderValue>,
    /// When the request's last byte came; `None` for one without a body.
    pub request_end: Option<Instant>,
    /// When the endpoint's answer began.
    pub response_begin: Option<Instant>,
    /// What is spoken with the endpoint; empty before there is a connection.
    pub upstream_protocol: &'static str,
    /// What the access log needs beyond the request.
    pub kept: Option<Box<Kept>>,
    /// Heads.
    pub head_received: u64,
    pub head_sent: u64,
}

/// What an access log wants to know that the request does not tell at its end.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Where a rule rewrites it.
    pub path: Option<PathAndQuery>,
    /// Where a rule rewrites it.
    pub authority: Option<HeaderValue>,
    /// Headers as they were sent to the endpoint.
    pub request: Option<HeaderMap>,
    /// Headers of the answer as they were sent to the client.
    pub response: Option<HeaderMap>,
    pub trailers: Option<HeaderMap>,
}

impl Journal {
    pub(super) fn new(client: SocketAddr) -> Self {
        Journal {
            start: Instant::now(),
            time: SystemTime::now(),
            client,
            is_grpc: false,
            rule: None,
            looks_at: None,
            cluster: None,
            workload: None,
            upstream_host: None,
            upstream_local: None,
            upstream_peer: None,
            attempts: 0,
            status: 0,
            grpc_status: None,
            flags: ResponseFlags::default(),
            details: Cow::Borrowed(""),
            transport_failure: None,
            service_time: None,
            received: 0,
            sent: 0,
            cookies: Vec::new(),
            request_end: None,
            response_begin: None,
            upstream_protocol: "",
            kept: None,
            head_received: 0,
            head_sent: 0,
        }
    }

    /// To keep something for the access log.
    pub(super) fn keep(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// An answer of our own was decided.
    pub(super) fn replied(&mut self, reply: &Reply) {
        reply.flags.iter().for_each(|flag| self.flags.set(flag));
        self.details = reply.details.clone();
        self.transport_failure = reply.transport_failure.clone();
    }

    /// The answer of the endpoint could not be completed.
    pub(super) fn cut(&mut self, failure: &Failure) {
        if let Some(flag) = failure.flag() {
            self.flags.set(flag);
        }
        if *failure == Failure::ClientGone {
            self.left();
        }
    }

    /// The client has gone.
    pub(super) fn left(&mut self) {
        self.flags.set(Flag::DownstreamConnectionTermination);
        self.details = Cow::Borrowed("downstream_remote_disconnect");
    }

    /// What header operations can tell. `sent` are the request's headers, given while a response is changed.
    pub(super) fn template_facts<'a>(
        &'a self,
        connection: &'a Connection,
        request: &'a Request,
        sent: Option<&'a HeaderMap>,
        upstream_cluster: Option<&'a str>,
    ) -> TemplateFacts<'a> {
        TemplateFacts {
            request: sent,
            method: request.method.as_str(),
            scheme: &request.scheme,
            authority: request.authority(),
            path: request.path(),
            response_code: 0,
            response_flags: match self.flags.is_empty() {
                true => Cow::Borrowed("-"),
                false => Cow::Owned(self.flags.to_string()),
            },
            protocol: request.protocol(),
            start: self.time,
            remote: self.client,
            direct_remote: connection.socket_peer,
            local: connection.local,
            server_name: connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
            tls_version: connection.tls.as_ref().map(|tls| version_name(tls.version)).filter(|name| !name.is_empty()),
            tls_cipher: connection.tls.as_ref().and_then(|tls| cipher_name(tls.cipher?)),
            client_certificate: connection.client().map(|client| &client.certificate),
            server_certificate: connection.tls.as_ref().and_then(|tls| tls.served.as_deref()),
            hostname: hostname(),
            upstream_host: self.upstream_host,
            upstream_cluster,
            attempts: self.attempts.max(1),
            details: &self.details,
            received: self.received,
            route_name: self.rule.as_ref().map_or("", |rule| &rule.name),
        }
    }
}

/// This machine's name.
fn hostname() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        let file = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        file.trim().to_owned()
    })
}
