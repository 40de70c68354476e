//! Who are we, and until when? Certificates are issued and renewed here, and put where the configuration reads them.

pub(crate) mod challenges;
pub(crate) mod issue;
