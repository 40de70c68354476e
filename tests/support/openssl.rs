//! `openssl s_client`, as a client that tells how its handshake went.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What s_client printed, with the answer to its request.
#[derive(Debug)]
pub struct Visit(pub String);

impl Visit {
    pub fn is_resumed(&self) -> bool {
        self.0.contains("\nReused, TLS")
    }

    /// Whether the handshake was a full one, and the answer a 200.
    pub fn is_full(&self) -> bool {
        self.0.contains("\nNew, TLS") && self.is_served()
    }

    pub fn is_served(&self) -> bool {
        self.0.contains("HTTP/1.1 200")
    }

    /// The rest of the line that begins with `word`.
    pub fn word(&self, word: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim_start().strip_prefix(word)).map(str::trim)
    }
}

/// Connects, asks for `/` of `host`, and reads to the end.
pub fn visit(address: SocketAddr, host: &str, arguments: &[&str]) -> Visit {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    // Who is refused does not read it.
    let _ = client.stdin.take().expect("stdin is a pipe").write_all(request.as_bytes());
    let output = client.wait_with_output().expect("openssl ends");
    Visit(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
