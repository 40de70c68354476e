//! What is at hand while one generation is compiled?

use std::collections::HashMap;
use std::sync::Arc;

use super::index::Index;
use super::memory::Memory;
use super::problems::Problems;
use crate::snapshot::cluster::Cluster;

/// The objects, the memory of earlier generations, and what was built so far.
pub(super) struct Work<'a> {
    pub index: &'a Index<'a>,
    pub memory: &'a mut Memory,
    pub problems: Problems,
    /// By name; `None` for names that were asked for and do not exist.
    pub clusters: HashMap<Arc<str>, Option<Arc<Cluster>>>,
    /// Seconds since 1970, to judge the dates of certificates.
    pub now: i64,
}
