//! How is TLS begun towards the endpoints of a cluster? (Istio ClientTLSSettings.)

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

use super::certificates;
use super::work::Work;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{ClientTls, ClientTlsMode, DestinationRule};
use crate::snapshot::tls::TlsClient;

/// The TLS side of a cluster, and a number that changes with it. `entry_names` are a ServiceEntry's subjectAltNames.
pub(super) fn build(
    work: &mut Work<'_>,
    settings: &ClientTls,
    rule: &Object<DestinationRule>,
    entry_names: &[String],
) -> (Option<TlsClient>, u64) {
    if settings.mode == ClientTlsMode::Disable {
        return (None, 0);
    }
    match try_build(work, settings, entry_names) {
        Ok((client, fingerprint)) => (Some(client), fingerprint),
        Err(reason) => {
            work.problems.report(rule, &codes::CLIENT_CREDENTIAL, "spec.trafficPolicy.tls", reason.as_str());
            let fingerprint = work.memory.fingerprint(&reason);
            (Some(TlsClient::Unavailable { reason }), fingerprint as u64)
        }
    }
}

fn try_build(work: &mut Work<'_>, settings: &ClientTls, entry_names: &[String]) -> Result<(TlsClient, u64), String> {
    if settings.mode == ClientTlsMode::IstioMutual {
        return Err("ISTIO_MUTUAL needs a workload certificate of a mesh, which this gateway does not have".to_owned());
    }
    let skip = settings.insecure_skip_verify.unwrap_or(false);
    let names = match (skip, settings.subject_alt_names.is_empty(), settings.sni.is_empty()) {
        (true, _, _) => NameCheck::Nothing,
        (false, false, _) => NameCheck::Any(settings.subject_alt_names.clone()),
        (false, true, true) if entry_names.is_empty() => NameCheck::Host,
        (false, true, true) => NameCheck::HostAndAny(entry_names.to_vec()),
        (false, true, false) if entry_names.is_empty() => NameCheck::ChainOnly,
        (false, true, false) => NameCheck::Any(entry_names.to_vec()),
    };
    let credentials = (authorities_secret(work, settings)?, own_secret(work, settings)?);
    let unnamed = match &names {
        NameCheck::Host => NameCheck::ChainOnly,
        NameCheck::HostAndAny(entry_names) => NameCheck::Any(entry_names.clone()),
        other => other.clone(),
    };
    let (config, fingerprint) = configured(work, settings, names, credentials)?;
    let (unnamed, _) = configured(work, settings, unnamed, credentials)?;
    let sni = (!settings.sni.is_empty()).then(|| settings.sni.clone());
    let with_sni = work.memory.fingerprint(&(fingerprint, &sni));
    Ok((TlsClient::Ready { config, sni, unnamed }, with_sni as u64))
}

/// The configuration for one way to verify names, kept from the last generation if nothing of it changed.
fn configured(
    work: &mut Work<'_>,
    settings: &ClientTls,
    names: NameCheck,
    (authorities, own): (Credential<'_>, Credential<'_>),
) -> Result<(Arc<ClientConfig>, u128), String> {
    let material = format!("{names:?} {:?}", settings.mode);
    let parts = (&material, authorities.map(|s| &s.spec.data), own.map(|s| &s.spec.data));
    let fingerprint = work.memory.fingerprint(&parts);
    if let Some(kept) = work.memory.client_configs.get(&fingerprint) {
        return Ok((kept, fingerprint));
    }
    let roots = match authorities {
        _ if settings.insecure_skip_verify.unwrap_or(false) => Arc::new(RootCertStore::empty()),
        Some(secret) => {
            let read = certificates::authorities(&secret.spec);
            Arc::new(read.map_err(|reason| format!("Secret {}: {reason}", secret.key()))?)
        }
        None => work.memory.system_roots(),
    };
    let own = own.map(|secret| work.memory.certified_key(secret)).transpose()?;
    let made = config(roots, names, own)?;
    Ok((work.memory.client_configs.insert(fingerprint, made), fingerprint))
}

type Credential<'a> = Option<&'a Arc<Object<crate::resource::core::Secret>>>;

/// The Secret with the CA: `NAME-cacert` if it exists, else NAME; a file; `None` means the system's roots.
fn authorities_secret<'a>(work: &Work<'a>, settings: &ClientTls) -> Result<Credential<'a>, String> {
    let index = work.index;
    if settings.insecure_skip_verify.unwrap_or(false) && settings.credential_name.is_empty() {
        return Ok(None);
    }
    let name = match (settings.credential_name.as_str(), settings.ca_certificates.as_str()) {
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

/// The Secret with our own certificate, for MUTUAL.
fn own_secret<'a>(work: &Work<'a>, settings: &ClientTls) -> Result<Credential<'a>, String> {
    if settings.mode != ClientTlsMode::Mutual {
        return Ok(None);
    }
    let name = match settings.credential_name.as_str() {
        "" if settings.client_certificate.is_empty() => return Err("MUTUAL needs a client certificate".to_owned()),
        "" => format!("file:{}", settings.client_certificate),
        name => name.strip_prefix("kubernetes://").unwrap_or(name).to_owned(),
    };
    work.index.secret(&name).map(Some).ok_or_else(|| missing(work, &name))
}

fn missing(work: &Work<'_>, name: &str) -> String {
    match name.strip_prefix("file:") {
        Some(path) => format!("the file {path} could not be read"),
        None => format!("Secret {}/{name} does not exist", work.index.settings.gateway.namespace),
    }
}

fn config(
    roots: Arc<RootCertStore>,
    names: NameCheck,
    own: Option<Arc<CertifiedKey>>,
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

/// Verifies the chain with webpki and the name as Istio does.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    names: NameCheck,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn check_chain(
        &self,
        leaf: &ParsedCertificate<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(leaf, &self.roots, rest, now, algorithms)
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
        self.check_chain(&leaf, intermediates, now)?;
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
    let covered = names.iter().any(|name| match ServerName::try_from(name.as_str()) {
        Ok(server_name) => verify_server_name(leaf, &server_name).is_ok(),
        Err(_) => certificates::names_itself(der, name),
    });
    if covered { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::NotValidForName)) }
}
