//! A changed configuration comes into force as one step, and leaves alone what it does not concern.

use std::net::TcpListener;
use std::os::unix::fs::symlink;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;

use crate::support::backend::Backend;
use crate::support::gateway::{HTTP, Plan, until};
use crate::support::grpc::{HealthService, health_client};
use crate::support::manifests::{all_to, http_gateway, route, service, simple};
use crate::support::websocket;

fn answering(name: &str, host: &str, text: &str) -> String {
    route(name, host, &format!("- directResponse: {{ status: 200, body: {{ string: \"{text}\" }} }}"))
}

#[test]
fn a_reload_is_in_force_when_it_says_so() {
    let gateway = Plan::new()
        .manifest("gateway.yaml", &http_gateway())
        .manifest("route.yaml", &answering("a", "a.test", "one"))
        .start();
    assert_eq!(gateway.get("a.test", "/").body, "one");
    let first = gateway.generation();
    gateway.write("route.yaml", &answering("a", "a.test", "two"));
    assert_eq!(gateway.get("a.test", "/").body, "one", "nothing was asked for yet");
    gateway.reload();
    assert_eq!(gateway.get("a.test", "/").body, "two");
    assert_eq!(gateway.generation(), first + 1);
    assert_eq!(gateway.metric("limani_config_generation", ""), (first + 1) as f64);
    gateway.reload();
    assert_eq!(gateway.generation(), first + 1, "the same content is no new generation");
    gateway.write("route.yaml", &answering("a", "a.test", "three"));
    gateway.signal("HUP");
    until(|| (gateway.get("a.test", "/").body == "three").then_some(())).expect("SIGHUP reloads");
}

#[test]
fn changed_files_are_followed_also_the_way_kubernetes_swaps_them() {
    let plan = Plan::new().watching().manifest("gateway.yaml", &http_gateway());
    let mounted = plan.folder().join("manifests/mounted");
    for (version, text) in [("..one", "one"), ("..two", "two")] {
        std::fs::create_dir_all(mounted.join(version)).unwrap();
        std::fs::write(mounted.join(version).join("route.yaml"), answering("a", "a.test", text)).unwrap();
    }
    symlink("..one", mounted.join("..data")).unwrap();
    symlink("..data/route.yaml", mounted.join("route.yaml")).unwrap();
    let gateway = plan.start();
    assert_eq!(gateway.get("a.test", "/").body, "one");
    symlink("..two", mounted.join("..data_tmp")).unwrap();
    std::fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
    until(|| (gateway.get("a.test", "/").body == "two").then_some(())).expect("the swap is seen");
    gateway.write("b.yaml", &answering("b", "b.test", "new"));
    until(|| (gateway.get("b.test", "/").body == "new").then_some(())).expect("a new file is seen");
    gateway.remove("b.yaml");
    until(|| (gateway.get("b.test", "/").status == 404).then_some(())).expect("a removed file is seen");
}

#[test]
fn what_is_bad_is_told_and_the_rest_goes_on() {
    let gateway = Plan::new()
        .manifest("gateway.yaml", &http_gateway())
        .manifest("a.yaml", &answering("a", "a.test", "one"))
        .manifest("b.yaml", &answering("b", "b.test", "one"))
        .start();
    let generation = gateway.generation();
    gateway.write("a.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a\nspec: [\n");
    gateway.write("b.yaml", &answering("b", "b.test", "two"));
    let (code, text) = gateway.reload_wait();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("a.yaml:"), "file and line are told: {text}");
    assert_eq!(gateway.get("a.test", "/").body, "one", "the last good version stays");
    assert_eq!(gateway.get("b.test", "/").body, "two", "the other file is in force");
    assert_eq!(gateway.generation(), generation + 1);
    assert!(gateway.metric("limani_config_findings", "error") >= 1.0);
    // A wrong type, with its line.
    let wrong = answering("a", "a.test", "two").replace("status: 200", "status: [200]");
    gateway.write("a.yaml", &wrong);
    let (code, text) = gateway.reload_wait();
    assert_eq!(code, 1, "{text}");
    let line = wrong.lines().position(|line| line.contains("status")).unwrap() + 1;
    assert!(text.contains(&format!("a.yaml:{line}")), "{text}");
    assert_eq!(gateway.get("a.test", "/").body, "one");
    // A value that Istio's validation refuses.
    gateway.write("a.yaml", &answering("a", "a.test", "two").replace("status: 200", "status: 1000"));
    let (code, text) = gateway.reload_wait();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("IST0106") && text.contains("last good version"), "{text}");
    assert_eq!(gateway.get("a.test", "/").body, "one");
    gateway.write("a.yaml", &answering("a", "a.test", "three"));
    gateway.reload();
    assert_eq!(gateway.get("a.test", "/").body, "three");
}

#[test]
fn a_folder_that_vanishes_takes_nothing_with_it() {
    let gateway = Plan::new().manifest("all.yaml", &[http_gateway(), answering("a", "a.test", "one")].concat()).start();
    let aside = gateway.folder().join("aside");
    std::fs::rename(gateway.manifests(), &aside).unwrap();
    let (code, text) = gateway.reload_wait();
    assert_eq!(code, 1, "{text}");
    assert_eq!(gateway.get("a.test", "/").body, "one");
    std::fs::rename(&aside, gateway.manifests()).unwrap();
    gateway.reload();
    assert_eq!(gateway.get("a.test", "/").body, "one");
}

#[test]
fn ports_come_and_go_and_a_taken_one_is_told() {
    let second = http_gateway().replace(&HTTP.to_string(), "8081").replace("name: edge", "name: second");
    let third = http_gateway().replace(&HTTP.to_string(), "8082").replace("name: edge", "name: third");
    let on = |gateways: &str| answering("a", "a.test", "here").replace("gateways: [istio-system/edge]", gateways);
    let gateway = Plan::new().manifest("gateway.yaml", &http_gateway()).start();
    let taken = TcpListener::bind(gateway.socket(8082)).unwrap();
    gateway.write("more.yaml", &[second.clone(), third.clone()].concat());
    gateway.write("route.yaml", &on("gateways: [istio-system/edge, istio-system/second, istio-system/third]"));
    let (code, text) = gateway.reload_wait();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("8082"), "{text}");
    let get = |port| {
        let url = format!("http://{}/", gateway.socket(port));
        crate::support::curl::curl(&url, &["-H", "host: a.test"])
    };
    assert_eq!((get(HTTP).body, get(8081).body), ("here".into(), "here".into()));
    drop(taken);
    gateway.reload();
    assert_eq!(get(8082).body, "here", "the next reload tries again");
    gateway.remove("more.yaml");
    gateway.reload_wait();
    assert_eq!(get(HTTP).body, "here");
    until(|| (get(8081).exit == 7).then_some(())).expect("the removed port is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_touch_nothing_that_they_do_not_concern() {
    let echo = websocket::echo_service();
    let health = HealthService::start();
    let web = Backend::http1("web");
    let gateway = Plan::new()
        .manifest(
            "all.yaml",
            &[
                simple("web.test", web.address),
                service("echo.test", echo, "HTTP"),
                service("health.test", health.address, "GRPC"),
                route("echo", "echo.test", &all_to("echo.test")),
                route("health", "health.test", &all_to("health.test")),
            ]
            .concat(),
        )
        .start();
    let mut socket = websocket::open(gateway.http(), "echo.test", "/").await;
    let mut calls = health_client(gateway.http(), "health.test").await;
    health.reporter.set_service_status("shop", ServingStatus::Serving).await;
    let request = HealthCheckRequest { service: "shop".into() };
    let mut stream = calls.watch(request).await.expect("the stream opens").into_inner();
    stream.message().await.unwrap().unwrap();

    std::thread::scope(|threads| {
        let download = threads.spawn(|| {
            let size = 1_000_000_000.to_string();
            // Slow enough to last as long as the reloads.
            let answer =
                gateway.curl("web.test", &format!("/bytes/{size}"), &["-o", "/dev/null", "--limit-rate", "60M"]);
            (answer.exit, answer.error)
        });
        let mut unnoticed = 0;
        for n in 0..200 {
            gateway.write("changing.yaml", &answering("changing", "changing.test", &n.to_string()));
            gateway.reload();
            let answer = gateway.get("changing.test", "/");
            assert_eq!((answer.status, answer.body), (200, n.to_string()));
            unnoticed += usize::from(download.is_finished());
        }
        println!("reloads after the download had ended: {unnoticed}");
        assert_eq!(download.join().unwrap(), (0, String::new()));
    });

    let message = Message::text("still here");
    socket.send(message.clone()).await.expect("the socket is open");
    assert_eq!(socket.next().await.unwrap().unwrap(), message);
    health.reporter.set_service_status("shop", ServingStatus::NotServing).await;
    stream.message().await.expect("the stream is open").expect("a message");
    assert_eq!(gateway.generation(), 201);
    assert_eq!(gateway.metric("limani_config_reloads_total", "success"), 201.0);
}
