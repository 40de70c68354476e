//! What operators ask a running gateway, and what it tells on its own.

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, TestGateway, until};
use crate::support::manifests::simple;

#[test]
fn the_admin_port_answers_and_wrong_questions_are_refused() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    assert_eq!(gateway.readiness(), 200);
    let status = gateway.admin("/status").json();
    assert_eq!(status["generation"], 1);
    assert!(status["listeners"].to_string().contains(&gateway.http().to_string()), "{status}");
    for path in ["/config_dump", "/routes"] {
        let answer = gateway.admin(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains("web.test"), "{path}: {}", answer.body);
    }
    for (path, status) in [("/", 200), ("/certs", 200), ("/logging", 200), ("/nothing", 404), ("/reload", 405)] {
        assert_eq!(gateway.admin(path).status, status, "{path}");
    }
    assert_eq!(gateway.admin_post("/logging?level=debug").status, 200);
    assert!(gateway.admin("/logging").body.contains("debug"));
    assert_eq!(gateway.admin_post("/logging?level=limani=nonsense").status, 400);
    let elsewhere = format!("http://{}/status", gateway.socket(15000));
    let rebound = crate::support::curl::curl(&elsewhere, &["-H", "host: evil.example.com"]);
    assert_ne!(rebound.status, 200, "a foreign name is no way in");
}

#[test]
fn requests_are_counted_with_istios_labels() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    for path in ["/", "/", "/status/500"] {
        gateway.get("web.test", path);
    }
    gateway.get("no.test", "/");
    let ok = r#"destination_service="web.test",destination_canonical_service="unknown""#;
    let counted = |labels: &str| until(|| Some(gateway.metric("istio_requests_total", labels)).filter(|n| *n > 0.0));
    assert_eq!(counted(r#"response_code="500""#), Some(1.0));
    assert_eq!(counted(r#"response_code="404",grpc_response_status="",response_flags="NR""#), Some(1.0));
    assert_eq!(counted(ok), Some(3.0), "{}", gateway.metrics());
    assert_eq!(gateway.metric("istio_response_bytes_count", ""), 4.0);
    assert!(gateway.metric("istio_request_bytes_sum", r#"response_code="200""#) > 100.0);
    assert_eq!(gateway.metric("istio_build", r#"component="proxy""#), 1.0);
    assert!(gateway.metric("limani_downstream_connections_total", &gateway.http().to_string()) >= 4.0);
}

#[test]
fn the_access_log_is_envoys_and_can_be_rotated() {
    let web = Backend::http1("web");
    let plan = Plan::new().access_log("text").manifest("all.yaml", &simple("web.test", web.address));
    let gateway = plan.start();
    gateway.curl("web.test", "/a?b=c", &["-A", "tester"]);
    let line = until(|| gateway.access_log().lines().next().map(str::to_owned)).expect("a line is written");
    assert!(
        line.starts_with('[') && line.contains("Z] \"GET /a?b=c HTTP/1.1\" 200 - via_upstream - \"-\" 0 "),
        "{line}"
    );
    assert!(line.contains("\"tester\""), "{line}");
    let cluster = format!("\"web.test\" \"{}\" outbound|80||web.test ", web.address);
    assert!(line.contains(&cluster), "{line}");
    assert!(line.ends_with(" - -"), "no server name, no route name: {line}");
    let log = gateway.folder().join("access.log");
    std::fs::rename(&log, gateway.folder().join("access.log.1")).unwrap();
    gateway.signal("HUP");
    until(|| log.exists().then_some(())).expect("the log is opened again");
    gateway.get("web.test", "/after");
    until(|| gateway.access_log().contains("/after").then_some(())).expect("lines go to the new file");
}
