//! Which certificates would be got, from whom, and by which challenges?

use serde_json::{Value, json};

use crate::snapshot::issuance::{ChallengeKind, Identifier, Issuance, Issuer, IssuerKind, Wanted};

/// One line for each certificate.
pub(super) fn text(issuance: &Issuance) -> String {
    let line = |wanted: &Wanted| {
        let names: Vec<String> = wanted.identifiers.iter().map(shown).collect();
        let issuers: Vec<String> = issuers(issuance, wanted).map(|issuer| from(issuer, wanted)).collect();
        format!("certificate for {}: from {}\n", names.join(", "), issuers.join(", else from "))
    };
    let on_demand = issuance.on_demand.as_ref().map(|on_demand| {
        format!(
            "certificates for names that clients ask for: from {}, if {} allows it\n",
            on_demand.issuers.join(", else from "),
            on_demand.ask
        )
    });
    issuance.certificates.iter().map(|wanted| line(wanted)).chain(on_demand).collect()
}

/// The same for programs.
pub(super) fn json(issuance: &Issuance) -> Value {
    let certificates = issuance.certificates.iter().map(|wanted| {
        let issuers = issuers(issuance, wanted).map(|issuer| match &issuer.kind {
            IssuerKind::Acme(acme) => {
                json!({ "name": issuer.name, "directory": acme.directory, "challenges": challenges(issuer, wanted) })
            }
            IssuerKind::Local { folder } => json!({ "name": issuer.name, "folder": folder }),
        });
        json!({
            "folder": issuance.storage.join(&wanted.folder),
            "identifiers": wanted.identifiers.iter().map(shown).collect::<Vec<_>>(),
            "issuers": issuers.collect::<Vec<_>>(),
        })
    });
    let on_demand = issuance.on_demand.as_ref();
    json!({
        "ordered": certificates.collect::<Vec<_>>(),
        "onDemand": on_demand.map(|on_demand| json!({ "ask": on_demand.ask, "issuers": on_demand.issuers })),
    })
}

fn issuers<'i>(issuance: &'i Issuance, wanted: &'i Wanted) -> impl Iterator<Item = &'i Issuer> {
    wanted
        .issuers
        .iter()
        .filter_map(|name| issuance.issuers.iter().find(|issuer| issuer.name == *name))
        .map(|issuer| &**issuer)
}

fn from(issuer: &Issuer, wanted: &Wanted) -> String {
    match &issuer.kind {
        IssuerKind::Acme(_) => format!("{} by {}", issuer.name, challenges(issuer, wanted).join(" or ")),
        IssuerKind::Local { .. } => "our own authority".to_owned(),
    }
}

/// The challenges that can prove all names.
fn challenges(issuer: &Issuer, wanted: &Wanted) -> Vec<&'static str> {
    let IssuerKind::Acme(acme) = &issuer.kind else { return Vec::new() };
    let proves_all = |kind: &&ChallengeKind| wanted.identifiers.iter().all(|identifier| kind.can_prove(identifier));
    acme.challenges.iter().filter(proves_all).map(|kind| kind.word()).collect()
}

fn shown(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.clone(),
        Identifier::Ip(address) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::issuance::{AcmeIssuer, KeyKind, OnDemand};

    #[test]
    fn every_certificate_has_a_line() {
        let acme = AcmeIssuer {
            directory: "https://ca/dir".into(),
            root: None,
            email: String::new(),
            profile: None,
            preferred_chain: None,
            external_account: None,
            challenges: vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01, ChallengeKind::DnsPersist01],
            dns: None,
        };
        let issuer = |name: &str, kind| Arc::new(Issuer { name: name.into(), kind });
        let wanted = |name: &str, issuers: &[&str]| {
            Arc::new(Wanted {
                folder: format!("hosts/{name}"),
                identifiers: vec![Identifier::Dns(name.into())],
                issuers: issuers.iter().map(|name| (*name).to_owned()).collect(),
                key: KeyKind::default(),
                profile: None,
            })
        };
        let issuance = Issuance {
            storage: "/var/acme".into(),
            certificates: vec![
                wanted("a.com", &["one", "two"]),
                wanted("*.b.com", &["one"]),
                wanted("c.com", &["local-ca"]),
            ],
            issuers: vec![
                issuer("one", IssuerKind::Acme(Box::new(acme.clone()))),
                issuer(
                    "two",
                    IssuerKind::Acme(Box::new(AcmeIssuer { challenges: vec![ChallengeKind::Dns01], ..acme })),
                ),
                issuer("local-ca", IssuerKind::Local { folder: "/ca".into() }),
            ],
            on_demand: Some(Arc::new(OnDemand { ask: "http://ask".into(), issuers: vec!["one".into()] })),
        };
        assert_eq!(
            text(&issuance),
            "certificate for a.com: from one by tls-alpn-01 or http-01 or dns-persist-01, else from two by dns-01\n\
             certificate for *.b.com: from one by dns-persist-01\n\
             certificate for c.com: from our own authority\n\
             certificates for names that clients ask for: from one, if http://ask allows it\n"
        );
        let json = json(&issuance);
        assert_eq!(json["ordered"][1]["issuers"][0]["challenges"], json!(["dns-persist-01"]));
        assert_eq!(json["ordered"][0]["folder"], "/var/acme/hosts/a.com");
    }
}
