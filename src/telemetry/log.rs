//! How does the process tell what happens to it? Lines of fields on stderr; the level can be changed at run time.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes which lines are written.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// What the HTTP/2 library warns of is what clients do: nobody may fill the log from outside.
const DEFAULT: &str = "info,h2=error";

/// Starts the log with what `RUST_LOG` says, else [`DEFAULT`]. A second call in one process changes nothing that is shown.
pub(crate) fn init() -> LogLevel {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // Fails if there is a log already, as in a test that starts two gateways: that one goes on.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LogLevel(handle)
}

impl LogLevel {
    /// `debug`, or by part: `info,limani::proxy=trace`. The error says what is wrong with the text.
    pub(crate) fn set(&self, directives: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }

    /// What is in force.
    pub(crate) fn shown(&self) -> String {
        self.0.with_current(EnvFilter::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_change_at_run_time() {
        let level = init();
        if level.set("warn").is_err() {
            return; // another test of this process owns the log
        }
        assert_eq!(level.shown(), "warn");
        assert!(level.set("limani=nonsense").is_err());
        assert_eq!(level.shown(), "warn");
    }
}
