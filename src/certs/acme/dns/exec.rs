//! How does a program write a record? `COMMAND present NAME VALUE`, and `COMMAND cleanup NAME VALUE`; no shell.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Action, HOOK_WITHIN};
use crate::certs::acme::quote::quoted;

/// No more of what a program complains is read.
const LONGEST: u64 = 4096;
const STEP: Duration = Duration::from_millis(20);
/// Who inherited the program's stderr may keep it open; nobody waits for them.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// Runs the program; its arguments stand in `LIMANI_DNS_ACTION`, `LIMANI_DNS_NAME` and `LIMANI_DNS_VALUE` too.
pub(super) async fn run(command: &Path, action: Action, name: &str, value: &str) -> Result<(), String> {
    let shown = command.display().to_string();
    let mut call = Command::new(command);
    call.args([action.name(), name, value])
        .env("LIMANI_DNS_ACTION", action.name())
        .env("LIMANI_DNS_NAME", name)
        .env("LIMANI_DNS_VALUE", value)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || wait(call, HOOK_WITHIN)).await;
    ended.unwrap_or_else(|error| Err(error.to_string())).map_err(|error| format!("{shown} {}: {error}", action.name()))
}

/// Waits for its end, at most `limit`; then it is killed.
fn wait(mut command: Command, limit: Duration) -> Result<(), String> {
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (words, complaint) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            let mut text = Vec::new();
            let mut stderr = stderr;
            let _ = stderr.by_ref().take(LONGEST).read_to_end(&mut text);
            let _ = words.send(text);
            // A program that complains more is not stopped by a full pipe.
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        });
    }
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(STEP),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done after {} seconds", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if status.success() {
        return Ok(());
    }
    let words = complaint.recv_timeout(LAST_WORDS_WITHIN).unwrap_or_default();
    Err(format!("{status}: {}", quoted(&String::from_utf8_lossy(&words))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, text: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;

        let file = folder.join("hook");
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        file
    }

    #[tokio::test]
    async fn a_program_gets_its_words_and_its_complaint_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (heard, name) = (folder.path().join("heard"), "_acme-challenge.example.com.");
        let text =
            format!("echo \"$1 $2 $3 $LIMANI_DNS_ACTION $LIMANI_DNS_NAME $LIMANI_DNS_VALUE\" >> {}", heard.display());
        let good = script(folder.path(), &text);
        run(&good, Action::Present, name, "$(id)").await.unwrap();
        run(&good, Action::Cleanup, name, "-v").await.unwrap();
        let expected = format!("present {name} $(id) present {name} $(id)\ncleanup {name} -v cleanup {name} -v\n");
        assert_eq!(std::fs::read_to_string(&heard).unwrap(), expected);

        let bad = script(folder.path(), "echo no such zone >&2; exit 3");
        let error = run(&bad, Action::Present, name, "v").await.unwrap_err();
        assert!(error.contains("hook present: exit status: 3: no such zone"), "{error}");
        let error = run(Path::new("/nowhere/hook"), Action::Present, name, "v").await.unwrap_err();
        assert!(error.contains("/nowhere/hook present: "), "{error}");

        // A loud one is not blocked, and a slow one is killed.
        let loud = script(folder.path(), "head -c 1000000 /dev/zero >&2; exit 1");
        assert!(run(&loud, Action::Present, name, "v").await.is_err());
        let mut slow = Command::new("sleep");
        slow.arg("60");
        assert_eq!(wait(slow, Duration::from_millis(100)), Err("not done after 0 seconds".to_owned()));
    }
}
