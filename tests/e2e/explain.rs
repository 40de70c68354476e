//! `limani explain` against files, against the running gateway, and for a request that was served.

use std::fs;

use crate::support::backend::Backend;
use crate::support::gateway::{TestGateway, limani};
use crate::support::manifests::{http_gateway, route, service};

const RULES: &str = "\
- name: beta
  match: [{ method: { exact: POST }, headers: { x-group: { exact: beta } } }]
  route: [{ destination: { host: web.test } }]
- name: member
  match: [{ headers: { cookie: { regex: '.*member=yes.*' } } }]
  route: [{ destination: { host: web.test } }]
- name: rest
  route: [{ destination: { host: web.test } }]";

fn manifests(web: &Backend, rules: &str) -> String {
    [http_gateway(), service("web.test", web.address, "HTTP"), route("shop", "shop.test", rules)].concat()
}

fn said(gateway: &TestGateway, arguments: &[&str]) -> String {
    let output = gateway.command(&[&["explain"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn files_tell_the_smallest_change() {
    let web = Backend::http1("web");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), manifests(&web, RULES)).unwrap();
    let explain = |arguments: &[&str]| {
        let output = limani().arg("explain").args(arguments).arg(folder.path()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = explain(&["GET", "http://shop.test:8080/", "-H", "x-group: alpha"]);
    let expected = "method is \"GET\" (wanted: exactly \"POST\"); method POST with x-group: beta would match";
    assert!(told.contains(expected), "{told}");
    let told = explain(&["GET", "http://shp.test:8080/"]);
    assert!(told.contains("host shop.test would be served"), "{told}");
    let told = explain(&["GET", "http://shop.test:8081/"]);
    assert!(told.contains("port 8080 is bound"), "{told}");
    let told = explain(&["POST", "http://shop.test:8080/", "--format", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["rules"][0]["miss"]["subject"], "header x-group");
    assert_eq!(told["rules"][0]["changes"][0]["value"], "beta");
}

#[test]
fn the_running_gateway_tells_what_is_in_force() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&manifests(&web, RULES));
    let told = said(&gateway, &["--running", "POST", "http://shop.test:8080/x", "-H", "x-group: beta"]);
    assert!(told.contains("-> ") && told.contains("outbound|80||web.test"), "{told}");
    let told = said(&gateway, &["--running", "--format", "json", "GET", "http://shop.test:8080/x"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["rules"][2]["chosen"], &told["generation"]), (&true.into(), &gateway.generation().into()));
    let wrong = gateway.command(&["explain", "--running", "GET", "shop.test"]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("no scheme"), "{wrong:?}");
}

#[test]
fn a_request_that_was_served_can_be_asked_about() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&manifests(&web, RULES));
    gateway.curl("shop.test", "/one?q=1", &["-H", "cookie: session=secret; member=yes", "-H", "x-other: private"]);
    let line = gateway.access_record(|line| line["path"] == "/one?q=1");
    let id = line["request_id"].as_str().expect("an id");
    let told = said(&gateway, &["--request-id", id]);
    for expected in
        ["status        200", "http[1].match[0]", "the same configuration", "outbound|80||web.test", "/one?q=1"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    gateway.write("all.yaml", &manifests(&web, &RULES.replace("member=yes", "member=gold")));
    assert_eq!(gateway.reload_wait().0, 0);
    let told = said(&gateway, &["--request-id", id]);
    assert!(told.contains("now (generation 2)") && told.contains("-> VirtualService default/shop http[2]"), "{told}");
    assert!(told.contains("header cookie is \"(hidden)\""), "{told}");
    assert!(!told.contains("secret") && !told.contains("private"), "{told}");
    let unknown = gateway.command(&["explain", "--request-id", "none"]);
    assert!(
        !unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no request"),
        "{unknown:?}"
    );
}
