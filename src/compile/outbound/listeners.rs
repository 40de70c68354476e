//! Which listeners do a workload's connections meet, and which chain takes which of them? (Istio's outbound listeners.)

use std::net::IpAddr;
use std::sync::Arc;

use super::super::protocol::Protocol;
use super::super::services::PortView;
use super::super::work::Work;
use super::scope::{Egress, Imported, Strangers};
use super::{connections, routes};
use crate::base::cidr::Cidr;
use crate::resource::networking::CaptureMode;
use crate::snapshot::listener::{ChainMatch, ChainTable, FilterChain, Service, Transport};
use crate::snapshot::outbound::OutboundListener;
use crate::snapshot::route::RouteTable;

/// What a plaintext client has to begin with to be read as HTTP: HTTP/1.1, or HTTP/2 with prior knowledge.
const HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// How the connections of a listener are read. One listener reads all of its connections in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// HTTP by the table of the port.
    Http,
    /// Bytes, by address and server name.
    Bytes,
    /// HTTP or bytes, as it comes.
    Either,
}

/// A listener in the making.
struct Making {
    listener: OutboundListener,
    reading: Reading,
}

/// The listeners of all egress listeners; of two that read one address in different ways the first stays.
pub(super) fn build<'a>(
    work: &mut Work<'a>,
    listeners: &[Egress<'a>],
    strangers: Strangers<'_>,
    rest: &Arc<FilterChain>,
) -> Vec<OutboundListener> {
    let mut made = Vec::new();
    for (number, egress) in listeners.iter().enumerate() {
        let is_ours = |port: u16| owner(listeners, port) == Some(number);
        for service in &egress.services {
            for port in service.ports().filter(|port| egress.is_http_proxy() || is_ours(port.number)) {
                add(work, egress, (service, port), strangers, rest, &mut made);
            }
        }
    }
    made.into_iter().map(|making: Making| making.listener).collect()
}

/// The egress listener that a port belongs to: the one that names it, else the one without a port.
fn owner(listeners: &[Egress<'_>], port: u16) -> Option<usize> {
    let named = listeners.iter().position(|egress| egress.port() == Some(port) && !egress.is_http_proxy());
    named.or_else(|| listeners.iter().position(|egress| egress.port().is_none()))
}

fn add<'a>(
    work: &mut Work<'a>,
    egress: &Egress<'a>,
    (service, port): (&Imported<'a>, PortView<'a>),
    strangers: Strangers<'_>,
    rest: &Arc<FilterChain>,
    made: &mut Vec<Making>,
) {
    // The port's own protocol counts where the Sidecar names none.
    let protocol = egress.protocol().filter(|written| *written != Protocol::Unknown).unwrap_or(port.protocol);
    let number = egress.port().unwrap_or(port.number);
    match protocol {
        Protocol::Udp => {}
        protocol if protocol.is_http() => {
            let Some(listener) = slot(made, bind(egress), number, Reading::Http) else { return };
            if listener.chains.all().is_empty() {
                let table = routes::of_port(work, egress, if egress.is_http_proxy() { 0 } else { number }, strangers);
                insert_http(&mut listener.chains, table, rest);
            }
        }
        Protocol::Unknown => undeclared(work, egress, (service, port), strangers, rest, made),
        _ => {
            for place in places(egress, service, port) {
                let Some(listener) = slot(made, place.address, number, Reading::Bytes) else { continue };
                connections::add(work, egress, (service, port), place.range, listener);
            }
        }
    }
}

/// A port that names no protocol: HTTP is the service's whatever host it names, the rest goes there as bytes.
fn undeclared<'a>(
    work: &mut Work<'a>,
    egress: &Egress<'a>,
    (service, port): (&Imported<'a>, PortView<'a>),
    strangers: Strangers<'_>,
    rest: &Arc<FilterChain>,
    made: &mut Vec<Making>,
) {
    for place in places(egress, service, port) {
        let Some(listener) = slot(made, place.address, port.number, Reading::Either) else { continue };
        if listener.chains.all().is_empty() {
            let table = match place.address {
                Some(_) => routes::of_service(work, egress, service, port.number),
                None => routes::of_port(work, egress, port.number, strangers),
            };
            let bytes = match place.address {
                Some(_) => Arc::new(connections::to_service(work, service, port)),
                None => rest.clone(),
            };
            insert_http(&mut listener.chains, table, &bytes);
        }
    }
}

/// HTTP by the table, everything else by the other chain.
fn insert_http(chains: &mut ChainTable, table: RouteTable, rest: &Arc<FilterChain>) {
    let name = table.name.clone();
    let http = Arc::new(FilterChain { name, tls: None, service: Service::Http(Arc::new(table)) });
    let plain = ChainMatch { transport: Some(Transport::Plain), ..ChainMatch::default() };
    chains.insert(ChainMatch { alpn: HTTP.map(str::to_owned).to_vec(), ..plain.clone() }, http);
    chains.insert(plain, rest.clone());
    chains.insert(ChainMatch::default(), rest.clone());
}

/// One address or range that a service is asked for under; neither means any.
struct Asked {
    address: Option<IpAddr>,
    range: Option<Cidr>,
}

fn places(egress: &Egress<'_>, service: &Imported<'_>, port: PortView<'_>) -> Vec<Asked> {
    if let Some(address) = bind(egress) {
        return vec![Asked { address: Some(address), range: None }];
    }
    let written = super::addresses_of_port(service.view, port);
    let place = |written: &String| match written.parse::<IpAddr>() {
        Ok(address) => Some(Asked { address: Some(address), range: None }),
        Err(_) => Some(Asked { address: None, range: Some(written.parse().ok()?) }),
    };
    let found: Vec<Asked> = written.iter().filter_map(place).collect();
    if found.is_empty() { vec![Asked { address: None, range: None }] } else { found }
}

/// An address that the Sidecar names; what is not captured is asked for on this machine.
fn bind(egress: &Egress<'_>) -> Option<IpAddr> {
    let written = egress.written.filter(|written| written.port.is_some())?;
    let local = (written.capture_mode == CaptureMode::None).then_some(IpAddr::from([127, 0, 0, 1]));
    written.bind.parse().ok().filter(|address: &IpAddr| !address.is_unspecified()).or(local)
}

/// The listener of an address and port; `None` if it is read in another way already.
fn slot(made: &mut Vec<Making>, address: Option<IpAddr>, port: u16, reading: Reading) -> Option<&mut OutboundListener> {
    let same = |making: &Making| making.listener.address == address && making.listener.port == port;
    let place = match made.iter().position(same) {
        Some(place) => place,
        None => {
            let listener = OutboundListener { address, port, chains: ChainTable::default() };
            made.push(Making { listener, reading });
            made.len() - 1
        }
    };
    made.get_mut(place).filter(|making| making.reading == reading).map(|making| &mut making.listener)
}
