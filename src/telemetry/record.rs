//! What is known of a request or connection at its end? The facts that an access log line can tell.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::flags::ResponseFlags;

/// The facts of one request or TCP connection. Empty texts and `None` are not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub kind: RecordKind,
    pub start: SystemTime,
    pub method: &'a [u8],
    /// With the query, as it was sent to the endpoint.
    pub path: &'a [u8],
    /// Where a rewrite changed `path`: what it was, if the endpoint was told.
    pub original_path: &'a [u8],
    pub authority: &'a [u8],
    pub scheme: &'a str,
    /// `HTTP/1.1`, `HTTP/2`; empty for TCP.
    pub protocol: &'a str,
    /// 0 if none was sent.
    pub response_code: u16,
    pub flags: ResponseFlags,
    /// `via_upstream`, or why we answered ourselves.
    pub response_code_details: &'a str,
    pub connection_termination_details: &'a str,
    pub upstream_transport_failure_reason: &'a str,
    /// The request's headers as they were sent to the endpoint, or as they came if they never were.
    pub request_headers: Option<&'a HeaderMap>,
    /// The answer's headers, as far as a log wants them.
    pub response_headers: Option<&'a HeaderMap>,
    /// The answer's trailers, as far as a log wants them.
    pub trailers: Option<&'a HeaderMap>,
    /// Bytes of the bodies; of TCP, all bytes.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Bytes of the heads.
    pub head_received: u64,
    pub head_sent: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// From the first byte of the request to its last.
    pub request_time: Option<Duration>,
    /// From the first byte of the request to the head of the endpoint's answer.
    pub response_time: Option<Duration>,
    /// The answer's x-envoy-upstream-service-time in milliseconds.
    pub upstream_service_time: Option<u64>,
    pub is_grpc: bool,
    pub grpc_status: Option<u16>,
    /// Tries that were made.
    pub attempts: u32,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_cluster: &'a str,
    pub upstream_local_address: Option<SocketAddr>,
    /// The protocol spoken with the endpoint; empty before there was a connection.
    pub upstream_protocol: &'a str,
    pub downstream_local_address: Option<SocketAddr>,
    /// The client, as trusted proxies name it.
    pub downstream_remote_address: Option<SocketAddr>,
    /// The peer of the connection.
    pub downstream_direct_remote_address: Option<SocketAddr>,
    pub connection_id: u64,
    pub tls: Option<TlsRecord<'a>>,
    /// With the endpoint; `peer` is its certificate.
    pub upstream_tls: Option<TlsRecord<'a>>,
    pub requested_server_name: &'a str,
    pub route_name: &'a str,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Http,
    Tcp,
    /// A connection that no server of its port takes.
    Listener,
}

/// What the TLS handshake with the client, or with the endpoint, settled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TlsRecord<'a> {
    /// `TLSv1.3`
    pub version: &'a str,
    /// `TLS_AES_128_GCM_SHA256`
    pub cipher: &'a str,
    /// The other side's certificate.
    pub peer: Option<CertificateRecord<'a>>,
    /// Our own certificate.
    pub local: Option<CertificateRecord<'a>>,
}

/// What a certificate says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CertificateRecord<'a> {
    /// RFC 2253
    pub subject: &'a str,
    pub issuer: &'a str,
    pub uris: &'a [String],
    pub dns: &'a [String],
    pub emails: &'a [String],
    pub addresses: &'a [IpAddr],
    /// Hexadecimal, as are the fingerprints.
    pub serial: &'a str,
    pub sha256: &'a str,
    pub sha1: &'a str,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// The certificate in PEM, escaped for a URL.
    pub escaped_pem: &'a str,
    /// Of this certificate and those that were shown behind it.
    pub chain_serials: &'a [String],
    pub chain_sha256: &'a [String],
    pub chain_sha1: &'a [String],
}

impl Record<'_> {
    /// Whether there was a connection to the endpoint.
    pub(super) fn upstream_is_connected(&self) -> bool {
        !self.upstream_protocol.is_empty() || self.upstream_local_address.is_some()
    }

    /// Nothing but a time and what kind it is; the rest is filled in by struct update.
    pub(crate) fn empty(kind: RecordKind, start: SystemTime) -> Self {
        Record {
            kind,
            start,
            method: b"",
            path: b"",
            original_path: b"",
            authority: b"",
            scheme: "",
            protocol: "",
            response_code: 0,
            flags: ResponseFlags::default(),
            response_code_details: "",
            connection_termination_details: "",
            upstream_transport_failure_reason: "",
            request_headers: None,
            response_headers: None,
            trailers: None,
            bytes_received: 0,
            bytes_sent: 0,
            head_received: 0,
            head_sent: 0,
            duration: Duration::ZERO,
            request_time: None,
            response_time: None,
            upstream_service_time: None,
            is_grpc: false,
            grpc_status: None,
            attempts: 0,
            upstream_host: None,
            upstream_cluster: "",
            upstream_local_address: None,
            upstream_protocol: "",
            downstream_local_address: None,
            downstream_remote_address: None,
            downstream_direct_remote_address: None,
            connection_id: 0,
            tls: None,
            upstream_tls: None,
            requested_server_name: "",
            route_name: "",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;

    use super::super::flags::Flag;
    use super::*;

    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.9"));
        headers.insert("user-agent", HeaderValue::from_static("curl/8.5.0"));
        headers.insert("x-request-id", HeaderValue::from_static("11111111-2222-4333-8444-555555555555"));
        headers
    });

    static ODD_HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let mut headers = HEADERS.clone();
        headers.remove("x-forwarded-for");
        headers.insert("user-agent", HeaderValue::from_bytes(b"a\"b\\\xff\t").unwrap());
        headers
    });

    pub(crate) fn answered() -> Record<'static> {
        Record {
            method: b"GET",
            path: b"/productpage?u=normal",
            authority: b"bookinfo.example.com",
            scheme: "https",
            protocol: "HTTP/1.1",
            response_code: 200,
            response_code_details: "via_upstream",
            request_headers: Some(&HEADERS),
            bytes_sent: 5183,
            duration: Duration::from_micros(28_900),
            request_time: Some(Duration::from_millis(1)),
            response_time: Some(Duration::from_millis(28)),
            upstream_service_time: Some(27),
            attempts: 1,
            upstream_host: Some(([10, 244, 0, 12], 9080).into()),
            upstream_cluster: "outbound|9080||productpage.default.svc.cluster.local",
            upstream_local_address: Some(([10, 244, 0, 5], 40712).into()),
            upstream_protocol: "HTTP/1.1",
            downstream_local_address: Some(([10, 244, 0, 5], 8443).into()),
            downstream_remote_address: Some(([10, 0, 0, 9], 51044).into()),
            requested_server_name: "bookinfo.example.com",
            tls: Some(TlsRecord { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", peer: None, local: None }),
            ..Record::empty(RecordKind::Http, UNIX_EPOCH + Duration::from_millis(1_767_323_045_078))
        }
    }

    pub(crate) fn refused() -> Record<'static> {
        let mut flags = ResponseFlags::from(Flag::UpstreamRetryLimitExceeded);
        flags.set(Flag::UpstreamConnectionFailure);
        Record {
            response_code: 503,
            flags,
            response_code_details: "upstream_reset_before_response_started{remote connection failure|no way}",
            upstream_transport_failure_reason: "delayed connect error: Connection refused",
            upstream_service_time: None,
            request_headers: Some(&ODD_HEADERS),
            upstream_local_address: None,
            downstream_remote_address: Some("[::1]:0".parse().unwrap()),
            requested_server_name: "",
            route_name: "shop.beta",
            ..answered()
        }
    }
}
