//! What can an operator, a load balancer and Prometheus ask the running process? Three ports, read-only but for a few
//! POSTs.

mod answer;
mod explain;
mod guard;
mod index;
mod pages;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::base::task;
use crate::certs::engine::Certificates;
use crate::control::lifecycle::Lifecycle;
use crate::control::pipeline::Reloader;
use crate::snapshot::store::Store;
use crate::telemetry::Telemetry;
use crate::telemetry::log::LogLevel;

/// What the pages read, and the few things they may set going.
pub(crate) struct Facts {
    pub store: Arc<Store>,
    pub telemetry: Arc<Telemetry>,
    pub certificates: Certificates,
    pub reloader: Reloader,
    pub lifecycle: Lifecycle,
    pub log_level: LogLevel,
}

/// The addresses of the three ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Status, dumps, log level, reload, drain.
    pub admin: SocketAddr,
    /// Readiness for load balancers.
    pub ready: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
}

/// The bound ports; nothing is answered before `serve`.
pub(crate) struct Ports {
    admin: std::net::TcpListener,
    ready: std::net::TcpListener,
    metrics: std::net::TcpListener,
}

/// A port that the process cannot do without is taken, or may not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound; `[admin] {port}` in the settings may name another address")]
pub(crate) struct PortTaken {
    pub port: &'static str,
    pub address: SocketAddr,
    #[source]
    pub error: io::Error,
}

/// Binds the three ports, so that a process that cannot be asked does not start.
///
/// # Errors
///
/// The first port that cannot be bound.
pub(crate) fn bind(addresses: Addresses) -> Result<Ports, PortTaken> {
    let listen = |port, address| {
        let bound = std::net::TcpListener::bind(address);
        let bound = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        bound.map_err(|error| PortTaken { port, address, error })
    };
    Ok(Ports {
        admin: listen("address", addresses.admin)?,
        ready: listen("ready", addresses.ready)?,
        metrics: listen("metrics", addresses.metrics)?,
    })
}

/// Answers on the three ports until the process ends.
///
/// # Errors
///
/// A listener that the runtime does not take.
pub(crate) fn serve(ports: Ports, facts: Arc<Facts>) -> io::Result<()> {
    let admin = TcpListener::from_std(ports.admin)?;
    let ready = TcpListener::from_std(ports.ready)?;
    let metrics = TcpListener::from_std(ports.metrics)?;
    let (admin_facts, ready_facts) = (Arc::clone(&facts), Arc::clone(&facts));
    task::spawn("admin", server::serve(admin, move |head, body| pages::admin(Arc::clone(&admin_facts), head, body)));
    task::spawn("ready", server::serve(ready, move |head, _| pages::ready(Arc::clone(&ready_facts), head)));
    task::spawn("metrics", server::serve(metrics, move |head, _| pages::metrics(Arc::clone(&facts), head)));
    Ok(())
}
