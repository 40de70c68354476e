//! Do the servers of a zone show a record already? A CA asks any of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_net::proto::op::ResponseCode;
use hickory_net::proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::exchange::{ask, resolver};
use super::update::Place;

/// After so long a record that is not seen is a failure.
const SEEN_WITHIN: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(1);
/// No more servers of a zone are asked.
const MOST: usize = 8;
const PORT: u16 = 53;

/// Waits until every server of the zone that can be asked shows the record.
pub(super) async fn wait_for(place: &Place) -> Result<(), String> {
    let give_up = Instant::now() + SEEN_WITHIN;
    for server in of_zone(place).await {
        loop {
            match shows(server, &place.name, &place.value).await {
                Some(true) => break,
                Some(false) if Instant::now() < give_up => tokio::time::sleep(STEP).await,
                Some(false) => {
                    let seconds = SEEN_WITHIN.as_secs();
                    return Err(format!(
                        "DNS server {server} of {} does not show the record of {} after {seconds} seconds",
                        place.zone, place.name
                    ));
                }
                None => {
                    tracing::debug!(%server, "a server of the zone cannot be asked");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether a server has the record; `None` if it cannot be asked.
async fn shows(server: SocketAddr, name: &Name, value: &str) -> Option<bool> {
    let answer = ask(server, name, RecordType::TXT).await.ok()?;
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        _ => return None,
    }
    Some(answer.answers.iter().any(|record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    }))
}

/// The servers of the zone, as the server that takes updates knows them, itself among them.
async fn of_zone(place: &Place) -> BTreeSet<SocketAddr> {
    let mut servers = BTreeSet::from([place.server]);
    let Ok(answer) = ask(place.server, &place.zone, RecordType::NS).await else { return servers };
    for record in answer.answers.iter().take(MOST) {
        let RData::NS(name) = &record.data else { continue };
        for address in addresses(place, &name.0).await {
            // Its own address counts with the port that it has.
            if address != place.server.ip() && servers.len() < MOST {
                servers.insert(SocketAddr::new(address, PORT));
            }
        }
    }
    servers
}

async fn addresses(place: &Place, name: &Name) -> Vec<IpAddr> {
    if place.zone.zone_of(name) {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let Ok(answer) = ask(place.server, name, kind).await else { continue };
            found.extend(answer.answers.iter().filter_map(|record| record.data.ip_addr()));
        }
        return found;
    }
    let Some(resolver) = resolver() else { return Vec::new() };
    resolver.lookup_ip(name.clone()).await.map(|found| found.iter().collect()).unwrap_or_default()
}
