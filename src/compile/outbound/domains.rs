//! Under which names do a workload's requests find a service? (Istio's domains of outbound virtual hosts.)

use std::net::IpAddr;

/// The service's own name, its short forms as `proxy_domain` (`shop.svc.cluster.local` for workloads of the namespace
/// `shop`) makes them, and the same of its aliases. `each_pod` adds a wildcard for every name (headless Services).
pub(super) fn of_service(host: &str, aliases: &[String], each_pod: bool, proxy_domain: &str) -> Vec<Domain> {
    let mut domains = Vec::new();
    for name in std::iter::once(host).chain(aliases.iter().map(String::as_str)) {
        domains.push(Domain { name: bracketed(name), is_short: false });
        domains.extend(alternatives(name, proxy_domain).into_iter().map(|name| Domain { name, is_short: true }));
    }
    if each_pod {
        let pods: Vec<Domain> =
            domains.iter().map(|domain| Domain { name: format!("*.{}", domain.name), ..*domain }).collect();
        domains.extend(pods);
    }
    domains
}

/// One name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub name: String,
    /// Made from the service's name; a service that has this very name comes first.
    pub is_short: bool,
}

/// An address as `Host` writes it.
pub(super) fn bracketed(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.to_owned(),
    }
}

fn alternatives(host: &str, proxy_domain: &str) -> Vec<String> {
    if host.parse::<IpAddr>().is_ok() || host.starts_with('*') {
        return Vec::new();
    }
    let absolute = format!("{host}.");
    let Some((home, cluster)) = proxy_domain.split_once(".svc.") else {
        return std::iter::once(absolute).chain(shared(host, proxy_domain)).collect();
    };
    let short = host.strip_suffix(cluster).and_then(|rest| rest.strip_suffix(".svc."));
    let Some((name, namespace)) = short.and_then(|short| short.split_once('.')) else { return vec![absolute] };
    let own = (namespace == home).then(|| name.to_owned());
    [Some(absolute), own, Some(format!("{name}.{namespace}.svc")), Some(format!("{name}.{namespace}"))]
        .into_iter()
        .flatten()
        .collect()
}

/// Outside Kubernetes: what is left of a name when the end that it shares with the proxy's domain is cut.
fn shared(host: &str, proxy_domain: &str) -> Vec<String> {
    let (parts, domain): (Vec<&str>, Vec<&str>) = (host.split('.').collect(), proxy_domain.split('.').collect());
    let common = parts.iter().rev().zip(domain.iter().rev()).take_while(|(a, b)| a == b).count();
    let unique = parts.get(..parts.len().saturating_sub(common)).unwrap_or_default();
    let first = parts.get(unique.len()).filter(|_| common > 0);
    match (unique, first) {
        ([], _) | (_, None) => Vec::new(),
        (two @ [_, _], Some(first)) => vec![two.join("."), format!("{}.{first}", two.join("."))],
        (unique, Some(_)) => vec![unique.join(".")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_short_names_where_the_workload_is_near() {
        let names = |host: &str, home: &str| {
            let domains = of_service(host, &[], false, &format!("{home}.svc.cluster.local"));
            domains.into_iter().map(|domain| domain.name).collect::<Vec<_>>().join(" ")
        };
        for (host, home, expected) in [
            (
                "a.shop.svc.cluster.local",
                "shop",
                "a.shop.svc.cluster.local a.shop.svc.cluster.local. a a.shop.svc a.shop",
            ),
            (
                "a.shop.svc.cluster.local",
                "other",
                "a.shop.svc.cluster.local a.shop.svc.cluster.local. a.shop.svc a.shop",
            ),
            ("a.example.com", "shop", "a.example.com a.example.com."),
            ("a.shop.svc.other.net", "shop", "a.shop.svc.other.net a.shop.svc.other.net."),
            ("*.example.com", "shop", "*.example.com"),
            ("2001:db8::1", "shop", "[2001:db8::1]"),
        ] {
            assert_eq!(names(host, home), expected);
        }
    }
}
