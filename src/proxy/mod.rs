//! (to be written)

pub(crate) mod http;
