//! What is at hand while one generation is compiled?

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::index::Index;
use super::issuance::Plan;
use super::memory::{Made, Memory};
use super::problems::Problems;
use super::sessions::Sessions;
use super::trail::{Answer, Question};
use crate::snapshot::cluster::Cluster;

/// The objects, the memory of earlier generations, and what was built so far.
pub(super) struct Work<'a> {
    pub index: &'a Index<'a>,
    pub memory: &'a mut Memory,
    pub problems: Problems,
    /// Which certificates are got for the servers.
    pub issued: &'a Plan,
    /// By name; `None` for names that were asked for and do not exist.
    pub clusters: HashMap<Arc<str>, Option<Arc<Cluster>>>,
    /// How the sessions of clients are resumed; `None`: not at all.
    pub sessions: Option<Sessions>,
    /// By their issuer, the first certificate that is sent without its own, and how many are.
    pub lone_certificates: BTreeMap<String, (String, usize)>,
    /// Seconds since 1970, to judge the dates of certificates.
    pub now: i64,
}

impl Work<'_> {
    /// Makes a result, with what it depended on and what there is to say about it.
    pub(super) fn make<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Made<T> {
        self.index.begin_trail();
        self.problems.begin();
        let value = make(self);
        Made { value, trail: self.index.end_trail(), problems: self.problems.end().into() }
    }

    /// Whether all objects that an earlier result depended on are as they were.
    pub(super) fn objects_hold<T>(&self, made: &Made<T>) -> bool {
        let holds =
            |(question, known): &(Question, Answer)| self.index.answer(question).is_none_or(|answer| answer == *known);
        // What is asked now is no look-up of a result in the making.
        self.index.begin_trail();
        let all_hold = made.trail.iter().all(holds);
        self.index.end_trail();
        all_hold
    }

    /// An earlier result that is used again, with its problems told again.
    pub(super) fn again<T>(&mut self, made: Made<T>) -> Made<T> {
        self.problems.repeat(&made.problems);
        made
    }
}
