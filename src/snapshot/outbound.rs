//! What do the requests of one workload meet on their way out? (Istio's outbound listeners of a sidecar.)

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::ProxyPolicy;
use super::listener::{ChainTable, ConnectionFacts, FilterChain};

/// Where a workload's connections are sent to; nobody is meant to ask for this port itself.
pub(crate) const OUTBOUND_PORT: u16 = 15001;

/// Everything that one workload's own requests obey.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub listeners: Vec<OutboundListener>,
    /// Takes the connections that no listener has a chain for.
    pub strangers: Arc<FilterChain>,
    /// Takes what asks for [`OUTBOUND_PORT`] itself.
    pub loops: Arc<FilterChain>,
    /// The first address of each service in sight, by all its names in lower case.
    pub addresses: HashMap<Box<str>, IpAddr>,
    pub proxy: Arc<ProxyPolicy>,
}

/// What is asked for on one port, at one address or at any.
#[derive(Debug)]
pub(crate) struct OutboundListener {
    /// `None` is every address that has no listener of its own.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub chains: ChainTable,
}

impl OutboundListener {
    /// Istio's name, such as `0.0.0.0_9080`.
    pub(crate) fn name(&self) -> String {
        match self.address {
            Some(address) => format!("{address}_{}", self.port),
            None => format!("0.0.0.0_{}", self.port),
        }
    }
}

impl Outbound {
    /// The listener for a destination: that of its address, else that of all addresses.
    pub(crate) fn listener(&self, address: IpAddr, port: u16) -> Option<&OutboundListener> {
        let on_port = || self.listeners.iter().filter(|listener| listener.port == port);
        on_port().find(|listener| listener.address == Some(address)).or(on_port().find(|one| one.address.is_none()))
    }

    /// The chain for a connection, and its listener if there is one.
    pub(crate) fn find(
        &self,
        facts: &ConnectionFacts<'_>,
        port: u16,
    ) -> (Option<&OutboundListener>, &Arc<FilterChain>) {
        if port == OUTBOUND_PORT {
            return (None, &self.loops);
        }
        let listener = self.listener(facts.destination, port);
        (listener, listener.and_then(|listener| listener.chains.find(facts)).unwrap_or(&self.strangers))
    }
}
