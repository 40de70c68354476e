//! What does the running gateway say? Its admin port is asked over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::blocking::{Client, Response};
use serde_json::Value;

use super::{Format, failed, say};
use crate::resource::settings::Settings;
use crate::source;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A reload of a very large configuration takes seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// The gateway did not put all of the configuration in force.
const NOT_ALL_IN_FORCE: u8 = 1;
/// The gateway cannot be asked.
const UNREACHABLE: u8 = 2;

/// Which gateway is meant.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The gateway's admin port [default: what the settings say, else http://127.0.0.1:15000].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The settings file of the gateway.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    remote: Remote,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    remote: Remote,
    /// Return when the configuration is in force, and print what was found in it.
    #[arg(long)]
    wait: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Remote {
    /// Prints a page of the admin port as it is.
    pub(super) fn print(&self, page: &str) -> anyhow::Result<ExitCode> {
        say(&self.get(page)?);
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn drain(&self) -> anyhow::Result<ExitCode> {
        self.post("drain")?;
        say("readiness fails now, and connections are told to go\n");
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn new(admin: Option<String>, config: Option<PathBuf>) -> Self {
        Remote { admin, config }
    }

    /// Asks a question in JSON.
    pub(super) fn ask(&self, page: &str, question: &Value) -> anyhow::Result<String> {
        let (client, url) = (client()?, self.url(page)?);
        let request = client.post(&url).header("content-type", "application/json").body(question.to_string());
        text(request.send().with_context(|| unreachable(&url))?)
    }

    pub(super) fn get(&self, page: &str) -> anyhow::Result<String> {
        let (client, url) = (client()?, self.url(page)?);
        text(client.get(&url).send().with_context(|| unreachable(&url))?)
    }

    fn post(&self, page: &str) -> anyhow::Result<String> {
        let (client, url) = (client()?, self.url(page)?);
        text(client.post(&url).send().with_context(|| unreachable(&url))?)
    }

    fn url(&self, page: &str) -> anyhow::Result<String> {
        let base = match (&self.admin, &self.config) {
            (Some(url), _) if url.contains("://") => url.clone(),
            (Some(address), _) => format!("http://{address}"),
            (None, Some(path)) => admin_url(&source::settings(path).map_err(|findings| {
                let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("the settings cannot be used: {}", lines.join("; "))
            })?),
            (None, None) => {
                let found = super::files::settings_path(None).ok().and_then(|path| source::settings(&path).ok());
                admin_url(&found.unwrap_or_default())
            }
        };
        Ok(format!("{}/{page}", base.trim_end_matches('/')))
    }
}

fn admin_url(settings: &Settings) -> String {
    let mut address = settings.admin.address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

fn client() -> anyhow::Result<Client> {
    // A client wants one, even if it only speaks plain HTTP; fails only if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).timeout(ANSWER_LIMIT);
    builder.build().context("there is no HTTP client")
}

fn unreachable(url: &str) -> String {
    format!("the gateway does not answer on {url}; is it running? (--admin names another address)")
}

fn text(response: Response) -> anyhow::Result<String> {
    let status = response.status();
    let text = response.text().context("the gateway's answer broke off")?;
    if !status.is_success() {
        bail!("the gateway answered {status}: {}", text.trim_end());
    }
    Ok(text)
}

impl Show {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let status = self.remote.get("status")?;
        match self.format {
            Format::Json => say(&status),
            Format::Text => say(&told(&serde_json::from_str(&status)?)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Reload {
    pub(super) fn run(&self) -> ExitCode {
        let asked = self.remote.post(if self.wait { "reload?wait" } else { "reload" });
        let outcome = asked.and_then(|text| Ok((serde_json::from_str::<Value>(&text)?, text)));
        let (outcome, text) = match outcome {
            Ok(answer) => answer,
            Err(error) => return failed(&error, ExitCode::from(UNREACHABLE)),
        };
        match self.format {
            Format::Json => say(&text),
            Format::Text if self.wait => say(&told_reload(&outcome)),
            Format::Text => say("asked for; --wait tells how it went\n"),
        }
        match outcome.get("verdict").and_then(Value::as_str) {
            Some("success" | "requested") => ExitCode::SUCCESS,
            _ => ExitCode::from(NOT_ALL_IN_FORCE),
        }
    }
}

/// `/status` in a few lines.
fn told(status: &Value) -> String {
    let mut lines = vec![
        format!("limani {}, {}", word(status, "version"), word(status, "stage")),
        format!("generation {} since {}", word(status, "generation"), word(status, "since")),
    ];
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let chains: Vec<&str> = listener["chains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        lines.push(format!("listener {} {}", word(listener, "address"), chains.join(", ")));
    }
    lines.extend(told_identity(&status["identity"]));
    let last = &status["lastReload"];
    if last.is_object() {
        lines.push(format!("last reload at {}:", word(last, "at")));
        lines.push(told_reload(last).trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

/// Who the gateway is in the mesh, if anybody.
fn told_identity(identity: &Value) -> Option<String> {
    let source = identity["source"].as_str()?;
    let certificate = &identity["certificate"];
    let id = certificate["spiffeId"].as_str().unwrap_or("without a SPIFFE ID");
    Some(match certificate["notAfter"].as_str() {
        Some(end) => format!("identity {id} until {end}, from {source}"),
        None => format!("identity: none, from {source}"),
    })
}

/// An outcome: its findings and its verdict.
fn told_reload(outcome: &Value) -> String {
    let findings = outcome["findings"].as_array();
    let mut lines: Vec<String> = findings.into_iter().flatten().map(told_finding).collect();
    let news = if outcome["changed"] == true { "" } else { ", unchanged" };
    let (verdict, generation) = (word(outcome, "verdict"), word(outcome, "generation"));
    lines.push(format!("{verdict}: generation {generation} is in force{news} ({} ms)", word(outcome, "durationMs")));
    lines.join("\n") + "\n"
}

fn told_finding(finding: &Value) -> String {
    let place = match (word(&finding["location"], "file"), word(&finding["location"], "line")) {
        (file, _) if file.is_empty() => file,
        (file, line) if line == "0" => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let (severity, code) = (word(finding, "severity"), word(finding, "code"));
    let object = Some(word(finding, "object")).filter(|object| !object.is_empty()).map(|object| format!(" {object}:"));
    let hint = Some(word(finding, "hint")).filter(|hint| !hint.is_empty()).map(|hint| format!(" ({hint})"));
    let message = word(finding, "message");
    format!("{place}{severity} [{code}]{} {message}{}", object.unwrap_or_default(), hint.unwrap_or_default())
}

/// A field as text; empty if it is missing.
pub(super) fn word(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outcomes_are_told_as_check_tells_them() {
        let outcome = json!({
            "verdict": "partial", "changed": true, "generation": 7, "durationMs": 1.5,
            "findings": [
                {"code": "IST0101", "severity": "error", "object": "VirtualService a/b",
                 "location": {"file": "x.yaml", "line": 3, "column": 1}, "message": "no such host", "hint": "add it"},
                {"code": "LIM0090", "severity": "error", "object": "",
                 "location": {"file": "", "line": 0, "column": 0}, "message": "taken", "hint": ""},
            ],
        });
        assert_eq!(
            told_reload(&outcome),
            "x.yaml:3: error [IST0101] VirtualService a/b: no such host (add it)\n\
             error [LIM0090] taken\n\
             partial: generation 7 is in force (1.5 ms)\n"
        );
    }

    #[test]
    fn an_unspecified_admin_address_is_asked_on_loopback() {
        let mut settings = Settings::default();
        settings.admin.address = "0.0.0.0:1234".parse().unwrap();
        assert_eq!(admin_url(&settings), "http://127.0.0.1:1234");
    }
}
