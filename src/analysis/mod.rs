//! What is wrong, doubtful or not yet in force in what the user wrote? One analyzer per question.

#[cfg(test)]
mod conformance;
mod reachability;
mod validate;

use crate::resource::ResourceSet;
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;

/// What analysis keeps between generations: the verdicts on unchanged objects.
#[derive(Default)]
pub(crate) struct Memory {}

/// The objects that may be compiled, and everything there is to say about the whole. An object that breaks a rule of
/// its kind is left out.
pub(crate) fn analyze(
    resources: &ResourceSet,
    _settings: &Settings,
    _memory: &mut Memory,
) -> (ResourceSet, Vec<Finding>) {
    (resources.clone(), Vec::new())
}
