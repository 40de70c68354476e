//! How does a Gateway server end TLS? (Istio ServerTLSSettings.)

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoClientAuth;
use rustls::server::danger::ClientCertVerifier;

use super::certificate_fault::Fault;
use super::certificates::{self, Pair};
use super::client_verifier::{Check, ClientPolicy, ClientVerifier, Pin};
use super::gateways::BoundServer;
use super::identity;
use super::issuance::{self, Asked, Place};
use super::memory::Vouching;
use super::peer_roots::PeerMaterial;
use super::sessions::{self, Rules};
use super::tls_parameters::Parameters;
use super::work::Work;
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::resource::networking::{ServerTls, ServerTlsMode};
use crate::snapshot::offer::{Offer, Offered};
use crate::snapshot::tls::{Awaited, CertificateFacts, ClientRules, ServerTerms, TlsServer};

/// Our own certificate in the mesh, by Istio's name for it.
pub(super) const IDENTITY: &str = "builtin://";

/// What a server speaks inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Inside {
    Http,
    Tcp,
}

/// The TLS side of a server. What is unusable is reported and closes its connections.
pub(super) fn build(work: &mut Work<'_>, settings: &ServerTls, server: &BoundServer<'_>, inside: Inside) -> TlsServer {
    match try_build(work, settings, server, inside) {
        Ok(terms) => TlsServer::Ready(terms),
        Err((code, reason)) => {
            if let Some(code) = code {
                report(work, server, code, reason.clone());
            }
            TlsServer::Unavailable { reason }
        }
    }
}

fn report(work: &mut Work<'_>, server: &BoundServer<'_>, code: &codes::Code, message: String) {
    work.problems.report(server.gateway, code, &format!("spec.servers[{}].tls", server.number), message);
}

/// As `report`, about a certificate: with what is wrong with it and what to do.
fn report_fault(
    work: &mut Work<'_>,
    server: &BoundServer<'_>,
    code: &codes::Code,
    message: String,
    fault: Option<&Fault>,
) {
    let finding = server.gateway.finding(code, &format!("spec.servers[{}].tls", server.number), message);
    work.problems.report_finding(match fault {
        Some(fault) => finding.hint(fault.hint()).kind(fault.kind()),
        None => finding,
    });
}

/// A certificate with its key, and words for where it came from.
type Shown = (String, Arc<Pair>);

/// Why, and under which code it is still to be told.
type Failure = (Option<&'static codes::Code>, String);

fn cannot_work(reason: impl Into<String>) -> Failure {
    (Some(&codes::SERVER_TLS), reason.into())
}

fn try_build(
    work: &mut Work<'_>,
    settings: &ServerTls,
    server: &BoundServer<'_>,
    inside: Inside,
) -> Result<Arc<ServerTerms>, Failure> {
    let policy = client_policy(settings).map_err(cannot_work)?;
    let of_mesh = settings.mode == ServerTlsMode::IstioMutual;
    let parameters = match of_mesh {
        true => Parameters::of_the_mesh(),
        false => Parameters::of(settings, &work.index.settings.mesh),
    };
    if parameters.versions().is_empty() {
        let reason = "no TLS version is left between the minimum, which is at least 1.2, and the maximum";
        return Err(cannot_work(format!("{reason}; every handshake fails")));
    }
    let Gathered { material, awaited } = gather(work, settings, server)?;
    let vouching = policy.as_ref().map(|_| read_authorities(work, settings, server)).transpose()?;
    let vouchers = vouching.as_ref().map(|vouching| vouching.identity);
    let rules = policy.as_ref().map_or_else(ClientRules::default, |policy| ClientRules {
        identity: work.memory.fingerprint(&(policy, vouchers)),
        required: policy.required,
        verified: matches!(policy.check, Check::Everything { .. }),
    });
    // What is kept holds its keys, so that none of their addresses is taken by another.
    let chains: Vec<_> = material.iter().map(|(source, pair)| (source, Arc::as_ptr(&pair.key).addr())).collect();
    let resumed_under =
        resumption_rules(server, inside, policy.as_ref(), vouching.as_ref().map(|vouching| &*vouching.material));
    let sessions = work.sessions.as_ref().map(|sessions| (sessions.address(), resumed_under));
    let inner = (inside, of_mesh, &awaited);
    let fingerprint = work.memory.fingerprint(&(sessions, inner, &parameters, chains, &policy, vouchers));
    let terms = match work.memory.server_terms.get(&fingerprint) {
        Some(kept) => kept,
        None => {
            let offered = material.into_iter().map(|(source, pair)| Offered {
                facts: CertificateFacts { source, certificate: Arc::clone(&pair.facts) },
                key: Arc::clone(&pair.key),
            });
            let certificates = Arc::new(Offer::new(offered.collect()));
            let common = common_terms(work, &parameters, policy.zip(vouching), (inside, of_mesh))
                .map_err(|reason| (Some(&codes::GATEWAY_CREDENTIAL), reason))?;
            let mut config = common.config.clone();
            config.cert_resolver = certificates.clone();
            match &work.sessions {
                Some(sessions) => sessions.allow(&mut config, resumed_under),
                None => sessions::forbid(&mut config),
            }
            let has_default_ciphers = parameters.has_default_ciphers();
            let config = Arc::new(config);
            let awaited = (!awaited.is_empty()).then(|| Box::new(awaited));
            let verifier = common.verifier.clone();
            let terms = ServerTerms { config, has_default_ciphers, certificates, awaited, clients: rules, verifier };
            work.memory.server_terms.insert(fingerprint, Arc::new(terms))
        }
    };
    tell_dates(work, &terms.certificates, server);
    // Peers of the mesh look at identities, and what is awaited is told already.
    if !of_mesh && terms.awaited.is_none() {
        tell_names(work, &terms.certificates, server);
    }
    Ok(terms)
}

/// What servers with the same rules share: of it, each has a copy with certificates and sessions of its own.
pub(super) struct CommonTerms {
    config: ServerConfig,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

fn common_terms(
    work: &mut Work<'_>,
    parameters: &Parameters<'_>,
    clients: Option<(ClientPolicy, Vouching)>,
    (inside, of_mesh): (Inside, bool),
) -> Result<Arc<CommonTerms>, String> {
    let asked = clients.as_ref().map(|(policy, vouching)| (policy, vouching.identity));
    let fingerprint = work.memory.fingerprint(&(parameters, asked, inside, of_mesh));
    if let Some(kept) = work.memory.common_terms.get(&fingerprint) {
        return Ok(kept);
    }
    let provider = Arc::new(parameters.provider());
    let verifier = clients.map(|(policy, vouching)| {
        let algorithms = provider.signature_verification_algorithms;
        let authorities = vouching.roots;
        Arc::new(ClientVerifier { policy, authorities, algorithms }) as Arc<dyn ClientCertVerifier>
    });
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&parameters.versions());
    let builder = builder.map_err(|error| error.to_string())?;
    let asks = verifier.clone().unwrap_or_else(|| Arc::new(NoClientAuth));
    let mut config = builder.with_client_cert_verifier(asks).with_cert_resolver(Arc::new(Offer::default()));
    config.ignore_client_order = true;
    config.alpn_protocols = alpn(inside, of_mesh);
    Ok(work.memory.common_terms.insert(fingerprint, Arc::new(CommonTerms { config, verifier })))
}

/// What a session of this server must have begun under to be resumed.
fn resumption_rules(
    server: &BoundServer<'_>,
    inside: Inside,
    policy: Option<&ClientPolicy>,
    authorities: Option<&PeerMaterial>,
) -> Rules {
    let port = &server.server.port;
    let (key, number) = (server.gateway.key(), port.number.to_string());
    let server = [key.as_str(), &number, &port.name, if inside == Inside::Http { "http" } else { "tcp" }];
    Rules::new(&server, policy, authorities.into_iter().flat_map(PeerMaterial::parts))
}

/// What clients are asked for; `None`: nothing. Fails if it cannot work.
fn client_policy(settings: &ServerTls) -> Result<Option<ClientPolicy>, String> {
    let names = &settings.subject_alt_names;
    let required = match settings.mode {
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => true,
        ServerTlsMode::OptionalMutual => false,
        ServerTlsMode::Simple if names.is_empty() => return Ok(None),
        ServerTlsMode::Simple => {
            let reason = "subjectAltNames need a client's certificate, which mode SIMPLE does not ask for";
            return Err(format!("{reason}; connections are closed. MUTUAL asks for one"));
        }
        mode => return Err(format!("the mode {} does not end TLS; connections are closed", mode.word())),
    };
    if settings.insecure_skip_verify == Some(true) {
        return Ok(Some(ClientPolicy { required, check: Check::Nothing }));
    }
    let mut pins = Vec::new();
    if settings.mode != ServerTlsMode::IstioMutual {
        for text in &settings.verify_certificate_spki {
            pins.push(Pin::key(text).map_err(|reason| format!("verifyCertificateSpki: {reason}"))?);
        }
        for text in &settings.verify_certificate_hash {
            pins.push(Pin::certificate(text).map_err(|reason| format!("verifyCertificateHash: {reason}"))?);
        }
    }
    // Who has to have a name or a pin has to show a certificate.
    let required = required || !names.is_empty() || !pins.is_empty();
    Ok(Some(ClientPolicy { required, check: Check::Everything { names: names.clone(), pins } }))
}

/// What a server has, and what it still waits for.
#[derive(Default)]
struct Gathered {
    material: Vec<Shown>,
    awaited: Awaited,
}

/// The certificates that can be served; those that cannot are told.
fn gather(work: &mut Work<'_>, settings: &ServerTls, server: &BoundServer<'_>) -> Result<Gathered, Failure> {
    let names = credential_names(settings);
    let mut gathered = Gathered::default();
    let mut failures = Vec::new();
    for name in &names {
        if let Some(asked) = Asked::of(name) {
            gather_issued(work, asked, server, &mut gathered);
            continue;
        }
        if work.index.secret(plain_name(work, name)).is_none() && work.issued.orders(plain_name(work, name)) {
            let hosts = server.hosts.iter().map(|host| Box::from(issuance::plain(host)));
            gathered.awaited.hosts.extend(hosts);
            report(work, server, &codes::CERTIFICATE_AWAITED, format!("the certificate {name} is being issued"));
            continue;
        }
        match find_key(work, name) {
            Ok(found) => gathered.material.push(found),
            Err(Unusable { reason, fault }) => {
                if !was_told(work, name) {
                    report_fault(work, server, code_of_missing(work, name), reason.clone(), fault.as_ref());
                }
                failures.push(reason);
            }
        }
    }
    if names.is_empty() {
        return Err((Some(&codes::GATEWAY_CREDENTIAL), "no certificate is named".to_owned()));
    }
    if gathered.material.is_empty() && gathered.awaited.is_empty() {
        let reason = if failures.is_empty() { "no certificate can be got".to_owned() } else { failures.join("; ") };
        return Err((None, reason));
    }
    Ok(gathered)
}

/// The certificates that issuers gave for the hosts of a server.
fn gather_issued(work: &mut Work<'_>, asked: Asked<'_>, server: &BoundServer<'_>, gathered: &mut Gathered) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut missing: Vec<&str> = Vec::new();
    for host in &server.hosts {
        let host = issuance::plain(host);
        match work.issued.place(asked, host) {
            Place::Nowhere => {}
            Place::Secrets(secrets) => match secrets.iter().find(|name| work.index.secret(name).is_some()) {
                Some(name) if taken.contains(name) => {}
                Some(name) => {
                    take(work, name, server, gathered);
                    taken.insert(name.clone());
                }
                None => {
                    gathered.awaited.hosts.insert(host.to_ascii_lowercase().into());
                    missing.push(host);
                }
            },
            Place::OnDemand => {
                gathered.awaited.on_demand.insert(host.to_ascii_lowercase().into());
            }
        }
    }
    let message = match missing.as_slice() {
        [] => return,
        [one] => format!("the certificate of `{one}` is being issued"),
        [first, rest @ ..] => format!("the certificates of `{first}` and {} more hosts are being issued", rest.len()),
    };
    report(work, server, &codes::CERTIFICATE_AWAITED, message);
}

fn take(work: &mut Work<'_>, name: &str, server: &BoundServer<'_>, gathered: &mut Gathered) {
    match find_key(work, name) {
        Ok(found) => gathered.material.push(found),
        Err(Unusable { reason, fault }) => {
            report_fault(work, server, &codes::GATEWAY_CREDENTIAL, reason, fault.as_ref());
        }
    }
}

/// The code for a credential that cannot be used: an identity that is yet to come is no fault of the Gateway.
fn code_of_missing(work: &Work<'_>, name: &str) -> &'static codes::Code {
    let is_missing = plain_name(work, name) == IDENTITY && work.index.secret(IDENTITY).is_none();
    let code = if is_missing { identity::missing(work.index.settings).code } else { None };
    code.unwrap_or(&codes::GATEWAY_CREDENTIAL)
}

/// Why a file is not there was told when it was read.
fn was_told(work: &Work<'_>, name: &str) -> bool {
    name.starts_with("file:") && work.index.secret(name).is_none()
}

fn tell_dates(work: &mut Work<'_>, offer: &Offer, server: &BoundServer<'_>) {
    for facts in offer.facts() {
        if let Some(fault) = Fault::of_dates(&facts.certificate, work.now) {
            let message = format!("{}: {fault}; it is served nevertheless", facts.source);
            report_fault(work, server, &codes::CERTIFICATE_DATE, message, Some(&fault));
        } else if let Some(days) = facts.certificate.days_left(work.now) {
            let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
            report(work, server, &codes::CERTIFICATE_ENDS, format!("{} ends in less than {days}", facts.source));
        }
    }
}

/// Tells hosts of the server that none of its certificates is for: clients refuse them.
fn tell_names(work: &mut Work<'_>, certificates: &Offer, server: &BoundServer<'_>) {
    let is_served = |host: &str| match host.strip_prefix('*') {
        // A certificate for some of the names below a wildcard may be all that is meant.
        Some(below) => certificates.facts().any(|facts| facts.certificate.dns.iter().any(|name| name.ends_with(below))),
        None => certificates.facts().any(|facts| facts.certificate.is_named(host)),
    };
    let hosts = server.hosts.iter().map(|host| issuance::plain(host).to_ascii_lowercase());
    let uncovered = hosts.filter(|host| host != "*" && !certificates.has(host) && !is_served(host));
    let uncovered: Vec<String> = uncovered.collect();
    let message = match uncovered.as_slice() {
        [] => return,
        [one] => format!("no certificate of the server is for its host `{one}`"),
        [first, rest @ ..] => {
            format!("no certificate of the server is for its host `{first}`, nor for {} more", rest.len())
        }
    };
    report(work, server, &codes::CERTIFICATE_NAMES, message);
}

fn credential_names(settings: &ServerTls) -> Vec<String> {
    if settings.mode == ServerTlsMode::IstioMutual {
        return vec![IDENTITY.to_owned()];
    }
    if !settings.credential_name.is_empty() {
        return vec![settings.credential_name.clone()];
    }
    if !settings.credential_names.is_empty() {
        return settings.credential_names.clone();
    }
    let pairs = settings.tls_certificates.iter().map(|pair| &pair.server_certificate);
    let files = std::iter::once(&settings.server_certificate).chain(pairs).filter(|path| !path.is_empty());
    files.map(|path| format!("file:{path}")).collect()
}

/// A credential's name without its prefix; a namespace is left out if it is ours, else it makes a name that no Secret
/// has.
fn plain_name<'n>(work: &Work<'_>, name: &'n str) -> &'n str {
    let plain = name.strip_prefix("kubernetes://").or(name.strip_prefix("kubernetes-gateway://"));
    let Some(plain) = plain else { return name };
    match plain.split_once('/') {
        Some((namespace, inside)) if namespace == work.index.settings.gateway.namespace => inside,
        _ => plain,
    }
}

/// The Secret of a name such as `web`, `kubernetes://web`, `builtin://` or `file:/path`, with words for where it is.
fn find_secret<'a>(work: &Work<'a>, name: &str) -> Result<(String, &'a Arc<Object<Secret>>), String> {
    let plain = plain_name(work, name);
    let source = match plain {
        IDENTITY => "[identity] of the settings".to_owned(),
        file if file.starts_with("file:") => file.to_owned(),
        issued if issued.starts_with(issuance::HOST_PREFIX) => issued.to_owned(),
        plain => format!("Secret {}/{plain}", work.index.settings.gateway.namespace),
    };
    match work.index.secret(plain) {
        Some(secret) => Ok((source, secret)),
        None if plain == IDENTITY => {
            let why = identity::missing(work.index.settings).words;
            Err(format!("our own certificate in the mesh is needed, and {why}; connections are closed"))
        }
        None => Err(format!("{source} does not exist")),
    }
}

/// Why a certificate cannot be served, and the fault in it, if it is there.
struct Unusable {
    reason: String,
    fault: Option<Fault>,
}

fn find_key(work: &mut Work<'_>, name: &str) -> Result<Shown, Unusable> {
    let (source, secret) = find_secret(work, name).map_err(|reason| Unusable { reason, fault: None })?;
    let served = work.memory.certified_key(secret, Some(work.now));
    let served = served.map_err(|fault| Unusable { reason: format!("{source}: {fault}"), fault: Some(fault) })?;
    let mut tell = |code, message: String, fault: &Fault| {
        let finding = secret.finding(code, "", message).hint(fault.hint()).kind(fault.kind());
        work.problems.report_finding(finding);
    };
    if let Some(fault) = &served.refused {
        let message = format!("{source}: {fault}; the last good certificate stays in force");
        tell(&codes::CERTIFICATE_KEPT, message, fault);
    }
    for fault in &served.pair.faults {
        tell(&codes::CERTIFICATE_CHAIN, format!("{source}: {fault}"), fault);
    }
    // Who uses our own authority knows it.
    if let Some(issuer) = served.pair.lone.as_ref().filter(|_| !secret.meta.name.starts_with(issuance::LOCAL_PREFIX)) {
        let others = work.lone_certificates.entry(issuer.clone()).or_insert_with(|| (source.clone(), 0));
        others.1 += 1;
    }
    Ok((source, served.pair))
}

/// Who vouches for clients.
fn read_authorities(work: &mut Work<'_>, settings: &ServerTls, server: &BoundServer<'_>) -> Result<Vouching, Failure> {
    let (source, names, read) = find_authorities(work, settings)?;
    let read = read.map_err(|reason| format!("{source}: {reason}"));
    let vouching = work.memory.vouching(names, read);
    let (vouching, refused) =
        vouching.map_err(|reason| (Some(&codes::GATEWAY_CREDENTIAL), format!("{reason}; connections are closed")))?;
    if let Some(reason) = refused {
        let message = format!("{reason}; the authorities that were good last stay in force");
        let path = format!("spec.servers[{}].tls", server.number);
        let finding = server.gateway.finding(&codes::CERTIFICATE_KEPT, &path, message);
        work.problems.report_finding(finding.hint("put CA certificates in PEM into ca.crt").kind("authorities"));
    }
    Ok(vouching)
}

/// Words for where authorities are, the names of the Secret and of the file with revocation lists, and what these hold.
type FoundAuthorities = (String, (String, String), Result<PeerMaterial, String>);

fn find_authorities(work: &mut Work<'_>, settings: &ServerTls) -> Result<FoundAuthorities, Failure> {
    let missing = |reason: String| (Some(&codes::GATEWAY_CREDENTIAL), reason);
    if let Some(name) = settings.ca_cert_credential_name.strip_prefix("configmap://") {
        return configured_authorities(work, name).map_err(missing);
    }
    let files = settings.tls_certificates.iter().map(|files| &files.ca_certificates);
    let file = std::iter::once(&settings.ca_certificates).chain(files).find(|file| !file.is_empty());
    let credential = Some(&settings.credential_name).filter(|name| !name.is_empty());
    let credential = credential.or(settings.credential_names.first());
    // What was issued for us names nobody who could vouch for clients.
    let credential = credential.filter(|name| Asked::of(name).is_none());
    let name = match (settings.ca_cert_credential_name.as_str(), credential, file) {
        _ if settings.mode == ServerTlsMode::IstioMutual => IDENTITY.to_owned(),
        ("", Some(name), _) => split_name(work, plain_name(work, name)),
        ("", None, Some(file)) => format!("file:{file}"),
        ("", None, None) => return Err(missing("no CA for clients is named (caCertificates)".to_owned())),
        (name, ..) => match plain_name(work, name).strip_suffix("-cacert") {
            Some(base) => split_name(work, base),
            None => {
                let reason = format!("caCertCredentialName `{name}` has to end with -cacert; connections are closed");
                return Err(missing(reason));
            }
        },
    };
    let code = (!was_told(work, &name)).then(|| code_of_missing(work, &name));
    let (source, secret) = find_secret(work, &name).map_err(|reason| (code, reason))?;
    let of_files = name == IDENTITY || name.starts_with("file:");
    let list = (of_files && !settings.ca_crl.is_empty()).then_some(&settings.ca_crl);
    let own_list = list.map(|file| read_list(work, file)).transpose()?;
    let names = (secret.key(), list.cloned().unwrap_or_default());
    if name == IDENTITY {
        return Ok((source, names, PeerMaterial::of_mesh(work, secret, own_list)));
    }
    let read = certificates::authorities_and_lists(&secret.spec);
    let read = read.map(|(authorities, lists)| (authorities, own_list.or(lists.map(<[u8]>::to_vec))));
    Ok((source, names, read.map(PeerMaterial::named)))
}

/// The Secret `NAME-cacert` if it exists, whatever it holds, else NAME.
fn split_name(work: &Work<'_>, name: &str) -> String {
    let split = format!("{name}-cacert");
    if work.index.secret(&split).is_some() { split } else { name.to_owned() }
}

/// The file of caCrl. Without it nobody could be known to be still trusted.
fn read_list(work: &Work<'_>, file: &str) -> Result<Vec<u8>, Failure> {
    let secret = work.index.secret(&format!("file:{file}"));
    let list = secret.and_then(|secret| secret.spec.data.get("ca.crl"));
    list.cloned().ok_or_else(|| (None, format!("the revocation list {file} could not be read")))
}

/// The CA of `configmap://namespace/name`.
fn configured_authorities(work: &Work<'_>, name: &str) -> Result<FoundAuthorities, String> {
    let (namespace, plain) = name.split_once('/').unwrap_or((&work.index.settings.gateway.namespace, name));
    let source = format!("ConfigMap {namespace}/{plain}");
    let Some(map) = work.index.config_map(namespace, plain) else {
        return Err(format!("{source} does not exist; connections are closed"));
    };
    let value = |key: &str| map.spec.data.get(key).filter(|value| !value.is_empty());
    let read = match value("ca.crt").or_else(|| value("cacert")) {
        None => Err("it holds no CA (ca.crt or cacert)".to_owned()),
        Some(authorities) => certificates::read_certificates(authorities.as_bytes()).map(|certificates| {
            (certificates, value("ca.crl").or_else(|| value("crl")).map(|lists| lists.clone().into_bytes()))
        }),
    };
    Ok((source, (format!("configmap://{namespace}/{plain}"), String::new()), read.map(PeerMaterial::named)))
}

/// In our order of preference.
fn alpn(inside: Inside, of_mesh: bool) -> Vec<Vec<u8>> {
    let peers: &[&[u8]] = if inside == Inside::Tcp && of_mesh { &[b"istio-peer-exchange"] } else { &[] };
    peers.iter().copied().chain([b"h2".as_slice(), b"http/1.1"]).map(<[u8]>::to_vec).collect()
}
