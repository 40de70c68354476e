//! A gateway as its users run it: the real binary, a folder of manifests and a settings file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::address;
use super::curl::{self, Answer};

/// The longest that anything may take before the test fails; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ports that manifests of the tests name.
pub const HTTP: u16 = 8080;
pub const HTTPS: u16 = 8443;
const ADMIN: u16 = 15000;
const METRICS: u16 = 15020;
const READY: u16 = 15021;

/// What the binary under test is called.
pub fn limani() -> Command {
    Command::new(env!("CARGO_BIN_EXE_limani"))
}

/// A gateway that is to be started.
pub struct Plan {
    address: Ipv4Addr,
    folder: TempDir,
    settings: String,
    listen: String,
    access_log: &'static str,
    mesh: bool,
    watch: bool,
    grace: &'static str,
    most_files: Option<u32>,
    real_ports: bool,
}

/// A running gateway; it is killed when the value is dropped.
pub struct TestGateway {
    pub address: Ipv4Addr,
    folder: TempDir,
    process: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Plan {
    pub fn new() -> Self {
        Self::at(address::fresh())
    }

    /// One that listens at an address that the test has already, after another gateway.
    pub fn at(address: Ipv4Addr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::create_dir(folder.path().join("manifests")).expect("a folder for manifests");
        Plan {
            address,
            folder,
            settings: String::new(),
            listen: String::new(),
            access_log: "json",
            mesh: false,
            watch: false,
            grace: "0s",
            most_files: None,
            real_ports: false,
        }
    }

    /// Servers of the ports 80 and 443 are bound there, which only root may do.
    pub fn real_ports(mut self) -> Self {
        self.real_ports = true;
        self
    }

    /// Where the gateway will listen.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn manifest(self, file: &str, text: &str) -> Self {
        write_whole(&self.folder.path().join("manifests").join(file), text);
        self
    }

    /// Lines for the end of limani.toml.
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self
    }

    /// Lines for `[listen]`.
    pub fn listen(mut self, toml: &str) -> Self {
        self.listen.push_str(toml);
        self
    }

    /// The format of the access log; JSON without it.
    pub fn access_log(mut self, format: &'static str) -> Self {
        self.access_log = format;
        self
    }

    /// A MeshConfig file: it turns the access log on or off, and `/dev/stdout` is the test's file.
    pub fn mesh(mut self, text: &str) -> Self {
        write_whole(&self.folder.path().join("mesh.yaml"), text);
        self.mesh = true;
        self
    }

    /// The most file descriptors that the gateway may have.
    pub fn most_files(mut self, count: u32) -> Self {
        self.most_files = Some(count);
        self
    }

    /// Follow changed files; without it only an asked reload reads them.
    pub fn watching(mut self) -> Self {
        self.watch = true;
        self
    }

    /// How long listeners stay open after SIGTERM.
    pub fn grace(mut self, grace: &'static str) -> Self {
        self.grace = grace;
        self
    }

    /// Writes limani.toml, for commands that only read it, and says where it is.
    pub fn write_settings(&self) -> PathBuf {
        let Plan { address, watch, settings, listen, access_log, grace, .. } = self;
        let (mesh, log) = match self.mesh {
            true => ("mesh = \"mesh.yaml\"", "stdout = \"access.log\"".to_owned()),
            false => ("", format!("path = \"access.log\"\nformat = \"{access_log}\"")),
        };
        let ports = match self.real_ports {
            true => String::new(),
            false => format!("ports = {{ 80 = {HTTP}, 443 = {HTTPS} }}"),
        };
        let toml = format!(
            r#"
[listen]
address = "{address}"
{ports}
{listen}
[source]
manifests = ["manifests"]
{mesh}
watch = {watch}
debounce = "20ms"
[admin]
address = "{address}:{ADMIN}"
ready = "{address}:{READY}"
metrics = "{address}:{METRICS}"
[access_log]
{log}
[runtime]
workers = 1
[shutdown]
grace = "{grace}"
drain = "10s"
{settings}
"#
        );
        let path = self.folder.path().join("limani.toml");
        fs::write(&path, toml).expect("settings are written");
        path
    }

    /// The command that runs this gateway, for tests that expect it to fail.
    pub fn command(&self) -> Command {
        let mut command = match self.most_files {
            None => limani(),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {count}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_limani")]);
                shell
            }
        };
        command.arg("run").arg("-c").arg(self.write_settings()).current_dir(self.folder.path());
        command
    }

    /// Starts it and returns when it is ready.
    pub fn start(self) -> TestGateway {
        let (process, log) = spawn(self.command());
        let gateway = TestGateway { address: self.address, folder: self.folder, process, log };
        gateway.wait_until_ready();
        gateway
    }
}

/// Runs a gateway and keeps what it logs.
fn spawn(mut command: Command) -> (Child, Arc<Log>) {
    let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the gateway starts");
    let log = Arc::<Log>::default();
    let stderr = process.stderr.take().expect("stderr is a pipe");
    let reader = Arc::clone(&log);
    std::thread::spawn(move || reader.read(BufReader::new(stderr)));
    (process, log)
}

impl TestGateway {
    /// A gateway with one file of manifests.
    pub fn with(manifests: &str) -> Self {
        Plan::new().manifest("all.yaml", manifests).start()
    }

    pub fn socket(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    pub fn http(&self) -> SocketAddr {
        self.socket(HTTP)
    }

    pub fn https(&self) -> SocketAddr {
        self.socket(HTTPS)
    }

    /// GET by curl over the plaintext port, with a Host of its own.
    pub fn get(&self, host: &str, path: &str) -> Answer {
        self.curl(host, path, &[])
    }

    /// The same with more arguments for curl.
    pub fn curl(&self, host: &str, path: &str, arguments: &[&str]) -> Answer {
        let host = format!("host: {host}");
        let url = format!("http://{}{path}", self.http());
        let arguments: Vec<&str> = ["-H", &host].into_iter().chain(arguments.iter().copied()).collect();
        curl::curl(&url, &arguments)
    }

    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file in place in one step, as an editor or Kubernetes does.
    pub fn write(&self, file: &str, text: &str) {
        write_whole(&self.manifests().join(file), text);
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).expect("the file was there");
    }

    /// `limani reload --wait`: its exit code, and what it printed.
    pub fn reload_wait(&self) -> (i32, String) {
        let output = self.command(&["reload", "--wait"]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same, which has to be in force as a whole.
    pub fn reload(&self) {
        let (code, text) = self.reload_wait();
        assert_eq!(code, 0, "{text}\n{}", self.log());
    }

    /// One of the commands that ask a running gateway.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let admin = format!("http://{}", self.socket(ADMIN));
        limani().args(arguments).args(["--admin", &admin]).output().expect("the command runs")
    }

    pub fn admin(&self, path: &str) -> Answer {
        curl::curl(&format!("http://{}{path}", self.socket(ADMIN)), &[])
    }

    pub fn admin_post(&self, path: &str) -> Answer {
        curl::curl(&format!("http://{}{path}", self.socket(ADMIN)), &["-X", "POST"])
    }

    pub fn readiness(&self) -> u16 {
        curl::curl(&format!("http://{}/healthz/ready", self.socket(READY)), &[]).status
    }

    pub fn metrics(&self) -> String {
        curl::curl(&format!("http://{}/stats/prometheus", self.socket(METRICS)), &[]).body
    }

    /// The sum of a metric's lines that contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let is_meant = |line: &&str| line.starts_with(name) && !line.starts_with('#') && line.contains(labels);
        self.metrics().lines().filter(is_meant).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn generation(&self) -> u64 {
        self.admin("/status").json()["generation"].as_u64().expect("status tells the generation")
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// Waits for an access log line that `is_meant`.
    pub fn access_record(&self, is_meant: impl Fn(&Value) -> bool) -> Value {
        let line = until(|| {
            let text = self.access_log();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(&is_meant)
        });
        line.unwrap_or_else(|| panic!("no such line in {}", self.access_log()))
    }

    /// Waits for a line on stderr and returns it.
    pub fn wait_for_log(&self, is_meant: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().expect("no reader panicked");
        let mut seen = 0;
        loop {
            if let Some(line) = lines.0.iter().skip(seen).find(|line| is_meant(line)) {
                return line.clone();
            }
            seen = lines.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1 && !left.is_zero(), "the expected line did not come:\n{}", lines.0.join("\n"));
            lines = self.log.more.wait_timeout(lines, left).expect("no reader panicked").0;
        }
    }

    /// Everything on stderr so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().expect("no reader panicked").0.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory in kilobytes.
    pub fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel tells the size");
        line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
    }

    /// Sends a signal by its short name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until the process has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        until(|| self.process.try_wait().expect("it is our child")).expect("the gateway ends")
    }

    /// `kill -9`: it ends without a chance to tidy up.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it ends");
    }

    /// Starts it again with the same settings, after it has ended; it may not be ready yet.
    pub fn spawn_again(&mut self) {
        let mut command = limani();
        command.arg("run").arg("-c").arg(self.folder.path().join("limani.toml")).current_dir(self.folder.path());
        (self.process, self.log) = spawn(command);
    }

    pub fn wait_until_ready(&self) {
        self.wait_for_log(|line| line.contains("ready") && line.contains("generation="));
    }

    /// SIGTERM, and the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}

impl Log {
    fn read(&self, lines: impl BufRead) {
        for line in lines.lines() {
            let Ok(line) = line else { break };
            self.lines.lock().expect("no reader panicked").0.push(line);
            self.more.notify_all();
        }
        self.lines.lock().expect("no reader panicked").1 = true;
        self.more.notify_all();
    }
}

/// Asks again and again, for states that nobody announces; `None` when patience ends.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_whole(path: &Path, text: &str) {
    let folder = path.parent().and_then(Path::parent).expect("manifests are in a folder");
    let aside = folder.join("being-written");
    fs::write(&aside, text).expect("the file is written");
    fs::rename(&aside, path).expect("the file is put in place");
}
