//! Which objects of a namespace choose the same workloads? What Sidecars and Telemetries have in common.

use std::collections::BTreeMap;

use crate::analysis::report::Report;
use crate::analysis::workload::Workload;
use crate::analysis::world::{World, is_part, show_names, show_selector};
use crate::resource::codes::{self, Code};
use crate::resource::meta::{Kind, Labels, Object};

/// Objects of one kind with their selectors; `None` stands for the whole namespace.
pub(super) type Selecting<'a, T> = Vec<(&'a Object<T>, Option<&'a Labels>)>;

/// A workload with the objects that choose it.
pub(super) type Chosen<'a, 'w, T> = Vec<(&'w Workload<'a>, Vec<&'a Object<T>>)>;

/// Tells of selectors that choose nothing, and gives the workloads that are chosen.
pub(super) fn choose<'a, 'w, T: Kind>(
    world: &'w World<'a>,
    objects: &Selecting<'a, T>,
    path: &str,
    report: &mut Report<'_>,
) -> Chosen<'a, 'w, T> {
    let mut chosen: BTreeMap<usize, Vec<&'a Object<T>>> = BTreeMap::new();
    for (object, selector) in objects {
        let Some(selector) = selector.filter(|labels| !labels.is_empty()) else { continue };
        let workloads = world.workloads.iter().enumerate();
        let mut own = workloads
            .filter(|(_, it)| it.namespace == object.meta.namespace && is_part(selector, it.labels))
            .peekable();
        if own.peek().is_none() && world.knows_workloads() {
            let message = format!("no workload of the namespace has the labels {}", show_selector(selector));
            report.tell(object, &codes::REFERENCE_MISSING, path, message);
        }
        own.for_each(|(index, _)| chosen.entry(index).or_default().push(object));
    }
    chosen.into_iter().filter_map(|(index, objects)| Some((world.workloads.get(index)?, objects))).collect()
}

/// Tells of workloads that several objects choose.
pub(super) fn tell_overlaps<T: Kind>(
    chosen: &[(&Workload<'_>, Vec<&Object<T>>)],
    code: &Code,
    report: &mut Report<'_>,
) {
    for (workload, objects) in chosen.iter().filter(|(_, objects)| objects.len() > 1) {
        let names = show_names(objects.iter().map(|object| &object.meta));
        for object in objects {
            let message = format!("{}/{} is chosen by several: {names}", workload.namespace, workload.name);
            let hint = "which of them is in force is not defined; make their selectors differ";
            report.tell_with_hint(object, code, "metadata.name", message, hint);
        }
    }
}

/// Objects without a selector, by namespace.
pub(super) fn of_namespaces<'a, T>(objects: &Selecting<'a, T>) -> BTreeMap<&'a str, Vec<&'a Object<T>>> {
    let mut by_namespace: BTreeMap<&str, Vec<&Object<T>>> = BTreeMap::new();
    for (object, _) in objects.iter().filter(|(_, selector)| selector.is_none()) {
        by_namespace.entry(&object.meta.namespace).or_default().push(object);
    }
    by_namespace
}

/// Tells of a namespace with several objects that are for all of it.
pub(super) fn tell_several<T: Kind>(namespace: &str, objects: &[&Object<T>], code: &Code, report: &mut Report<'_>) {
    if objects.len() > 1 {
        let names = show_names(objects.iter().map(|object| &object.meta));
        for object in objects {
            let message = format!("several are for the whole namespace {namespace}: {names}");
            let hint = "which of them is in force is not defined; keep one, or give the others a selector";
            report.tell_with_hint(object, code, "metadata.name", message, hint);
        }
    }
}
