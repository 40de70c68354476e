//! How does a rule's fault reach a request? It waits, then says whether it is to be aborted.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::snapshot::fault::{Abort, FaultPolicy};
use crate::telemetry::flags::Flag;

use super::client::Client;
use super::context::Journal;
use super::fail::Failure;
use super::visit::Visit;

/// Draws, delays the request, and says how it is aborted. Fails if the client leaves meanwhile.
pub(super) async fn inject(
    policy: &FaultPolicy,
    visit: &Visit,
    client: &mut Client,
    journal: &mut Journal,
) -> Result<Option<Abort>, Failure> {
    let injection = policy.decide([fastrand::u32(..), fastrand::u32(..)]);
    if let Some(delay) = injection.delay {
        journal.flags.set(Flag::DelayInjected);
        wait(delay, visit, client).await?;
    }
    Ok(injection.abort)
}

/// A listener on its way out shortens the delay: nobody shall wait hours for a drain.
async fn wait(delay: Duration, visit: &Visit, client: &mut Client) -> Result<(), Failure> {
    let mut alarm = pin!(tokio::time::sleep(delay));
    let mut leave = pin!(visit.drain.wait());
    poll_fn(|cx| {
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        let over = alarm.as_mut().poll(cx).is_ready() || leave.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
