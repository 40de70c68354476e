//! Names that are proven by DNS records: written by a program, over HTTP, by signed updates, or once by the operator.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::support::address;
use crate::support::backend::{Backend, nobody};
use crate::support::gateway::{Plan, TestGateway, limani};
use crate::support::issued::{gateway, get, issuer, until, until_served};
use crate::support::knot::Knot;
use crate::support::manifests::{all_to, route_on, service};
use crate::support::pebble::{Pebble, PebblePlan};

/// A Gateway for `*.example.test`, whose certificate is got by ACME.
fn wildcard(web: &Backend) -> String {
    let parts = [
        gateway("edge", "\"*.example.test\"", "acme://"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/edge", "web", "*.example.test", &all_to("web.test")),
    ];
    parts.concat()
}

fn start(plan: Plan, pebble: &Pebble, web: &Backend, more: &str) -> TestGateway {
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, more);
    plan.settings(&settings).manifest("wildcard.yaml", &wildcard(web)).start()
}

/// One certificate serves all names of the wildcard, and no other.
fn serves_all_names(gateway: &TestGateway, pebble: &Pebble) {
    let root = pebble.root();
    until_served(gateway, "one.example.test", &root);
    assert_eq!(get(gateway, "two.example.test", &root).status, 200);
    assert_eq!(get(gateway, "a.b.example.test", &root).status, 0);
    assert_eq!(pebble.issued(), 1);
}

/// An executable file for the gateway.
fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("a program is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it may be run");
}

#[test]
fn a_program_may_write_the_records() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let script = format!(
        "#!/bin/sh\necho \"$1 $2\" >> '{}/calls'\n\
         case $1 in present) verb=set-txt ;; *) verb=clear-txt ;; esac\n\
         exec curl -sf --noproxy '*' -d \"{{\\\"host\\\":\\\"${{2%.}}.\\\",\\\"value\\\":\\\"$3\\\"}}\" {}/$verb\n",
        plan.folder().display(),
        pebble.dns_management()
    );
    program(plan.folder(), "records.sh", &script);
    let gateway = start(plan, &pebble, &web, "challenges = [\"dns-01\"]\ndns = { exec = \"records.sh\" }");
    serves_all_names(&gateway, &pebble);
    let calls = || fs::read_to_string(gateway.folder().join("calls")).unwrap_or_default();
    let cleaned = until(|| calls().contains("cleanup _acme-challenge.example.test").then_some(()));
    assert!(cleaned.is_some() && calls().contains("present _acme-challenge.example.test"), "{}", calls());
}

#[test]
fn a_web_service_may_write_the_records() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    let calls = Arc::new(Mutex::new(Vec::<serde_json::Value>::new()));
    let (seen, management) = (Arc::clone(&calls), pebble.dns_management());
    let hook = Backend::posted("hook", move |body| {
        let verb = if body["action"] == "present" { "set-txt" } else { "clear-txt" };
        let name = body["name"].as_str().unwrap_or_default().trim_end_matches('.');
        let record = serde_json::json!({"host": format!("{name}."), "value": body["value"]}).to_string();
        let answer = crate::support::curl::curl(&format!("{management}/{verb}"), &["--data-binary", &record]);
        seen.lock().unwrap().push(body);
        answer.status
    });
    let solver = format!("challenges = [\"dns-01\"]\ndns = {{ webhook = \"http://{}/dns\" }}", hook.address);
    let gateway = start(plan, &pebble, &web, &solver);
    serves_all_names(&gateway, &pebble);
    let cleaned = until(|| calls.lock().unwrap().iter().any(|call| call["action"] == "cleanup").then_some(()));
    assert!(cleaned.is_some(), "{calls:?}");
}

#[test]
fn signed_updates_may_write_the_records() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(knot) = Knot::start("example.test", plan.address()) else { return };
    let Some(pebble) = PebblePlan::new(plan.address()).resolver(knot.address).start() else { return };
    fs::write(plan.folder().join("tsig"), knot.secret).unwrap();
    let solver = format!(
        "challenges = [\"dns-01\"]\n\
         dns = {{ rfc2136 = {{ server = \"{}\", key = {{ name = \"limani\", secret_file = \"tsig\" }} }} }}",
        knot.address
    );
    let gateway = start(plan, &pebble, &web, &solver);
    serves_all_names(&gateway, &pebble);
    // What was written is taken away again, and nothing else.
    let cleaned = until(|| (!knot.records().contains("_acme-challenge")).then_some(()));
    assert!(cleaned.is_some(), "{}", knot.records());
    assert!(knot.records().contains("*.example.test. 60 A"), "{}", knot.records());
}

#[test]
fn a_name_server_that_refuses_or_is_gone_is_told() {
    let (web, address) = (Backend::http1("web"), address::fresh());
    let Some(knot) = Knot::start("example.test", address) else { return };
    let Some(pebble) = PebblePlan::new(address).resolver(knot.address).start() else { return };
    for server in [knot.address, nobody()] {
        let plan = Plan::at(address);
        fs::write(plan.folder().join("tsig"), "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmc=").unwrap();
        let solver = format!(
            "challenges = [\"dns-01\"]\n\
             dns = {{ rfc2136 = {{ server = \"{server}\", zone = \"example.test\", \
             key = {{ name = \"limani\", secret_file = \"tsig\" }} }} }}"
        );
        let gateway = start(plan, &pebble, &web, &solver);
        let line = gateway.wait_for_log(|line| line.contains("was not issued") && line.contains("example.test"));
        assert!(line.contains(&server.to_string()), "{line}");
        assert!(!gateway.log().contains("d3Jvbmct"));
    }
    assert_eq!((pebble.issued(), knot.updates()), (0, 0));
}

#[test]
fn a_record_that_stays_proves_a_wildcard_without_keys_to_the_dns() {
    let (web, plan) = (Backend::http1("web"), Plan::new());
    let Some(pebble) = PebblePlan::new(plan.address()).start() else { return };
    if !pebble.is_recent() {
        return;
    }
    let settings = issuer("pebble", &pebble.directory, &pebble.api_root, "challenges = [\"dns-persist-01\"]");
    let plan = plan.settings(&settings).manifest("wildcard.yaml", &wildcard(&web));
    // Before anything runs, the operator asks for the record, which names the account.
    let file = plan.write_settings();
    let output = limani().args(["acme", "dns-record", "*.example.test", "-c"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("_validation-persist.example.test"), "{text}");
    let value = text.split('"').find(|part| part.contains("accounturi=")).expect("the record's value is quoted");
    assert!(value.contains("policy=wildcard"), "{value}");
    pebble.add_txt("_validation-persist.example.test", value);
    serves_all_names(&plan.start(), &pebble);
}
