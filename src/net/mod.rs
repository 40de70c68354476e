//! Bytes between sockets and HTTP: one stream type, the first bytes of a connection, the signal to go away.

pub(crate) mod drain;
pub(crate) mod hello;
pub(crate) mod link;
pub(crate) mod prefixed;
pub(crate) mod proxy_protocol;
