//! What is kept between generations? Compiled patterns, keys and TLS configurations that are still in use.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::certificates;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::snapshot::pattern::Pattern;

/// Caches that live as long as the process; what a generation does not use is dropped after it.
#[derive(Default)]
pub(crate) struct Memory {
    whole: Kept<Box<str>, Result<Arc<Pattern>, String>>,
    search: Kept<Box<str>, Result<Arc<Pattern>, String>>,
    keys: Kept<u128, Result<Arc<CertifiedKey>, String>>,
    pub(super) server_configs: Kept<u128, Arc<ServerConfig>>,
    pub(super) client_configs: Kept<u128, Arc<ClientConfig>>,
    system_roots: Option<Arc<RootCertStore>>,
    seeds: (RandomState, RandomState),
}

impl Memory {
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

    /// The certificate and key of a Secret.
    pub(super) fn certified_key(&mut self, secret: &Arc<Object<Secret>>) -> Result<Arc<CertifiedKey>, String> {
        let fingerprint = self.fingerprint(&secret.spec.data);
        match self.keys.get(&fingerprint) {
            Some(kept) => kept,
            None => {
                let made = certificates::certified_key(&secret.spec, &aws_lc_rs::default_provider());
                self.keys.insert(fingerprint, made)
            }
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

    /// Drops what was not asked for since the last call.
    pub(super) fn forget_unused(&mut self) {
        self.whole.forget_unused();
        self.search.forget_unused();
        self.keys.forget_unused();
        self.server_configs.forget_unused();
        self.client_configs.forget_unused();
    }
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
        self.0.retain(|_, (_, used)| std::mem::take(used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_use_is_kept() {
        let mut memory = Memory::default();
        let first = memory.whole_pattern("a+").unwrap();
        assert!(Arc::ptr_eq(&first, &memory.whole_pattern("a+").unwrap()));
        memory.forget_unused();
        assert!(Arc::ptr_eq(&first, &memory.whole_pattern("a+").unwrap()));
        memory.forget_unused();
        memory.forget_unused();
        assert!(!Arc::ptr_eq(&first, &memory.whole_pattern("a+").unwrap()));
    }
}
