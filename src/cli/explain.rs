//! What would happen to a request? The rule that answers, and why the others do not.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::check::count;
use super::files::Files;
use super::remote::Remote;
use super::{Format, say};
use crate::analysis::View;
use crate::base::clock;
use crate::compile;
use crate::compile::outbound::{self, Workload};
use crate::explain::{self, Query};
use crate::resource::finding::Severity;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Left out for tcp://host:port.
    #[arg(value_name = "METHOD", required_unless_present = "request_id")]
    method: Option<String>,
    /// http://host[:port]/path, https://..., or tcp://host:port; the port is the Gateway's, the one that is bound, or
    /// with --sidecar the service's.
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
    /// Explains what a workload of the mesh meets on its way out, by its namespace and labels.
    #[arg(long, value_name = "NAMESPACE[/KEY=VALUE,...]", value_parser = workload)]
    sidecar: Option<Workload>,
    /// The address that the workload connects to [default: that of the URL's service].
    #[arg(long, value_name = "IP", requires = "sidecar")]
    to: Option<IpAddr>,
    /// The claims of a verified token, as JSON, for rules on `@request.auth.claims`.
    #[arg(long, value_name = "JSON", value_parser = claims)]
    claims: Option<serde_json::Value>,
    /// Ask the running gateway, which obeys the configuration in force, instead of reading files.
    #[arg(long, conflicts_with = "sidecar")]
    running: bool,
    /// Ask the running gateway for a request that ended lately, by its id in the access log.
    #[arg(long, value_name = "ID", conflicts_with_all = ["method", "url", "headers", "from", "sni", "sidecar", "claims"])]
    request_id: Option<String>,
    /// The gateway's admin port [default: what the settings say, else http://127.0.0.1:15000].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Explain {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        if let Some(id) = self.request_id.take() {
            return self.ask(&json!({ "requestId": id }));
        }
        let (method, url) = match (self.method.take().unwrap_or_default(), self.url.take()) {
            (method, Some(url)) if !method.contains("://") => (method, url),
            (url, path) if url.contains("://") => {
                self.files.add_first(path);
                (String::new(), url)
            }
            _ => bail!("a URL is missing; write http://host[:port]/path, https://... or tcp://host:port"),
        };
        if self.running {
            let (headers, from, sni) = (&self.headers, self.from, &self.sni);
            let claims = &self.claims;
            let question =
                json!({ "method": method, "url": url, "headers": headers, "from": from, "sni": sni, "claims": claims });
            return self.ask(&question);
        }
        let loaded = self.files.load(View::Gateway)?;
        let errors = count(&loaded.findings, Severity::Error);
        let Some(snapshot) = loaded.snapshot else { bail!("the settings are unusable; `limani check` says why") };
        match errors {
            0 => {}
            1 => eprintln!("limani: the configuration has an error; `limani check` shows it"),
            _ => eprintln!("limani: the configuration has {errors} errors; `limani check` shows them"),
        }
        let (headers, from, sni) = (self.headers, self.from, self.sni);
        let query = Query { method, url, headers, from, sni, to: self.to, claims: self.claims };
        let explanation = match &self.sidecar {
            None => explain::explain(&snapshot, &query),
            Some(workload) => {
                let (resources, settings) = &loaded.accepted;
                let memory = &mut compile::Memory::default();
                let (outbound, _) = outbound::compile(resources, settings, workload, clock::now(), memory);
                explain::explain_outbound(&outbound, &query)
            }
        };
        let explanation = explanation.map_err(anyhow::Error::msg)?;
        match self.format {
            Format::Text => say(&explanation.to_string()),
            Format::Json => say(&(serde_json::to_string_pretty(&explanation)? + "\n")),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks the running gateway.
    fn ask(self, question: &Value) -> anyhow::Result<ExitCode> {
        let page = match self.format {
            Format::Text => "explain?format=text",
            Format::Json => "explain",
        };
        say(&Remote::new(self.admin, self.files.config).ask(page, question)?);
        Ok(ExitCode::SUCCESS)
    }
}

fn claims(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn workload(text: &str) -> Result<Workload, String> {
    let (namespace, labels) = text.split_once('/').unwrap_or((text, ""));
    let label = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let labels: Option<_> = labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
    match labels {
        Some(labels) if !namespace.is_empty() => Ok(Workload { namespace: namespace.to_owned(), labels }),
        _ => Err("expected NAMESPACE or NAMESPACE/KEY=VALUE,...".into()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => Err("expected NAME: VALUE".into()),
    }
}
