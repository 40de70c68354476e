//! Where do tasks come from? Every spawned task has a name, and its panic is logged under it.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts `future` on the current runtime. The name appears in log lines written inside the task.
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::error_span!("task", name)))
}
