//! What has to be written into DNS, once, so that a CA believes us for good (dns-persist-01)?

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::files::settings_path;
use super::say;
use crate::certs::acme::Acme;
use crate::certs::store::Store;
use crate::compile::acme_issuer;
use crate::resource::settings::acme::{AcmeIssuer, CertificateName, Challenge};
use crate::snapshot::issuance::{Identifier, IssuerKind};
use crate::source;

/// Certificates from CAs.
#[derive(Debug, Args)]
pub(super) struct AcmeCommand {
    #[command(subcommand)]
    command: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    /// The TXT records that prove a name for dns-persist-01. Registers the account at the CA if there is none yet.
    DnsRecord(DnsRecord),
}

#[derive(Debug, Args)]
struct DnsRecord {
    /// A host name, or `*.` and one: that record is for the name itself, too.
    name: String,
    /// This issuer alone [default: all that may use dns-persist-01].
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The settings file [default: conf/limani.toml, else /etc/limani/limani.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

impl AcmeCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Words::DnsRecord(record) => record.run(),
        }
    }
}

impl DnsRecord {
    fn run(self) -> anyhow::Result<ExitCode> {
        let name = match self.name.parse() {
            Ok(CertificateName::Dns(name)) => Identifier::Dns(name),
            Ok(CertificateName::Ip(_)) => bail!("{} has no records in DNS", self.name),
            Err(reason) => bail!("`{}`: {reason}", self.name),
        };
        let path = std::path::absolute(settings_path(self.config)?)?;
        let settings = source::settings(&path).map_err(|findings| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the settings cannot be used:\n{}", lines.join("\n"))
        })?;
        let storage = settings.acme.storage.as_ref().context("no storage is set")?;
        let store = Store::open(storage).with_context(|| format!("{} cannot be used", storage.display()))?;
        let meant = |issuer: &&AcmeIssuer| match &self.issuer {
            Some(named) => issuer.name == *named,
            None => issuer.challenges.contains(&Challenge::DnsPersist01),
        };
        let issuers: Vec<&AcmeIssuer> = settings.acme.issuers.iter().filter(meant).collect();
        if issuers.is_empty() {
            bail!(
                "no issuer {}",
                self.issuer.as_deref().map_or("may use dns-persist-01".into(), |name| format!("is named `{name}`"))
            );
        }
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for issuer in issuers {
            let issuer = acme_issuer(issuer);
            let IssuerKind::Acme(terms) = &issuer.kind else { continue };
            let acme = Acme::new(&issuer.name, (**terms).clone(), store.clone(), Arc::default());
            let record = runtime.block_on(acme.dns_record(&name)).with_context(|| format!("issuer {}", issuer.name))?;
            say(&format!("{}. IN TXT \"{}\"\n", record.name, record.value));
        }
        Ok(ExitCode::SUCCESS)
    }
}
