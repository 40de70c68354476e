//! What does a DNS server answer? One exchange with the server itself, or with the system's resolver.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_net::client::{Client, ClientHandle};
use hickory_net::proto::op::DnsResponse;
use hickory_net::proto::rr::{DNSClass, Name, RData, RecordType, TSigner};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::{DnsMultiplexer, NetError};
use hickory_resolver::TokioResolver;

use crate::base::task;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where an alias leads, as the server of the zone says, or the system's resolver if the server does not know.
pub(super) async fn alias(server: SocketAddr, name: &Name) -> Option<Name> {
    if let Ok(answer) = ask(server, name, RecordType::CNAME).await {
        let target = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
            _ => None,
        });
        if target.is_some() || answer.authoritative {
            return target;
        }
    }
    let answer = resolver()?.lookup(name.clone(), RecordType::CNAME).await.ok()?;
    answer.answers().iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
        _ => None,
    })
}

/// Asks a server one question.
pub(super) async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> Result<DnsResponse, NetError> {
    let mut client = connect(server, None).await?;
    client.query(name.clone(), DNSClass::IN, kind).await
}

/// By TCP, so that nothing is cut and nobody forges an answer; by UDP where a server takes no connections.
pub(super) async fn connect(
    server: SocketAddr,
    key: Option<TSigner>,
) -> Result<Client<TokioRuntimeProvider>, NetError> {
    let provider = TokioRuntimeProvider::new();
    let (stream, sender) = TcpClientStream::new(server, None, Some(ANSWER_WITHIN), provider.clone());
    if let Ok(stream) = stream.await {
        let mut exchange = DnsMultiplexer::new(stream, sender).with_timeout(ANSWER_WITHIN);
        if let Some(key) = key {
            exchange = exchange.with_signer(key);
        }
        let (client, background) = Client::from_sender(exchange);
        drop(task::spawn("dns exchange", background));
        return Ok(client);
    }
    let exchange =
        UdpClientStream::builder(server, provider).with_timeout(Some(ANSWER_WITHIN)).with_signer(key).build();
    let (client, background) = Client::from_sender(exchange);
    drop(task::spawn("dns exchange", background));
    Ok(client)
}

/// The system's, without a memory: what was not there a second ago may be there now.
pub(super) fn resolver() -> Option<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().ok()?;
    builder.options_mut().cache_size = 0;
    builder.build().ok()
}
