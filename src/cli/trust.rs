//! How does this machine come to trust the gateway's own authority? Its certificate goes where the system keeps those.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::files::settings_path;
use super::say;
use crate::snapshot::issuance::LOCAL_AUTHORITY;
use crate::source;

/// Let this machine trust the gateway's own authority ([tls] local_ca). Usually needs root.
#[derive(Debug, Args)]
pub(super) struct Trust {
    /// The settings file [default: conf/limani.toml, else /etc/limani/limani.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only show where the certificate is and what would be done.
    #[arg(long, conflicts_with = "remove")]
    print: bool,
    /// Trust it no longer.
    #[arg(long)]
    remove: bool,
    /// The root of the system whose trust is changed.
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

/// Where a system keeps authorities that its administrator trusts, and what puts them in force.
struct TrustStore {
    folder: &'static str,
    ending: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

/// Debian and Ubuntu; Fedora and its relatives; openSUSE; Arch.
const STORES: [TrustStore; 4] = [
    TrustStore {
        folder: "usr/local/share/ca-certificates",
        ending: "crt",
        program: "usr/sbin/update-ca-certificates",
        arguments: &[],
    },
    TrustStore {
        folder: "etc/pki/ca-trust/source/anchors",
        ending: "pem",
        program: "usr/bin/update-ca-trust",
        arguments: &["extract"],
    },
    TrustStore {
        folder: "usr/share/pki/trust/anchors",
        ending: "pem",
        program: "usr/sbin/update-ca-certificates",
        arguments: &[],
    },
    TrustStore {
        folder: "etc/ca-certificates/trust-source/anchors",
        ending: "crt",
        program: "usr/bin/update-ca-trust",
        arguments: &[],
    },
];

impl Trust {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let path = std::path::absolute(settings_path(self.config.clone())?)?;
        let settings = source::settings(&path).map_err(|findings| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the settings cannot be used:\n{}", lines.join("\n"))
        })?;
        let Some(folder) = settings.tls.local_ca else {
            bail!("{} has no authority of its own: set `local_ca = true` in [tls]", path.display());
        };
        let authority = folder.join(LOCAL_AUTHORITY);
        let text = match fs::read_to_string(&authority) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{} does not exist yet; the gateway makes it when a server first needs it", authority.display())
            }
            read => read.with_context(|| format!("cannot read {}", authority.display()))?,
        };
        let store = STORES.iter().find(|store| store.is_of(&self.root)).with_context(|| {
            format!("this system's trust store is not known here; add {} to it by hand", authority.display())
        })?;
        // By the key: a certificate that was made anew takes the place of the last one.
        let place = self.root.join(store.folder).join(format!("limani-{}.{}", mark(&text)?, store.ending));
        let program = self.root.join(store.program);
        if self.print {
            say(&format!(
                "{}\n\nIt would be trusted by:\n  cp {0} {}\n  {} {}\n",
                authority.display(),
                place.display(),
                program.display(),
                store.arguments.join(" ")
            ));
            return Ok(ExitCode::SUCCESS);
        }
        let changed = match self.remove {
            true => remove(&place),
            false => fs::write(&place, &text).map(|()| true),
        };
        let changed = changed.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => anyhow::anyhow!(
                "{} cannot be changed without root's rights; try `sudo limani trust -c {}`, or --print",
                place.display(),
                path.display()
            ),
            _ => anyhow::Error::new(error).context(format!("cannot change {}", place.display())),
        })?;
        if !changed {
            say("It was not trusted.\n");
            return Ok(ExitCode::SUCCESS);
        }
        update(&program, store.arguments)?;
        let done = if self.remove { "is trusted no longer" } else { "is trusted by this machine now" };
        say(&format!(
            "{} {done}. Programs that run have to be started again; Firefox and Java have lists of their own.\n",
            authority.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

impl TrustStore {
    fn is_of(&self, root: &Path) -> bool {
        root.join(self.folder).is_dir() && root.join(self.program).is_file()
    }
}

/// Whether it was there.
fn remove(place: &Path) -> io::Result<bool> {
    match fs::remove_file(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

fn update(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Some digits of the key's fingerprint. Nothing else than one authority that may speak for its own names alone is to be
/// trusted: the gateway wrote the file, and root is asked to believe it.
fn mark(pem: &str) -> anyhow::Result<String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.ok().context("the authority's certificate is no PEM")?;
    let [der] = all.as_slice() else { bail!("the authority's file has {} certificates, and not one", all.len()) };
    let (_, parsed) = X509Certificate::from_der(der).ok().context("the authority's certificate cannot be read")?;
    let is_bound = parsed.iter_extensions().any(|extension| match extension.parsed_extension() {
        ParsedExtension::NameConstraints(bounds) => bounds.permitted_subtrees.as_ref().is_some_and(|to| !to.is_empty()),
        _ => false,
    });
    if !is_bound {
        bail!("the authority's certificate does not say for which names it may speak, so the gateway did not make it");
    }
    let digest = digest::digest(&digest::SHA256, parsed.public_key().raw);
    Ok(digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints};

    use super::*;

    #[test]
    fn only_one_authority_that_is_bound_to_names_is_believed() {
        let made = |names: &[&str]| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let permitted_subtrees = names.iter().map(|name| GeneralSubtree::DnsName((*name).to_owned())).collect();
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let (bound, free) = (made(&["localhost"]), made(&[]));
        assert_eq!(mark(&bound).unwrap().len(), 8);
        for (text, why) in
            [(free.clone(), "for which names"), (bound + &free, "2 certificates"), ("x".into(), "0 cert")]
        {
            assert!(mark(&text).unwrap_err().to_string().contains(why), "{why}");
        }
    }
}
