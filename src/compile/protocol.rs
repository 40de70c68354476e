//! Which protocol does a port speak? (Istio's protocol names.)

/// A port's protocol, as far as routing tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    /// HTTP2, GRPC and GRPC-WEB: HTTP/2 is spoken to endpoints.
    Http2,
    Https,
    Tls,
    /// TCP, MONGO, REDIS, MYSQL.
    Tcp,
    Udp,
    /// No name that is known.
    Unknown,
}

impl Protocol {
    /// The name in any case.
    pub(super) fn parse(name: &str) -> Protocol {
        match name.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP_PROXY" => Protocol::Http,
            "HTTP2" | "GRPC" | "GRPC-WEB" => Protocol::Http2,
            "HTTPS" => Protocol::Https,
            "TLS" => Protocol::Tls,
            "TCP" | "MONGO" | "REDIS" | "MYSQL" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => Protocol::Unknown,
        }
    }

    /// A Kubernetes Service port: appProtocol, else the port name up to its first `-`.
    pub(super) fn of_service_port(app_protocol: &str, name: &str, transport: &str) -> Protocol {
        match app_protocol {
            _ if transport == "UDP" => Protocol::Udp,
            "kubernetes.io/h2c" => Protocol::Http2,
            "kubernetes.io/ws" => Protocol::Http,
            "kubernetes.io/wss" => Protocol::Https,
            "" if name.to_ascii_lowercase().starts_with("grpc-web") => Protocol::Http2,
            "" => Protocol::parse(name.split('-').next().unwrap_or_default()),
            named => Protocol::parse(named),
        }
    }

    /// Whether HTTP is spoken, or may be: then the first bytes tell.
    pub(super) fn may_be_http(self) -> bool {
        self.is_http() || self == Protocol::Unknown
    }

    /// Whether plaintext HTTP is spoken.
    pub(super) fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Http2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ports_name_their_protocol() {
        for (app_protocol, name, transport, expected) in [
            ("", "http", "TCP", Protocol::Http),
            ("", "grpc-reviews", "", Protocol::Http2),
            ("", "web", "TCP", Protocol::Unknown),
            ("kubernetes.io/h2c", "http", "TCP", Protocol::Http2),
            ("https", "http", "TCP", Protocol::Https),
            ("", "http-dns", "UDP", Protocol::Udp),
        ] {
            assert_eq!(Protocol::of_service_port(app_protocol, name, transport), expected, "{app_protocol} {name}");
        }
    }
}
