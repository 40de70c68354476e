//! Certificates from a real CA: every way to show that a name is ours, every kind of name, and what the CA demands.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::support::backend::Backend;
use crate::support::caddy::Caddy;
use crate::support::gateway::{HTTPS, Plan, TestGateway};
use crate::support::issued::{gateway, get, issuer, leaf, route, until, until_served};
use crate::support::manifests::{all_to, route_on, service};
use crate::support::pebble::{Pebble, PebblePlan};
use crate::support::{address, tool};

/// A gateway with one route, whose certificate Pebble issues by this kind of challenge.
fn route_by(challenge: &str, host: &str, backend: &Backend) -> Option<(Pebble, TestGateway)> {
    let plan = Plan::new();
    let pebble = PebblePlan::new(plan.address()).start()?;
    let only = format!("challenges = [\"{challenge}\"]");
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, &only) + &route(host, backend.address);
    let gateway = plan.settings(&settings).start();
    Some((pebble, gateway))
}

#[test]
fn a_route_has_its_certificate_by_http_01_and_plaintext_is_sent_to_it() {
    let web = Backend::http1("web");
    let Some((pebble, gateway)) = route_by("http-01", "web.example.test", &web) else { return };
    let answer = until_served(&gateway, "web.example.test", &pebble.root());
    assert_eq!(answer.backend(), "web");
    let plain = gateway.get("web.example.test", "/path");
    assert_eq!((plain.status, plain.header("location")), (301, "https://web.example.test/path"));
    assert!(pebble.log().contains("validate w/ HTTP"), "{}", pebble.log());
    assert!(gateway.metric("limani_acme_challenges_answered_total", "http-01") >= 1.0, "{}", gateway.metrics());
    // Nobody else's token is answered, and no answer is left behind.
    assert_eq!(gateway.get("web.example.test", "/.well-known/acme-challenge/unknown").status, 301);
    let left = gateway.folder().join("acme/challenges");
    let files = walk(&left);
    assert!(until(|| walk(&left).is_empty().then_some(())).is_some(), "{files:?}");
}

#[test]
fn a_name_that_nobody_wrote_down_is_ordered_at_its_first_handshake_if_the_ask_url_allows_it() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let gate = Backend::heard("gate", |target, _| if target.ends_with("?domain=may.example.test") { 200 } else { 404 });
    let manifests = [
        gateway("any", "'*'", "acme://"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/any", "web", "*", &all_to("web.test")),
    ];
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, "challenges = [\"tls-alpn-01\"]")
        + &format!("[acme.on_demand]\nask = \"http://{}/ask\"\n", gate.address);
    let gateway = plan.settings(&settings).manifest("all.yaml", &manifests.concat()).start();
    let root = pebble.root();
    let answer = get(&gateway, "may.example.test", &root);
    assert_eq!((answer.status, answer.backend().as_str()), (200, "web"), "{answer:?}\n{}", gateway.log());
    let first = leaf(&gateway, "may.example.test");
    assert!(first.is_some() && first == leaf(&gateway, "MAY.example.test"), "it is ordered once");
    assert!(leaf(&gateway, "not.example.test").is_none(), "{}", gateway.log());
    assert!(gateway.metric("limani_tls_handshakes_total", "no_certificate") >= 1.0, "{}", gateway.metrics());
}

/// The files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_gateway_has_its_certificates_by_tls_alpn_01_for_every_host_of_a_server() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).environment("PEBBLE_WFE_NONCEREJECT", "50").start() else {
        return;
    };
    let manifests = [
        gateway("edge", "a.example.test, b.example.test", "acme://"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/edge", "web", "*.example.test", &all_to("web.test")),
    ];
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, "challenges = [\"tls-alpn-01\"]");
    let gateway = plan.settings(&settings).manifest("all.yaml", &manifests.concat()).start();
    let root = pebble.root();
    for host in ["a.example.test", "b.example.test"] {
        assert_eq!(until_served(&gateway, host, &root).backend(), "web");
    }
    assert!(!pebble.log().contains("validate w/ HTTP"), "{}", pebble.log());
    assert!(gateway.metric("limani_acme_challenges_answered_total", "tls-alpn-01") >= 2.0, "{}", gateway.metrics());
}

#[test]
fn http_01_is_answered_where_everything_else_is_sent_to_https() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let redirecting = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: plain, namespace: istio-system }
spec:
  selector: { istio: ingressgateway }
  servers:
  - port: { number: 80, name: http, protocol: HTTP }
    hosts: [\"*\"]
    tls: { httpsRedirect: true }
";
    let manifests = [
        redirecting.to_owned(),
        gateway("edge", "web.example.test", "acme://pebble"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/edge", "web", "web.example.test", &all_to("web.test")),
    ];
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, "challenges = [\"http-01\"]");
    let gateway = plan.settings(&settings).manifest("all.yaml", &manifests.concat()).start();
    until_served(&gateway, "web.example.test", &pebble.root());
    assert_eq!(gateway.get("web.example.test", "/").status, 301);
}

/// A Gateway for all names whose certificate is the Secret `site-tls`.
fn site(web: &Backend) -> String {
    let parts = [
        gateway("edge", "\"*\"", "site-tls"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/edge", "web", "*", &all_to("web.test")),
    ];
    parts.concat()
}

#[test]
fn a_certificate_may_be_for_an_address_and_several_names() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let address = plan.address();
    for (challenge, kind) in [("http-01", "ecdsa-p256"), ("tls-alpn-01", "rsa-2048")] {
        let plan = Plan::at(address).manifest("site.yaml", &site(&web));
        let certificate = format!(
            "[[acme.certificate]]\nsecret = \"site-tls\"\nidentifiers = [\"{address}\", \"web.example.test\"]\n\
             key = \"{kind}\"\n"
        );
        let only = format!("challenges = [\"{challenge}\"]");
        let settings = issuer("pebble", &pebble.directory, &pebble.api_root, &only) + &certificate;
        // Port 80 is opened for challenges where no server has it.
        let gateway = plan.settings(&settings).start();
        let (root, by_address) = (pebble.root(), address.to_string());
        until_served(&gateway, "web.example.test", &root);
        let url = format!("https://{by_address}:{HTTPS}/");
        assert_eq!(crate::support::curl::curl(&url, &["--cacert", &root]).status, 200, "{challenge}");
        let is_rsa = leaf(&gateway, "web.example.test").expect("it is served").key().len() > 200;
        assert_eq!(is_rsa, kind == "rsa-2048");
    }
}

#[test]
fn a_ca_that_wants_a_known_account_gets_its_key() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let Some(pebble) = PebblePlan::new(plan.address()).external_account("kid-1", hmac).start() else { return };
    let address = plan.address();

    let refused = Plan::at(address)
        .settings(&issuer("pebble", &pebble.directory, &pebble.api_root, ""))
        .settings(&route("web.example.test", web.address))
        .start();
    let line = refused.wait_for_log(|line| line.contains("was not issued") && line.contains("xternal"));
    assert!(!line.contains(hmac));
    assert!(leaf(&refused, "web.example.test").is_none(), "there is nothing to serve");
    drop(refused);

    let plan = Plan::at(address);
    fs::write(plan.folder().join("hmac"), hmac).unwrap();
    let with_key = "eab = { key_id = \"kid-1\", hmac_file = \"hmac\" }";
    let gateway = plan
        .settings(&issuer("pebble", &pebble.directory, &pebble.api_root, with_key))
        .settings(&route("web.example.test", web.address))
        .start();
    until_served(&gateway, "web.example.test", &pebble.root());
    assert!(!gateway.log().contains(hmac));
}

#[test]
fn a_profile_decides_how_long_a_certificate_lives() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let profiles = [("default", 90 * 86_400), ("week", 6 * 86_400)];
    let Some(pebble) = PebblePlan::new(plan.address()).profiles(&profiles).start() else { return };
    if !pebble.is_recent() {
        return;
    }
    let gateway = plan
        .settings(&issuer("pebble", &pebble.directory, &pebble.api_root, "profile = \"week\""))
        .settings(&route("web.example.test", web.address))
        .start();
    until_served(&gateway, "web.example.test", &pebble.root());
    let leaf = leaf(&gateway, "web.example.test").expect("it is served");
    assert!((5 * 86_400..7 * 86_400).contains(&leaf.validity()), "{}", leaf.validity());
}

#[test]
fn the_next_issuer_is_asked_when_the_first_cannot_be_reached() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let nobody = format!("https://{}/dir", crate::support::backend::nobody());
    let gateway = plan
        .settings(&issuer("gone", &nobody, &pebble.api_root, ""))
        .settings(&issuer("pebble", &pebble.directory, &pebble.api_root, ""))
        .settings(&route("web.example.test", web.address))
        .start();
    until_served(&gateway, "web.example.test", &pebble.root());
    assert!(gateway.log().contains("gone"), "{}", gateway.log());
}

#[test]
fn another_ca_is_as_good() {
    let web = Backend::http1("web");
    let Some(caddy) = Caddy::start() else { return };
    let address = address::fresh();
    if !may_bind_low_ports(address) {
        return tool::skip("Caddy looks for challenges at port 80 and 443, which only root may bind");
    }
    for challenge in ["http-01", "tls-alpn-01"] {
        let certificate = format!("[[acme.certificate]]\nsecret = \"site-tls\"\nidentifiers = [\"{address}\"]\n");
        let only = format!("challenges = [\"{challenge}\"]");
        let plan = Plan::at(address).real_ports().manifest("site.yaml", &site(&web));
        let settings = issuer("caddy", &caddy.directory, &caddy.root, &only) + &certificate;
        let gateway = plan.settings(&settings).start();
        let root = caddy.root.to_string_lossy();
        let url = format!("https://{address}/");
        let served = until(|| {
            Some(crate::support::curl::curl(&url, &["--cacert", &root])).filter(|answer| answer.status == 200)
        });
        assert!(served.is_some(), "{challenge}: {}", gateway.log());
    }
}

fn may_bind_low_ports(address: Ipv4Addr) -> bool {
    TcpListener::bind((address, 80)).is_ok()
}

#[test]
fn a_name_that_cannot_be_proven_leaves_the_others_alone() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    pebble.break_name("lost.example.test");
    let gateway = plan
        .settings(&issuer("pebble", &pebble.directory, &pebble.api_root, ""))
        .settings(&route("lost.example.test", web.address))
        .settings(&route("web.example.test", web.address))
        .start();
    let root = pebble.root();
    until_served(&gateway, "web.example.test", &root);
    let line = gateway.wait_for_log(|line| line.contains("lost.example.test") && line.contains("was not issued"));
    assert!(!line.contains("panicked"), "{line}");
    assert_eq!(get(&gateway, "lost.example.test", &root).status, 0);
    assert_eq!(get(&gateway, "web.example.test", &root).status, 200);
}
