//! Which versions, ciphers and curves does a server offer? Its own words, else those of the mesh, else Istio's defaults;
//! TLS 1.2 with forward secrecy and AEAD is the least.

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::resource::networking::{ServerTls, TlsProtocol};
use crate::resource::settings::MeshDefaults;

/// What a handshake may settle on.
#[derive(Debug, Hash)]
pub(super) struct Parameters<'a> {
    minimum: TlsProtocol,
    maximum: TlsProtocol,
    ciphers: &'a [String],
    curves: &'a [String],
}

impl<'a> Parameters<'a> {
    /// For the modes SIMPLE, MUTUAL and OPTIONAL_MUTUAL.
    pub(super) fn of(settings: &'a ServerTls, mesh: &'a MeshDefaults) -> Parameters<'a> {
        let own = |own: &'a [String], mesh: &'a [String]| if own.is_empty() { mesh } else { own };
        Parameters {
            minimum: match settings.min_protocol_version {
                TlsProtocol::Auto => mesh.min_protocol_version,
                written => written,
            },
            maximum: settings.max_protocol_version,
            ciphers: own(&settings.cipher_suites, &mesh.cipher_suites),
            curves: own(&settings.ecdh_curves, &mesh.ecdh_curves),
        }
    }

    /// For ISTIO_MUTUAL, whose servers cannot choose.
    pub(super) fn of_the_mesh() -> Parameters<'static> {
        Parameters { minimum: TlsProtocol::Auto, maximum: TlsProtocol::Auto, ciphers: &[], curves: &[] }
    }

    /// The versions, newest first; none if the minimum, which is at least 1.2, lies above the maximum.
    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        versions(self.minimum, self.maximum)
    }

    /// Whether nobody named a cipher that is known.
    pub(super) fn has_default_ciphers(&self) -> bool {
        named_suites(self.ciphers).is_empty()
    }

    pub(super) fn provider(&self) -> CryptoProvider {
        CryptoProvider {
            cipher_suites: cipher_suites(self.ciphers),
            kx_groups: key_exchanges(self.curves),
            ..aws_lc_rs::default_provider()
        }
    }
}

fn versions(min: TlsProtocol, max: TlsProtocol) -> Vec<&'static SupportedProtocolVersion> {
    let max = if max == TlsProtocol::Auto { TlsProtocol::V1_3 } else { max };
    let offered = [(TlsProtocol::V1_3, &rustls::version::TLS13), (TlsProtocol::V1_2, &rustls::version::TLS12)];
    offered.into_iter().filter(|(version, _)| *version >= min && *version <= max).map(|(_, v)| v).collect()
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

/// TLS 1.3 suites, then those of TLS 1.2. Only unknown names mean the default.
fn cipher_suites(names: &[String]) -> Vec<SupportedCipherSuite> {
    use cipher_suite as suite;
    let named = named_suites(names);
    let tls12 = if named.is_empty() { TLS12_SUITES.map(|(_, suite)| suite).to_vec() } else { named };
    [suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384, suite::TLS13_CHACHA20_POLY1305_SHA256]
        .into_iter()
        .chain(tls12)
        .collect()
}

/// In the order in which they are named. `ALL` adds the others, `-` and `!` take one away, `+` puts one last.
fn named_suites(names: &[String]) -> Vec<SupportedCipherSuite> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    for name in names {
        let plain = name.trim_start_matches(['-', '!', '+']);
        let meant = TLS12_SUITES.iter().filter(|(known, _)| plain == "ALL" || *known == plain).map(|(_, suite)| *suite);
        for suite in meant {
            let place = chosen.iter().position(|known| known.suite() == suite.suite());
            match (name.as_bytes().first(), place) {
                (Some(b'-' | b'!'), Some(place)) => drop(chosen.remove(place)),
                (Some(b'+'), Some(place)) => {
                    let moved = chosen.remove(place);
                    chosen.push(moved);
                }
                (Some(b'-' | b'!' | b'+'), None) | (_, Some(_)) => {}
                (_, None) => chosen.push(suite),
            }
        }
    }
    chosen
}

/// The suites of TLS 1.2 by their OpenSSL names, in the default order.
static TLS12_SUITES: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = cipher_suites(&names).into_iter().skip(3);
        let name = |suite: SupportedCipherSuite| {
            TLS12_SUITES.iter().find(|(_, known)| known.suite() == suite.suite()).map_or("", |(name, _)| name)
        };
        found.map(name).collect()
    }

    #[test]
    fn ciphers_follow_the_names_and_only_unknown_ones_mean_the_default() {
        const A: &str = "ECDHE-RSA-AES256-GCM-SHA384";
        const B: &str = "ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(suites(&[A, "AES128-SHA", B, A]), [A, B]);
        assert_eq!((suites(&[]).len(), suites(&["NONE", "DES-CBC3-SHA"]).len()), (6, 6));
        let without = suites(&["ALL", "!ECDHE-RSA-AES256-GCM-SHA384", "+ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!((without.len(), without.last()), (5, Some(&B)));
        assert!(!without.contains(&A));
    }

    #[test]
    fn the_least_version_is_1_2() {
        let count = |min, max| versions(min, max).len();
        assert_eq!(count(TlsProtocol::Auto, TlsProtocol::Auto), 2);
        assert_eq!(count(TlsProtocol::V1_0, TlsProtocol::V1_2), 1);
        assert_eq!(count(TlsProtocol::V1_3, TlsProtocol::V1_2), 0);
        assert_eq!(count(TlsProtocol::Auto, TlsProtocol::V1_1), 0);
    }
}
