//! Where do tasks come from? Every spawned task has a name, and its panic is logged under it.

use std::future::Future;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tracing::Instrument;

/// Starts `future` on the current runtime. The name appears in log lines written inside the task.
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::error_span!("task", name)))
}

/// Starts `future` in a set that can wait for its tasks and end them. Such tasks are many: they have no span of
/// their own, and a panic is logged by [`report`].
pub(crate) fn spawn_in<F>(tasks: &mut JoinSet<()>, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tasks.spawn(future);
}

/// Logs how a task of a set ended, if that was a panic.
pub(crate) fn report(name: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(name, %error, "a task panicked");
    }
}

/// Starts one request of many: without a span of its own, which would cost more than it tells.
pub(crate) fn spawn_request<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
