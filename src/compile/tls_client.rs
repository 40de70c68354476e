//! How is TLS begun towards the endpoints of a cluster? (Istio ClientTLSSettings.)

use std::cell::LazyCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::authorities::Purpose;
use super::certificates::{self, Pair};
use super::client_verifier::refusal;
use super::endpoints;
use super::identity;
use super::memory::Vouching;
use super::peer_roots::PeerMaterial;
use super::services::{ServiceSource, ServiceView};
use super::tls_server::IDENTITY;
use super::work::Work;
use crate::resource::codes;
use crate::resource::core::Secret;
use crate::resource::meta::Object;
use crate::resource::networking::{ClientTls, ClientTlsMode, DestinationRule};
use crate::snapshot::certificate::Certificate;
use crate::snapshot::tls::{ClientTerms, TlsClient};

/// Sessions that can be resumed under the same terms.
const SESSIONS: usize = 64;

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

/// The same where endpoints want mutual TLS and no rule speaks of it; plaintext if we are not to have an identity, and
/// it is not `demanded`.
pub(super) fn automatic(
    work: &mut Work<'_>,
    cluster: &str,
    view: &ServiceView<'_>,
    demanded: bool,
) -> (Option<TlsClient>, u64) {
    if work.index.secret(IDENTITY).is_none() && work.index.settings.identity.is_wanted() {
        let missing = identity::missing(work.index.settings);
        let reason = format!("endpoints of {} take mutual TLS, and {}", view.host, missing.words);
        report_service(work, view, missing.code.unwrap_or(&codes::CLIENT_CREDENTIAL), reason.clone());
        return unavailable(work, reason);
    }
    if work.index.secret(IDENTITY).is_none() && demanded {
        let reason = format!(
            "endpoints of {} take nothing but mutual TLS, and [identity] of the settings names no certificate of ours",
            view.host
        );
        report_service(work, view, &codes::CLIENT_CREDENTIAL, reason.clone());
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
    let skip = skips(settings);
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
    let roots = match authorities_secret(work, settings)? {
        _ if skip => Roots::Nobody,
        Some(secret) => Roots::Named(named_roots(work, settings, secret)?),
        None => Roots::System(work.memory.system_roots()),
    };
    let own = own_secret(work, settings)?.map(|secret| own_pair(work, secret)).transpose()?;
    let unnamed = match &names {
        NameCheck::Host => NameCheck::ChainOnly,
        NameCheck::HostAndAny(accounts) => NameCheck::Any(accounts.clone()),
        other => other.clone(),
    };
    let (terms, fingerprint) = terms(work, settings.mode, names, &roots, own.as_deref())?;
    let (unnamed, _) = self::terms(work, settings.mode, unnamed, &roots, own.as_deref())?;
    let with_sni = work.memory.fingerprint(&(fingerprint, &sni));
    let own = own.map(|pair| Arc::clone(&pair.facts));
    Ok((TlsClient::Ready { terms, sni, unnamed, own }, with_sni as u64))
}

/// Whether nothing is verified. In the mesh everything is (Istio).
fn skips(settings: &ClientTls) -> bool {
    settings.insecure_skip_verify == Some(true) && settings.mode != ClientTlsMode::IstioMutual
}

/// The terms for one way to verify names, kept from the last generation if nothing of them changed.
fn terms(
    work: &mut Work<'_>,
    mode: ClientTlsMode,
    names: NameCheck,
    roots: &Roots,
    own: Option<&Pair>,
) -> Result<(Arc<ClientTerms>, u128), String> {
    let material = format!("{names:?} {mode:?}");
    let fingerprint = work.memory.fingerprint(&(material, roots.identity(), own.map(|pair| &pair.key.cert)));
    if let Some(kept) = work.memory.client_terms.get(&fingerprint) {
        return Ok((kept, fingerprint));
    }
    let alpn = match mode {
        // `istio-peer-exchange` would promise a preamble that is not sent.
        ClientTlsMode::IstioMutual => vec![b"istio".to_vec()],
        _ => Vec::new(),
    };
    let made = made(roots.clone(), names, own.map(|pair| Arc::clone(&pair.key)), alpn)?;
    Ok((work.memory.client_terms.insert(fingerprint, made), fingerprint))
}

/// The certificate of a Secret: the last good one, if what it holds now cannot be used.
fn own_pair(work: &mut Work<'_>, secret: &Arc<Object<Secret>>) -> Result<Arc<Pair>, String> {
    let served = work.memory.certified_key(secret, None).map_err(|fault| fault.to_string())?;
    if let Some(fault) = &served.refused {
        let message = format!("{}: {fault}; the last good certificate stays in force", place_of(secret));
        let finding = secret.finding(&codes::CERTIFICATE_KEPT, "", message);
        work.problems.report_finding(finding.hint(fault.hint()).kind(fault.kind()));
    }
    Ok(served.pair)
}

/// Who vouches by a Secret: those who did last, if what it holds now cannot be used.
fn named_roots(work: &mut Work<'_>, settings: &ClientTls, secret: &Arc<Object<Secret>>) -> Result<Vouching, String> {
    let read = read_authorities(work, settings, secret);
    let kind = format!("for servers {:?} {}", settings.mode, settings.ca_crl);
    let vouching = work.memory.vouching((secret.key(), kind), read);
    let (vouching, refused) = vouching.map_err(|reason| format!("{}: {reason}", place_of(secret)))?;
    if let Some(reason) = refused {
        let message = format!("{}: {reason}; the authorities that were good last stay in force", place_of(secret));
        let finding = secret.finding(&codes::CERTIFICATE_KEPT, "", message);
        work.problems.report_finding(finding.hint("put CA certificates in PEM into ca.crt").kind("authorities"));
    }
    Ok(vouching)
}

/// The CA of a Secret or file, with its revocation lists.
fn read_authorities(
    work: &mut Work<'_>,
    settings: &ClientTls,
    secret: &Arc<Object<Secret>>,
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

fn place_of(secret: &Object<Secret>) -> String {
    match secret.meta.name.as_str() {
        IDENTITY => "[identity] of the settings".to_owned(),
        name if name.starts_with("file:") => name.to_owned(),
        _ => format!("Secret {}", secret.key()),
    }
}

type Credential<'a> = Option<&'a Arc<Object<Secret>>>;

/// The Secret with the CA: `NAME-cacert` if it exists, else NAME; a file; `None` means the system's roots.
fn authorities_secret<'a>(work: &Work<'a>, settings: &ClientTls) -> Result<Credential<'a>, String> {
    let index = work.index;
    if skips(settings) && settings.credential_name.is_empty() {
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

fn made(
    roots: Roots,
    names: NameCheck,
    own: Option<Arc<CertifiedKey>>,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ClientTerms>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Verifier { roots, names, provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier));
    let mut config = match own {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn;
    let sessions = Arc::new(ClientSessionMemoryCache::new(SESSIONS));
    config.resumption = Resumption::store(sessions.clone());
    Ok(Arc::new(ClientTerms { config: Arc::new(config), verifier, sessions }))
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
#[derive(Clone)]
enum Roots {
    /// insecureSkipVerify
    Nobody,
    System(Arc<RootCertStore>),
    Named(Vouching),
}

impl Roots {
    /// A number that changes with them; the system's never do.
    fn identity(&self) -> (u8, u128) {
        match self {
            Roots::Nobody => (0, 0),
            Roots::System(_) => (1, 0),
            Roots::Named(vouching) => (2, vouching.identity),
        }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots {:?}", self.identity())
    }
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
            Roots::Named(vouching) => {
                vouching.roots.verify(der, rest, Purpose::Server, now, algorithms).map_err(refusal)
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

/// DNS names as certificates cover them; wildcards exactly, and a URI only where the certificate has it as a URI.
fn has_any_name(leaf: &ParsedCertificate<'_>, der: &CertificateDer<'_>, names: &[String]) -> Result<(), Error> {
    let own = LazyCell::new(|| Certificate::read(der));
    let covered = names.iter().any(|name| match ServerName::try_from(name.as_str()) {
        Ok(server_name) => verify_server_name(leaf, &server_name).is_ok(),
        Err(_) => own.as_ref().is_some_and(|own| own.is_named(name)),
    });
    if covered { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::NotValidForName)) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn an_identity_counts_as_a_uri_alone() {
        const WEB: &str = "spiffe://td/ns/shop/sa/web";
        for (shown, expected) in [
            (SanType::URI(WEB.try_into().unwrap()), true),
            (SanType::DnsName(WEB.try_into().unwrap()), false),
            (SanType::Rfc822Name(WEB.try_into().unwrap()), false),
            (SanType::URI("spiffe://TD/ns/shop/sa/web".try_into().unwrap()), false),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![shown.clone()];
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let leaf = ParsedCertificate::try_from(made.der()).unwrap();
            let verdict = has_any_name(&leaf, made.der(), &["web.shop".to_owned(), WEB.to_owned()]);
            assert_eq!(verdict.is_ok(), expected, "{shown:?}");
        }
    }

    #[test]
    fn nothing_is_skipped_in_the_mesh() {
        let settings = |mode| ClientTls { mode, insecure_skip_verify: Some(true), ..ClientTls::default() };
        let modes = [ClientTlsMode::Simple, ClientTlsMode::Mutual, ClientTlsMode::IstioMutual];
        assert_eq!(modes.map(|mode| skips(&settings(mode))), [true, true, false]);
    }
}
