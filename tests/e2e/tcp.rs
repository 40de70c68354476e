//! What is not HTTP: bytes both ways, TLS that is passed on untouched, and connections that outlive a reload.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::support::backend::Backend;
use crate::support::certificate::Authority;
use crate::support::gateway::{HTTPS, Plan, TestGateway, limani, until};
use crate::support::manifests::service;
use crate::support::raw;

const PORT: u16 = 9000;

fn tcp_gateway(port: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: raw, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {port}, name: tcp, protocol: TCP }}
    hosts: ['*']
"
    )
}

fn tcp_route(host: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: raw, namespace: default }}
spec:
  hosts: ['*']
  gateways: [istio-system/raw]
  tcp: [{{ route: [{{ destination: {{ host: {host} }} }}] }}]
"
    )
}

/// A gateway in front of one echo.
fn echoing(backend: &Backend) -> TestGateway {
    let manifests = [tcp_gateway(PORT), service("echo.test", backend.address, "TCP"), tcp_route("echo.test")];
    TestGateway::with(&manifests.concat())
}

/// Says a line and reads what comes back for it.
fn say(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(line.as_bytes()).unwrap();
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}

#[test]
fn bytes_go_both_ways_and_each_side_may_end_first() {
    let echo = Backend::echo("echo");
    let gateway = echoing(&echo);
    let mut stream = raw::connect(gateway.socket(PORT));
    let piece: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = piece.clone();
    let sending = std::thread::spawn(move || {
        (0..32).for_each(|_| writer.write_all(&sent).unwrap());
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = vec![0; piece.len()];
    for _ in 0..32 {
        stream.read_exact(&mut back).unwrap();
        assert!(back == piece);
    }
    let (rest, closed) = raw::read_to_end(&mut stream);
    assert_eq!((rest.as_str(), closed), ("end of echo", true), "it speaks on after the client's end");
    sending.join().unwrap();
    let line = gateway.access_record(|line| line["upstream_cluster"] == "outbound|80||echo.test");
    let total = 32 << 20;
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&total.into(), &(total + 11).into()), "{line}");
    assert_eq!((&line["response_code"], &line["protocol"]), (&0.into(), &serde_json::Value::Null), "{line}");
    for (name, expected) in [
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 1),
        ("istio_tcp_received_bytes_total", total),
        ("istio_tcp_sent_bytes_total", total + 11),
    ] {
        assert_eq!(gateway.metric(name, "destination_service=\"echo.test\""), f64::from(expected), "{name}");
    }
}

#[test]
fn a_server_may_speak_first_and_a_dead_end_is_told() {
    let greeting = Backend::greeting("greeting");
    let gateway = echoing(&greeting);
    let (text, closed) = raw::read_to_end(&mut raw::connect(gateway.socket(PORT)));
    assert_eq!((text.as_str(), closed), ("220 greeting", true));

    let nowhere: SocketAddr = (gateway.address, 9).into();
    gateway
        .write("all.yaml", &[tcp_gateway(PORT), service("echo.test", nowhere, "TCP"), tcp_route("echo.test")].concat());
    gateway.reload();
    assert_eq!(raw::exchange(gateway.socket(PORT), b"hello"), (String::new(), true));
    let line = gateway.access_record(|line| line["response_flags"] == "UF,URX");
    assert_eq!(line["upstream_host"], nowhere.to_string(), "{line}");
    assert!(line["upstream_transport_failure_reason"].to_string().contains("Connection_refused"), "{line}");
}

#[test]
fn a_connection_outlives_reloads_and_its_listener() {
    let (first, second) = (Backend::echo("first"), Backend::echo("second"));
    let gateway = Plan::new()
        .manifest("gateway.yaml", &tcp_gateway(PORT))
        .manifest(
            "services.yaml",
            &(service("a.test", first.address, "TCP") + &service("b.test", second.address, "TCP")),
        )
        .manifest("route.yaml", &tcp_route("a.test"))
        .start();
    let mut old = raw::connect(gateway.socket(PORT));
    assert_eq!(say(&mut old, "one\n"), "one\n");
    gateway.write("route.yaml", &tcp_route("b.test"));
    gateway.reload();
    assert_eq!(say(&mut old, "two\n"), "two\n");
    let (text, _) = {
        let mut new = raw::connect(gateway.socket(PORT));
        new.shutdown(Shutdown::Write).unwrap();
        raw::read_to_end(&mut new)
    };
    assert_eq!(text, "end of second", "a new connection follows the new route");
    gateway.remove("gateway.yaml");
    gateway.remove("route.yaml");
    gateway.reload();
    assert!(TcpStream::connect(gateway.socket(PORT)).is_err(), "nobody listens any more");
    assert_eq!(say(&mut old, "three\n"), "three\n");
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw::read_to_end(&mut old).0, "end of first");
}

/// Runs `openssl s_client`; what it printed.
fn s_client(address: SocketAddr, name: &str, ca: &str, input: &str) -> String {
    let mut process = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", name, "-CAfile", ca, "-ign_eof"])
        .args(["-verify_return_error", "-verify_hostname", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = process.stdin.take().unwrap();
    // A refused client is gone before it reads.
    let _ = stdin.write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tls_is_passed_on_or_ended_by_its_server_name() {
    let authority = Authority::new();
    let passed = Backend::tls("passed", &authority.identity(&["pass.test"]));
    let ended = Backend::greeting("ended");
    let gateways = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: names, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTPS}, name: pass, protocol: TLS }}
    hosts: [pass.test]
    tls: {{ mode: PASSTHROUGH }}
  - port: {{ number: {HTTPS}, name: ended, protocol: TLS }}
    hosts: [ended.test]
    tls: {{ mode: SIMPLE, credentialName: ended-tls }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: names, namespace: default }}
spec:
  hosts: [pass.test, ended.test]
  gateways: [istio-system/names]
  tls: [{{ match: [{{ sniHosts: [pass.test] }}], route: [{{ destination: {{ host: passed.test }} }}] }}]
  tcp: [{{ route: [{{ destination: {{ host: raw.test }} }}] }}]
"
    );
    let manifests = [
        gateways,
        service("passed.test", passed.address, "TLS"),
        service("raw.test", ended.address, "TCP"),
        authority.identity(&["ended.test"]).secret("ended-tls"),
    ];
    let gateway = TestGateway::with(&manifests.concat());
    let ca = authority.write(gateway.folder());
    let request = "GET /status/200 HTTP/1.1\r\nhost: pass.test\r\nconnection: close\r\n\r\n";
    let said = s_client(gateway.https(), "pass.test", &ca, request);
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains("Verify return code: 0"), "{said}");
    let line = gateway.access_record(|line| line["requested_server_name"] == "pass.test");
    assert_eq!(
        (&line["method"], &line["upstream_cluster"]),
        (&serde_json::Value::Null, &"outbound|80||passed.test".into())
    );

    let said = s_client(gateway.https(), "ended.test", &ca, "");
    assert!(said.contains("220 ended") && said.contains("Verify return code: 0"), "{said}");

    s_client(gateway.https(), "other.test", &ca, "");
    let line = gateway.access_record(|line| line["requested_server_name"] == "other.test");
    assert_eq!(
        (&line["response_flags"], &line["response_code_details"]),
        (&"NR".into(), &"filter_chain_not_found".into())
    );
    until(|| (gateway.metric("limani_downstream_connections_active", "8443") == 0.0).then_some(())).expect("all ended");

    let output = limani().args(["explain", "tcp://any:8443", "--sni", "pass.test"]).arg(gateway.manifests()).output();
    let explained = String::from_utf8(output.unwrap().stdout).unwrap();
    for expected in ["VirtualService default/names tls[0].match[0]", "outbound|80||passed.test"] {
        assert!(explained.contains(expected), "{expected}: {explained}");
    }
}
