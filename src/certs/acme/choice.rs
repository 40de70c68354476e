//! By which challenge is an identifier proven? The first of the issuer's list that everybody can do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use instant_acme::ChallengeType;

use crate::snapshot::issuance::{ChallengeKind, Identifier};

/// Remembered identifiers; more are forgotten.
const MOST: usize = 10_000;

/// Which kinds failed since the last success. After a failure the next kind is tried at the next order.
#[derive(Default)]
pub(super) struct Failed(Mutex<HashMap<Identifier, Vec<ChallengeKind>>>);

impl Failed {
    /// The kind to use now; `None` if there is none that both sides can do. When all have failed, the first is next.
    pub(super) fn choose(
        &self,
        identifier: &Identifier,
        allowed: &[ChallengeKind],
        offered: &[ChallengeKind],
        solves_dns: bool,
    ) -> Option<ChallengeKind> {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = usable(identifier, allowed, offered, solves_dns);
        let before = failed.get(identifier).map(Vec::as_slice).unwrap_or_default();
        if let Some(kind) = usable.iter().find(|kind| !before.contains(kind)) {
            return Some(*kind);
        }
        failed.remove(identifier);
        usable.first().copied()
    }

    pub(super) fn note(&self, identifier: Identifier, kind: ChallengeKind) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MOST {
            failed.clear();
        }
        let kinds = failed.entry(identifier).or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }

    pub(super) fn forget<'a>(&self, identifiers: impl IntoIterator<Item = &'a Identifier>) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for identifier in identifiers {
            failed.remove(identifier);
        }
    }
}

/// The kinds of the issuer's list, in its order, that the CA offers and that can prove the identifier.
fn usable(
    identifier: &Identifier,
    allowed: &[ChallengeKind],
    offered: &[ChallengeKind],
    solves_dns: bool,
) -> Vec<ChallengeKind> {
    allowed
        .iter()
        .copied()
        .filter(|kind| offered.contains(kind) && can_prove(*kind, identifier))
        .filter(|kind| solves_dns || *kind != ChallengeKind::Dns01)
        .collect()
}

/// Wildcards are proven in DNS alone (RFC 8555 section 7.1.3), addresses never (RFC 8738 section 7).
fn can_prove(kind: ChallengeKind, identifier: &Identifier) -> bool {
    let in_dns = matches!(kind, ChallengeKind::Dns01 | ChallengeKind::DnsPersist01);
    match identifier {
        Identifier::Ip(_) => !in_dns,
        Identifier::Dns(name) => in_dns || !name.starts_with("*."),
    }
}

/// Its name in the protocol and in messages.
pub(super) fn name(kind: ChallengeKind) -> &'static str {
    match kind {
        ChallengeKind::Http01 => "http-01",
        ChallengeKind::TlsAlpn01 => "tls-alpn-01",
        ChallengeKind::Dns01 => "dns-01",
        ChallengeKind::DnsPersist01 => "dns-persist-01",
    }
}

/// As the library calls it.
pub(super) fn to_type(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
        ChallengeKind::DnsPersist01 => ChallengeType::Unknown(name(kind).to_owned()),
    }
}

/// The reverse of [`to_type`]; `None` for what we do not know.
pub(super) fn of_type(kind: &ChallengeType) -> Option<ChallengeKind> {
    use ChallengeKind::{Dns01, DnsPersist01, Http01, TlsAlpn01};
    [Http01, TlsAlpn01, Dns01, DnsPersist01].into_iter().find(|known| to_type(*known) == *kind)
}

#[cfg(test)]
mod tests {
    use super::ChallengeKind::{Dns01, DnsPersist01, Http01, TlsAlpn01};
    use super::*;

    const ALL: [ChallengeKind; 4] = [TlsAlpn01, Http01, DnsPersist01, Dns01];

    #[test]
    fn the_first_kind_that_everybody_can_do() {
        let web = Identifier::Dns("web.example.com".into());
        let wildcard = Identifier::Dns("*.example.com".into());
        let address = Identifier::Ip("192.0.2.1".parse().unwrap());
        type Case<'a> = (&'a Identifier, &'a [ChallengeKind], &'a [ChallengeKind], bool, Option<ChallengeKind>);
        let table: [Case<'_>; 9] = [
            (&web, &ALL, &ALL, true, Some(TlsAlpn01)),
            (&web, &[Http01, TlsAlpn01], &ALL, true, Some(Http01)),
            (&web, &ALL, &[Dns01], true, Some(Dns01)),
            (&web, &ALL, &[Dns01], false, None),
            (&wildcard, &ALL, &ALL, true, Some(DnsPersist01)),
            (&wildcard, &ALL, &[Http01, Dns01], true, Some(Dns01)),
            (&wildcard, &[Http01, TlsAlpn01], &ALL, true, None),
            (&address, &ALL, &ALL, true, Some(TlsAlpn01)),
            (&address, &[Dns01, DnsPersist01], &ALL, true, None),
        ];
        for (identifier, allowed, offered, solves, expected) in table {
            assert_eq!(Failed::default().choose(identifier, allowed, offered, solves), expected, "{identifier:?}");
        }
    }

    #[test]
    fn after_a_failure_the_next_kind_is_tried_and_after_all_the_first() {
        let web = Identifier::Dns("web.example.com".into());
        let failed = Failed::default();
        let mut tried = Vec::new();
        for _ in 0..3 {
            let kind = failed.choose(&web, &[TlsAlpn01, Http01], &ALL, false).unwrap();
            failed.note(web.clone(), kind);
            tried.push(kind);
        }
        assert_eq!(tried, [TlsAlpn01, Http01, TlsAlpn01]);
        failed.forget([&web]);
        assert_eq!(failed.choose(&web, &[TlsAlpn01, Http01], &ALL, false), Some(TlsAlpn01));
    }
}
