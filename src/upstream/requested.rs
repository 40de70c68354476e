//! Which addresses does a request's own host mean? (ServiceEntry.resolution DYNAMIC_DNS.) Clients choose the names, so
//! only so many are known at a time, and those that nobody asks for are forgotten.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connect::host_of;
use super::dns::{LiveName, Resolver};

/// Hosts of one cluster that one worker knows at a time; for another one the least used is forgotten.
const MOST: usize = 1024;
/// A host that nobody asked for during this time is forgotten, with its connections (Envoy's host_ttl).
const UNUSED: Duration = Duration::from_secs(300);
/// The same for a name that does not resolve.
const UNUSED_IN_VAIN: Duration = Duration::from_secs(5);

/// A host and port as requests name them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    host: Box<str>,
    port: u16,
}

/// The hosts that requests to one cluster asked for lately.
pub(super) struct Requested {
    resolver: Resolver,
    /// The port of an authority without one.
    default_port: u16,
    known: Mutex<HashMap<Target, Known>>,
}

struct Known {
    name: Arc<LiveName>,
    last_use: Instant,
}

impl Requested {
    pub(super) fn new(resolver: Resolver, default_port: u16) -> Self {
        Requested { resolver, default_port, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Target, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address for a request with this authority: the first one, or the first that was not `tried`. Waits for the
    /// first answer to a new name, but not longer than `limit`. `None`: it does not resolve.
    pub(super) async fn address(
        &self,
        authority: &str,
        tried: &[SocketAddr],
        limit: Duration,
        now: Instant,
    ) -> Option<SocketAddr> {
        let target = target(authority, self.default_port)?;
        let port = target.port;
        let name = self.name(target, now);
        tokio::time::timeout(limit, name.answered()).await.ok()?;
        let addresses = name.addresses.load();
        let mut all = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        all.clone().find(|address| !tried.contains(address)).or_else(|| all.next())
    }

    fn name(&self, target: Target, now: Instant) -> Arc<LiveName> {
        let mut known = self.known();
        if let Some(known) = known.get_mut(&target) {
            known.last_use = now;
            return Arc::clone(&known.name);
        }
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, known)| known.last_use).map(|(target, _)| target.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let name = self.resolver.live(&target.host);
        known.insert(target, Known { name: Arc::clone(&name), last_use: now });
        name
    }

    /// Forgets what nobody asks for, and tells the addresses of the rest.
    pub(super) fn sweep(&self, now: Instant) -> HashSet<SocketAddr> {
        let mut known = self.known();
        known.retain(|_, known| {
            let limit = if known.name.addresses.load().is_empty() { UNUSED_IN_VAIN } else { UNUSED };
            now.saturating_duration_since(known.last_use) < limit
        });
        let addresses = known.iter().flat_map(|(target, known)| {
            let ips = known.name.addresses.load();
            ips.iter().map(|ip| SocketAddr::new(*ip, target.port)).collect::<Vec<_>>()
        });
        addresses.collect()
    }
}

/// `None`: it names no host, or a port that is none.
fn target(authority: &str, default_port: u16) -> Option<Target> {
    let host = host_of(authority);
    if host.is_empty() || host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
        return None;
    }
    let rest = authority.strip_prefix('[').unwrap_or(authority).strip_prefix(host)?;
    let port = match rest.strip_prefix(']').unwrap_or(rest).strip_prefix(':') {
        None | Some("") => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
    };
    Some(Target { host: host.to_ascii_lowercase().into(), port })
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;

    #[test]
    fn the_authority_names_host_and_port() {
        let cases = [
            ("A.com", Some(("a.com", 80))),
            ("a.com:8080", Some(("a.com", 8080))),
            ("a.com:", Some(("a.com", 80))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("[::1]:81", Some(("::1", 81))),
            ("[::1]", Some(("::1", 80))),
            ("a.com:0", None),
            ("a.com:99999", None),
            ("a.com:port", None),
            (":80", None),
            ("", None),
        ];
        for (authority, expected) in cases {
            let expected = expected.map(|(host, port)| Target { host: host.into(), port });
            assert_eq!(target(authority, 80), expected, "{authority}");
        }
    }

    #[tokio::test]
    async fn hosts_are_few_and_forgotten() {
        let requested = Requested::new(Resolver::new(Handle::current()), 80);
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let ask = |authority: String, now| {
            let requested = &requested;
            async move { requested.address(&authority, &[], second * 20, now).await }
        };
        let local = ask("localhost:3000".into(), begin).await.unwrap();
        assert!(local.ip().is_loopback() && local.port() == 3000);
        assert_eq!(ask("nowhere.invalid".into(), begin).await, None);
        assert_eq!(ask("a.com:port".into(), begin).await, None);
        assert!(requested.sweep(begin).contains(&local));
        assert_eq!(requested.known().len(), 2);
        assert!(requested.sweep(begin + UNUSED_IN_VAIN).contains(&local));
        assert_eq!(requested.known().len(), 1);
        for port in 1..=2 * MOST {
            ask(format!("127.0.0.1:{port}"), begin + second).await.unwrap();
        }
        assert_eq!(requested.known().len(), MOST);
        assert!(!requested.sweep(begin + second).contains(&local), "the least used is forgotten");
        assert!(requested.sweep(begin + second + UNUSED).is_empty());
        assert!(requested.resolver.has_no_live_names());
    }
}
