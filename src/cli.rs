//! What did the user type? Words in, exit code out; failures are one clear sentence on stderr.

mod acme;
mod certs;
mod check;
mod explain;
mod files;
mod issuance;
mod remote;
mod sarif;
mod trust;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::{self, Start};
use crate::demo;

/// Where the settings are looked for when `-c` does not say.
const DEFAULT_SETTINGS: [&str; 2] = ["conf/limani.toml", "/etc/limani/limani.toml"];

/// Limani: an ingress and egress gateway that reads Istio's manifests.
#[derive(Debug, Parser)]
#[command(name = "limani", version, propagate_version = false)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway. SIGHUP reloads, SIGTERM drains and ends, a second one ends at once.
    Run(Run),
    /// Is this configuration right? Exit code 0: yes; 1: warnings, with --strict; 2: errors.
    Check(check::Check),
    /// Which listener, host, rule and destination would this request meet, and why not the others?
    Explain(Box<explain::Explain>),
    /// What is in force in the running gateway, and how its last reload went.
    Status(remote::Show),
    /// The hosts and rules in force, in the order in which they are tried.
    Routes(remote::Remote),
    /// The certificates in force, and those that are kept in date: until when, and when the next is got.
    Certs(certs::Certs),
    /// Certificates from CAs: what has to be written into DNS.
    Acme(acme::AcmeCommand),
    /// Have the running gateway read its configuration again. With --wait, exit code 0: all of it is in force;
    /// 1: some or all of it is not; 2: the gateway cannot be reached.
    Reload(remote::Reload),
    /// Have the running gateway fail its readiness and tell its connections to go.
    Drain(remote::Remote),
    /// Let this machine trust the gateway's own authority ([tls] local_ca). Usually needs root.
    Trust(trust::Trust),
    /// Bookinfo and three dashboards behind a gateway, all on this machine.
    Demo(Demo),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
struct Run {
    /// The settings file [default: conf/limani.toml, else /etc/limani/limani.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Demo {
    /// Everything listens on this address.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// The port for HTTP.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http: u16,
    /// The port for HTTPS.
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https: u16,
    /// The port of the admin page.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    admin_port: u16,
    /// The port of /healthz/ready.
    #[arg(long, value_name = "PORT", default_value_t = 15021)]
    ready_port: u16,
    /// The port of /stats/prometheus.
    #[arg(long, value_name = "PORT", default_value_t = 15020)]
    metrics_port: u16,
    /// Where the demo keeps its files [default: limani/demo in the user's state folder].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Does what the arguments of this process say.
pub fn main() -> ExitCode {
    // Whatever speaks TLS takes it from here; fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::Check(check) => return check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Status(show) => show.run(),
        Command::Routes(remote) => remote.print("routes"),
        Command::Certs(certs) => certs.run(),
        Command::Acme(acme) => acme.run(),
        Command::Reload(reload) => return reload.run(),
        Command::Drain(remote) => remote.drain(),
        Command::Trust(trust) => trust.run(),
        Command::Demo(demo) => demo.run(),
        Command::Version => {
            say(&format!("limani {}\n", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| failed(&error, ExitCode::FAILURE))
}

/// Writes to stdout. A reader that has gone (`limani routes | head`) is no failure.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn failed(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("limani: {error:#}");
    code
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        let settings = files::settings_path(self.config)?;
        app::run(Start { settings, needs_all_listeners: false, greeting: None })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Demo {
    fn run(self) -> anyhow::Result<ExitCode> {
        let prepared = demo::prepare(&demo::Options {
            address: self.address,
            http: self.http,
            https: self.https,
            admin_port: self.admin_port,
            ready_port: self.ready_port,
            metrics_port: self.metrics_port,
            dir: self.dir,
        })?;
        prepared.origins.start()?;
        let greeting = Some(prepared.guide);
        app::run(Start { settings: prepared.settings, needs_all_listeners: true, greeting })?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Arguments::command().debug_assert();
    }
}
