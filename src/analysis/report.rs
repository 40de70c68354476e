//! Where do the analyzers put what they find? Lines are looked up once for an object and a path, however many reloads
//! tell of them.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::resource::codes::Code;
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::{Kind, Meta, Object};

/// Most findings of one code about one object.
const MAX_FINDINGS: usize = 20;

/// Lines that were looked up the last time: a line is looked up by reading its document again, and what is missing
/// usually is missing for many reloads.
#[derive(Default)]
pub(super) struct Places {
    /// By the address of an object that lives on in the analysis' memory, and the path in it.
    earlier: HashMap<(usize, String), Location>,
    now: RefCell<HashMap<(usize, String), Location>>,
}

impl Places {
    /// What was looked up until now is known from here on; what nobody asks for again is forgotten the next time.
    pub(super) fn turn(&mut self) {
        self.earlier = self.now.take();
    }

    /// Keeps the places of what is told again without being asked for.
    pub(super) fn keep(&self, told: &[Told]) {
        let places = told.iter().map(|it| ((it.object, it.finding.path.clone()), it.finding.location.clone()));
        self.now.borrow_mut().extend(places);
    }

    fn locate<T>(&self, object: &Object<T>, path: &str) -> Location {
        let key = (std::ptr::from_ref(object).addr(), path.to_owned());
        let location = self.earlier.get(&key).cloned().unwrap_or_else(|| object.origin.locate(path));
        self.now.borrow_mut().insert(key, location.clone());
        location
    }
}

/// A finding with the address of the object that it is about.
pub(super) struct Told {
    pub finding: Finding,
    object: usize,
}

/// The findings of one analyzer.
pub(super) struct Report<'a> {
    places: &'a Places,
    told: Vec<Told>,
    /// By code and the address of the object.
    counts: HashMap<(&'static str, usize), usize>,
}

impl<'a> Report<'a> {
    pub(super) fn new(places: &'a Places) -> Self {
        Report { places, told: Vec::new(), counts: HashMap::new() }
    }

    /// Tells what stands at a path of an object, such as `spec.servers[0].tls`.
    pub(super) fn tell<T: Kind>(&mut self, object: &Object<T>, code: &Code, path: &str, message: impl Into<String>) {
        self.tell_with_hint(object, code, path, message, "");
    }

    /// As `tell`, and says what to do.
    pub(super) fn tell_with_hint<T: Kind>(
        &mut self,
        object: &Object<T>,
        code: &Code,
        path: &str,
        message: impl Into<String>,
        hint: &str,
    ) {
        let address = std::ptr::from_ref(object).addr();
        let count = self.counts.entry((code.id, address)).or_default();
        *count += 1;
        if *count <= MAX_FINDINGS && !is_suppressed(&object.meta, code.id) {
            let finding = Finding::new(code, self.places.locate(object, path), message).at(path);
            self.told.push(Told { finding: finding.about(object.title()).hint(hint), object: address });
        }
    }

    /// All that was told, in its order.
    pub(super) fn into_told(self) -> Vec<Told> {
        self.told
    }
}

/// Whether the object asks not to be told of a code, as istioctl analyze lets it.
pub(super) fn is_suppressed(meta: &Meta, code: &str) -> bool {
    let codes = meta.annotations.get("galley.istio.io/analyze-suppress");
    codes.is_some_and(|codes| codes.split(',').any(|it| matches!(it.trim(), word if word == "*" || word == code)))
}
