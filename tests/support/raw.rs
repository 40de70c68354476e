//! Bytes over a socket, for requests that no decent client sends.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection whose reads give up after 20 seconds.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit can be set");
    stream
}

/// Sends and reads until the other side closes; the second value says whether it did.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = connect(address);
    // The other side may have answered and closed before all is sent.
    let _ = stream.write_all(bytes);
    read_to_end(&mut stream)
}

/// Reads until the other side closes; the second value says whether it did.
pub fn read_to_end(stream: &mut TcpStream) -> (String, bool) {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (String::from_utf8_lossy(&all).into_owned(), true),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return (String::from_utf8_lossy(&all).into_owned(), false);
            }
            Err(_) => return (String::from_utf8_lossy(&all).into_owned(), true),
        }
    }
}

/// Reads one answer with a Content-Length, or without a body.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut byte = [0; 1];
    while !all.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => all.push(byte[0]),
            _ => return String::from_utf8_lossy(&all).into_owned(),
        }
    }
    let head = String::from_utf8_lossy(&all).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).expect("the whole body comes");
    all.extend(body);
    String::from_utf8_lossy(&all).into_owned()
}
