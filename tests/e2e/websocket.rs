//! WebSockets pass, in both directions and for as long as they like.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::backend::Backend;
use crate::support::gateway::TestGateway;
use crate::support::manifests::{all_to, http_gateway, route, service};
use crate::support::websocket;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_are_echoed_through_the_gateway() {
    let echo = websocket::echo_service();
    let web = Backend::http1("web");
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("echo.test", echo, "HTTP"),
            service("web.test", web.address, "HTTP"),
            route("echo", "echo.test", &all_to("echo.test")),
            route("web", "web.test", &all_to("web.test")),
        ]
        .concat(),
    );
    let mut socket = websocket::open(gateway.http(), "echo.test", "/chat").await;
    for size in [1, 1000, 1_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.expect("the socket is open");
        assert_eq!(socket.next().await.expect("an echo").expect("a message"), message);
    }
    socket.close(None).await.expect("it closes");
    let line = gateway.access_record(|line| line["path"] == "/chat");
    assert_eq!((&line["response_code"], &line["response_flags"]), (&101.into(), &"-".into()));
    // Another protocol is not allowed; h2c is ignored.
    let upgrade = |protocol: &str| {
        let header = format!("upgrade: {protocol}");
        gateway.curl("web.test", "/", &["-H", "connection: upgrade", "-H", &header]).status
    };
    assert_eq!((upgrade("other"), upgrade("h2c")), (403, 200));
}
