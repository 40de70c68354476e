//! How does a Gateway server end TLS? (Istio ServerTLSSettings, mode SIMPLE.)

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};

use super::certificates;
use super::work::Work;
use crate::resource::codes;
use crate::resource::meta::Object;
use crate::resource::networking::{Gateway, ServerTls, ServerTlsMode, TlsProtocol};
use crate::snapshot::tls::{CertificateFacts, TlsServer};

/// The TLS side of the server at `path` of a gateway. What is unusable is reported and closes its connections.
pub(super) fn build(work: &mut Work<'_>, settings: &ServerTls, gateway: &Object<Gateway>, path: &str) -> TlsServer {
    match try_build(work, settings, gateway, path) {
        Ok(server) => server,
        Err((code, reason)) => {
            if let Some(code) = code {
                work.problems.report(gateway, code, &format!("{path}.tls"), reason.as_str());
            }
            TlsServer::Unavailable { reason }
        }
    }
}

/// A certificate with its key, and words for where it came from.
type Material = (String, Arc<CertifiedKey>);

/// Why, and under which code it is still to be told.
type Failure = (Option<&'static codes::Code>, String);

fn try_build(
    work: &mut Work<'_>,
    settings: &ServerTls,
    gateway: &Object<Gateway>,
    path: &str,
) -> Result<TlsServer, Failure> {
    let not_in_force = |reason: &str| Err((Some(&codes::SERVER_NOT_IN_FORCE), reason.to_owned()));
    if settings.mode != ServerTlsMode::Simple {
        return not_in_force(&format!("TLS mode {} is not in force yet; connections are closed", settings.mode.word()));
    }
    if !settings.subject_alt_names.is_empty() {
        return not_in_force(
            "subjectAltNames need a client CA, which mode SIMPLE does not have; connections are closed",
        );
    }
    let Some(versions) = versions(settings.min_protocol_version, settings.max_protocol_version) else {
        return not_in_force("no TLS version is left between the minimum, which is at least 1.2, and the maximum");
    };
    let material = read_material(work, settings, gateway, path)?;
    let facts: Vec<_> =
        material.iter().filter_map(|(source, key)| certificates::facts(key.cert.first()?, source)).collect();
    tell_dates(work, &facts, gateway, path);
    let mesh = &work.index.settings.mesh;
    let ciphers = if settings.cipher_suites.is_empty() { &mesh.cipher_suites } else { &settings.cipher_suites };
    let curves = if settings.ecdh_curves.is_empty() { &mesh.ecdh_curves } else { &settings.ecdh_curves };
    let server = format!("{} {path} {ciphers:?} {curves:?}", gateway.key());
    let chains: Vec<&[CertificateDer<'_>]> = material.iter().map(|(_, key)| key.cert.as_slice()).collect();
    let version_names: Vec<_> = versions.iter().map(|version| version.version).collect();
    let fingerprint = work.memory.fingerprint(&(server, format!("{version_names:?}"), chains));
    let config = match work.memory.server_configs.get(&fingerprint) {
        Some(kept) => kept,
        None => {
            let keys = material.into_iter().map(|(_, key)| key).collect();
            let made = config((ciphers, curves), &versions, keys)
                .map_err(|reason| (Some(&codes::GATEWAY_CREDENTIAL), reason))?;
            work.memory.server_configs.insert(fingerprint, made)
        }
    };
    Ok(TlsServer::Ready { config, certificates: facts })
}

/// The certificates that can be served; those that cannot are told.
fn read_material(
    work: &mut Work<'_>,
    settings: &ServerTls,
    gateway: &Object<Gateway>,
    path: &str,
) -> Result<Vec<Material>, Failure> {
    let names = credential_names(settings);
    let mut material = Vec::new();
    let mut failures = Vec::new();
    for name in &names {
        match find_secret(work, name) {
            Ok(found) => material.push(found),
            Err(failure) => {
                // Why a file is not there was told when it was read.
                if !name.starts_with("file:") || work.index.secret(name).is_some() {
                    let path = format!("{path}.tls");
                    work.problems.report(gateway, &codes::GATEWAY_CREDENTIAL, &path, failure.as_str());
                }
                failures.push(failure);
            }
        }
    }
    if names.is_empty() {
        return Err((Some(&codes::GATEWAY_CREDENTIAL), "no certificate is named".to_owned()));
    }
    if material.is_empty() {
        return Err((None, failures.join("; ")));
    }
    Ok(material)
}

fn tell_dates(work: &mut Work<'_>, facts: &[CertificateFacts], gateway: &Object<Gateway>, path: &str) {
    for fact in facts.iter().filter(|fact| fact.not_after < work.now || fact.not_before > work.now) {
        let message = format!("the certificate of {} is outside its dates; it is served nevertheless", fact.source);
        work.problems.report(gateway, &codes::CERTIFICATE_DATE, &format!("{path}.tls"), message);
    }
}

fn credential_names(settings: &ServerTls) -> Vec<String> {
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

/// The credential of a name such as `web`, `kubernetes://web` or `file:/path`, with words for where it came from.
fn find_secret(work: &mut Work<'_>, name: &str) -> Result<Material, String> {
    let ours = work.index.settings.gateway.namespace.clone();
    let plain = name.strip_prefix("kubernetes://").or(name.strip_prefix("kubernetes-gateway://")).unwrap_or(name);
    let plain = match plain.split_once('/') {
        Some((namespace, plain)) if plain != name && !name.starts_with("file:") && namespace == ours => plain,
        _ => plain,
    };
    let source = if name.starts_with("file:") { name.to_owned() } else { format!("Secret {ours}/{plain}") };
    let Some(secret) = work.index.secret(plain) else { return Err(format!("{source} does not exist")) };
    let key = work.memory.certified_key(secret).map_err(|reason| format!("{source}: {reason}"))?;
    Ok((source, key))
}

/// `None` if no version is left. The least is 1.2.
fn versions(min: TlsProtocol, max: TlsProtocol) -> Option<Vec<&'static SupportedProtocolVersion>> {
    let max = if max == TlsProtocol::Auto { TlsProtocol::V1_3 } else { max };
    let offered = [(TlsProtocol::V1_3, &rustls::version::TLS13), (TlsProtocol::V1_2, &rustls::version::TLS12)];
    let versions: Vec<_> =
        offered.into_iter().filter(|(version, _)| *version >= min && *version <= max).map(|(_, v)| v).collect();
    (!versions.is_empty()).then_some(versions)
}

fn config(
    (ciphers, curves): (&[String], &[String]),
    versions: &[&'static SupportedProtocolVersion],
    keys: Vec<Arc<CertifiedKey>>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = CryptoProvider {
        cipher_suites: cipher_suites(ciphers),
        kx_groups: key_exchanges(curves),
        ..aws_lc_rs::default_provider()
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(versions).map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Certificates { keys }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

/// Key exchanges in the order of preference; by default those of Istio and the hybrid one before them.
fn key_exchanges(curves: &[String]) -> Vec<&'static dyn SupportedKxGroup> {
    let named = |name: &str| -> Option<&'static dyn SupportedKxGroup> {
        Some(match name {
            "X25519MLKEM768" => kx_group::X25519MLKEM768,
            "X25519" => kx_group::X25519,
            "P-256" => kx_group::SECP256R1,
            "P-384" => kx_group::SECP384R1,
            _ => return None,
        })
    };
    let chosen: Vec<_> = curves.iter().filter_map(|name| named(name)).collect();
    match chosen.is_empty() {
        true => ["X25519MLKEM768", "X25519", "P-256"].into_iter().filter_map(named).collect(),
        false => chosen,
    }
}

/// TLS 1.3 suites, then those of TLS 1.2 by their OpenSSL names. Only unknown names mean the default.
fn cipher_suites(names: &[String]) -> Vec<SupportedCipherSuite> {
    use cipher_suite as suite;
    let known = [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-RSA-AES128-GCM-SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-RSA-CHACHA20-POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-RSA-AES256-GCM-SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ];
    let chosen: Vec<_> = names
        .iter()
        .filter_map(|name| known.iter().find(|(known, _)| known == name))
        .map(|(_, suite)| *suite)
        .collect();
    let tls12 = if chosen.is_empty() { known.map(|(_, suite)| suite).to_vec() } else { chosen };
    [suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384, suite::TLS13_CHACHA20_POLY1305_SHA256]
        .into_iter()
        .chain(tls12)
        .collect()
}

/// The certificates of one server: ECDSA for clients that can, and of one kind the one that names the SNI exactly.
#[derive(Debug)]
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = self.keys.as_slice() {
            return Some(only.clone());
        }
        let usable = self.keys.iter().filter(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        let names_it = |key: &CertifiedKey| hello.server_name().is_some_and(|name| names_exactly(key, name));
        usable.min_by_key(|key| (!is_ecdsa(key, &hello), !names_it(key))).cloned()
    }
}

fn is_ecdsa(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    let scheme = key.key.choose_scheme(hello.signature_schemes()).map(|signer| signer.scheme());
    matches!(
        scheme,
        Some(
            SignatureScheme::ECDSA_NISTP256_SHA256
                | SignatureScheme::ECDSA_NISTP384_SHA384
                | SignatureScheme::ECDSA_NISTP521_SHA512
        )
    )
}

fn names_exactly(key: &CertifiedKey, name: &str) -> bool {
    let facts = key.cert.first().and_then(|certificate| certificates::facts(certificate, ""));
    facts.is_some_and(|facts| facts.names.iter().any(|own| own.eq_ignore_ascii_case(name)))
}
