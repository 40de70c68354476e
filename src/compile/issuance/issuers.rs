//! Who issues, in the words of the snapshot?

use std::sync::Arc;

use crate::resource::settings::acme::{self, CertificateKey, CertificateName, Challenge, DnsSettings};
use crate::snapshot::issuance::{
    AcmeIssuer, ChallengeKind, DnsSolver, ExternalAccount, Identifier, Issuer, IssuerKind, KeyKind, TsigKey,
};

pub(crate) fn acme_issuer(written: &acme::AcmeIssuer) -> Arc<Issuer> {
    let account = written.external_account.as_ref();
    let issuer = AcmeIssuer {
        directory: written.directory.clone(),
        root: written.root.clone(),
        email: written.email.clone(),
        profile: written.profile.clone(),
        preferred_chain: written.preferred_chain.clone(),
        external_account: account
            .map(|account| ExternalAccount { key_id: account.key_id.clone(), hmac_file: account.hmac_file.clone() }),
        challenges: written.challenges.iter().copied().map(challenge).collect(),
        dns: written.dns.as_ref().map(solver),
    };
    Arc::new(Issuer { name: written.name.clone(), kind: IssuerKind::Acme(Box::new(issuer)) })
}

fn challenge(written: Challenge) -> ChallengeKind {
    match written {
        Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        Challenge::Http01 => ChallengeKind::Http01,
        Challenge::Dns01 => ChallengeKind::Dns01,
        Challenge::DnsPersist01 => ChallengeKind::DnsPersist01,
    }
}

fn solver(written: &DnsSettings) -> DnsSolver {
    match written {
        DnsSettings::Exec(command) => DnsSolver::Exec { command: command.clone() },
        DnsSettings::Webhook(url) => DnsSolver::Webhook { url: url.clone() },
        DnsSettings::Rfc2136 { server, zone, key } => DnsSolver::Rfc2136 {
            server: *server,
            zone: zone.clone(),
            key: key.as_ref().map(|key| TsigKey {
                name: key.name.clone(),
                algorithm: key.algorithm.clone(),
                secret_file: key.secret_file.clone(),
            }),
        },
    }
}

pub(super) fn key(written: CertificateKey) -> KeyKind {
    match written {
        CertificateKey::EcdsaP256 => KeyKind::EcdsaP256,
        CertificateKey::EcdsaP384 => KeyKind::EcdsaP384,
        CertificateKey::Rsa2048 => KeyKind::Rsa2048,
        CertificateKey::Ed25519 => KeyKind::Ed25519,
    }
}

pub(super) fn identifier(written: &CertificateName) -> Identifier {
    match written {
        CertificateName::Dns(name) => Identifier::Dns(name.clone()),
        CertificateName::Ip(address) => Identifier::Ip(*address),
    }
}

/// Whether the challenge can show that the name is ours.
pub(super) fn can_prove(written: Challenge, name: &CertificateName) -> bool {
    challenge(written).can_prove(&identifier(name))
}
