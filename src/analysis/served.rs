//! Which hosts do the servers of a Gateway let in, and for whom? (Istio's `namespace/host` of servers.)

use std::collections::HashMap;

use crate::base::host;
use crate::resource::meta::Object;
use crate::resource::networking::Gateway;

/// The hosts of one Gateway.
pub(super) struct Served<'a> {
    /// With the namespace whose VirtualServices are let in; `None` for all.
    exact: HashMap<&'a str, Vec<Option<&'a str>>>,
    /// By what follows the `*`.
    wildcards: HashMap<&'a str, Vec<Option<&'a str>>>,
}

impl<'a> Served<'a> {
    pub(super) fn new(gateway: &'a Object<Gateway>) -> Self {
        let mut served = Served { exact: HashMap::new(), wildcards: HashMap::new() };
        for written in gateway.spec.servers.iter().flat_map(|server| &server.hosts) {
            let (namespace, pattern) = match written.split_once('/') {
                Some((".", pattern)) => (Some(gateway.meta.namespace.as_str()), pattern),
                Some(("*", pattern)) => (None, pattern),
                Some((namespace, pattern)) => (Some(namespace), pattern),
                None => (None, written.as_str()),
            };
            match pattern.strip_prefix('*') {
                Some(tail) => served.wildcards.entry(tail).or_default().push(namespace),
                None => served.exact.entry(pattern).or_default().push(namespace),
            }
        }
        served
    }

    /// Whether a host of a VirtualService of `namespace` has requests in common with a server.
    pub(super) fn meets(&self, namespace: &str, name: &str) -> bool {
        let admits = |from: &[Option<&str>]| from.iter().any(|from| from.is_none_or(|from| from == namespace));
        if let Some(tail) = name.strip_prefix('*') {
            return self
                .wildcards
                .iter()
                .any(|(own, from)| admits(from) && (own.ends_with(tail) || tail.ends_with(own)))
                || self.exact.iter().any(|(own, from)| admits(from) && own.ends_with(tail));
        }
        let known =
            |hosts: &HashMap<&str, Vec<Option<&str>>>, key: &str| hosts.get(key).is_some_and(|from| admits(from));
        known(&self.exact, name) || tails(name).any(|tail| known(&self.wildcards, tail))
    }

    /// The names under which requests for a host of a VirtualService of `namespace` are served: the narrower of each
    /// pair that meets.
    pub(super) fn common<'n>(&self, namespace: &str, name: &'n str) -> Vec<&'n str>
    where
        'a: 'n,
    {
        if !host::is_wildcard(name) {
            return if self.meets(namespace, name) { vec![name] } else { Vec::new() };
        }
        let admits = |from: &[Option<&str>]| from.iter().any(|from| from.is_none_or(|from| from == namespace));
        let tail = name.strip_prefix('*').unwrap_or(name);
        let narrower = self.exact.iter().filter(|(own, from)| own.ends_with(tail) && admits(from)).map(|(own, _)| *own);
        let mut common: Vec<&'n str> = narrower.collect();
        if self.wildcards.iter().any(|(own, from)| tail.ends_with(own) && admits(from)) {
            common.push(name);
        }
        common
    }
}

/// Every tail of a name, itself and nothing included.
pub(super) fn tails(name: &str) -> impl Iterator<Item = &str> {
    name.char_indices().filter_map(|(at, _)| name.get(at..)).chain([""])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::meta::{Meta, Origin};
    use crate::source::decode::decode;

    #[test]
    fn a_server_lets_in_what_it_names() {
        let spec =
            serde_json::json!({"servers": [{"hosts": ["a.com", "*.b.com", "prod/c.com", "./d.com", "*/e.com"]}]});
        let spec = decode::<Gateway>(&spec, "spec").unwrap().value;
        let meta = Meta { name: "gw".into(), namespace: "default".into(), ..Meta::default() };
        let gateway = Object { meta, spec, origin: Origin::default() };
        let served = Served::new(&gateway);
        for (namespace, name, expected) in [
            ("default", "a.com", true),
            ("default", "x.a.com", false),
            ("default", "x.b.com", true),
            ("default", "*.x.b.com", true),
            ("default", "*.com", true),
            ("default", "c.com", false),
            ("prod", "c.com", true),
            ("prod", "d.com", false),
            ("default", "d.com", true),
            ("prod", "e.com", true),
            ("prod", "*", true),
        ] {
            assert_eq!(served.meets(namespace, name), expected, "{namespace} {name}");
        }
        assert_eq!(served.common("other", "*.x.b.com"), ["*.x.b.com"]);
        let mut common = served.common("default", "*.com");
        common.sort_unstable();
        assert_eq!(common, ["a.com", "d.com", "e.com"]);
    }
}
