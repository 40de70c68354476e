//! The commands: their answers and their exit codes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, TestGateway, limani};
use crate::support::manifests::{http_gateway, route, service, simple};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn run(arguments: &[&str]) -> (i32, String) {
    let output = limani().args(arguments).output().expect("the command runs");
    (output.status.code().unwrap_or(-1), told(&output))
}

#[test]
fn check_tells_findings_with_their_place_and_ends_accordingly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    let file = folder.path().join("all.yaml");
    let good = simple("web.test", ([127, 0, 0, 1], 9).into());
    let cases = [
        (good.clone(), 0, 0, ""),
        (good.replace("host: web.test", "host: nowhere.test"), 0, 1, "nowhere.test"),
        (good.replace("hosts: [\"*\"]", "hosts: 5"), 2, 2, "all.yaml:"),
        (format!("{good}---\nkind: [\n"), 2, 2, "all.yaml:"),
    ];
    for (text, plain, strict, expected) in cases {
        fs::write(&file, &text).unwrap();
        let (code, said) = run(&["check", &path]);
        let errors_or = if code == 2 { 2 } else { plain };
        assert_eq!(code, errors_or, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(run(&["check", "--strict", &path]).0 >= strict, "{text}");
    }
    let (code, json) = run(&["check", "--format", "json", &path]);
    assert_eq!(code, 2, "{json}");
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("the findings are JSON");
    assert!(parsed.to_string().contains("\"severity\":\"error\""), "{json}");
}

#[test]
fn check_writes_sarif_for_code_scanning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    let good = simple("web.test", ([127, 0, 0, 1], 9).into());
    fs::write(&file, good.replace("hosts: [\"*\"]", "hosts: 5")).unwrap();
    let (code, said) = run(&["check", "--format", "sarif", &folder.path().to_string_lossy()]);
    assert_eq!(code, 2, "{said}");
    let log: serde_json::Value = serde_json::from_str(&said).expect("the log is JSON");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("the run has rules");
    assert_eq!(run["tool"]["driver"]["name"], "limani");
    for rule in rules {
        assert!(rule["shortDescription"]["text"].is_string() && rule["help"]["text"].is_string(), "{rule}");
    }
    let results = run["results"].as_array().expect("the run has results");
    assert!(results.iter().any(|result| result["level"] == "error"), "{said}");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("a result names its rule")).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"], "{result}");
        assert!(result["message"]["text"].is_string(), "{result}");
        assert!(result["partialFingerprints"].is_object(), "{result}");
        let place = &result["locations"][0]["physicalLocation"];
        assert!(place["artifactLocation"]["uri"].as_str().is_some_and(|uri| uri.ends_with("all.yaml")), "{result}");
        assert!(place["region"]["startLine"].as_u64().is_some_and(|line| line > 0), "{result}");
    }
}

#[test]
fn explain_shows_the_rule_that_wins_and_why_the_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "\
- name: beta
  match: [{ uri: { prefix: /shop }, headers: { x-group: { exact: beta } } }]
  route: [{ destination: { host: beta.test } }]
- name: rest
  route: [{ destination: { host: web.test } }]";
    let endpoint = ([127, 0, 0, 1], 9).into();
    let manifests = [
        http_gateway(),
        service("web.test", endpoint, "HTTP"),
        service("beta.test", endpoint, "HTTP"),
        route("shop", "shop.test", rules),
    ];
    fs::write(folder.path().join("all.yaml"), manifests.concat()).unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    let url = "http://shop.test:8080/shop";
    let (code, said) = run(&["explain", "GET", url, &path]);
    assert_eq!(code, 0, "{said}");
    for expected in ["shop.test", "rest", "outbound|80||web.test", "x-group"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (_, said) = run(&["explain", "GET", url, "-H", "x-group: beta", &path]);
    assert!(said.contains("outbound|80||beta.test"), "{said}");
}

#[test]
fn explain_follows_a_workload_into_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = "\
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { clusterIP: 10.0.0.1, ports: [{ name: http, port: 9080 }] }
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: shop }
spec:
  hosts: [reviews]
  http:
  - { name: beta, match: [{ sourceLabels: { app: beta } }], route: [{ destination: { host: beta.test } }] }
  - { name: rest, route: [{ destination: { host: reviews } }] }
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: { name: default, namespace: shop }
spec: { egress: [{ hosts: [./*] }], outboundTrafficPolicy: { mode: REGISTRY_ONLY } }
";
    fs::write(folder.path().join("all.yaml"), manifests).unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    for (sidecar, url, expected) in [
        ("shop", "http://reviews:9080/", "outbound|9080||reviews.shop.svc.cluster.local"),
        ("shop/app=beta", "http://reviews.shop:9080/", "outbound|9080||beta.test"),
        ("shop", "http://unknown:9080/", "502"),
        ("bank", "http://unknown:9080/", "PassthroughCluster"),
    ] {
        let (code, said) = run(&["explain", "GET", url, "--sidecar", sidecar, &path]);
        assert!(code == 0 && said.contains(expected), "{sidecar} {url}: {said}");
    }
}

#[test]
fn a_running_gateway_can_be_asked() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    for (command, expected) in [("status", "generation"), ("routes", "web.test")] {
        let output = gateway.command(&[command]);
        assert!(output.status.success() && told(&output).contains(expected), "{command}: {}", told(&output));
    }
    assert!(gateway.command(&["certs"]).status.success());
    let nobody = limani().args(["reload", "--wait", "--admin", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2), "{}", told(&nobody));
}

#[test]
fn lines_of_toml_are_enough_for_a_reverse_proxy() {
    let (web, api) = (Backend::http1("web"), Backend::http1("api"));
    let settings = format!(
        "
[[route]]
host = \"app.test\"
path = \"/api\"
to = \"http://{}\"
[[route]]
host = \"app.test\"
to = \"http://{}\"
",
        api.address, web.address
    );
    let gateway = Plan::new().settings(&settings).start();
    assert_eq!(gateway.get("app.test", "/").backend(), "web");
    assert_eq!(gateway.get("app.test", "/api/x").backend(), "api");
}

#[test]
fn a_start_that_cannot_be_is_told_clearly() {
    let plan = Plan::new();
    let taken = TcpListener::bind((plan.address(), 15000)).unwrap();
    let output = plan.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("15000"), "the port is named: {}", told(&output));
    drop(taken);
    let output = Plan::new().settings("[http]\nhead_timeout = 5\nnonsense = true\n").command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("limani.toml"), "{}", told(&output));
    let (code, said) = run(&["run", "-c", "/nowhere/limani.toml"]);
    assert!(code != 0 && said.contains("/nowhere/limani.toml"), "{said}");
}

#[test]
fn every_sample_is_accepted_as_it_is() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if !samples.exists() {
        return println!("skipped: the samples are not here");
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("limani.toml");
    fs::write(&settings, "[source.variables]\nINGRESS_DOMAIN = \"example.com\"\n").unwrap();
    let output = limani()
        .args(["check", "--format", "json", "-c"])
        .arg(&settings)
        .arg(samples.join("tutorial"))
        .output()
        .expect("the command runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the findings are JSON");
    // The services behind the samples are not part of them; nothing else is wrong.
    let is_about_a_service = |finding: &serde_json::Value| {
        ["IST0101", "IST0174"].contains(&finding["code"].as_str().unwrap_or_default())
            && finding["message"].as_str().unwrap_or_default().contains("no Service or ServiceEntry")
    };
    for finding in report["findings"].as_array().expect("a list") {
        assert!(finding["severity"] == "info" || is_about_a_service(finding), "{finding}");
    }
}
