//! What is at hand while one generation is compiled?

use std::collections::HashMap;
use std::sync::Arc;

use super::clusters;
use super::index::Index;
use super::memory::{Made, Memory};
use super::problems::Problems;
use super::trail::{Answer, Question, Trail};
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

impl Work<'_> {
    /// Makes a result, with what it depended on and what there is to say about it.
    pub(super) fn make<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Made<T> {
        self.index.begin_trail();
        self.problems.begin();
        let value = make(self);
        Made { value, trail: self.index.end_trail(), problems: self.problems.end().into() }
    }

    /// Whether everything that an earlier result depended on is as it was; then its problems are told again.
    pub(super) fn still_holds<T>(&mut self, made: &Made<T>) -> bool {
        // What is asked now is no look-up of a result in the making.
        self.index.begin_trail();
        let holds = self.objects_hold(&made.trail) && self.clusters_hold(&made.trail);
        self.index.end_trail();
        if holds {
            self.problems.repeat(&made.problems);
        }
        holds
    }

    fn objects_hold(&self, trail: &Trail) -> bool {
        trail.iter().all(|(question, known)| self.index.answer(question).is_none_or(|answer| answer == *known))
    }

    /// Asked after the objects: only when they are the same are the same clusters needed.
    fn clusters_hold(&mut self, trail: &Trail) -> bool {
        trail.iter().all(|(question, known)| match question {
            Question::Cluster { name } => Answer::of(clusters::by_name(self, name).as_deref().into_iter()) == *known,
            _ => true,
        })
    }
}
