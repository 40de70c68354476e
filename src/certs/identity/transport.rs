//! How is a source reached? gRPC over a Unix socket, TCP or TLS, with rustls as everywhere.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::{Pin, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// How long a connection and its handshake may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where a source listens.
#[derive(Clone)]
pub(super) enum Door {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
    Tls {
        /// `host:port`
        address: String,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    },
}

impl Door {
    async fn open(self) -> io::Result<Box<dyn Stream>> {
        match self {
            Door::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Door::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
            Door::Tls { address, name, config } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
            }
        }
    }

    fn origin(&self) -> String {
        match self {
            Door::Unix(_) => "http://localhost".to_owned(),
            Door::Tcp(address) | Door::Tls { address, .. } => format!("http://{address}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens connections for tonic.
struct Connector(Door);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move { door.open().await.map(TokioIo::new) })
    }
}

/// A source that can be asked.
pub(super) struct Client(Grpc<Channel>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// `Unavailable`, with words for why.
    pub(super) async fn connect(door: Door) -> Result<Client, Status> {
        let unavailable = |error: tonic::transport::Error| Status::unavailable(with_causes(&error));
        let endpoint = Endpoint::from_shared(door.origin()).map_err(unavailable)?.connect_timeout(CONNECT_LIMIT);
        let channel = endpoint.connect_with_connector(Connector(door)).await.map_err(unavailable)?;
        Ok(Client(Grpc::new(channel)))
    }

    /// One question, one answer.
    pub(super) async fn ask<Q, A>(&mut self, request: Request<Q>, method: &'static str) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.0.unary(request, PathAndQuery::from_static(method), codec).await?.into_inner())
    }

    /// One question, and answers for as long as both sides live.
    pub(super) async fn listen<Q, A>(
        &mut self,
        request: Request<Q>,
        method: &'static str,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.0.server_streaming(request, PathAndQuery::from_static(method), codec).await?.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(with_causes(&error)))
    }
}

/// A status as words.
pub(super) fn words(status: &Status) -> String {
    let said = status.message();
    match (status.code(), said.is_empty()) {
        (Code::Unavailable, false) => said.to_owned(),
        (code, true) => format!("{code:?}"),
        (code, false) => format!("{code:?}: {said}"),
    }
}

/// An error with what caused it, such as `transport error: Connection refused`; the outermost words say nothing more.
fn with_causes(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
