//! What else is looked after now and then? Dates that come near, and what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use super::on_demand::name_of;
use super::store::{CHALLENGES, OF_CERTIFICATES, STATE, Store};
use super::stored::look;
use crate::snapshot::Snapshot;
use crate::snapshot::certificate::Certificate;
use crate::snapshot::tls::TlsServer;
use crate::telemetry::metrics::Metrics;

const DAY: i64 = 86_400;
/// A certificate that nobody wants is removed so long after its end, in seconds.
const KEPT_AFTER_END: i64 = 30 * DAY;
/// Certificates with numbers of their own; those that end first.
const MOST_SHOWN: usize = 1000;

/// Who was told of which end: days by fingerprint.
#[derive(Default)]
pub(super) struct Told(HashMap<String, i64>);

/// Tells of certificates in force that come to their end, once for each limit, and shows when all end.
pub(super) fn look_at_dates(snapshot: &Snapshot, told: &mut Told, metrics: &Metrics, now: i64) {
    let served = served(snapshot);
    told.0.retain(|fingerprint, _| served.values().any(|certificate| certificate.sha256 == *fingerprint));
    for (source, certificate) in &served {
        let Some(days) = certificate.days_left(now) else { continue };
        if told.0.get(&certificate.sha256).is_some_and(|before| *before <= days) {
            continue;
        }
        told.0.insert(certificate.sha256.clone(), days);
        let hours = (certificate.not_after - now) / 3600;
        if hours < 0 {
            tracing::error!(source, "a certificate in force has expired; it is served nevertheless");
        } else if days == 1 {
            tracing::error!(source, hours, "a certificate in force ends soon and was not renewed");
        } else {
            tracing::warn!(source, days = hours / 24, "a certificate in force ends soon and was not renewed");
        }
    }
    let mut ends: Vec<_> = served.iter().map(|(source, certificate)| (certificate.not_after, *source)).collect();
    ends.sort_unstable();
    ends.truncate(MOST_SHOWN);
    metrics.certificate_ends(ends.iter().map(|(end, source)| (*source, *end)));
}

/// The certificates in force by their source; of several of one source, the one that ends first.
fn served(snapshot: &Snapshot) -> BTreeMap<&str, &Certificate> {
    let mut served: BTreeMap<&str, &Certificate> = BTreeMap::new();
    for listener in &snapshot.listeners {
        for (_, chain) in listener.chains.all() {
            let Some(TlsServer::Ready(terms)) = &chain.tls else { continue };
            for facts in terms.certificates.facts() {
                let entry = served.entry(&facts.source).or_insert(&facts.certificate);
                if facts.certificate.not_after < entry.not_after {
                    *entry = &facts.certificate;
                }
            }
        }
    }
    served
}

/// Removes certificates that nobody here wants and that ended a month ago, and what ended processes left. Another process
/// that wants them would have renewed them.
pub(super) fn clean(store: &Store, wanted: &BTreeSet<String>, now: i64) {
    for kind in OF_CERTIFICATES {
        for name in store.list(kind).unwrap_or_default() {
            let folder = format!("{kind}/{name}");
            if let Err(error) = clean_one(store, &folder, wanted.contains(&folder), now) {
                tracing::warn!(certificate = folder, %error, "a certificate's folder cannot be cleaned");
            }
        }
        let _ = store.sweep(&format!("{STATE}/{kind}"), SystemTime::now());
    }
    let _ = store.sweep(CHALLENGES, SystemTime::now());
}

fn clean_one(store: &Store, folder: &str, is_wanted: bool, now: i64) -> std::io::Result<()> {
    // Somebody is at work on it.
    let Some(lock) = store.try_lock(folder, SystemTime::now())? else { return Ok(()) };
    store.clean(folder)?;
    let reading = look(store, folder);
    let ended = reading.stored.map(|stored| stored.certificate.not_after);
    // A name on demand that was never got.
    let ended = ended.or(name_of(folder).map(|_| reading.memory.last_asked));
    if !is_wanted && ended.is_some_and(|end| now.saturating_sub(end) > KEPT_AFTER_END) {
        tracing::info!(certificate = folder, "removed: it ended a month ago, and nobody wants it");
        store.remove(lock, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::{Meta, state_of};
    use super::super::stored::tests::make;
    use super::*;
    use crate::snapshot::issuance::{Identifier, KeyKind};

    #[test]
    fn only_what_nobody_wants_and_ended_long_ago_goes() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for (folder, end) in [("hosts/old.com", 100), ("hosts/wanted.com", 100), ("secrets/new", 200 * DAY)] {
            let issued = make(&[Identifier::Dns("a.com".into())], KeyKind::EcdsaP256, 0, end);
            store.reserve(folder, SystemTime::now()).unwrap().keep(&issued, &Meta::default()).unwrap();
            store.write_text(&state_of(folder), "{}").unwrap();
        }
        let wanted = BTreeSet::from(["hosts/wanted.com".to_owned()]);
        clean(&store, &wanted, 20 * DAY);
        assert_eq!(store.list("hosts").unwrap(), ["old.com", "wanted.com"], "it ended less than a month ago");
        let held = store.try_lock("hosts/old.com", SystemTime::now()).unwrap();
        clean(&store, &wanted, 40 * DAY);
        assert_eq!(store.list("hosts").unwrap().len(), 2, "somebody is at work on it");
        drop(held);
        clean(&store, &wanted, 40 * DAY);
        assert_eq!(store.list("hosts").unwrap(), ["wanted.com"]);
        assert_eq!(store.list("secrets").unwrap(), ["new"]);
        assert_eq!(store.read_text(&state_of("hosts/old.com")).unwrap(), None);
        assert!(!root.path().join("locks/hosts/old.com").exists());
    }
}
