//! How is one client connection served? Its requests, one after the other or side by side, until it ends.
//!
//! A request walks: `h1` or `h2` (with `head`, `guard`) -> `serve` -> `admit` -> `forward` or `reply` (with `fail`) ->
//! `finish`. `forward` makes one `attempt` after the other as `retry` decides; each sends what `outgoing` made of the
//! request and is an `exchange` between `client` and `origin`, with the body kept by `replay` and copied to `mirror`.

mod admit;
mod attempt;
mod body;
mod challenge;
mod client;
mod clock;
mod context;
mod exchange;
mod fail;
pub(crate) mod finish;
mod forward;
mod guard;
mod h1;
mod h2;
mod head;
mod headers;
mod inject;
mod mirror;
mod origin;
mod outgoing;
mod remember;
mod replay;
mod reply;
mod retry;
mod serve;
mod visit;

use std::sync::Arc;

use crate::net::drain::Drain;
use crate::net::link::Link;

use super::connection::{ClientProtocol, Connection};
use super::worker::Worker;
use visit::Visit;

/// Serves one client connection until it ends.
pub(crate) async fn serve(
    link: Link,
    protocol: ClientProtocol,
    connection: Arc<Connection>,
    worker: Arc<Worker>,
    drain: Drain,
) {
    let visit = Visit::new(connection, worker, drain);
    match protocol {
        ClientProtocol::Http1 => h1::connection(link, &visit).await,
        ClientProtocol::Http2 => h2::connection(link, Arc::new(visit)).await,
    }
}

#[cfg(test)]
mod tests;
