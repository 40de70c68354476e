//! A CA that refuses, limits, lies, forgets or takes its time: what was served goes on, and nobody is asked too often.

use crate::support::backend::Backend;
use crate::support::ca::{Ca, Door, Reply};
use crate::support::gateway::Plan;
use crate::support::issued::{get, issuer, leaf, route, until, until_served};

const HOST: &str = "web.example.test";

fn site(ca: &Ca, web: &Backend) -> Plan {
    Plan::new().settings(&issuer("ca", &ca.directory, &ca.root, "")).settings(&route(HOST, web.address))
}

#[test]
fn faults_of_a_ca_are_told_and_the_next_issuer_is_asked() {
    let limited = || Reply::problem(429, "rateLimited", "too many certificates").with("retry-after", "7200");
    let page = || Reply::new(200, "<html>maintenance</html>").with("content-type", "text/html");
    for (what, door, reply) in [
        ("429", Door::NewOrder, limited()),
        ("500", Door::NewOrder, Reply::new(500, "")),
        ("503 of the directory", Door::Directory, Reply::new(503, "down").with("retry-after", "60")),
        ("a page for people", Door::Directory, page()),
        ("nothing", Door::NewAccount, Reply::new(200, "")),
        ("half an order", Door::NewOrder, Reply::new(201, "{\"status\":")),
        ("no certificate", Door::Certificate, Reply::new(200, "-----BEGIN CERTIFICATE-----\nAAAA\n")),
        ("a forbidden name", Door::NewOrder, Reply::problem(403, "rejectedIdentifier", "this name is not for you")),
    ] {
        let (web, bad, good) = (Backend::http1("web"), Ca::new(), Ca::new());
        bad.script(door, vec![reply; 20]);
        let gateway = site(&bad, &web).settings(&issuer("second", &good.directory, &good.root, "")).start();
        until_served(&gateway, HOST, &good.root());
        assert!(gateway.log().contains(" WARN "), "{what}: {}", gateway.log());
        assert!(!gateway.log().contains("panicked"), "{what}: {}", gateway.log());
        assert!(bad.asked(door).len() < 6, "{what}: {:?}", bad.asked(door));
    }
}

#[test]
fn a_limit_is_remembered_over_a_restart() {
    let (web, ca) = (Backend::http1("web"), Ca::new());
    ca.script(Door::NewOrder, [Reply::problem(429, "rateLimited", "too many").with("retry-after", "7200")]);
    let mut gateway = site(&ca, &web).start();
    gateway.wait_for_log(|line| line.contains("was not issued") && line.contains("too many"));
    gateway.kill();
    gateway.spawn_again();
    gateway.wait_until_ready();
    // What is looked at is whether it begins at all: it has read its state when it tells when it will try again.
    gateway.wait_for_log(|line| line.contains(HOST));
    assert_eq!(ca.asked(Door::NewOrder).len(), 1, "{}", gateway.log());
    assert!(leaf(&gateway, HOST).is_none());
}

#[test]
fn what_is_served_goes_on_while_renewals_fail() {
    let (web, ca) = (Backend::http1("web"), Ca::new().renewed_early(1));
    ca.script_after(Door::NewOrder, 1, Reply::new(500, ""));
    let gateway = site(&ca, &web).start();
    until_served(&gateway, HOST, &ca.root());
    gateway.wait_for_log(|line| line.contains("was not issued") && line.contains(HOST));
    assert_eq!(get(&gateway, HOST, &ca.root()).status, 200);
}

#[test]
fn a_certificate_that_was_replaced_by_somebody_else_is_ordered_without_naming_it() {
    let (web, ca) = (Backend::http1("web"), Ca::new().renewed_early(1));
    ca.script_after(Door::NewOrder, 1, Reply::problem(409, "alreadyReplaced", "somebody was faster"));
    let gateway = site(&ca, &web).start();
    assert!(until(|| (ca.issued() == 2).then_some(())).is_some(), "{}", gateway.log());
    let orders = ca.asked(Door::NewOrder);
    assert!(orders[1]["replaces"].is_string() && orders[2]["replaces"].is_null(), "{orders:?}");
}

#[test]
fn a_slow_ca_and_a_forgotten_account_are_no_trouble() {
    let (web, ca) = (Backend::http1("web"), Ca::new().slow(2));
    let mut gateway = site(&ca, &web).start();
    until_served(&gateway, HOST, &ca.root());
    gateway.kill();
    ca.forget_accounts();
    std::fs::remove_dir_all(gateway.folder().join("acme/hosts")).unwrap();
    gateway.spawn_again();
    gateway.wait_until_ready();
    until_served(&gateway, HOST, &ca.root());
    assert!(ca.asked(Door::NewAccount).len() >= 2);
}
