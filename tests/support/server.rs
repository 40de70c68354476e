//! Another program that serves during a test: it is there when it answers, and gone when the value is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::gateway::until;

/// A running program. What it says is kept for failing tests.
pub struct Server {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it and returns when it accepts connections at all of these addresses. `log` is a file for its output.
    pub fn start(mut command: Command, log: PathBuf, addresses: &[SocketAddr]) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::create(&log).expect("a file for what it says");
        let errors = output.try_clone().expect("the same file again");
        let process = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let mut server = Server { name, process: process.expect("the program starts"), log };
        for address in addresses {
            let up = until(|| {
                let ended = server.process.try_wait().expect("it is our child");
                assert!(ended.is_none(), "{} ended:\n{}", server.name, server.log());
                TcpStream::connect(address).ok()
            });
            assert!(up.is_some(), "{} does not listen at {address}:\n{}", server.name, server.log());
        }
        server
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}
