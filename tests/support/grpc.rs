//! A gRPC service behind the gateway (the standard health service), and its client.

use std::net::SocketAddr;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use super::address;
use super::backend::on_own_runtime;

/// A running health service; tell it a status by `reporter`.
pub struct HealthService {
    pub address: SocketAddr,
    pub reporter: HealthReporter,
}

impl HealthService {
    pub fn start() -> Self {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = std::net::TcpListener::bind((address::fresh(), 0)).expect("an address of our own");
        let address = listener.local_addr().expect("it is bound");
        on_own_runtime(listener, |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                let served = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(move |request| service.clone().call(request)));
                tokio::spawn(served);
            }
        });
        HealthService { address, reporter }
    }
}

/// A client of the service `host` through the gateway at `address`.
pub async fn health_client(address: SocketAddr, host: &str) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a URI");
    let origin = format!("http://{host}").parse().expect("a host is a URI");
    HealthClient::new(endpoint.origin(origin).connect().await.expect("the gateway takes HTTP/2"))
}
