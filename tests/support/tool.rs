//! Is a program there that a test needs? `.ci/tools` fetches them; without it the test is skipped, and says so.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the program is, or a word on stderr that this test is skipped.
pub fn needed(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(&format!("{program} is not installed; .ci/tools fetches it"));
    }
    found
}

/// Says that the running test is skipped. `.ci/run` counts these lines; they pass by what the harness captures.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("\nskipped: {test}: {reason}\n");
    // Without stderr nobody counts.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn find(program: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = [own].into_iter().chain(listed).chain(home).chain(system);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
