//! What do bytes travel through? One stream type for clients and endpoints.

pub(crate) mod link;
pub(crate) mod prefixed;
