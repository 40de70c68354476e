//! What is kept between generations? Clusters, rules and virtual hosts whose objects did not change, and compiled
//! patterns, keys and TLS configurations that are still in use.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use rustls::RootCertStore;

use super::certificate_fault::Fault;
use super::certificates::{self, Pair};
use super::peer_roots::{PeerMaterial, PeerRoots};
use super::problems::Problem;
use super::sessions::{Secrets, Sessions};
use super::tls_server::CommonTerms;
use super::trail::Trail;
use crate::resource::ResourceSet;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::resource::settings::Settings;
use crate::snapshot::cluster::Cluster;
use crate::snapshot::pattern::Pattern;
use crate::snapshot::route::{RouteRule, VirtualHost};
use crate::snapshot::tls::{ClientTerms, ServerTerms};

/// Caches that live as long as the process; what a generation does not use is dropped after it.
#[derive(Default)]
pub(crate) struct Memory {
    /// What the generation is made under; `None` before the first.
    settings: Option<Settings>,
    /// What the last generation was made from: its objects stay where they are while trails are compared.
    _held: ResourceSet,
    /// By name; `None` for a cluster that does not exist.
    pub(super) clusters: Kept<Arc<str>, Made<Option<Arc<Cluster>>>>,
    /// By server and address of the VirtualService.
    pub(super) rules: Kept<(u128, usize), Made<Rules>>,
    /// By route table and name.
    pub(super) hosts: Kept<HostKey, (Vec<Rules>, Arc<VirtualHost>)>,
    whole: Kept<Box<str>, Result<Arc<Pattern>, String>>,
    search: Kept<Box<str>, Result<Arc<Pattern>, String>>,
    keys: Kept<u128, Result<Arc<Pair>, Fault>>,
    /// The fingerprints of what Secrets hold, by their addresses; `_held` keeps them there.
    contents: Kept<usize, u128>,
    /// The last that was good, by the name of its Secret and whether it is for servers, which look at dates, too.
    good_keys: HashMap<(String, bool), Arc<Pair>>,
    roots: Kept<u128, Result<Arc<PeerRoots>, String>>,
    /// As `good_keys`, by the names of the Secret and of the file with revocation lists.
    good_roots: HashMap<(String, String), Vouching>,
    /// When the first of the certificates that were looked at turns valid or invalid, in seconds since 1970.
    next_date: Option<i64>,
    /// How sessions are resumed, and the secrets from which that was made.
    pub(super) sessions: Option<(Option<Secrets>, Sessions)>,
    pub(super) server_terms: Kept<u128, Arc<ServerTerms>>,
    pub(super) common_terms: Kept<u128, Arc<CommonTerms>>,
    pub(super) client_terms: Kept<u128, Arc<ClientTerms>>,
    system_roots: Option<Arc<RootCertStore>>,
    seeds: (RandomState, RandomState),
}

/// The names of a route table and of a virtual host in it.
type HostKey = (Box<str>, Box<str>);

/// The rules of one VirtualService on one server.
pub(super) type Rules = Arc<[Arc<RouteRule>]>;

/// A result, what it depended on, and what there was to say about it.
#[derive(Clone)]
pub(super) struct Made<T> {
    pub value: T,
    pub trail: Arc<Trail>,
    pub problems: Arc<[Problem]>,
}

impl Memory {
    /// One that remembers nothing and gives the same fingerprints.
    #[cfg(test)]
    pub(super) fn afresh(&self) -> Memory {
        Memory { seeds: self.seeds.clone(), ..Memory::default() }
    }

    /// Forgets what was made under other settings. To be called before a generation is made.
    pub(super) fn follow(&mut self, settings: &Settings) {
        self.next_date = None;
        if self.settings.as_ref() != Some(settings) {
            self.settings = Some(settings.clone());
            self.clusters = Kept::default();
            self.rules = Kept::default();
            self.hosts = Kept::default();
        }
    }

    /// A pattern that has to match the whole text.
    pub(super) fn whole_pattern(&mut self, source: &str) -> Result<Arc<Pattern>, String> {
        match self.whole.get(source) {
            Some(kept) => kept,
            None => self.whole.insert(source.into(), Pattern::whole(source).map(Arc::new)),
        }
    }

    /// A pattern that is searched.
    pub(super) fn search_pattern(&mut self, source: &str) -> Result<Arc<Pattern>, String> {
        match self.search.get(source) {
            Some(kept) => kept,
            None => self.search.insert(source.into(), Pattern::search(source).map(Arc::new)),
        }
    }

    /// The certificate and key of a Secret: those that were good last, if it holds worse ones now.
    ///
    /// Worse is what cannot be used. To a server, for which `now` is given in seconds since 1970, worse is also what is
    /// outside its dates while the last one is not.
    pub(super) fn certified_key(&mut self, secret: &Arc<Object<Secret>>, now: Option<i64>) -> Result<Served, Fault> {
        let address = Arc::as_ptr(secret).addr();
        let fingerprint = match self.contents.get(&address) {
            Some(kept) => kept,
            None => self.contents.insert(address, self.fingerprint(&secret.spec.data)),
        };
        let made = match self.keys.get(&fingerprint) {
            Some(kept) => kept,
            None => self.keys.insert(fingerprint, certificates::certified_key(&secret.spec).map(Arc::new)),
        };
        let wrong_date = |pair: &Arc<Pair>| now.and_then(|now| pair.wrong_date(now));
        if let (Ok(pair), Some(now)) = (&made, now) {
            self.note_dates(pair, now);
        }
        let name = (secret.key(), now.is_some());
        let last = self.good_keys.get(&name);
        match (made, last) {
            (Err(fault), Some(last)) => Ok(Served { pair: Arc::clone(last), refused: Some(fault) }),
            (Err(fault), None) => Err(fault),
            (Ok(pair), Some(last)) if wrong_date(&pair).is_some() && wrong_date(last).is_none() => {
                Ok(Served { pair: Arc::clone(last), refused: wrong_date(&pair) })
            }
            (Ok(pair), _) => {
                self.good_keys.insert(name, Arc::clone(&pair));
                Ok(Served { pair, refused: None })
            }
        }
    }

    fn note_dates(&mut self, pair: &Pair, now: i64) {
        let dates = [pair.facts.not_before, pair.facts.not_after.saturating_add(1)].into_iter();
        self.next_date = dates.filter(|date| *date > now).chain(self.next_date).min();
    }

    /// The next instant, in seconds since 1970, at which the same objects may be a different snapshot, because a
    /// certificate turns valid or invalid.
    pub(crate) fn next_date(&self) -> Option<i64> {
        self.next_date
    }

    /// Who vouches for the other side by a Secret and a file with revocation lists, in which `read` is what they hold now:
    /// those who did last, if that cannot be used. With the reason then.
    pub(super) fn vouching(
        &mut self,
        names: (String, String),
        read: Result<PeerMaterial, String>,
    ) -> Result<(Vouching, Option<String>), String> {
        let vouching = read.and_then(|material| {
            let identity = self.fingerprint(&material);
            let made = match self.roots.get(&identity) {
                Some(kept) => kept,
                None => {
                    let made = PeerRoots::read(&material).map(Arc::new);
                    self.roots.insert(identity, made)
                }
            };
            Ok(Vouching { identity, roots: made?, material: Arc::new(material) })
        });
        match (vouching, self.good_roots.get(&names)) {
            (Ok(vouching), _) => {
                self.good_roots.insert(names, vouching.clone());
                Ok((vouching, None))
            }
            (Err(reason), Some(last)) => Ok((last.clone(), Some(reason))),
            (Err(reason), None) => Err(reason),
        }
    }

    /// The operating system's roots, read once.
    pub(super) fn system_roots(&mut self) -> Arc<RootCertStore> {
        let read = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        };
        self.system_roots.get_or_insert_with(read).clone()
    }

    /// A number that only equal values have, as good as certain; stable while the process lives.
    pub(super) fn fingerprint(&self, value: &impl Hash) -> u128 {
        u128::from(self.seeds.0.hash_one(value)) << 64 | u128::from(self.seeds.1.hash_one(value))
    }

    /// What was good of Secrets that are gone.
    fn forget_gone(&mut self, resources: &ResourceSet) {
        let secrets: HashSet<_> = resources.secrets.iter().map(|secret| secret.identity()).collect();
        let maps: HashSet<_> = resources.config_maps.iter().map(|map| map.identity()).collect();
        let is_there = |name: &str| {
            let (there, key) = name.strip_prefix("configmap://").map_or((&secrets, name), |map| (&maps, map));
            key.split_once('/').is_some_and(|key| there.contains(&key))
        };
        self.good_keys.retain(|(name, _), _| is_there(name));
        self.good_roots.retain(|(name, _), _| is_there(name));
    }

    /// Drops what the generation that was made from `resources` did not need.
    pub(super) fn finish(&mut self, resources: &ResourceSet) {
        self.clusters.forget_unused();
        self.rules.forget_unused();
        self.hosts.forget_unused();
        // Clusters and rules that were kept still hold theirs.
        self.whole.forget_unless(is_held);
        self.search.forget_unless(is_held);
        self.forget_gone(resources);
        self.keys.forget_unless(is_held);
        self.roots.forget_unless(is_held);
        self.client_terms.forget_unless(|terms| Arc::strong_count(terms) > 1);
        self.server_terms.forget_unused();
        self.common_terms.forget_unused();
        self.contents.forget_unused();
        self._held = resources.clone();
    }
}

/// The certificate that is served for a Secret.
pub(super) struct Served {
    pub pair: Arc<Pair>,
    /// Why it is not the one that the Secret holds now.
    pub refused: Option<Fault>,
}

/// Who vouches for the other side.
#[derive(Clone)]
pub(super) struct Vouching {
    /// Another one where the authorities or the revocation lists are others.
    pub identity: u128,
    pub material: Arc<PeerMaterial>,
    pub roots: Arc<PeerRoots>,
}

fn is_held<T, E>(made: &Result<Arc<T>, E>) -> bool {
    made.as_ref().is_ok_and(|value| Arc::strong_count(value) > 1)
}

/// Values with the word whether they were asked for.
pub(super) struct Kept<K, V>(HashMap<K, (V, bool)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, used) = self.0.get_mut(key)?;
        *used = true;
        Some(value.clone())
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> V {
        self.0.insert(key, (value.clone(), true));
        value
    }

    fn forget_unused(&mut self) {
        self.forget_unless(|_| false);
    }

    fn forget_unless(&mut self, is_held: impl Fn(&V) -> bool) {
        self.0.retain(|_, (value, used)| std::mem::take(used) || is_held(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::meta::{Meta, Origin};

    #[test]
    fn what_is_good_for_a_client_is_not_good_for_a_server() {
        let key = rcgen::KeyPair::generate().unwrap();
        let secret = |until| {
            let mut params = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
            params.not_before = rcgen::date_time_ymd(1970, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let certificate = params.self_signed(&key).unwrap().pem();
            let data = [("tls.crt", certificate), ("tls.key", key.serialize_pem())];
            let data = data.map(|(name, text)| (name.to_owned(), text.into_bytes())).into();
            let meta = Meta { name: "web".into(), ..Meta::default() };
            Arc::new(Object { meta, spec: Secret { kind: String::new(), data }, origin: Origin::default() })
        };
        let (mut memory, good, expired) = (Memory::default(), secret(1999), secret(1980));
        let now = Some(20 * 365 * 86_400);
        assert!(memory.certified_key(&good, now).unwrap().refused.is_none());
        assert!(memory.certified_key(&expired, None).unwrap().refused.is_none(), "clients look at no dates");
        assert!(memory.certified_key(&expired, now).unwrap().refused.is_some(), "the good one is served on");
    }

    #[test]
    fn only_what_is_in_use_is_kept() {
        let mut memory = Memory::default();
        let end = |memory: &mut Memory| memory.finish(&ResourceSet::default());
        let first = Arc::downgrade(&memory.whole_pattern("a+").unwrap());
        end(&mut memory);
        let held = memory.whole_pattern("a+").unwrap();
        assert!(std::ptr::eq(first.as_ptr(), Arc::as_ptr(&held)));
        end(&mut memory);
        end(&mut memory);
        assert!(first.upgrade().is_some(), "a rule holds it");
        drop(held);
        end(&mut memory);
        assert!(first.upgrade().is_none());
    }
}
