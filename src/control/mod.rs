//! Who changes the configuration in force? `Pipeline` alone: gather -> analyze -> compile -> bind -> publish.
//!
//! Signals, watched files and the admin page only ask for a reload; runs follow one another and are never mixed.

pub(crate) mod build;
pub(crate) mod identity;
pub(crate) mod lifecycle;
pub(crate) mod observe;
pub(crate) mod pipeline;
pub(crate) mod signal;
pub(crate) mod sockets;
pub(crate) mod status;
pub(crate) mod watch;
