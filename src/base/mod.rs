//! Words that every part may use. No network, no files.

pub(crate) mod cidr;
pub(crate) mod clock;
pub(crate) mod grpc;
pub(crate) mod host;
pub(crate) mod kept_name;
pub(crate) mod re2;
pub(crate) mod spiffe;
pub(crate) mod task;
pub(crate) mod uuid;
