//! How is a record written by a dynamic update (RFC 2136), signed with a key (RFC 8945)?

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hickory_net::NetError;
use hickory_net::client::{Client, ClientHandle};
use hickory_net::proto::op::{DnsResponse, ResponseCode};
use hickory_net::proto::rr::rdata::TXT;
use hickory_net::proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_net::proto::rr::{Name, RData, Record, RecordType, TSigner};
use hickory_net::runtime::TokioRuntimeProvider;

use super::exchange::{self, ask, connect};
use crate::snapshot::issuance::TsigKey;

/// Records of challenges live for minutes; caches should forget them soon.
const TTL: u32 = 60;
/// How far the clocks may differ, in seconds (RFC 8945 section 10).
const FUDGE: u16 = 300;
/// Longer chains of aliases are circles.
const MOST_ALIASES: usize = 8;

/// Where a record is, or will be.
pub(super) struct Place {
    pub(super) server: SocketAddr,
    pub(super) zone: Name,
    /// After aliases were followed.
    pub(super) name: Name,
    pub(super) value: String,
    key: Option<TSigner>,
}

impl Place {
    /// Follows aliases of the name, and finds the zone if it is not said.
    pub(super) async fn find(
        server: SocketAddr,
        zone: Option<&str>,
        key: Option<&TsigKey>,
        name: &str,
        value: &str,
    ) -> Result<Place, String> {
        let key = match key {
            Some(key) => Some(signer(key).await?),
            None => None,
        };
        let name = canonical(server, parse(name)?).await?;
        let zone = match zone {
            Some(zone) => parse(zone)?,
            None => find_zone(server, &name).await?,
        };
        if !zone.zone_of(&name) {
            return Err(format!("{name} is not in the zone {zone}"));
        }
        Ok(Place { server, zone, name, value: value.to_owned(), key })
    }

    /// Adds the record beside others of the name.
    pub(super) async fn add(&self) -> Result<(), String> {
        let added = self.connect().await?.append(self.record(), self.zone.clone(), false).await;
        self.judge(added, "the update")
    }

    /// Removes exactly this record.
    pub(super) async fn remove(&self) -> Result<(), String> {
        let removed = self.connect().await?.delete_by_rdata(self.record(), self.zone.clone()).await;
        self.judge(removed, "the removal")
    }

    fn record(&self) -> Record {
        Record::from_rdata(self.name.clone(), TTL, RData::TXT(TXT::new(vec![self.value.clone()])))
    }

    async fn connect(&self) -> Result<Client<TokioRuntimeProvider>, String> {
        connect(self.server, self.key.clone()).await.map_err(|error| format!("DNS server {}: {error}", self.server))
    }

    fn judge(&self, answer: Result<DnsResponse, NetError>, done: &str) -> Result<(), String> {
        let (server, name, zone) = (self.server, &self.name, &self.zone);
        match answer {
            Ok(answer) if answer.response_code == ResponseCode::NoError => Ok(()),
            Ok(answer) => {
                let hint = match answer.response_code {
                    ResponseCode::Refused | ResponseCode::NotAuth => "; look at the key, and at what it may change",
                    ResponseCode::NotZone => "; look at the zone",
                    _ => "",
                };
                Err(format!("DNS server {server} refused {done} of {name} in {zone}: {}{hint}", answer.response_code))
            }
            Err(error) => {
                let hint = if self.key.is_some() { "; it may know another key, or another time" } else { "" };
                Err(format!("DNS server {server}: {done} of {name} in {zone} failed: {error}{hint}"))
            }
        }
    }
}

pub(super) fn parse(name: &str) -> Result<Name, String> {
    let mut parsed = Name::from_ascii(name).map_err(|error| format!("{name} is no DNS name: {error}"))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

/// The name to which aliases (CNAME) lead: a challenge may be delegated to a zone that takes updates.
async fn canonical(server: SocketAddr, name: Name) -> Result<Name, String> {
    let mut at = name;
    for _ in 0..MOST_ALIASES {
        match exchange::alias(server, &at).await {
            Some(next) => at = next,
            None => return Ok(at),
        }
    }
    Err(format!("the aliases of {at} lead in a circle"))
}

/// The zone of a name: the nearest name above it for which the server has a SOA record.
async fn find_zone(server: SocketAddr, name: &Name) -> Result<Name, String> {
    let mut at = name.clone();
    while !at.is_root() {
        let answer = ask(server, &at, RecordType::SOA).await;
        let answer =
            answer.map_err(|error| format!("DNS server {server} was asked for the zone of {name}: {error}"))?;
        let records = answer.answers.iter().chain(&answer.authorities);
        let mut zones = records.filter(|record| record.record_type() == RecordType::SOA).map(|record| &record.name);
        if let Some(zone) = zones.find(|zone| zone.zone_of(name) && !zone.is_root()) {
            return Ok(zone.clone());
        }
        at = at.base_name();
    }
    Err(format!("DNS server {server} has no zone with {name}; name the zone"))
}

async fn signer(key: &TsigKey) -> Result<TSigner, String> {
    let shown = key.secret_file.display().to_string();
    let text =
        tokio::fs::read_to_string(&key.secret_file).await.map_err(|error| format!("the DNS key {shown}: {error}"))?;
    let secret = BASE64_STANDARD.decode(text.trim()).map_err(|_| format!("the DNS key {shown} is no base64"))?;
    let algorithm = match key.algorithm.to_ascii_lowercase().trim_end_matches('.') {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        other => return Err(format!("the DNS key {} has the algorithm {other}, which is not known", key.name)),
    };
    TSigner::new(secret, algorithm, parse(&key.name)?, FUDGE)
        .map_err(|error| format!("the DNS key {}: {error}", key.name))
}
