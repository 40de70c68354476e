//! Who writes the record that proves a name in DNS (RFC 8555 section 8.4)? And who removes it again?

mod exchange;
mod exec;
mod servers;
mod update;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use self::update::Place;
use crate::base::task;
use crate::snapshot::issuance::DnsSolver;

/// What a program or a web service is asked to do.
#[derive(Clone, Copy, Debug)]
enum Action {
    Present,
    Cleanup,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Present => "present",
            Action::Cleanup => "cleanup",
        }
    }
}

/// A program or a web service has this long.
const HOOK_WITHIN: Duration = Duration::from_secs(120);

/// A record that was written. It is removed when this is dropped, by a task of its own; better await
/// [`Presented::withdraw`].
pub(super) struct Presented(Option<Written>);

enum Written {
    Update(Box<Place>),
    Exec { command: PathBuf, name: String, value: String },
    Webhook { url: String, name: String, value: String },
}

/// Writes a TXT record. `name` ends with a dot. Other records of the name stay.
///
/// # Errors
///
/// A sentence that says who failed and why.
pub(super) async fn present(solver: &DnsSolver, name: &str, value: &str) -> Result<Presented, String> {
    let (name, value) = (name.to_owned(), value.to_owned());
    let written = match solver {
        DnsSolver::Rfc2136 { server, zone, key } => {
            Written::Update(Box::new(Place::find(*server, zone.as_deref(), key.as_ref(), &name, &value).await?))
        }
        DnsSolver::Exec { command } => Written::Exec { command: command.clone(), name, value },
        DnsSolver::Webhook { url } => Written::Webhook { url: url.clone(), name, value },
    };
    // What was begun is cleaned up, even if it fails or is cancelled.
    let presented = Presented(Some(written));
    if let Some(written) = &presented.0 {
        written.act(Action::Present).await?;
    }
    Ok(presented)
}

impl Presented {
    /// Waits until the zone's servers answer with the record. A program or a web service has waited itself.
    pub(super) async fn seen(&self) -> Result<(), String> {
        match &self.0 {
            Some(Written::Update(place)) => servers::wait_for(place).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn withdraw(mut self) {
        if let Some(written) = self.0.take() {
            written.remove().await;
        }
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        if let Some(written) = self.0.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            drop(task::spawn("dns cleanup", written.remove()));
        }
    }
}

impl Written {
    async fn act(&self, action: Action) -> Result<(), String> {
        match self {
            Written::Update(place) => match action {
                Action::Present => place.add().await,
                Action::Cleanup => place.remove().await,
            },
            Written::Exec { command, name, value } => exec::run(command, action, name, value).await,
            Written::Webhook { url, name, value } => webhook::post(url, action, name, value).await,
        }
    }

    async fn remove(self) {
        if let Err(error) = self.act(Action::Cleanup).await {
            tracing::warn!(error, "a record of a challenge stays in DNS");
        }
    }
}
