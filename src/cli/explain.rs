//! What would happen to a request? The rule that answers, and why the others do not.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::check::count;
use super::files::Files;
use super::{Format, say};
use crate::analysis::View;
use crate::explain::{self, Query};
use crate::resource::finding::Severity;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Left out for tcp://host:port.
    #[arg(value_name = "METHOD")]
    method: String,
    /// http://host[:port]/path, https://..., or tcp://host:port; the port is the Gateway's, or the one that is bound.
    url: Option<String>,
    #[command(flatten)]
    files: Files,
    /// A request header; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The client's address [default: 127.0.0.1].
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// The server name of TLS; empty for none [default: the host of an https URL; none makes tcp plaintext].
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Explain {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        let (method, url) = match (self.method, self.url) {
            (method, Some(url)) if !method.contains("://") => (method, url),
            (url, path) if url.contains("://") => {
                self.files.add_first(path);
                (String::new(), url)
            }
            _ => bail!("a URL is missing; write http://host[:port]/path, https://... or tcp://host:port"),
        };
        let loaded = self.files.load(View::Gateway)?;
        let errors = count(&loaded.findings, Severity::Error);
        let Some(snapshot) = loaded.snapshot else { bail!("the settings are unusable; `limani check` says why") };
        match errors {
            0 => {}
            1 => eprintln!("limani: the configuration has an error; `limani check` shows it"),
            _ => eprintln!("limani: the configuration has {errors} errors; `limani check` shows them"),
        }
        let query = Query { method, url, headers: self.headers, from: self.from, sni: self.sni };
        let explanation = explain::explain(&snapshot, &query).map_err(anyhow::Error::msg)?;
        match self.format {
            Format::Text => say(&explanation.to_string()),
            Format::Json => say(&(serde_json::to_string_pretty(&explanation)? + "\n")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => Err("expected NAME: VALUE".into()),
    }
}
