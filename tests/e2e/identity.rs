//! Who the gateway is in the mesh: from SPIFFE's Workload API, from Istio's CA, and from mounted files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tonic::{Code, Status};

use crate::support::backend::{Backend, Shown};
use crate::support::certificate::Authority;
use crate::support::gateway::{HTTPS, Plan, TestGateway, until};
use crate::support::istiod::{Istiod, Mood};
use crate::support::manifests::{all_to, http_gateway, route, route_on, service};
use crate::support::svid::{HOUR, Svid, der};
use crate::support::workload_api::{Agent, SvidResponse, X509Svid};

const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";
const OURS: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway";

/// A backend that only takes clients of `authority`, and the manifests that lead to it.
fn mesh(authority: &Authority) -> (Shown, Backend, String) {
    let (backend, shown) = Backend::mutual("web", &Svid::new(authority, WEB, HOUR).identity(), authority);
    let rule = format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: web, namespace: default }}
spec:
  host: web.test
  trafficPolicy: {{ tls: {{ mode: ISTIO_MUTUAL, subjectAltNames: [{WEB}] }} }}
"
    );
    let manifests = [
        http_gateway(),
        service("web.test", backend.address, "HTTP"),
        rule,
        route("web", "web.test", &all_to("web.test")),
    ];
    (shown, backend, manifests.concat())
}

fn state(svids: &[&Svid], bundle: &Authority) -> SvidResponse {
    let svids = svids.iter().map(|svid| X509Svid::new(svid, &der(&bundle.pem))).collect();
    SvidResponse { svids, ..SvidResponse::default() }
}

fn identity(gateway: &TestGateway) -> Value {
    gateway.admin("/status").json()["identity"].clone()
}

fn codes(gateway: &TestGateway) -> Vec<String> {
    let status = gateway.admin("/status").json();
    let findings = status["lastReload"]["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().filter_map(|finding| Some(finding["code"].as_str()?.to_owned())).collect()
}

fn answers(gateway: &TestGateway, status: u16) {
    let last = until(|| (gateway.get("web.test", "/").status == status).then_some(()));
    assert!(last.is_some(), "never {status}: {}\n{}", identity(gateway), gateway.log());
}

/// Whether the backend was shown this certificate.
fn was_shown(shown: &Shown, svid: &[u8]) -> bool {
    shown.lock().unwrap().iter().any(|leaf| leaf == svid)
}

/// Asks all the time while `work` goes on; gives the answers that were not 200, and how many there were.
fn under_load(gateway: &TestGateway, work: impl FnOnce()) -> (Vec<u16>, usize) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut bad, mut count) = (Vec::new(), 0);
            while !ended.load(Ordering::Relaxed) {
                let status = gateway.get("web.test", "/").status;
                count += 1;
                bad.extend(Some(status).filter(|status| *status != 200));
            }
            (bad, count)
        });
        work();
        ended.store(true, Ordering::Relaxed);
        load.join().expect("the load does not panic")
    })
}

#[test]
fn the_workload_api_says_who_we_are() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (shown, backend, manifests) = mesh(&authority);
    let plan = Plan::new().manifest("all.yaml", &manifests);
    let socket = plan.folder().join("agent.sock");
    let settings = format!(
        "[identity]\nsource = \"workload-api\"\nsocket = \"unix://{}\"\nspiffe_id = \"{OURS}\"\n",
        socket.display()
    );
    let gateway = plan.settings(&settings).start();
    assert_eq!(gateway.get("web.test", "/").status, 503, "nobody gave us an identity yet");
    assert!(identity(&gateway)["trouble"]["message"].as_str().is_some_and(|text| text.contains("agent.sock")));
    assert!(codes(&gateway).contains(&"LIM0074".to_owned()), "{:?}", codes(&gateway));
    assert!(gateway.metric("limani_identity_failures_total", "workload-api") >= 1.0);
    assert_eq!(gateway.readiness(), 200, "the rest of the traffic does not wait");

    let stranger = Svid::new(&authority, "spiffe://cluster.local/ns/a/sa/b", HOUR);
    let first = Svid::new(&authority, OURS, HOUR);
    let agent = Agent::start(&socket, Ok(state(&[&stranger, &first], &authority)));
    answers(&gateway, 200);
    assert!(was_shown(&shown, &first.der()) && !was_shown(&shown, &stranger.der()));
    let status = identity(&gateway);
    assert_eq!(status["certificate"]["spiffeId"], OURS);
    assert_eq!((&status["source"], &status["trouble"]), (&Value::from("workload-api"), &Value::Null));
    let left = gateway.metric("limani_identity_expiry_seconds", "");
    assert!((3000.0..=3600.0).contains(&left), "{left}");
    assert_eq!(codes(&gateway), Vec::<String>::new());

    let (bad, count) = under_load(&gateway, || {
        for _ in 0..5 {
            let next = Svid::new(&authority, OURS, HOUR);
            agent.say(Ok(state(&[&next], &authority)));
            assert!(until(|| was_shown(&shown, &next.der()).then_some(())).is_some(), "{}", gateway.log());
        }
    });
    assert_eq!((bad, count > 0), (Vec::new(), true), "of {count}");

    let mut federated = state(&[&first], &authority);
    federated.federated_bundles.insert("spiffe://other.test".to_owned(), der(&other.pem));
    agent.say(Ok(federated));
    let is_there = || (identity(&gateway)["certificate"]["federated"][0] == "other.test").then_some(());
    assert!(until(is_there).is_some(), "{}", identity(&gateway));

    let mut wrong = state(&[&first], &authority);
    wrong.svids[0].x509_svid_key = stranger.key.serialize_der();
    agent.say(Ok(wrong));
    let told = until(|| identity(&gateway)["trouble"]["message"].as_str().map(str::to_owned)).expect("trouble");
    assert!(told.contains("its key does not belong to its certificate"), "{told}");
    assert_eq!(gateway.get("web.test", "/").status, 200, "what was given last stays in force");

    for gone in [Ok(state(&[&stranger], &authority)), Err(Status::permission_denied("no identity issued"))] {
        agent.say(gone);
        answers(&gateway, 503);
        assert_eq!(identity(&gateway)["certificate"], Value::Null);
        agent.say(Ok(state(&[&first], &authority)));
        answers(&gateway, 200);
    }
    let streams = agent.streams();
    agent.say(Err(Status::unavailable("the agent is stopping")));
    assert!(until(|| (agent.streams() > streams).then_some(())).is_some());
    agent.say(Ok(state(&[&first], &authority)));
    assert!(until(|| identity(&gateway)["trouble"].is_null().then_some(())).is_some());
    assert_eq!(gateway.get("web.test", "/").status, 200);
    drop(backend);
}

#[test]
fn istiods_ca_signs_and_renews() {
    let authority = Arc::new(Authority::new());
    let later = Authority::new();
    let (shown, _backend, manifests) = mesh(&authority);
    let istiod = Istiod::start(&authority, Some("first-token"), Duration::from_secs(5));
    istiod.mood(Mood::Fails(Code::Unavailable, 2));
    let plan = Plan::new().manifest("all.yaml", &manifests);
    let (root, token) = (plan.folder().join("root.pem"), plan.folder().join("token"));
    fs::write(&root, &authority.pem).unwrap();
    fs::write(&token, "first-token\n").unwrap();
    let settings = format!(
        "[gateway]\ncluster = \"east\"\n[identity]\nsource = \"istiod\"\naddress = \"{}\"\nserver_name = \"istiod.test\"\n\
         root = \"root.pem\"\ntoken = \"token\"\nttl = \"2h\"\n",
        istiod.address
    );
    let gateway = plan.settings(&settings).start();
    assert_eq!(gateway.get("web.test", "/").status, 200, "the start waits for the CA: {}", gateway.log());
    let calls = istiod.calls();
    assert_eq!(calls.len(), 3, "two failures inside of one call, then a certificate");
    assert_eq!((calls[2].id.as_str(), calls[2].cluster.as_str(), calls[2].validity), (OURS, "east", 7200));
    assert_eq!((calls[2].token.as_deref(), calls[2].certificate), (Some("first-token"), false));

    let (bad, count) = under_load(&gateway, || {
        istiod.token("second-token");
        fs::write(&token, "second-token").unwrap();
        let renewed = || istiod.calls().iter().filter(|call| call.token.as_deref() == Some("second-token")).count() > 2;
        assert!(until(|| renewed().then_some(())).is_some());
    });
    assert_eq!((bad, count > 0), (Vec::new(), true), "of {count}");
    assert!(shown.lock().unwrap().len() >= 3, "each certificate was shown");

    fs::write(&root, [later.pem.as_str(), authority.pem.as_str()].concat()).unwrap();
    let (moved, _) = Backend::mutual("moved", &Svid::new(&later, WEB, HOUR).identity(), &authority);
    gateway.write("all.yaml", &manifests_to(&moved, &manifests));
    gateway.reload();
    answers(&gateway, 200);

    istiod.mood(Mood::ShortChain);
    let told = until(|| identity(&gateway)["trouble"]["message"].as_str().map(str::to_owned)).expect("trouble");
    assert!(told.contains("a chain of at least two certificates"), "{told}");
    assert_eq!(gateway.get("web.test", "/").status, 200, "the old certificate is good until it ends");
    istiod.mood(Mood::Good);
    assert!(until(|| identity(&gateway)["trouble"].is_null().then_some(())).is_some());
}

/// The same manifests with another backend behind them.
fn manifests_to(backend: &Backend, manifests: &str) -> String {
    let rest = manifests.split("---\n").filter(|one| !one.contains("kind: ServiceEntry"));
    let rest: Vec<&str> = rest.filter(|one| !one.is_empty()).collect();
    [format!("---\n{}", rest.join("---\n")), service("web.test", backend.address, "HTTP")].concat()
}

#[test]
fn a_certificate_stands_for_a_missing_token() {
    let authority = Arc::new(Authority::new());
    let (_shown, _backend, manifests) = mesh(&authority);
    let istiod = Istiod::start(&authority, None, HOUR);
    let plan = Plan::new().manifest("all.yaml", &manifests);
    let first = Svid::new(&authority, OURS, HOUR).identity();
    for (name, text) in [("root.pem", &authority.pem), ("first.pem", &first.certificate), ("first.key", &first.key)] {
        fs::write(plan.folder().join(name), text).unwrap();
    }
    let settings = format!(
        "[identity]\nsource = \"istiod\"\naddress = \"{}\"\nserver_name = \"istiod.test\"\nroot = \"root.pem\"\n\
         token = \"no-token\"\ncertificate = \"first.pem\"\nkey = \"first.key\"\n",
        istiod.address
    );
    let gateway = plan.settings(&settings).start();
    assert_eq!(gateway.get("web.test", "/").status, 200);
    let calls = istiod.calls();
    assert_eq!((calls[0].token.clone(), calls[0].certificate), (None, true));
}

/// Writes a generation of a mounted folder and swaps it in, as kubelet does.
fn mount(folder: &Path, generation: &str, files: &[(&str, &str)]) {
    let inside = folder.join(generation);
    fs::create_dir_all(&inside).unwrap();
    for (name, text) in files {
        fs::write(inside.join(name), text).unwrap();
        let link = folder.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(format!("..data/{name}"), link).unwrap();
        }
    }
    std::os::unix::fs::symlink(generation, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[test]
fn a_mounted_folder_holds_our_identity_under_any_of_the_known_names() {
    let authority = Authority::new();
    let (shown, _backend, manifests) = mesh(&authority);
    let plan = Plan::new().manifest("all.yaml", &manifests).watching();
    let folder = plan.folder().join("identity");
    let generation = |name: &str, [chain, key, root]: [&str; 3], svid: &Svid| {
        let held = svid.identity();
        mount(&folder, name, &[(chain, &held.certificate), (key, &held.key), (root, &authority.pem)]);
    };
    let istio = ["cert-chain.pem", "key.pem", "root-cert.pem"];
    let first = Svid::new(&authority, OURS, HOUR);
    generation("..1", istio, &first);
    let gateway = plan.settings("[identity]\nsource = \"files\"\nfolder = \"identity\"\n").start();
    assert_eq!(gateway.get("web.test", "/").status, 200, "{}", gateway.log());
    assert!(was_shown(&shown, &first.der()));
    let second = Svid::new(&authority, OURS, HOUR);
    generation("..2", istio, &second);
    assert!(
        until(|| {
            gateway.get("web.test", "/");
            was_shown(&shown, &second.der()).then_some(())
        })
        .is_some()
    );
    assert_eq!(identity(&gateway)["source"], "files");
}

#[test]
fn a_ca_that_never_answers_is_told_and_the_gateway_serves_what_it_can() {
    let authority = Arc::new(Authority::new());
    let (_shown, _backend, manifests) = mesh(&authority);
    let istiod = Istiod::start(&authority, Some("token"), HOUR);
    istiod.mood(Mood::Hangs);
    let plain = Backend::http1("plain");
    let manifests =
        [manifests, service("plain.test", plain.address, "HTTP"), route("plain", "plain.test", &all_to("plain.test"))];
    let plan = Plan::new().manifest("all.yaml", &manifests.concat());
    fs::write(plan.folder().join("root.pem"), &authority.pem).unwrap();
    fs::write(plan.folder().join("token"), "token").unwrap();
    let settings = format!(
        "[identity]\nsource = \"istiod\"\naddress = \"{}\"\nserver_name = \"istiod.test\"\nroot = \"root.pem\"\n\
         token = \"token\"\n",
        istiod.address
    );
    let gateway = plan.settings(&settings).start();
    assert_eq!((gateway.get("plain.test", "/").status, gateway.get("web.test", "/").status), (200, 503));
    assert!(codes(&gateway).contains(&"LIM0077".to_owned()), "{:?}", codes(&gateway));
    let told = until(|| identity(&gateway)["trouble"]["message"].as_str().map(str::to_owned)).expect("trouble");
    assert!(told.contains("no answer in ten seconds"), "{told}");
    istiod.mood(Mood::Good);
    answers(&gateway, 200);
}

#[test]
fn the_local_authority_vouches_for_both_sides() {
    let plain = Backend::http1("plain");
    let plan = Plan::new();
    let own = std::net::SocketAddr::from((plan.address(), HTTPS));
    let inner = format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: inner, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - {{ port: {{ number: {HTTPS}, name: https, protocol: HTTPS }}, hosts: ['*'], tls: {{ mode: ISTIO_MUTUAL }} }}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: web, namespace: default }}
spec:
  host: web.test
  trafficPolicy: {{ tls: {{ mode: ISTIO_MUTUAL, sni: inner.test, subjectAltNames: [{OURS}] }} }}
"
    );
    let manifests = [
        http_gateway(),
        inner,
        service("web.test", own, "HTTP"),
        service("plain.test", plain.address, "HTTP"),
        route("web", "web.test", &all_to("web.test")),
        route_on("istio-system/inner", "inner", "web.test", &all_to("plain.test")),
    ];
    let settings = "[identity]\nsource = \"local-ca\"\n";
    let gateway = plan.manifest("all.yaml", &manifests.concat()).settings(settings).start();
    let answer = gateway.get("web.test", "/");
    assert_eq!((answer.status, answer.backend().as_str()), (200, "plain"), "{}", gateway.log());
    assert_eq!(codes(&gateway), Vec::<String>::new());
    let told = String::from_utf8_lossy(&gateway.command(&["status"]).stdout).into_owned();
    assert!(told.contains(&format!("identity {OURS} until ")) && told.contains(", from local-ca"), "{told}");
}
