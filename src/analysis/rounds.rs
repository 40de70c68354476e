//! Which analyzers have to be asked again? What looked only at unchanged objects says what it said the last time.

use std::collections::HashMap;
use std::sync::Arc;

use super::analyzers::{ANALYZERS, Ask};
use super::changes::{Input, changed};
use super::report::{Places, Report, Told};
use super::world::{View, World};
use crate::resource::ResourceSet;
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;

/// What the analyzers said the last time.
#[derive(Default)]
pub(super) struct Rounds {
    /// What decides, beside the objects; `None` before the first run.
    about: Option<(Settings, View)>,
    /// By the place of the analyzer in the list.
    whole: HashMap<usize, Vec<Told>>,
    /// By the address of the VirtualService, which the last run's objects keep alive.
    each: HashMap<usize, Vec<Told>>,
    places: Places,
}

impl Rounds {
    /// Everything there is to say about the world; `before` are the objects of the last run.
    pub(super) fn analyze(&mut self, world: &World<'_>, before: &ResourceSet) -> Vec<Finding> {
        let fresh =
            !self.about.as_ref().is_some_and(|(settings, view)| settings == world.settings && *view == world.look.view);
        if fresh {
            *self = Rounds { about: Some((world.settings.clone(), world.look.view)), ..Rounds::default() };
        }
        let changed = changed(world.resources, before);
        self.places.turn();
        let mut told = self.ask_whole(world, &changed);
        told.extend(self.ask_each(world, &changed));
        told
    }

    fn ask_whole(&mut self, world: &World<'_>, changed: &[Input]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, analyzer) in ANALYZERS.iter().enumerate() {
            let Ask::Whole(ask) = analyzer.ask else { continue };
            if !analyzer.concerns(world.look.view) {
                continue;
            }
            let said =
                match self.whole.remove(&index).filter(|_| !analyzer.inputs.iter().any(|it| changed.contains(it))) {
                    Some(said) => {
                        self.places.keep(&said);
                        said
                    }
                    None => {
                        let mut report = Report::new(&self.places);
                        ask(world, &mut report);
                        report.into_told()
                    }
                };
            findings.extend(said.iter().map(|told| told.finding.clone()));
            self.whole.insert(index, said);
        }
        findings
    }

    fn ask_each(&mut self, world: &World<'_>, changed: &[Input]) -> Vec<Finding> {
        let asked = ANALYZERS.iter().filter(|analyzer| analyzer.concerns(world.look.view));
        let each: Vec<_> = asked
            .filter_map(|analyzer| match analyzer.ask {
                Ask::EachVirtualService(ask) => Some((analyzer, ask)),
                Ask::Whole(_) => None,
            })
            .collect();
        let mut before = std::mem::take(&mut self.each);
        if each.iter().any(|(analyzer, _)| analyzer.inputs.iter().any(|input| changed.contains(input))) {
            before.clear();
        }
        let mut findings = Vec::new();
        self.each.reserve(world.resources.virtual_services.len());
        for service in &world.resources.virtual_services {
            let address = Arc::as_ptr(service).addr();
            let said = match before.remove(&address) {
                Some(said) => {
                    self.places.keep(&said);
                    said
                }
                None => {
                    let mut report = Report::new(&self.places);
                    each.iter().for_each(|(_, ask)| ask(world, service, &mut report));
                    report.into_told()
                }
            };
            findings.extend(said.iter().map(|told| told.finding.clone()));
            self.each.insert(address, said);
        }
        findings
    }
}
