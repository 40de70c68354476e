//! Traffic: bytes and sockets on the client's side. The rest of the work is `http`.

pub(crate) mod connection;
pub(crate) mod http;
pub(crate) mod worker;
