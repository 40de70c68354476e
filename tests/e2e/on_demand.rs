//! Certificates for names that nobody wrote down: got during the first handshake, if the operator's service says yes.

use std::sync::{Arc, Mutex};

use crate::support::backend::Backend;
use crate::support::ca::{Ca, Door};
use crate::support::gateway::Plan;
use crate::support::issued::{gateway, get, issuer};
use crate::support::manifests::{all_to, route_on, service};

#[test]
fn a_name_that_the_service_knows_is_served_and_no_other() {
    let (web, ca) = (Backend::http1("web"), Ca::new());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let ask = Backend::heard("ask", move |target, _| {
        seen.lock().unwrap().push(target.to_owned());
        if target.ends_with("domain=known.example.test") { 200 } else { 403 }
    });
    let manifests = [
        gateway("edge", "\"*\"", "acme://"),
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/edge", "web", "*", &all_to("web.test")),
    ];
    let mut gateway = Plan::new()
        .settings(&issuer("ca", &ca.directory, &ca.root, ""))
        .settings(&format!("[acme.on_demand]\nask = \"http://{}/ask\"\n", ask.address))
        .manifest("all.yaml", &manifests.concat())
        .start();
    let root = ca.root();
    // Several first clients of one name wait for one order.
    std::thread::scope(|scope| {
        let clients = [(); 3].map(|()| scope.spawn(|| get(&gateway, "known.example.test", &root)));
        for client in clients {
            let answer = client.join().expect("curl runs");
            assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
        }
    });
    for _ in 0..2 {
        assert_eq!(get(&gateway, "other.example.test", &root).status, 0);
    }
    let targets = asked.lock().unwrap().clone();
    assert_eq!(targets, ["/ask?domain=known.example.test", "/ask?domain=other.example.test"]);
    assert_eq!(ca.asked(Door::NewOrder).len(), 1);

    // What was got is there after a restart, without asking anybody.
    gateway.kill();
    gateway.spawn_again();
    gateway.wait_until_ready();
    assert_eq!(get(&gateway, "known.example.test", &root).status, 200, "{}", gateway.log());
    assert_eq!((asked.lock().unwrap().len(), ca.asked(Door::NewOrder).len()), (2, 1));
}
