//! Who are we, and until when? Certificates are issued and renewed here, and put where the configuration reads them.

pub(crate) mod acme;
pub(crate) mod challenges;
mod durable;
pub(crate) mod engine;
mod entry;
pub(crate) mod identity;
pub(crate) mod issue;
pub(crate) mod issuers;
mod ladder;
mod local_ca;
mod lock;
mod memory;
pub(crate) mod on_demand;
mod order;
mod renewal;
mod self_check;
pub(crate) mod status;
pub(crate) mod store;
mod stored;
mod upkeep;
