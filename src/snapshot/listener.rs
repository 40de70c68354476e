//! Which filter chain takes a connection? Decided by destination, server name, transport and ALPN, as Envoy does it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::cidr::Cidr;

use super::route::RouteTable;
use super::tcp::TcpProxy;
use super::tls::TlsServer;

/// Everything that is bound to one address.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What is bound.
    pub address: SocketAddr,
    /// Whether connections begin with a PROXY protocol header (v1 or v2).
    pub proxy_protocol: bool,
    pub chains: ChainTable,
}

/// How the connections of one chain are served.
#[derive(Debug)]
pub(crate) struct FilterChain {
    /// Shown by explain, status and logs, such as `https.443.https.gateway.default`.
    pub name: String,
    /// `None`: TLS, if there is any, is not ended here.
    pub tls: Option<TlsServer>,
    pub service: Service,
}

/// What is spoken behind the TLS of a chain.
#[derive(Debug)]
pub(crate) enum Service {
    Http(Arc<RouteTable>),
    Tcp(Arc<TcpProxy>),
}

impl FilterChain {
    /// The route table of a chain that serves HTTP.
    pub(crate) fn routes(&self) -> Option<&RouteTable> {
        match &self.service {
            Service::Http(routes) => Some(routes),
            Service::Tcp(_) => None,
        }
    }

    /// The Gateway server's port number.
    pub(crate) fn port(&self) -> u16 {
        match &self.service {
            Service::Http(routes) => routes.port,
            Service::Tcp(proxy) => proxy.port,
        }
    }
}

/// What a connection's first bytes say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Anything but a ClientHello.
    Plain,
    Tls,
}

impl Transport {
    /// Envoy's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Transport::Plain => "raw_buffer",
            Transport::Tls => "tls",
        }
    }
}

/// The facts of a connection that a chain is chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionFacts<'a> {
    /// The address that the client asked for.
    pub destination: IpAddr,
    pub transport: Transport,
    /// As the client sent it.
    pub server_name: Option<&'a str>,
    /// The protocols that the client offers, in its order.
    pub alpn: &'a [&'a [u8]],
}

impl<'a> ConnectionFacts<'a> {
    /// A connection that does not begin with a ClientHello.
    pub(crate) fn plain(destination: IpAddr) -> Self {
        ConnectionFacts { destination, transport: Transport::Plain, server_name: None, alpn: &[] }
    }

    /// A TLS client that offers no protocol.
    pub(crate) fn tls(destination: IpAddr, server_name: Option<&'a str>) -> Self {
        ConnectionFacts { destination, transport: Transport::Tls, server_name, alpn: &[] }
    }
}

/// What a chain asks of connections (Envoy FilterChainMatch). Empty lists and `None` ask nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainMatch {
    pub destinations: Vec<Cidr>,
    /// `a.com`, `*.a.com`, in any case.
    pub server_names: Vec<String>,
    pub transport: Option<Transport>,
    /// One of them has to be offered.
    pub alpn: Vec<String>,
}

/// The chains of a listener, found step by step: the narrowest range of the destination, then the server name (exact,
/// longest suffix, any), then transport, then ALPN. A step that was taken is never taken back.
#[derive(Debug, Default)]
pub(crate) struct ChainTable {
    /// The narrowest first.
    ranges: Vec<(Cidr, NameTable)>,
    anywhere: NameTable,
    /// Every chain once, with its conditions, in the order in which they were added.
    chains: Vec<(ChainMatch, Arc<FilterChain>)>,
    /// Whether the first bytes are needed for the choice. Where they are not, a server may speak first.
    inspects: bool,
}

/// Chains by server name. Names are lower-case.
#[derive(Debug, Default)]
struct NameTable {
    exact: HashMap<Box<str>, Vec<Arm>>,
    /// `.example.com` for `*.example.com`.
    suffixes: HashMap<Box<str>, Vec<Arm>>,
    any: Vec<Arm>,
}

/// One way on behind a server name.
#[derive(Debug)]
struct Arm {
    transport: Option<Transport>,
    alpn: Vec<String>,
    chain: Arc<FilterChain>,
}

impl ChainTable {
    /// Adds a chain behind those that are there, for as much of its conditions as is still free. Gives the server
    /// names (`*` for none) that an earlier chain has already.
    pub(crate) fn insert(&mut self, conditions: ChainMatch, chain: Arc<FilterChain>) -> Vec<String> {
        let mut taken = Vec::new();
        let names: Vec<Cow<'_, str>> = match conditions.server_names.as_slice() {
            [] => vec![Cow::Borrowed("*")],
            names => names.iter().map(|name| lower_case(name)).collect(),
        };
        self.inspects |= chain.tls.is_some()
            || conditions.transport.is_some()
            || !conditions.server_names.is_empty()
            || !conditions.alpn.is_empty();
        let ranges: Vec<Option<Cidr>> = match conditions.destinations.as_slice() {
            [] => vec![None],
            ranges => ranges.iter().copied().map(Some).collect(),
        };
        let names: Vec<String> = names.into_iter().map(Cow::into_owned).collect();
        for range in ranges.iter().copied() {
            let table = self.table(range);
            for name in &names {
                let arms = table.arms(name);
                let is_same = |arm: &Arm| {
                    let overlaps = arm.alpn.iter().any(|name| conditions.alpn.contains(name));
                    arm.transport == conditions.transport && (arm.alpn == conditions.alpn || overlaps)
                };
                if arms.iter().any(is_same) {
                    taken.push(name.clone());
                } else {
                    let (transport, alpn) = (conditions.transport, conditions.alpn.clone());
                    arms.push(Arm { transport, alpn, chain: Arc::clone(&chain) });
                }
            }
        }
        if taken.len() < ranges.len() * names.len() {
            let server_names =
                conditions.server_names.iter().filter(|name| !taken.contains(&name.to_ascii_lowercase()));
            let server_names = server_names.cloned().collect();
            self.chains.push((ChainMatch { server_names, ..conditions }, chain));
        }
        taken
    }

    fn table(&mut self, range: Option<Cidr>) -> &mut NameTable {
        let Some(range) = range else { return &mut self.anywhere };
        let place = match self.ranges.iter().position(|(known, _)| *known == range) {
            Some(place) => place,
            None => {
                let place = self.ranges.partition_point(|(known, _)| known.prefix() >= range.prefix());
                self.ranges.insert(place, (range, NameTable::default()));
                place
            }
        };
        match self.ranges.get_mut(place) {
            Some((_, table)) => table,
            None => &mut self.anywhere,
        }
    }

    /// From now on the first bytes are looked at even if no chain needs them: TLS servers like to know the name.
    pub(crate) fn inspect(&mut self) {
        self.inspects = true;
    }

    /// Whether the first bytes are looked at before a chain is chosen.
    pub(crate) fn inspects(&self) -> bool {
        self.inspects
    }

    /// Every chain with its conditions, in the order in which they were added.
    pub(crate) fn all(&self) -> &[(ChainMatch, Arc<FilterChain>)] {
        &self.chains
    }

    /// The chain for a connection. Server names are compared in any case; a trailing dot is part of the name and so
    /// never matches (Istio Gateway.servers.hosts).
    pub(crate) fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let ranged = self.ranges.iter().find(|(range, _)| range.contains(facts.destination));
        let table = ranged.map_or(&self.anywhere, |(_, table)| table);
        let arms = table.find(facts.server_name);
        let wanted = Some(facts.transport).filter(|wanted| arms.iter().any(|arm| arm.transport == Some(*wanted)));
        let arms = || arms.iter().filter(|arm| arm.transport == wanted);
        let offered = facts.alpn.iter().find_map(|offered| arms().find(|arm| arm.takes(offered)));
        offered.or_else(|| arms().find(|arm| arm.alpn.is_empty())).map(|arm| &arm.chain)
    }
}

impl NameTable {
    fn arms(&mut self, name: &str) -> &mut Vec<Arm> {
        match name.strip_prefix('*') {
            None => self.exact.entry(name.into()).or_default(),
            Some("") => &mut self.any,
            Some(suffix) => self.suffixes.entry(suffix.into()).or_default(),
        }
    }

    fn find(&self, server_name: Option<&str>) -> &[Arm] {
        let Some(name) = server_name.filter(|_| !self.exact.is_empty() || !self.suffixes.is_empty()) else {
            return &self.any;
        };
        let name = lower_case(name);
        if let Some(arms) = self.exact.get(&*name) {
            return arms;
        }
        // The first byte belongs to what `*` stands for.
        let dots = name.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        let mut suffixes = dots.filter_map(|(place, _)| self.suffixes.get(name.get(place..)?));
        suffixes.next().unwrap_or(&self.any)
    }
}

impl Arm {
    fn takes(&self, offered: &[u8]) -> bool {
        self.alpn.iter().any(|name| name.as_bytes() == offered)
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str) -> Arc<FilterChain> {
        Arc::new(FilterChain { name: name.into(), tls: None, service: Service::Http(Arc::default()) })
    }

    fn named(names: &[&str]) -> ChainMatch {
        ChainMatch { server_names: names.iter().map(|name| (*name).to_owned()).collect(), ..ChainMatch::default() }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn by_name(table: &ChainTable, name: Option<&str>) -> Option<String> {
        table.find(&ConnectionFacts::tls(HERE, name)).map(|chain| chain.name.clone())
    }

    #[test]
    fn names_go_from_exact_over_the_longest_suffix_to_any() {
        let mut table = ChainTable::default();
        for name in ["A.Example.com", "*.example.com", "*.y.example.com"] {
            assert!(table.insert(named(&[name]), chain(name)).is_empty());
        }
        assert_eq!(table.insert(named(&["a.example.com", "b.com"]), chain("late")), ["a.example.com"]);
        for (asked, expected) in [
            (Some("a.EXAMPLE.com"), Some("A.Example.com")),
            (Some("b.example.com"), Some("*.example.com")),
            (Some("x.y.example.com"), Some("*.y.example.com")),
            (Some(".example.com"), None),
            (Some("example.com"), None),
            (Some("a.example.com."), None),
            (Some("b.com"), Some("late")),
            (None, None),
        ] {
            assert_eq!(by_name(&table, asked).as_deref(), expected, "{asked:?}");
        }
        assert!(table.find(&ConnectionFacts::plain(HERE)).is_none());
        table.insert(named(&[]), chain("any"));
        assert_eq!(by_name(&table, Some("a.example.com.")).as_deref(), Some("any"));
        assert!(table.find(&ConnectionFacts::plain(HERE)).is_some(), "a chain for any name takes plaintext, too");
    }

    #[test]
    fn a_step_is_never_taken_back() {
        let mut table = ChainTable::default();
        let istio = ChainMatch { alpn: vec!["istio".into(), "istio-h2".into()], ..named(&["a.com"]) };
        table.insert(istio, chain("mesh"));
        table.insert(named(&[]), chain("any"));
        let with = |alpn: &[&[u8]]| {
            let facts = ConnectionFacts { alpn, ..ConnectionFacts::tls(HERE, Some("a.com")) };
            table.find(&facts).map(|chain| chain.name.clone())
        };
        assert_eq!(with(&[b"h2", b"istio"]).as_deref(), Some("mesh"));
        assert_eq!(with(&[b"h2"]), None, "the name is known, so the chain for any is out of reach");
    }

    #[test]
    fn ranges_come_first_and_transports_part() {
        let mut table = ChainTable::default();
        let range = |text: &str| ChainMatch { destinations: vec![text.parse().unwrap()], ..ChainMatch::default() };
        table.insert(range("127.0.0.0/8"), chain("wide"));
        table.insert(range("127.0.0.1"), chain("narrow"));
        table.insert(ChainMatch { transport: Some(Transport::Plain), ..ChainMatch::default() }, chain("plain"));
        assert!(table.insert(ChainMatch::default(), chain("rest")).is_empty());
        let found = |facts: ConnectionFacts<'_>| table.find(&facts).map(|chain| chain.name.clone()).unwrap();
        let elsewhere = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(found(ConnectionFacts::tls(HERE, None)), "narrow");
        assert_eq!(found(ConnectionFacts::tls(IpAddr::from([127, 0, 0, 2]), Some("x"))), "wide");
        assert_eq!(found(ConnectionFacts::plain(elsewhere)), "plain");
        assert_eq!(found(ConnectionFacts::tls(elsewhere, None)), "rest");
    }
}
