//! How is TLS begun towards the endpoints of a cluster? (Istio ClientTLSSettings.)

use std::cell::LazyCell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::authorities::Purpose;
use super::certificates;
use super::client_verifier::refusal;
use super::endpoints;
use super::identity;
use super::peer_roots::{PeerMaterial, PeerRoots};
use super::services::{ServiceSource, ServiceView};
use super::tls_server::IDENTITY;
use super::work::Work;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{ClientTls, ClientTlsMode, DestinationRule};
use crate::snapshot::certificate::Certificate;
use crate::snapshot::tls::TlsClient;

/// The TLS side of the cluster of this name, and a number that changes with it.
pub(super) fn build(
    work: &mut Work<'_>,
    cluster: &str,
    settings: &ClientTls,
    rule: &Object<DestinationRule>,
    view: &ServiceView<'_>,
) -> (Option<TlsClient>, u64) {
    if settings.mode == ClientTlsMode::Disable {
        return (None, 0);
    }
    let of_mesh = settings.mode == ClientTlsMode::IstioMutual;
    let accounts = match view.source {
        ServiceSource::Entries(_) => endpoints::accounts(work, view),
        _ if of_mesh => endpoints::accounts(work, view),
        _ => Vec::new(),
    };
    if of_mesh && accounts.is_empty() && settings.subject_alt_names.is_empty() {
        let path = "spec.trafficPolicy.tls";
        work.problems.report(rule, &codes::NO_ACCOUNT, path, anybody(&view.host));
    }
    match try_build(work, cluster, settings, &accounts) {
        Ok((client, fingerprint)) => (Some(client), fingerprint),
        Err(reason) => {
            let of_us = of_mesh || settings.credential_name == IDENTITY;
            let is_missing = of_us && work.index.secret(IDENTITY).is_none();
            let code = if is_missing { identity::missing(work.index.settings).code } else { None };
            let code = code.unwrap_or(&codes::CLIENT_CREDENTIAL);
            work.problems.report(rule, code, "spec.trafficPolicy.tls", reason.as_str());
            unavailable(work, reason)
        }
    }
}

/// The same where endpoints want mutual TLS and no rule speaks of it; plaintext if we are not to have an identity.
pub(super) fn automatic(work: &mut Work<'_>, cluster: &str, view: &ServiceView<'_>) -> (Option<TlsClient>, u64) {
    if work.index.secret(IDENTITY).is_none() && work.index.settings.identity.is_wanted() {
        let missing = identity::missing(work.index.settings);
        let reason = format!("endpoints of {} take mutual TLS, and {}", view.host, missing.words);
        report_service(work, view, missing.code.unwrap_or(&codes::CLIENT_CREDENTIAL), reason.clone());
        return unavailable(work, reason);
    }
    if work.index.secret(IDENTITY).is_none() {
        let message = format!(
            "endpoints of {} take mutual TLS, and [identity] of the settings names no certificate of ours: they are \
             spoken to in plaintext",
            view.host
        );
        report_service(work, view, &codes::NO_IDENTITY, message);
        return (None, 0);
    }
    let accounts = endpoints::accounts(work, view);
    if accounts.is_empty() {
        report_service(work, view, &codes::NO_ACCOUNT, anybody(&view.host));
    }
    let settings = ClientTls { mode: ClientTlsMode::IstioMutual, ..ClientTls::default() };
    match try_build(work, cluster, &settings, &accounts) {
        Ok((client, fingerprint)) => (Some(client), fingerprint),
        Err(reason) => {
            report_service(work, view, &codes::CLIENT_CREDENTIAL, reason.clone());
            unavailable(work, reason)
        }
    }
}

fn unavailable(work: &Work<'_>, reason: String) -> (Option<TlsClient>, u64) {
    let fingerprint = work.memory.fingerprint(&reason);
    (Some(TlsClient::Unavailable { reason }), fingerprint as u64)
}

fn anybody(host: &str) -> String {
    format!("no service account behind {host} is known: every certificate of the mesh is accepted")
}

fn report_service(work: &mut Work<'_>, view: &ServiceView<'_>, code: &codes::Code, message: String) {
    match &view.source {
        ServiceSource::Kubernetes(service) => work.problems.report(service, code, "spec", message),
        ServiceSource::Entries(entries) => {
            if let Some(entry) = entries.first() {
                work.problems.report(entry, code, "spec.hosts", message);
            }
        }
        // Nobody wrote an object.
        ServiceSource::Named(_) => {}
    }
}

/// `accounts` are whom the destination may be where the settings do not say it.
fn try_build(
    work: &mut Work<'_>,
    cluster: &str,
    settings: &ClientTls,
    accounts: &[String],
) -> Result<(TlsClient, u64), String> {
    let skip = settings.insecure_skip_verify.unwrap_or(false);
    let sni = match settings.sni.as_str() {
        // `outbound_.443_.v1_.web.test`: the other side's AUTO_PASSTHROUGH finds the cluster by it.
        "" if settings.mode == ClientTlsMode::IstioMutual => Some(cluster.replacen('|', "_.", 3)),
        "" => None,
        written => Some(written.to_owned()),
    };
    let names = match (skip, settings.subject_alt_names.is_empty(), sni.is_none()) {
        (true, _, _) => NameCheck::Nothing,
        (false, false, _) => NameCheck::Any(settings.subject_alt_names.clone()),
        (false, true, true) if accounts.is_empty() => NameCheck::Host,
        (false, true, true) => NameCheck::HostAndAny(accounts.to_vec()),
        (false, true, false) if accounts.is_empty() => NameCheck::ChainOnly,
        (false, true, false) => NameCheck::Any(accounts.to_vec()),
    };
    let credentials = (authorities_secret(work, settings)?, own_secret(work, settings)?);
    let unnamed = match &names {
        NameCheck::Host => NameCheck::ChainOnly,
        NameCheck::HostAndAny(accounts) => NameCheck::Any(accounts.clone()),
        other => other.clone(),
    };
    let (config, fingerprint) = configured(work, settings, names, credentials)?;
    let (unnamed, _) = configured(work, settings, unnamed, credentials)?;
    let with_sni = work.memory.fingerprint(&(fingerprint, &sni));
    let own = credentials.1.and_then(|secret| work.memory.certified_key(secret, None).ok());
    let own = own.map(|served| Arc::clone(&served.pair.facts));
    Ok((TlsClient::Ready { config, sni, unnamed, own }, with_sni as u64))
}

/// The configuration for one way to verify names, kept from the last generation if nothing of it changed.
fn configured(
    work: &mut Work<'_>,
    settings: &ClientTls,
    names: NameCheck,
    (authorities, own): (Credential<'_>, Credential<'_>),
) -> Result<(Arc<ClientConfig>, u128), String> {
    let material = format!("{names:?} {:?}", settings.mode);
    let list = work.index.secret(&format!("file:{}", settings.ca_crl)).map(|s| &s.spec.data);
    let of_mesh = settings.mode == ClientTlsMode::IstioMutual;
    let trust = of_mesh.then_some(&work.index.settings.mesh.trust);
    let parts = (&material, authorities.map(|s| &s.spec.data), own.map(|s| &s.spec.data), list, trust);
    let fingerprint = work.memory.fingerprint(&parts);
    if let Some(kept) = work.memory.client_configs.get(&fingerprint) {
        return Ok((kept, fingerprint));
    }
    let roots = match authorities {
        _ if settings.insecure_skip_verify.unwrap_or(false) => Roots::Nobody,
        Some(secret) => {
            let read = read_authorities(work, settings, secret).and_then(|material| PeerRoots::read(&material));
            Roots::Named(read.map_err(|reason| format!("{}: {reason}", place_of(secret)))?)
        }
        None => Roots::System(work.memory.system_roots()),
    };
    let own = own.map(|secret| own_key(work, secret)).transpose()?;
    let alpn = match settings.mode {
        // `istio-peer-exchange` would promise a preamble that is not sent.
        ClientTlsMode::IstioMutual => vec![b"istio".to_vec()],
        _ => Vec::new(),
    };
    let made = config(roots, names, own, alpn)?;
    Ok((work.memory.client_configs.insert(fingerprint, made), fingerprint))
}

/// The certificate of a Secret: the last good one, if what it holds now cannot be used.
fn own_key(
    work: &mut Work<'_>,
    secret: &Arc<Object<crate::resource::core::Secret>>,
) -> Result<Arc<CertifiedKey>, String> {
    let served = work.memory.certified_key(secret, None).map_err(|fault| fault.to_string())?;
    if let Some(fault) = &served.refused {
        let message = format!("{}: {fault}; the last good certificate stays in force", place_of(secret));
        let finding = secret.finding(&codes::CERTIFICATE_KEPT, "", message);
        work.problems.report_finding(finding.hint(fault.hint()).kind(fault.kind()));
    }
    Ok(Arc::clone(&served.pair.key))
}

/// The CA of a Secret or file, with its revocation lists.
fn read_authorities(
    work: &mut Work<'_>,
    settings: &ClientTls,
    secret: &Arc<Object<crate::resource::core::Secret>>,
) -> Result<PeerMaterial, String> {
    let file = Some(&settings.ca_crl).filter(|file| !file.is_empty() && settings.credential_name.is_empty());
    let list = match file {
        None => None,
        Some(file) => {
            let list = work.index.secret(&format!("file:{file}")).and_then(|list| list.spec.data.get("ca.crl"));
            Some(list.ok_or_else(|| format!("the revocation list {file} could not be read"))?.clone())
        }
    };
    if settings.mode == ClientTlsMode::IstioMutual {
        return PeerMaterial::of_mesh(work, secret, list);
    }
    let (authorities, own_list) = certificates::authorities_and_lists(&secret.spec)?;
    Ok(PeerMaterial::named((authorities, list.or_else(|| own_list.map(<[u8]>::to_vec)))))
}

fn place_of(secret: &Object<crate::resource::core::Secret>) -> String {
    match secret.meta.name.as_str() {
        IDENTITY => "[identity] of the settings".to_owned(),
        name if name.starts_with("file:") => name.to_owned(),
        _ => format!("Secret {}", secret.key()),
    }
}

type Credential<'a> = Option<&'a Arc<Object<crate::resource::core::Secret>>>;

/// The Secret with the CA: `NAME-cacert` if it exists, else NAME; a file; `None` means the system's roots.
fn authorities_secret<'a>(work: &Work<'a>, settings: &ClientTls) -> Result<Credential<'a>, String> {
    let index = work.index;
    if settings.insecure_skip_verify.unwrap_or(false) && settings.credential_name.is_empty() {
        return Ok(None);
    }
    let name = match (settings.credential_name.as_str(), settings.ca_certificates.as_str()) {
        _ if settings.mode == ClientTlsMode::IstioMutual => IDENTITY.to_owned(),
        ("", "" | "system") => return Ok(None),
        ("", path) => format!("file:{path}"),
        (name, _) => {
            let name = name.strip_prefix("kubernetes://").unwrap_or(name);
            let split = format!("{name}-cacert");
            if index.secret(&split).is_some() { split } else { name.to_owned() }
        }
    };
    match index.secret(&name) {
        Some(secret) => Ok(Some(secret)),
        None => Err(missing(work, &name)),
    }
}

/// The Secret with our own certificate, for MUTUAL and ISTIO_MUTUAL.
fn own_secret<'a>(work: &Work<'a>, settings: &ClientTls) -> Result<Credential<'a>, String> {
    if !matches!(settings.mode, ClientTlsMode::Mutual | ClientTlsMode::IstioMutual) {
        return Ok(None);
    }
    let name = match settings.credential_name.as_str() {
        _ if settings.mode == ClientTlsMode::IstioMutual => IDENTITY.to_owned(),
        "" if settings.client_certificate.is_empty() => return Err("MUTUAL needs a client certificate".to_owned()),
        "" => format!("file:{}", settings.client_certificate),
        name => name.strip_prefix("kubernetes://").unwrap_or(name).to_owned(),
    };
    work.index.secret(&name).map(Some).ok_or_else(|| missing(work, &name))
}

fn missing(work: &Work<'_>, name: &str) -> String {
    match name.strip_prefix("file:") {
        _ if name == IDENTITY => {
            format!("our own certificate in the mesh is needed, and {}", identity::missing(work.index.settings).words)
        }
        Some(path) => format!("the file {path} could not be read"),
        None => format!("Secret {}/{name} does not exist", work.index.settings.gateway.namespace),
    }
}

fn config(
    roots: Roots,
    names: NameCheck,
    own: Option<Arc<CertifiedKey>>,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let verifier = Verifier { roots, names, provider };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn;
    config.resumption = Resumption::in_memory_sessions(64);
    Ok(Arc::new(config))
}

/// What has to be true of the server's name, beside its chain.
#[derive(Clone, Debug)]
enum NameCheck {
    /// The request's host.
    Host,
    /// The request's host, and one of these.
    HostAndAny(Vec<String>),
    /// One of these.
    Any(Vec<String>),
    /// An explicit SNI: only the chain counts (Istio).
    ChainOnly,
    /// insecureSkipVerify
    Nothing,
}

/// Who vouches for the server.
#[derive(Debug)]
enum Roots {
    /// insecureSkipVerify
    Nobody,
    System(Arc<RootCertStore>),
    Named(PeerRoots),
}

/// Verifies the chain with webpki and the name as Istio does.
#[derive(Debug)]
struct Verifier {
    roots: Roots,
    names: NameCheck,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn check_chain(
        &self,
        der: &CertificateDer<'_>,
        leaf: &ParsedCertificate<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        match &self.roots {
            Roots::Nobody => Ok(()),
            Roots::System(roots) => verify_server_cert_signed_by_trust_anchor(leaf, roots, rest, now, algorithms.all),
            Roots::Named(authorities) => {
                authorities.verify(der, rest, Purpose::Server, now, algorithms).map_err(refusal)
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if matches!(self.names, NameCheck::Nothing) {
            return Ok(ServerCertVerified::assertion());
        }
        let leaf = ParsedCertificate::try_from(end_entity)?;
        self.check_chain(end_entity, &leaf, intermediates, now)?;
        match &self.names {
            NameCheck::Host => verify_server_name(&leaf, server_name)?,
            NameCheck::HostAndAny(names) => {
                verify_server_name(&leaf, server_name)?;
                has_any_name(&leaf, end_entity, names)?;
            }
            NameCheck::Any(names) => has_any_name(&leaf, end_entity, names)?,
            NameCheck::ChainOnly | NameCheck::Nothing => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// DNS names as certificates cover them; URIs and wildcards exactly.
fn has_any_name(leaf: &ParsedCertificate<'_>, der: &CertificateDer<'_>, names: &[String]) -> Result<(), Error> {
    let own = LazyCell::new(|| Certificate::read(der));
    let covered = names.iter().any(|name| match ServerName::try_from(name.as_str()) {
        Ok(server_name) => verify_server_name(leaf, &server_name).is_ok(),
        Err(_) => own.as_ref().is_some_and(|own| own.names().any(|own| own == *name)),
    });
    if covered { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::NotValidForName)) }
}
