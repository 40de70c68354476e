//! How is a connection to an endpoint opened? TCP, then TLS if the cluster says so, within the connect timeout.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::commons::Overflow;
use super::peer::Peer;
use super::tunnel;
use crate::net::link::Link;
use crate::net::proxy_protocol::Addresses;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::cluster::{Cluster, Encryption, Keepalive, ProxyHeader};
use crate::snapshot::tls::{ClientTerms, TlsClient};

/// A connection as Pingora's HTTP/1 client session takes it.
pub(crate) use pingora_core::protocols::Stream;

/// What is to be spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Http1,
    Http2,
}

/// Where a connection leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub address: SocketAddr,
    pub encryption: Encryption,
    /// Whom the connection is for, where the endpoint is told.
    pub client: Option<Addresses>,
}

impl End {
    fn tls<'c>(&self, cluster: &'c Cluster) -> Option<&'c TlsClient> {
        cluster.tls.as_ref().filter(|_| self.encryption == Encryption::OfCluster)
    }
}

/// A new connection.
pub(super) struct Opened {
    pub link: Link,
    /// `None` on plaintext.
    pub peer: Option<Arc<Peer>>,
}

impl Opened {
    fn plain(tcp: TcpStream) -> Self {
        Opened { link: Link::client_plain(tcp), peer: None }
    }

    fn encrypted(tls: TlsStream<TcpStream>, own: &Option<Arc<Certificate>>) -> Self {
        let peer = Peer::new(tls.get_ref().1, own.clone());
        Opened { link: Link::client_tls(tls), peer: Some(Arc::new(peer)) }
    }
}

/// Why there is no connection. The text is Envoy's `transport failure reason` where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Failed(Arc<str>),
    #[error("connection timeout")]
    Timeout,
    #[error("{0}")]
    Tls(Arc<str>),
    /// The cluster has all the requests that it may have, or all that may wait for a connection.
    #[error("overflow")]
    Overflow { waiting: bool },
    /// The credential for TLS is missing.
    #[error("{0}")]
    Unavailable(Arc<str>),
}

impl ConnectError {
    /// What the reply and the access log tell as transport failure reason.
    pub(crate) fn transport_failure(&self) -> Option<&str> {
        match self {
            ConnectError::Failed(text) | ConnectError::Tls(text) | ConnectError::Unavailable(text) => Some(text),
            ConnectError::Timeout | ConnectError::Overflow { .. } => None,
        }
    }

    fn failed(error: &io::Error) -> Self {
        let text = error.to_string();
        let text = text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text);
        ConnectError::Failed(format!("delayed connect error: {text}").into())
    }

    fn tls(text: impl std::fmt::Display) -> Self {
        ConnectError::Tls(format!("TLS_error: {text}").into())
    }
}

impl From<Overflow> for ConnectError {
    fn from(_: Overflow) -> Self {
        ConnectError::Overflow { waiting: false }
    }
}

/// The TLS client configurations of one cluster identity, one for each protocol, made when first used.
#[derive(Debug, Default)]
pub(super) struct ClientConfigs {
    http1: OnceLock<Arc<ClientConfig>>,
    http2: OnceLock<Arc<ClientConfig>>,
}

impl ClientConfigs {
    fn offering(&self, base: &ClientConfig, want: Want) -> Arc<ClientConfig> {
        let (slot, of_mesh, plain) = match want {
            Want::Http1 => (&self.http1, b"istio-http/1.1".as_slice(), b"http/1.1".as_slice()),
            Want::Http2 => (&self.http2, b"istio-h2".as_slice(), b"h2".as_slice()),
        };
        let offering = || {
            let mut config = base.clone();
            // What has names of its own is spoken to as a workload of the mesh.
            config.alpn_protocols = match base.alpn_protocols.is_empty() {
                true => vec![plain.to_vec()],
                false => vec![of_mesh.to_vec(), b"istio".to_vec(), plain.to_vec()],
            };
            Arc::new(config)
        };
        Arc::clone(slot.get_or_init(offering))
    }
}

/// The server name that distinguishes connections of one endpoint: the host of the authority, if the cluster uses
/// TLS and names no server of its own.
pub(super) fn server_name_of<'a>(cluster: &Cluster, authority: &'a str) -> Option<&'a str> {
    matches!(cluster.tls, Some(TlsClient::Ready { sni: None, .. })).then(|| host_of(authority))
}

/// Opens a connection for bytes as they are: there is no authority that could be sent or verified as a name.
pub(super) async fn open_tcp(end: End, cluster: &Cluster) -> Result<Opened, ConnectError> {
    let opened = tokio::time::timeout(cluster.connect_timeout, async {
        let Opened { link, peer } = open_link(end, cluster).await?;
        match &cluster.tunnel {
            Some(tunnel) => Ok(Opened { link: tunnel::through(link, tunnel).await?, peer }),
            None => Ok(Opened { link, peer }),
        }
    });
    opened.await.unwrap_or(Err(ConnectError::Timeout))
}

async fn open_link(end: End, cluster: &Cluster) -> Result<Opened, ConnectError> {
    let (terms, name, own) = match end.tls(cluster) {
        None => return dial(end, cluster).await.map(Opened::plain),
        Some(TlsClient::Unavailable { reason }) => return Err(ConnectError::Unavailable(reason.as_str().into())),
        Some(TlsClient::Ready { terms, sni: Some(sni), own, .. }) => (terms, server_name(sni)?, own),
        // An address is never sent as a server name.
        Some(TlsClient::Ready { unnamed, sni: None, own, .. }) => (unnamed, ServerName::from(end.address.ip()), own),
    };
    let tcp = dial(end, cluster).await?;
    let tls = shake_hands(tcp, end, cluster, terms, Arc::clone(&terms.config), name).await?;
    Ok(Opened::encrypted(tls, own))
}

/// Begins TLS. What is resumed and would not begin any more begins anew.
async fn shake_hands(
    tcp: TcpStream,
    end: End,
    cluster: &Cluster,
    terms: &ClientTerms,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let connector = TlsConnector::from(config);
    let tls = connector.connect(name.clone(), tcp).await.map_err(ConnectError::tls)?;
    if terms.judge_again(tls.get_ref().1, &name).is_ok() {
        return Ok(tls);
    }
    drop(tls);
    // Boxed, because it is rare, and every connection would have room for it.
    let again = Box::pin(async {
        let tls = connector.connect(name.clone(), dial(end, cluster).await?).await.map_err(ConnectError::tls)?;
        terms.judge_again(tls.get_ref().1, &name).map_err(ConnectError::tls)?;
        Ok(tls)
    });
    again.await
}

/// Connects; the endpoint is told the client first, if the cluster wants that.
async fn dial(end: End, cluster: &Cluster) -> Result<TcpStream, ConnectError> {
    let mut tcp = TcpStream::connect(end.address).await.map_err(|error| ConnectError::failed(&error))?;
    tcp.set_nodelay(true).map_err(|error| ConnectError::failed(&error))?;
    if let Some(keepalive) = &cluster.limits.keepalive {
        keep_alive(&tcp, keepalive).map_err(|error| ConnectError::failed(&error))?;
    }
    if let (Some(version), Some(client)) = (cluster.proxy_header, end.client) {
        introduce(&mut tcp, version, client).await.map_err(|error| ConnectError::failed(&error))?;
    }
    Ok(tcp)
}

async fn introduce(tcp: &mut TcpStream, version: ProxyHeader, client: Addresses) -> io::Result<()> {
    let header = match version {
        ProxyHeader::V1 => client.to_text(),
        ProxyHeader::V2 => client.to_binary()?,
    };
    tcp.write_all(&header).await
}

fn keep_alive(tcp: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    let mut settings = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        settings = settings.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        settings = settings.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        settings = settings.with_retries(probes);
    }
    SockRef::from(tcp).set_tcp_keepalive(&settings)
}

fn server_name(name: &str) -> Result<ServerName<'static>, ConnectError> {
    ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::tls(format_args!("`{name}` is no server name")))
}

/// Opens a connection. `asked` is what [`server_name_of`] says.
pub(super) async fn open(
    end: End,
    cluster: &Cluster,
    asked: Option<&str>,
    configs: &ClientConfigs,
    want: Want,
) -> Result<Opened, ConnectError> {
    let tls = end.tls(cluster);
    if let Some(TlsClient::Unavailable { reason }) = tls {
        return Err(ConnectError::Unavailable(reason.as_str().into()));
    }
    let opened = tokio::time::timeout(cluster.connect_timeout, async {
        let tcp = dial(end, cluster).await?;
        let Some(TlsClient::Ready { terms, sni, own, .. }) = tls else { return Ok(Opened::plain(tcp)) };
        let name = sni.clone().unwrap_or_else(|| asked.unwrap_or_default().to_ascii_lowercase());
        let name = server_name(&name)?;
        let config = configs.offering(&terms.config, want);
        let tls = shake_hands(tcp, end, cluster, terms, config, name).await?;
        Ok(Opened::encrypted(tls, own))
    });
    opened.await.unwrap_or(Err(ConnectError::Timeout))
}

/// `example.com` of `example.com:8080`, `::1` of `[::1]:8080`.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_authority_has_no_port() {
        let cases = [("a.com", "a.com"), ("a.com:80", "a.com"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", "")];
        for (authority, host) in cases {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn failures_read_as_envoy_writes_them() {
        let refused = ConnectError::failed(&io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(refused.transport_failure(), Some("delayed connect error: Connection refused"));
        assert_eq!(ConnectError::Timeout.transport_failure(), None);
    }
}
