//! Does a host speak one protocol on a port, whoever describes it? (Istio's
//! serviceentry.ConflictingServiceEntryProtocolAnalyzer: IST0177.)

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::analysis::hosts::export_scopes;
use crate::analysis::report::Report;
use crate::analysis::world::{World, identity, show_names};
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::ServiceEntry;

/// A description: the entry, the place of the port, and its protocol.
type Described<'a> = (&'a Object<ServiceEntry>, usize, &'a str);

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    let mut described: BTreeMap<(&str, &str, u32), Vec<Described<'_>>> = BTreeMap::new();
    for entry in &world.resources.service_entries {
        for scope in export_scopes(&entry.spec.export_to, &entry.meta.namespace) {
            for host in &entry.spec.hosts {
                for (index, port) in entry.spec.ports.iter().enumerate() {
                    let list = described.entry((scope, host, port.number)).or_default();
                    list.push((entry, index, &port.protocol));
                }
            }
        }
    }
    let mut told = HashSet::new();
    for ((scope, host, port), own) in &described {
        let public = described.get(&("*", *host, *port)).filter(|_| *scope != "*");
        let all: Vec<&Described<'_>> = own.iter().chain(public.into_iter().flatten()).collect();
        let protocols: BTreeSet<String> = all.iter().map(|(_, _, protocol)| protocol.to_ascii_uppercase()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names = show_names(all.iter().map(|(entry, _, _)| &entry.meta));
        let protocols = protocols.into_iter().collect::<Vec<_>>().join(", ");
        for (entry, index, _) in all {
            if told.insert(identity(entry)) {
                let message = format!("port {port} of `{host}` has several protocols ({protocols}) in {names}");
                let hint = "one of them is in force; give them one protocol";
                let path = format!("spec.ports[{index}].protocol");
                report.tell_with_hint(entry, &codes::PROTOCOL_CONFLICT, &path, message, hint);
            }
        }
    }
}
