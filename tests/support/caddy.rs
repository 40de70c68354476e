//! Caddy as a CA: a second ACME server, which looks for challenges at the real ports 80 and 443.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::address;
use super::gateway::until;
use super::server::Server;
use super::tool;

const API: u16 = 18_443;

/// A running Caddy.
pub struct Caddy {
    /// The URL to begin with.
    pub directory: String,
    /// Its root, for its web server and for what it issues.
    pub root: PathBuf,
    _server: Server,
    _folder: TempDir,
}

impl Caddy {
    /// `None`, and a word that the test is skipped, without Caddy.
    pub fn start() -> Option<Self> {
        let program = tool::needed("caddy")?;
        let (folder, at) = (tempfile::tempdir().expect("a folder"), SocketAddr::from((address::fresh(), API)));
        let storage = folder.path().join("storage");
        let name = at.ip().to_string();
        let settings = json!({
            "admin": {"disabled": true},
            "storage": {"module": "file_system", "root": storage},
            "apps": {
                "pki": {"certificate_authorities": {"local": {"install_trust": false}}},
                "tls": {"automation": {"policies": [{"subjects": [name], "issuers": [{"module": "internal"}]}]},
                        "certificates": {"automate": [name]}},
                "http": {"servers": {"acme": {
                    "listen": [at.to_string()],
                    "automatic_https": {"disable_redirects": true},
                    "tls_connection_policies": [{"default_sni": name}],
                    "routes": [{"handle": [{"handler": "acme_server", "ca": "local"}]}],
                }}},
            },
        });
        fs::write(folder.path().join("caddy.json"), settings.to_string()).expect("settings are written");
        let mut command = Command::new(program);
        command.args(["run", "--config", "caddy.json"]).current_dir(folder.path());
        command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
        let server = Server::start(command, folder.path().join("caddy.log"), &[at]);
        let root = storage.join("pki/authorities/local/root.crt");
        until(|| root.is_file().then_some(())).expect("Caddy makes its authority");
        // Its own certificate comes a little after its port.
        let directory = format!("https://{at}/acme/local/directory");
        let trusted = root.to_string_lossy().into_owned();
        until(|| (super::curl::curl(&directory, &["--cacert", &trusted]).status == 200).then_some(()))
            .expect("Caddy has its certificate");
        Some(Caddy { directory, root, _server: server, _folder: folder })
    }
}
