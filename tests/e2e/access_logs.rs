//! Access logs as MeshConfig and Telemetry ask for them: formats, filters, several files, rotation.

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::simple;

const MESH: &str = r#"
accessLogFile: /dev/stdout
accessLogEncoding: JSON
accessLogFormat: '{"path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%", "in": {"team": "%REQ(X-TEAM):3%", "type": "%RESP(CONTENT-TYPE)%"}, "both": "%PROTOCOL% %REQ(X-NONE)%"}'
extensionProviders:
- name: errors
  envoyFileAccessLog: { path: FOLDER/errors.log, logFormat: { text: "%RESPONSE_CODE% %REQ(:PATH)%" } }
"#;

fn telemetry(entries: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{ name: logs, namespace: istio-system }}
spec:
  accessLogging: {entries}
"
    )
}

fn last_line(gateway: &TestGateway, path: &str) -> String {
    until(|| gateway.access_log().lines().find(|line| line.contains(path)).map(str::to_owned))
        .expect("a line is written")
}

#[test]
fn telemetry_chooses_filters_and_turns_off_and_rotated_files_are_let_go() {
    let web = Backend::http1("web");
    let plan = Plan::new().manifest("all.yaml", &simple("web.test", web.address));
    let mesh = MESH.replace("FOLDER", &plan.folder().display().to_string());
    let gateway = plan.mesh(&mesh).start();

    gateway.curl("web.test", "/first", &["-H", "x-team: abcdef"]);
    let line: Value = serde_json::from_str(&last_line(&gateway, "/first")).expect("the line is JSON");
    assert_eq!((&line["code"], &line["both"]), (&Value::from(200), &Value::from("HTTP/1.1 -")));
    assert_eq!(line["in"]["team"], "abc");

    let errors = "[{ providers: [{ name: errors }], filter: { expression: 'response.code >= 400' } }]";
    gateway.write("logs.yaml", &telemetry(errors));
    gateway.reload();
    gateway.get("web.test", "/fine");
    gateway.get("other.test", "/missing");
    let file = gateway.folder().join("errors.log");
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    until(|| (written() == "404 /missing\n").then_some(())).expect("errors alone are written");

    std::fs::rename(&file, gateway.folder().join("errors.log.1")).unwrap();
    gateway.signal("HUP");
    until(|| file.exists().then_some(())).expect("the log is opened again");
    gateway.get("other.test", "/again");
    until(|| (written() == "404 /again\n").then_some(())).expect("lines go to the new file");

    gateway.write("logs.yaml", &telemetry("[{ providers: [{ name: envoy }], disabled: true }]"));
    gateway.reload();
    gateway.get("other.test", "/unseen");
    gateway.remove("logs.yaml");
    gateway.reload();
    gateway.get("web.test", "/last");
    last_line(&gateway, "/last");
    assert!(!gateway.access_log().contains("/unseen") && !written().contains("/unseen"));
    assert!(!gateway.access_log().contains("/fine"), "{}", gateway.access_log());
}
