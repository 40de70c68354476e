//! Which certificates are to be got for the servers, and from whom? Every certificate once, whoever needs it.
//!
//! A server names an issuer in place of a Secret: `acme://`, `acme://ISSUER` or `local-ca://`. Each of its hosts then
//! has a Secret of its own, `acme:HOST` or `local-ca:HOST`. A host that a certificate of the same issuers covers already,
//! a wildcard's or one of `[[acme.certificate]]`, is not ordered again. `*` and wildcards that no challenge can prove are
//! got by name at the first handshake, where `[acme.on_demand]` allows it.

mod issuers;
mod ports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::issuers::acme_issuer;
use super::gateways::{BoundServer, ServerKind};
use super::problems::Problems;
use crate::base::kept_name;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::networking::ServerTlsMode;
use crate::resource::settings::Settings;
use crate::resource::settings::acme::{AcmeCertificate, AcmeIssuer, AcmeSettings, CertificateName, KNOWN_CAS};
use crate::snapshot::issuance::{Issuance, Issuer, IssuerKind, KeyKind, OnDemand, Wanted};

/// What a credentialName says instead of the name of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked<'n> {
    /// `acme://`, or `acme://ISSUER`.
    Acme(Option<&'n str>),
    /// `local-ca://`
    LocalCa,
}

impl<'n> Asked<'n> {
    /// `None` for the name of a Secret.
    pub(super) fn of(credential: &'n str) -> Option<Self> {
        match credential.strip_prefix("acme://") {
            Some("") => Some(Asked::Acme(None)),
            Some(issuer) => Some(Asked::Acme(Some(issuer))),
            None => (credential == "local-ca://").then_some(Asked::LocalCa),
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Asked::Acme(_) => "acme:",
            Asked::LocalCa => LOCAL_PREFIX,
        }
    }

    /// The folder of the storage for such certificates.
    fn folder(self) -> &'static str {
        match self {
            Asked::Acme(_) => "hosts",
            Asked::LocalCa => "local",
        }
    }
}

/// How certificates of hosts are named.
pub(super) const HOST_PREFIX: &str = "acme:";
pub(super) const LOCAL_PREFIX: &str = "local-ca:";
/// The name of our own authority among the issuers.
const LOCAL_ISSUER: &str = "local-ca";

/// Where the certificate of a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the first of these Secrets that is there.
    Secrets(Vec<String>),
    /// Got when a handshake tells the name, and handed to it alone.
    OnDemand,
    /// Nowhere; why was told.
    Nowhere,
}

/// What is to be got, and where the servers find it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub issuance: Issuance,
    /// By the Secret that a host would have of its own.
    places: BTreeMap<String, Place>,
    /// The Secrets of `[[acme.certificate]]`.
    ordered: BTreeSet<String>,
    /// Whether port 80 is to be opened for challenges alone.
    pub needs_http: bool,
}

impl Plan {
    /// Where the certificate of a server's host is.
    pub(super) fn place(&self, asked: Asked<'_>, host: &str) -> &Place {
        self.places.get(&own_secret(asked, plain(host))).unwrap_or(&Place::Nowhere)
    }

    /// Whether the Secret is a certificate of `[[acme.certificate]]`.
    pub(super) fn orders(&self, secret: &str) -> bool {
        self.ordered.contains(secret)
    }
}

/// A server's host without its namespace.
pub(super) fn plain(host: &str) -> &str {
    host.split_once('/').map_or(host, |(_, name)| name)
}

fn own_secret(asked: Asked<'_>, host: &str) -> String {
    format!("{}{}", asked.prefix(), canonical(host))
}

/// A host in its one spelling: an address has several.
fn canonical(host: &str) -> String {
    match host.parse() {
        Ok(CertificateName::Ip(address)) => address.to_string(),
        _ => host.to_ascii_lowercase(),
    }
}

/// What the servers need, and what of it cannot be got.
pub(super) fn plan(settings: &Settings, servers: &[BoundServer<'_>], problems: &mut Problems) -> Plan {
    let acme = &settings.acme;
    let mut maker = Maker { settings, problems, wanted: BTreeMap::new(), plan: Plan::default(), on_demand: false };
    for certificate in &acme.certificates {
        maker.order(certificate);
    }
    let needs = maker.needs(servers);
    for (secret, need) in &needs {
        let place = maker.place(need, &needs);
        maker.plan.places.insert(secret.clone(), place);
    }
    let Maker { wanted, mut plan, on_demand, problems, .. } = maker;
    let used: BTreeSet<&str> = wanted.values().flat_map(|wanted| &wanted.issuers).map(String::as_str).collect();
    let on_demand = acme.on_demand.as_ref().filter(|_| on_demand).map(|written| OnDemand {
        ask: written.ask.clone(),
        issuers: match written.issuers.as_slice() {
            [] => acme.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
            names => names.to_vec(),
        },
    });
    let is_used = |name: &str| {
        used.contains(name) || on_demand.iter().flat_map(|on_demand| &on_demand.issuers).any(|other| other == name)
    };
    let local = local_ca(settings).filter(|_| used.contains(LOCAL_ISSUER)).map(|folder| {
        Arc::new(Issuer { name: LOCAL_ISSUER.to_owned(), kind: IssuerKind::Local { folder: folder.to_owned() } })
    });
    let issuers = acme.issuers.iter().filter(|issuer| is_used(&issuer.name)).map(acme_issuer);
    let issuers = issuers.chain(local).collect();
    plan.needs_http = ports::judge(settings, servers, wanted.values(), problems);
    plan.issuance = Issuance {
        storage: acme.storage.clone().unwrap_or_default(),
        certificates: wanted.into_values().map(Arc::new).collect(),
        issuers,
        on_demand: on_demand.map(Arc::new),
    };
    plan
}

/// A host of a server, with the first server that needs it.
struct Need<'s, 'a> {
    asked: Asked<'s>,
    host: String,
    server: &'s BoundServer<'a>,
}

struct Maker<'p> {
    settings: &'p Settings,
    problems: &'p mut Problems,
    /// By folder.
    wanted: BTreeMap<String, Wanted>,
    plan: Plan,
    on_demand: bool,
}

impl<'p> Maker<'p> {
    fn acme(&self) -> &'p AcmeSettings {
        &self.settings.acme
    }

    /// A certificate that has a name of its own.
    fn order(&mut self, certificate: &AcmeCertificate) {
        let AcmeCertificate { secret, identifiers, issuers, profile, key } = certificate;
        self.plan.ordered.insert(secret.clone());
        let named = self.acme().issuers.iter().filter(|issuer| issuers.is_empty() || issuers.contains(&issuer.name));
        let named: Vec<&AcmeIssuer> = match issuers.as_slice() {
            [] => named.collect(),
            names => names.iter().filter_map(|name| self.acme().issuer(name)).collect(),
        };
        let tell = |code: &codes::Code, message: String| {
            let finding = Finding::new(code, Location::default(), message);
            finding.about(format!("[[acme.certificate]] {secret}"))
        };
        for name in identifiers {
            if let Some(message) = beyond_public(name, &named) {
                self.problems.add(tell(&codes::NAME_NOT_PUBLIC, message));
            }
        }
        let able: Vec<&AcmeIssuer> =
            named.into_iter().filter(|issuer| identifiers.iter().all(|name| can_issue(issuer, name))).collect();
        if able.is_empty() {
            let name =
                identifiers.iter().find(|name| !self.acme().issuers.iter().any(|issuer| can_issue(issuer, name)));
            let message = name.or(identifiers.first()).map(cannot_prove).unwrap_or_default();
            return self.problems.add(tell(&codes::NOT_ISSUABLE, message));
        }
        self.want(&format!("secrets/{secret}"), identifiers, &able, profile.clone(), key.map(issuers::key));
    }

    /// Every host that a server has from an issuer, by the Secret of its own.
    fn needs<'s, 'a>(&mut self, servers: &'s [BoundServer<'a>]) -> BTreeMap<String, Need<'s, 'a>> {
        let mut needs: BTreeMap<String, Need<'_, '_>> = BTreeMap::new();
        for server in servers {
            let Some(tls) = server.server.tls.as_ref().filter(|_| ends_tls(server)) else { continue };
            if tls.mode == ServerTlsMode::IstioMutual {
                continue;
            }
            let names = std::iter::once(&tls.credential_name).chain(&tls.credential_names);
            for asked in names.filter_map(|name| Asked::of(name)) {
                if let Asked::Acme(Some(issuer)) = asked
                    && self.acme().issuer(issuer).is_none()
                {
                    let known: Vec<&str> = self.acme().issuers.iter().map(|issuer| issuer.name.as_str()).collect();
                    let message = format!("no issuer is named `{issuer}`; there is {}", known.join(", "));
                    self.report(server, &codes::UNKNOWN_ISSUER, message);
                    continue;
                }
                for host in &server.hosts {
                    let host = plain(host).to_ascii_lowercase();
                    match needs.get(&own_secret(asked, &host)) {
                        Some(first) if first.asked != asked => {
                            let other = first.server.gateway.key();
                            let message = format!(
                                "`{host}` is ordered from the issuers of the Gateway {other}, which comes first; a host \
                                 has one certificate"
                            );
                            self.report(server, &codes::ISSUERS_DIFFER, message);
                        }
                        Some(_) => {}
                        None => drop(needs.insert(own_secret(asked, &host), Need { asked, host, server })),
                    }
                }
            }
        }
        needs
    }

    /// Where the certificate of a host will be; it is ordered if no other covers it.
    fn place(&mut self, need: &Need<'_, '_>, needs: &BTreeMap<String, Need<'_, '_>>) -> Place {
        let Need { asked, host, server } = need;
        let name: Option<CertificateName> = host.parse().ok();
        let Asked::Acme(issuer) = *asked else { return self.local(name, need) };
        let named: Vec<&AcmeIssuer> = match issuer {
            Some(name) => self.acme().issuer(name).into_iter().collect(),
            None => self.acme().issuers.iter().collect(),
        };
        let own = own_secret(*asked, host);
        if let Some(covering) = name.as_ref().and_then(|name| self.covering(name, issuer)) {
            return Place::Secrets(vec![covering, own]);
        }
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}")).filter(|_| !host.starts_with('*'));
        let wildcard = wildcard.and_then(|wildcard| {
            let secret = own_secret(*asked, &wildcard);
            let covers = needs.get(&secret).is_some_and(|other| other.asked == *asked);
            let name = wildcard.parse().ok().filter(|_| covers)?;
            named.iter().any(|issuer| can_issue(issuer, &name)).then_some(secret)
        });
        if let Some(wildcard) = wildcard {
            return Place::Secrets(vec![wildcard, own]);
        }
        let able: Vec<&AcmeIssuer> =
            name.iter().flat_map(|name| named.iter().filter(|issuer| can_issue(issuer, name)).copied()).collect();
        let named = name.filter(|_| !able.is_empty()).zip(folder_of(*asked, host));
        let Some((name, folder)) = named else {
            let may_be_any = host.starts_with('*') && self.acme().on_demand.is_some();
            if may_be_any {
                self.on_demand = true;
                return Place::OnDemand;
            }
            self.report(server, &codes::NOT_ISSUABLE, why_not(host));
            return Place::Nowhere;
        };
        if let Some(message) = beyond_public(&name, &able) {
            self.report(server, &codes::NAME_NOT_PUBLIC, message);
        }
        self.want(&folder, &[name], &able, None, None);
        Place::Secrets(vec![own])
    }

    fn local(&mut self, name: Option<CertificateName>, need: &Need<'_, '_>) -> Place {
        let Need { asked, host, server } = need;
        let Some((name, folder)) = name.zip(folder_of(*asked, host)) else {
            let message = format!("our own authority issues for names, and `{host}` is none");
            self.report(server, &codes::NOT_ISSUABLE, message);
            return Place::Nowhere;
        };
        if local_ca(self.settings).is_none() {
            let message = "`local-ca://` needs our own authority, which `[tls] local_ca` turns on".to_owned();
            self.report(server, &codes::UNKNOWN_ISSUER, message);
            return Place::Nowhere;
        }
        let wanted = Wanted {
            folder: folder.clone(),
            identifiers: vec![issuers::identifier(&name)],
            issuers: vec![LOCAL_ISSUER.to_owned()],
            key: KeyKind::default(),
            profile: None,
        };
        self.wanted.insert(folder, wanted);
        Place::Secrets(vec![own_secret(*asked, host)])
    }

    /// The Secret of `[[acme.certificate]]` that covers a name, by the same issuers.
    fn covering(&self, name: &CertificateName, issuer: Option<&str>) -> Option<String> {
        let covers = |certificate: &&AcmeCertificate| {
            let by_same = issuer.is_none() || certificate.issuers.iter().map(String::as_str).eq(issuer);
            by_same
                && certificate.identifiers.iter().any(|own| is_covered(name, own))
                && self.wanted.contains_key(&format!("secrets/{}", certificate.secret))
        };
        self.acme().certificates.iter().find(covers).map(|certificate| certificate.secret.clone())
    }

    fn want(
        &mut self,
        folder: &str,
        identifiers: &[CertificateName],
        issuers: &[&AcmeIssuer],
        profile: Option<String>,
        key: Option<KeyKind>,
    ) {
        let has_address = identifiers.iter().any(|name| matches!(name, CertificateName::Ip(_)));
        let wanted = Wanted {
            folder: folder.to_owned(),
            identifiers: identifiers.iter().map(issuers::identifier).collect(),
            issuers: issuers.iter().map(|issuer| issuer.name.clone()).collect(),
            key: key.unwrap_or(issuers::key(self.acme().key)),
            // Let's Encrypt issues for addresses under this profile alone.
            profile: profile.or_else(|| has_address.then(|| "shortlived".to_owned())),
        };
        self.wanted.insert(folder.to_owned(), wanted);
    }

    fn report(&mut self, server: &BoundServer<'_>, code: &codes::Code, message: String) {
        let path = format!("spec.servers[{}].tls", server.number);
        self.problems.report(server.gateway, code, &path, message);
    }
}

fn ends_tls(server: &BoundServer<'_>) -> bool {
    matches!(server.kind, ServerKind::Https | ServerKind::TlsTcp)
}

/// The folder of our own authority; `None`: there is none.
fn local_ca(settings: &Settings) -> Option<&Path> {
    settings.tls.local_ca.as_deref()
}

/// The folder of a host's own certificate; every host that can have one has one.
fn folder_of(asked: Asked<'_>, host: &str) -> Option<String> {
    kept_name::of_host(&canonical(host)).map(|name| format!("{}/{name}", asked.folder()))
}

fn is_covered(name: &CertificateName, by: &CertificateName) -> bool {
    let (CertificateName::Dns(name), CertificateName::Dns(by)) = (name, by) else { return name == by };
    let behind = name.split_once('.').map(|(_, rest)| rest).filter(|_| !name.starts_with('*'));
    name == by || behind.is_some_and(|rest| by.strip_prefix("*.") == Some(rest))
}

fn can_issue(issuer: &AcmeIssuer, name: &CertificateName) -> bool {
    issuer.challenges.iter().any(|challenge| issuers::can_prove(*challenge, name))
}

fn why_not(host: &str) -> String {
    match host.parse() {
        Ok(name) => cannot_prove(&name),
        Err(_) if host.starts_with('*') => {
            format!("no CA issues for `{host}`; [acme.on_demand] lets names be ordered when clients ask for them")
        }
        Err(reason) => format!("no CA issues for `{host}`: {reason}"),
    }
}

fn cannot_prove(name: &CertificateName) -> String {
    match name {
        CertificateName::Dns(name) if name.starts_with("*.") => {
            format!(
                "a certificate for `{name}` is proved by DNS alone; set `dns` of [acme], or let dns-persist-01 be used"
            )
        }
        CertificateName::Dns(name) => format!("no challenge of the issuers can prove `{name}`"),
        CertificateName::Ip(address) => format!("{address} is proved by tls-alpn-01 or http-01 alone; let one be used"),
    }
}

/// Why no public CA issues for a name, where all issuers are public.
fn beyond_public(name: &CertificateName, issuers: &[&AcmeIssuer]) -> Option<String> {
    let is_public = |issuer: &&AcmeIssuer| KNOWN_CAS.iter().any(|(_, directory)| *directory == issuer.directory);
    if issuers.is_empty() || !issuers.iter().all(is_public) {
        return None;
    }
    let shown = match name {
        CertificateName::Ip(address) if is_private(*address) => address.to_string(),
        CertificateName::Dns(name) if !name.contains('.') || PRIVATE_ENDS.iter().any(|end| ends_in(name, end)) => {
            name.clone()
        }
        _ => return None,
    };
    let names: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    Some(format!(
        "no public CA issues for `{shown}`, and {} is one; use local-ca:// or a CA of your own",
        names.join(", ")
    ))
}

/// Names that nobody has on the public internet (RFC 2606, RFC 6761, RFC 6762, RFC 8375).
const PRIVATE_ENDS: [&str; 10] =
    ["localhost", "test", "example", "invalid", "internal", "local", "lan", "home.arpa", "localdomain", "svc"];

fn ends_in(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unique_local()
                || address.is_unspecified()
        }
    }
}
