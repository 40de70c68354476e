//! Which certificates do servers and settings ask for, and what is told of those that cannot be got?

use serde_json::{Value, json};

use crate::base::clock;
use crate::compile::{Memory, compile};
use crate::resource::ResourceSet;
use crate::resource::core::Secret;
use crate::resource::finding::Finding;
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::settings::Settings;
use crate::resource::settings::acme::{AcmeCertificate, AcmeIssuer, Challenge, OnDemandSettings};
use crate::snapshot::Snapshot;
use crate::snapshot::listener::ConnectionFacts;
use crate::snapshot::tls::{Readiness, TlsServer};

fn server(credential: &str, hosts: &[&str], port: u16) -> Value {
    json!({
        "port": { "number": port, "name": format!("https-{port}-{}", hosts[0]), "protocol": "HTTPS" },
        "hosts": hosts,
        "tls": { "mode": "SIMPLE", "credentialName": credential },
    })
}

fn resources(servers: &[Value]) -> ResourceSet {
    let meta = Meta { name: "gw".into(), namespace: "istio-system".into(), ..Meta::default() };
    let spec = serde_json::from_value(json!({ "servers": servers })).unwrap();
    let gateway = std::sync::Arc::new(Object { meta, spec, origin: Origin::default() });
    ResourceSet { gateways: vec![gateway], ..ResourceSet::default() }
}

/// Let's Encrypt, and a CA of our own.
fn settings() -> Settings {
    let mut settings = Settings::default();
    let inside = AcmeIssuer { name: "inside".into(), directory: "https://ca/dir".into(), ..AcmeIssuer::default() };
    settings.acme.issuers.push(inside);
    settings
}

fn compiled(settings: &Settings, resources: &ResourceSet) -> (Snapshot, Vec<Finding>) {
    compile(resources, settings, 1, clock::now(), &mut Memory::default())
}

/// The certificates as `FOLDER by ISSUERS`, and the codes of what is told.
fn wanted(settings: &Settings, servers: &[Value]) -> (Vec<String>, Vec<&'static str>) {
    let (snapshot, findings) = compiled(settings, &resources(servers));
    let certificates = snapshot.issuance.certificates.iter();
    let certificates = certificates.map(|wanted| format!("{} by {}", wanted.folder, wanted.issuers.join(" ")));
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    (certificates.collect(), codes)
}

/// Settings and servers, and the certificates and codes that they give.
type Case<'a> = (&'a Settings, &'a [Value], &'a [&'a str], &'a [&'a str]);

#[test]
fn every_host_is_ordered_once_and_by_who_can() {
    let mut by_dns = settings();
    by_dns.acme.issuers[0].challenges = vec![Challenge::Http01];
    let cases: [Case<'_>; 10] = [
        (
            &settings(),
            &[server("acme://", &["B.com", "ns/a.com"], 443), server("acme://", &["a.com"], 8443)],
            &["hosts/a.com by letsencrypt inside", "hosts/b.com by letsencrypt inside"],
            &["LIM0080"],
        ),
        (&settings(), &[server("acme://inside", &["a.test"], 443)], &["hosts/a.test by inside"], &["LIM0080"]),
        // An address has several spellings, and a folder that no name can have.
        (
            &settings(),
            &[server("acme://", &["2001:DB8::1"], 443), server("acme://", &["[2001:db8:0::1]"], 8443)],
            &["hosts/_ipv6-2001-db8--1 by letsencrypt inside"],
            &["LIM0080"],
        ),
        (&settings(), &[server("acme://other", &["a.com"], 443)], &[], &["LIM0082"]),
        // The wildcard is enough; only one of the two can prove it.
        (
            &by_dns,
            &[server("acme://", &["*.a.com", "x.a.com", "a.com", "x.y.a.com"], 443)],
            &[
                "hosts/_wildcard.a.com by inside",
                "hosts/a.com by letsencrypt inside",
                "hosts/x.y.a.com by letsencrypt inside",
            ],
            &["LIM0080"],
        ),
        (&by_dns, &[server("acme://letsencrypt", &["*.a.com"], 443)], &[], &["LIM0081"]),
        (&settings(), &[server("acme://", &["*"], 443)], &[], &["LIM0081"]),
        (
            &settings(),
            &[server("acme://letsencrypt", &["a.internal"], 443)],
            &["hosts/a.internal by letsencrypt"],
            &["LIM0080", "LIM0083"],
        ),
        (
            &settings(),
            &[server("acme://", &["a.com"], 443), server("acme://inside", &["a.com"], 8443)],
            &["hosts/a.com by letsencrypt inside"],
            &["LIM0080", "LIM0084"],
        ),
        (&settings(), &[server("local-ca://", &["a.com"], 443)], &[], &["LIM0082"]),
    ];
    for (settings, servers, expected, codes) in cases {
        assert_eq!(
            wanted(settings, servers),
            (expected.iter().map(|text| (*text).to_owned()).collect(), codes.to_vec())
        );
    }
}

#[test]
fn a_certificate_with_a_name_covers_hosts() {
    let mut settings = settings();
    settings.acme.certificates.push(AcmeCertificate {
        secret: "wild".into(),
        identifiers: vec!["*.a.com".parse().unwrap(), "a.com".parse().unwrap()],
        issuers: vec!["inside".into()],
        profile: None,
        key: None,
    });
    let servers = [
        server("acme://", &["x.a.com"], 443),
        server("acme://letsencrypt", &["y.a.com"], 443),
        server("wild", &["a.com"], 443),
    ];
    let expected = ["hosts/y.a.com by letsencrypt".to_owned(), "secrets/wild by inside".to_owned()];
    assert_eq!(wanted(&settings, &servers), (expected.to_vec(), vec!["LIM0080"]));
    let address =
        AcmeCertificate { identifiers: vec!["192.0.2.1".parse().unwrap()], ..settings.acme.certificates[0].clone() };
    settings.acme.certificates = vec![address];
    let (snapshot, _) = compiled(&settings, &resources(&servers));
    let of_address = snapshot.issuance.certificates.iter().find(|wanted| wanted.folder == "secrets/wild").unwrap();
    assert_eq!(of_address.profile.as_deref(), Some("shortlived"));
    settings.acme.issuers[1].challenges = vec![Challenge::DnsPersist01];
    assert_eq!(
        wanted(&settings, &servers[..1]),
        (vec!["hosts/x.a.com by letsencrypt inside".into()], vec!["LIM0080", "LIM0081"])
    );
}

#[test]
fn names_wait_for_their_certificate_alone() {
    let mut settings = settings();
    settings.acme.issuers.truncate(1);
    settings.acme.issuers[0].challenges = vec![Challenge::TlsAlpn01];
    let ask = "http://127.0.0.1/ask".to_owned();
    settings.acme.on_demand = Some(OnDemandSettings { ask, issuers: Vec::new() });
    let mut resources = resources(&[server("acme://", &["a.com", "b.com", "*.c.com"], 443)]);
    let issued = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let data = [("tls.crt", made.cert.pem()), ("tls.key", made.signing_key.serialize_pem())];
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect();
        let meta = Meta { name: format!("acme:{name}"), namespace: "istio-system".into(), ..Meta::default() };
        std::sync::Arc::new(Object { meta, spec: Secret { kind: String::new(), data }, origin: Origin::default() })
    };
    resources.secrets = ["a.com", "d.com"].map(issued).to_vec();
    let (snapshot, findings) = compiled(&settings, &resources);
    assert_eq!(snapshot.issuance.on_demand.as_ref().unwrap().issuers, ["letsencrypt"]);
    let facts = ConnectionFacts::tls([127, 0, 0, 1].into(), Some("a.com"));
    let chain = snapshot.listeners[0].chains.find(&facts).unwrap();
    let Some(TlsServer::Ready(terms)) = &chain.tls else { panic!("{:?}", chain.tls) };
    for (name, expected) in [
        (Some("A.com"), Readiness::Ready),
        (Some("b.com"), Readiness::Awaited),
        (Some("y.c.com"), Readiness::OnDemand),
        (Some("d.com"), Readiness::Ready),
        (None, Readiness::Ready),
    ] {
        assert_eq!(terms.readiness(name), expected, "{name:?}");
    }
    assert_eq!(terms.certificates.facts().count(), 1);
    let told: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(told, ["the certificate of `b.com` is being issued"]);
}

#[test]
fn port_80_is_opened_where_nothing_else_helps() {
    let opens = |challenges: &[Challenge], listen_http: Option<bool>, port: u16| {
        let mut settings = settings();
        settings.acme.issuers.truncate(1);
        settings.acme.issuers[0].challenges = challenges.to_vec();
        settings.acme.listen_http = listen_http;
        let (snapshot, findings) = compiled(&settings, &resources(&[server("acme://", &["a.com"], port)]));
        let opened = snapshot.listeners.iter().any(|listener| listener.address.port() == 80);
        (opened, findings.iter().any(|finding| finding.code == "LIM0085"))
    };
    let both = [Challenge::TlsAlpn01, Challenge::Http01];
    assert_eq!(opens(&both, None, 443), (false, false), "tls-alpn-01 will do");
    assert_eq!(opens(&both, Some(true), 443), (true, false));
    assert_eq!(opens(&both, None, 8443), (true, false), "the CA asks at 443 alone");
    assert_eq!(opens(&both, Some(false), 8443), (false, true));
    assert_eq!(opens(&both[..1], None, 8443), (false, true));
    assert_eq!(opens(&[Challenge::Dns01], Some(true), 8443), (false, false));
}
