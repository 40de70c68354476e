//! `limani demo`: everything at once, and every line that it tells people to try works.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::limani;

/// Ends with the test, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Five ports below the range that the system gives to clients; by process, because names like localhost fix the address.
fn ports() -> [String; 5] {
    let first = 20_000 + std::process::id() % 2_400 * 5;
    [0, 1, 2, 3, 4].map(|n| (first + n).to_string())
}

fn demo(ports: &[String; 5], folder: &std::path::Path) -> Command {
    let mut command = limani();
    command.arg("demo").arg("--dir").arg(folder);
    for (option, port) in ["--http", "--https", "--admin-port", "--ready-port", "--metrics-port"].iter().zip(ports) {
        command.args([option, port.as_str()]);
    }
    command
}

#[test]
fn every_line_of_the_guide_works_and_a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ports = ports();
    let taken = TcpListener::bind(format!("127.0.0.1:{}", ports[0])).unwrap();
    let output = demo(&ports, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&ports[0]) && said.contains("--http"), "{said}");
    drop(taken);

    let child = demo(&ports, folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut guide = Vec::new();
    for line in lines.by_ref() {
        guide.push(line.unwrap());
        if guide.last().is_some_and(|line| line.contains("Ctrl-C")) {
            break;
        }
    }
    let mut tried = 0;
    for pair in guide.windows(2) {
        let Some((_, shows)) = pair[0].strip_prefix("  # ").and_then(|about| about.rsplit_once(": ")) else { continue };
        let output = Command::new("sh").args(["-c", pair[1].trim()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(shows), "{}\nwas to show {shows}, but was\n{said}", pair[1]);
        tried += 1;
    }
    assert!(tried >= 10, "only {tried} lines to try in\n{}", guide.join("\n"));
}
