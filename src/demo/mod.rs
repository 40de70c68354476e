//! How can everything be seen at once? Bookinfo and three dashboards, embedded, with manifests and certificates.
//!
//! The demo writes a settings file and manifests into its folder and starts the origins. The gateway that then runs
//! on these files is the same as any other; nothing in it knows about the demo.

mod answer;
mod bookinfo;
mod dashboards;
mod guide;
mod inside;
mod origins;
mod product_page;
mod state;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, bail};

pub(crate) use origins::Origins;

/// Where the demo listens and keeps its files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Everything listens here. Default 127.0.0.1.
    pub address: IpAddr,
    /// Default 8080.
    pub http: u16,
    /// Default 8443.
    pub https: u16,
    /// The admin page. Default 15000.
    pub admin_port: u16,
    /// `/healthz/ready`. Default 15021.
    pub ready_port: u16,
    /// `/stats/prometheus`. Default 15020.
    pub metrics_port: u16,
    /// Default `$XDG_STATE_HOME/limani/demo`, or `~/.local/state/limani/demo`.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            http: 8080,
            https: 8443,
            admin_port: 15000,
            ready_port: 15021,
            metrics_port: 15020,
            dir: None,
        }
    }
}

impl Options {
    fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.admin_port)
    }

    fn ready(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ready_port)
    }

    fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.metrics_port)
    }

    /// Every port that the gateway will bind, with the option that changes it.
    fn ports(&self) -> [(u16, &'static str); 5] {
        [
            (self.http, "--http"),
            (self.https, "--https"),
            (self.admin_port, "--admin-port"),
            (self.ready_port, "--ready-port"),
            (self.metrics_port, "--metrics-port"),
        ]
    }
}

/// A demo that is ready to be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The settings file that the gateway has to run on.
    pub settings: PathBuf,
    /// What to print once the gateway is ready.
    pub guide: String,
    /// The embedded services; start them before the gateway.
    pub origins: Origins,
}

/// Looks for taken ports, binds the embedded services, and writes the files.
///
/// # Errors
/// A port is taken (the message names it and the option that changes it), or the folder cannot be written to.
pub(crate) fn prepare(options: &Options) -> anyhow::Result<Prepared> {
    for (port, option) in options.ports() {
        free(SocketAddr::new(options.address, port), option)?;
    }
    let folder = match &options.dir {
        Some(dir) => std::path::absolute(dir).with_context(|| format!("{} is no folder", dir.display()))?,
        None => state_folder().context("neither XDG_STATE_HOME nor HOME is set: name a folder with --dir")?,
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let origins = Origins::bind(options.address, SocketAddr::new(options.address, options.http))
        .context("cannot start the embedded services")?;
    let settings = state::write(&folder, options, &origins.addresses()?)?;
    Ok(Prepared { settings, guide: guide::print(options, &folder), origins })
}

fn free(address: SocketAddr, option: &str) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {} on {} is taken; choose another with {option} PORT", address.port(), address.ip())
        }
        Err(error) => bail!("cannot listen on {address}: {error}; choose another port with {option} PORT"),
    }
}

fn state_folder() -> Option<PathBuf> {
    let from = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = from("XDG_STATE_HOME").or_else(|| Some(from("HOME")?.join(".local/state")))?;
    Some(state.join("limani/demo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loopback address that no other test uses, with the default ports.
    fn options(dir: &std::path::Path) -> Options {
        Options { address: IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1)), dir: Some(dir.into()), ..Options::default() }
    }

    #[test]
    fn a_taken_port_is_named_with_its_option() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { address: IpAddr::V4(Ipv4Addr::new(127, 77, 0, 2)), ..options(folder.path()) };
        let _holder = TcpListener::bind((options.address, options.https)).unwrap();
        let error = prepare(&options).unwrap_err().to_string();
        assert_eq!(error, "port 8443 on 127.77.0.2 is taken; choose another with --https PORT");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    }

    #[test]
    fn everything_is_written_and_the_guide_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let prepared = prepare(&options(folder.path())).unwrap();
        let settings = std::fs::read_to_string(&prepared.settings).unwrap();
        assert_eq!(settings.matches("labels = { version = ").count(), 9, "{settings}");
        assert!(settings.contains("local_ca = true"), "{settings}");
        for word in ["{http}", "{https}", "{ca}", "{admin}", "{metrics}"] {
            assert!(!prepared.guide.contains(word), "{word} in {}", prepared.guide);
        }
    }
}
