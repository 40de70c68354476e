//! Can the CA come in? It looks at port 80 for http-01 and at port 443 for tls-alpn-01, and nowhere else.

use super::super::gateways::{BoundServer, ServerKind};
use super::super::problems::Problems;
use super::issuers::can_prove;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::settings::Settings;
use crate::resource::settings::acme::{AcmeIssuer, CertificateName, Challenge};
use crate::snapshot::issuance::{Identifier, Wanted};

/// Where the CA finds us, by the ports that Gateways name: what stands in front may lead them elsewhere.
struct Doors {
    http: bool,
    tls: bool,
}

/// Whether port 80 has to be opened for challenges alone; tells which certificates no challenge can bring.
pub(super) fn judge<'w>(
    settings: &Settings,
    servers: &[BoundServer<'_>],
    wanted: impl Iterator<Item = &'w Wanted>,
    problems: &mut Problems,
) -> bool {
    let has = |port: u32, suits: fn(ServerKind) -> bool| {
        servers.iter().any(|server| server.server.port.number == port && suits(server.kind))
    };
    let doors = Doors { http: has(80, |kind| kind == ServerKind::Http), tls: has(443, ServerKind::is_tls) };
    let may_open =
        settings.acme.listen_http.unwrap_or(true) && !servers.iter().any(|server| server.server.port.number == 80);
    let mut needs_http = false;
    for wanted in wanted {
        let issuers: Vec<&AcmeIssuer> = wanted.issuers.iter().filter_map(|name| settings.acme.issuer(name)).collect();
        if issuers.is_empty() {
            continue;
        }
        let uses_http = issuers.iter().any(|issuer| issuer.challenges.contains(&Challenge::Http01));
        let names = wanted.identifiers.iter().map(name_of);
        let closed: Vec<CertificateName> =
            names.filter(|name| !issuers.iter().any(|issuer| doors.lead(issuer, name))).collect();
        needs_http |= may_open && uses_http && (settings.acme.listen_http == Some(true) || !closed.is_empty());
        if closed.is_empty() || may_open && uses_http {
            continue;
        }
        let message = format!(
            "the certificate {} can be proved at port 80 (http-01) or 443 (tls-alpn-01) alone, and no server has the ones \
             that its issuers may use",
            wanted.folder
        );
        let finding = Finding::new(&codes::CHALLENGE_PORT, Location::default(), message);
        problems.add(finding.about("[acme]"));
    }
    needs_http
}

impl Doors {
    /// Whether a challenge can bring the CA's answer for the name. A record that stays counts where nothing else can do
    /// it: somebody has to write it first.
    fn lead(&self, issuer: &AcmeIssuer, name: &CertificateName) -> bool {
        let can = |challenge: &Challenge| {
            can_prove(*challenge, name)
                && match challenge {
                    Challenge::Http01 => self.http,
                    Challenge::TlsAlpn01 => self.tls,
                    Challenge::Dns01 => true,
                    Challenge::DnsPersist01 => !can_prove(Challenge::Http01, name) || issuer.challenges.len() == 1,
                }
        };
        issuer.challenges.iter().any(can)
    }
}

fn name_of(identifier: &Identifier) -> CertificateName {
    match identifier {
        Identifier::Dns(name) => CertificateName::Dns(name.clone()),
        Identifier::Ip(address) => CertificateName::Ip(*address),
    }
}
