//! By which identities are workloads of the mesh known? (SPIFFE, as Istio writes them.)

use std::collections::BTreeSet;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`; `None` without an account.
pub(super) fn of(domain: &str, namespace: &str, account: &str) -> Option<String> {
    (!namespace.is_empty() && !account.is_empty()).then(|| format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
}

/// Those written, and each of Istio's form in the other trust domains of the mesh, too (MeshConfig trustDomainAliases).
pub(super) fn in_all_domains(written: BTreeSet<String>, aliases: &[String]) -> Vec<String> {
    let mut all = written.clone();
    for parts in written.iter().filter_map(|identity| parts(identity)) {
        let (namespace, account) = parts;
        all.extend(aliases.iter().map(|domain| format!("spiffe://{domain}/ns/{namespace}/sa/{account}")));
    }
    all.into_iter().collect()
}

/// Namespace and account of an identity of Istio's form.
fn parts(identity: &str) -> Option<(&str, &str)> {
    let (_, path) = identity.strip_prefix("spiffe://")?.split_once('/')?;
    let [ns, namespace, sa, account] = path.split('/').collect::<Vec<_>>().try_into().ok()?;
    (ns == "ns" && sa == "sa").then_some((namespace, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_known_in_every_domain() {
        let web = of("td1", "shop", "web").unwrap();
        assert_eq!(web, "spiffe://td1/ns/shop/sa/web");
        assert_eq!(of("td1", "shop", ""), None);
        let written = BTreeSet::from([web.clone(), "web.shop".to_owned(), "spiffe://td1/other".to_owned()]);
        let all = in_all_domains(written, &["td2".to_owned(), "td1".to_owned()]);
        assert_eq!(
            all,
            ["spiffe://td1/ns/shop/sa/web", "spiffe://td1/other", "spiffe://td2/ns/shop/sa/web", "web.shop"]
        );
    }
}
