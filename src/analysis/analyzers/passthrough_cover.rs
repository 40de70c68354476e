//! Does one port pass a host through and end TLS for a wildcard that covers it, or the reverse? (LIM0062)
//!
//! Browsers reuse an HTTP/2 connection for every host that its certificate covers.

use std::collections::HashMap;

use crate::analysis::report::Report;
use crate::analysis::served::tails;
use crate::analysis::tls_servers::{TlsServer, by_address};
use crate::analysis::world::World;
use crate::base::host;
use crate::resource::codes;

pub(super) fn analyze(world: &World<'_>, report: &mut Report<'_>) {
    for servers in by_address(world).values() {
        let (passing, ending): (Vec<TlsServer<'_>>, Vec<_>) = servers.iter().partition(|it| it.passes_through());
        if !passing.is_empty() && !ending.is_empty() {
            check(&passing, &ending, report);
            check(&ending, &passing, report);
        }
    }
}

/// Tells of hosts of `servers` that a wildcard of `others` covers.
fn check(servers: &[TlsServer<'_>], others: &[TlsServer<'_>], report: &mut Report<'_>) {
    let mut wildcards: HashMap<&str, TlsServer<'_>> = HashMap::new();
    for other in others.iter().rev() {
        wildcards.extend(other.hosts().filter_map(|(_, name)| Some((name.strip_prefix('*')?, *other))));
    }
    if wildcards.is_empty() {
        return;
    }
    for server in servers {
        for (at, name) in server.hosts() {
            let bare = name.strip_prefix('*').unwrap_or(name);
            // A wildcard does not cover itself: the same host twice is another matter.
            let own = usize::from(host::is_wildcard(name));
            let Some((tail, other)) = tails(bare).skip(own).find_map(|tail| wildcards.get_key_value(tail)) else {
                continue;
            };
            let (own, theirs) = match server.passes_through() {
                true => ("is passed through", "ended"),
                false => ("is ended", "passed through"),
            };
            let message = format!(
                "TLS for `{name}` {own}, but for `*{tail}` it is {theirs} on the same port by the Gateway {}: a \
                 connection for the wildcard may be reused for this host and ends at the wrong place",
                other.gateway.key()
            );
            let hint = "use another port or address, or certificates that do not cover each other's hosts";
            report.tell_with_hint(server.gateway, &codes::PASSTHROUGH_COVERED, &server.place(at), message, hint);
        }
    }
}
