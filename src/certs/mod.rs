//! Who are we, and until when? Certificates are issued and renewed here, and put where the configuration reads them.

pub(crate) mod challenges;
mod durable;
pub(crate) mod identity;
pub(crate) mod issue;
mod ladder;
mod lock;
mod memory;
mod renewal;
pub(crate) mod store;
mod stored;
