//! What does every rule of a host say to a request?

use std::sync::Arc;

use serde::Serialize;

use super::asked::is_secret;
use crate::snapshot::miss::{Change, Miss};
use crate::snapshot::route::{RequestFacts, RouteRule, VirtualHost};

/// What one rule says to the request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    pub origin: String,
    pub name: String,
    pub chosen: bool,
    /// The first condition that failed and what would meet it, or why the rule was not asked.
    pub reason: String,
    /// The first condition that failed.
    pub miss: Option<Miss>,
    /// What of the request has to be changed for the rule to match it; empty if nothing is known.
    pub changes: Vec<Change>,
}

/// `stays` says whether an authority still leads to this host.
pub(super) fn verdicts(
    host: &VirtualHost,
    facts: &RequestFacts<'_>,
    chosen: Option<&RouteRule>,
    stays: impl Fn(&str) -> bool,
) -> Vec<Verdict> {
    let mut reached = true;
    let verdict = |rule: &Arc<RouteRule>| {
        let is_chosen = reached && chosen.is_some_and(|chosen| std::ptr::eq(chosen, &**rule));
        let miss = rule.matches.first_miss(facts);
        let leads_away = |change: &Change| matches!(change, Change::Authority { to } if !stays(to));
        let changes = miss.as_ref().and_then(|_| rule.matches.changes(facts));
        let changes = changes.filter(|changes| !changes.iter().any(leads_away)).unwrap_or_default();
        let reason = why(is_chosen, miss.as_ref(), &changes);
        reached &= !is_chosen;
        let (origin, name) = (rule.origin.to_string(), rule.name.to_string());
        Verdict { origin, name, chosen: is_chosen, reason, miss, changes }
    };
    host.rules.iter().map(verdict).collect()
}

fn why(is_chosen: bool, miss: Option<&Miss>, changes: &[Change]) -> String {
    match miss {
        _ if is_chosen => "every condition holds".to_owned(),
        Some(miss) if changes.is_empty() => miss.to_string(),
        Some(miss) => {
            let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
            format!("{miss}; {} would match", changes.join(" with "))
        }
        None => "not reached; it would match as well".to_owned(),
    }
}

impl Verdict {
    /// Takes out what a header said that gives access.
    pub(super) fn hide_secrets(&mut self) {
        let Some(miss) = &mut self.miss else { return };
        if miss.seen.is_some() && miss.subject.strip_prefix("header ").is_some_and(is_secret) {
            miss.seen = Some("(hidden)".to_owned());
            self.reason = why(self.chosen, self.miss.as_ref(), &self.changes);
        }
    }
}
