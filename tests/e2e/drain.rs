//! SIGTERM: not ready any more, clients are told to go, requests in flight finish.

use std::io::Write;

use crate::support::backend::Backend;
use crate::support::gateway::{Plan, until};
use crate::support::manifests::simple;
use crate::support::raw;

#[test]
fn requests_in_flight_finish() {
    let web = Backend::http1("web");
    let mut gateway = Plan::new().manifest("all.yaml", &simple("web.test", web.address)).start();
    std::thread::scope(|threads| {
        let (http1, http2) = (
            threads.spawn(|| gateway.get("web.test", "/gate")),
            threads.spawn(|| gateway.curl("web.test", "/gate", &["--http2-prior-knowledge"])),
        );
        until(|| (web.requests() == 2).then_some(())).expect("both are in flight");
        gateway.signal("TERM");
        until(|| (gateway.get("web.test", "/").exit == 7).then_some(())).expect("the port is closed");
        web.open_gate();
        for request in [http1, http2] {
            let answer = request.join().unwrap();
            assert_eq!((answer.exit, answer.body.as_str()), (0, "first\nlast\n"), "{answer:?}");
        }
    });
    assert!(gateway.ended().success(), "{}", gateway.log());
    assert_eq!(gateway.access_log().lines().filter(|line| line.contains("/gate")).count(), 2, "the log is complete");
}

#[test]
fn load_balancers_are_given_time() {
    let web = Backend::http1("web");
    let mut gateway = Plan::new().grace("20s").manifest("all.yaml", &simple("web.test", web.address)).start();
    let mut kept = raw::connect(gateway.http());
    let request = b"GET /status/200 HTTP/1.1\r\nhost: web.test\r\n\r\n";
    kept.write_all(request).unwrap();
    assert!(!raw::read_answer(&mut kept).to_ascii_lowercase().contains("connection: close"));
    gateway.signal("TERM");
    until(|| (gateway.readiness() == 503).then_some(())).expect("it is not ready any more");
    let answer = gateway.get("web.test", "/status/200");
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "new ones are served, and told to go");
    // An idle connection may be closed at once or at its next request; both are fair.
    let _ = kept.write_all(request);
    let (text, closed) = raw::read_to_end(&mut kept);
    assert!(closed && (text.is_empty() || text.to_ascii_lowercase().contains("connection: close")), "{text}");
    gateway.signal("TERM");
    gateway.ended();
}
