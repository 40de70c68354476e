//! Which listener, chain, host, rule and destination would take a request that a workload sends?

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::asked::{Asked, Asker};
use super::{Context, Explanation, Query, begin, serve};
use crate::snapshot::listener::ConnectionFacts;
use crate::snapshot::outbound::Outbound;
use crate::snapshot::redirect::host_of;

/// What a client that speaks HTTP begins with.
const HTTP: &[&[u8]] = &[b"http/1.1"];

/// Explains a request against what one workload obeys; the URL's port is that of the service. Fails with a sentence if
/// the URL or a header cannot be read.
pub(crate) fn explain_outbound(outbound: &Outbound, query: &Query) -> Result<Explanation, String> {
    let asked = Asked::new(query, Asker::Workload)?;
    let mut explanation = begin(&asked);
    let host = host_of(&asked.authority).to_ascii_lowercase();
    let written = || host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let known = || outbound.addresses.get(&*host).copied();
    let destination = query.to.or_else(written).or_else(known).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let facts = match (asked.is_tls, asked.scheme.as_str()) {
        (true, _) => ConnectionFacts::tls(destination, asked.sni.as_deref()),
        (false, "http") => ConnectionFacts { alpn: HTTP, ..ConnectionFacts::plain(destination) },
        (false, _) => ConnectionFacts::plain(destination),
    };
    let (listener, chain) = outbound.find(&facts, asked.port);
    explanation.listener = Some(listener.map_or_else(|| "virtualOutbound".to_owned(), |listener| listener.name()));
    explanation.chain = Some(format!("{} ({})", chain.name, facts.transport.word()));
    let local = SocketAddr::new(destination, asked.port);
    serve(chain, &asked, Context { local, proxy: &outbound.proxy }, &mut explanation);
    Ok(explanation)
}
