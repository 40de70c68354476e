//! Traffic: bytes and sockets on the client's side. The rest of the work is `http`'s and `tcp`'s.

mod accept;
mod backoff;
mod bind;
pub(crate) mod connection;
pub(crate) mod http;
pub(crate) mod listeners;
mod tcp;
mod tls;
pub(crate) mod worker;
