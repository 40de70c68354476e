//! On which objects did a result depend? Look-ups are noted while it is made, and asked again before it is used again.
//!
//! A result that was made from the same objects is the same result. So a generation makes anew only what a changed
//! object touches; everything else is taken from the generation before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::resource::meta::Labels;

/// A look-up of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Services { host: Box<str> },
    Rule { host: Box<str>, namespace: Box<str> },
    Slices { namespace: Box<str>, service: Box<str> },
    Endpoints { namespace: Box<str>, service: Box<str> },
    Workloads { namespace: Box<str>, selector: Labels },
    Pods { namespace: Box<str>, selector: Labels },
    PodsOfService { namespace: Box<str>, service: Box<str> },
    PeerPolicies { namespace: Box<str> },
    Secret { name: Box<str> },
    VirtualService { namespace: Box<str>, name: Box<str> },
    Cluster { name: Arc<str> },
}

/// Which objects a look-up gave; equal answers name the same objects in the same order. The addresses in it are those
/// of objects that [`super::Memory`] keeps alive until the next generation is made, so none is taken by another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer(u64);

impl Answer {
    pub(super) fn of<'o, T: 'o>(objects: impl Iterator<Item = &'o T>) -> Answer {
        Answer::of_addresses(objects.map(|object| std::ptr::from_ref(object).addr()))
    }

    /// For objects of several types.
    pub(super) fn of_addresses(addresses: impl Iterator<Item = usize>) -> Answer {
        let mut hasher = DefaultHasher::new();
        addresses.for_each(|address| address.hash(&mut hasher));
        Answer(hasher.finish())
    }
}

/// What one result depended on.
pub(super) type Trail = [(Question, Answer)];

/// The trails in the making: a result may need another one, which has a trail of its own.
#[derive(Default)]
pub(super) struct Trails(Vec<Vec<(Question, Answer)>>);

impl Trails {
    pub(super) fn begin(&mut self) {
        self.0.push(Vec::new());
    }

    pub(super) fn end(&mut self) -> Arc<Trail> {
        self.0.pop().unwrap_or_default().into()
    }

    /// Notes a look-up of the result in the making, if there is one.
    pub(super) fn note(&mut self, answer: Answer, question: impl FnOnce() -> Question) {
        let Some(trail) = self.0.last_mut() else { return };
        let question = question();
        if !trail.iter().any(|(known, _)| *known == question) {
            trail.push((question, answer));
        }
    }
}
