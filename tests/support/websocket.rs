//! A WebSocket service behind the gateway that echoes, and its client.

use std::net::SocketAddr;

use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::Request;

use super::address;
use super::backend::on_own_runtime;

/// Starts the service and says where it is.
pub fn echo_service() -> SocketAddr {
    let listener = std::net::TcpListener::bind((address::fresh(), 0)).expect("an address of our own");
    let address = listener.local_addr().expect("it is bound");
    on_own_runtime(listener, |listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    address
}

async fn echo(stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (sink, stream) = socket.split();
    let messages = stream.filter(|message| {
        let wanted = message.as_ref().is_ok_and(|message| message.is_text() || message.is_binary());
        std::future::ready(wanted)
    });
    // Ends with an error when the client goes away without a word.
    let _ = messages.forward(sink).await;
}

/// Opens `ws://HOST/PATH` through the gateway at `address`.
pub async fn open(address: SocketAddr, host: &str, path: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("the gateway listens");
    let request = Request::builder()
        .uri(format!("ws://{host}{path}"))
        .header("host", host)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .body(())
        .expect("a plain request");
    tokio_tungstenite::client_async(request, stream).await.expect("the upgrade is taken").0
}
