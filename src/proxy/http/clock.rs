//! How long may a request take, and one try of it?

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The route's timeout and that of a try: both count from the end of the request.
pub(super) struct Clock {
    limit: Option<Duration>,
    /// Shorter than `limit`.
    per_try: Option<Duration>,
    since: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    try_alarm: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn new(limit: Option<Duration>, per_try: Option<Duration>, since: Instant) -> Self {
        let per_try = per_try.filter(|per_try| limit.is_none_or(|limit| *per_try < limit));
        Clock { limit, per_try, since, alarm: None, try_alarm: None }
    }

    /// Ready when the request's time is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, uploaded: bool) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if !uploaded {
            self.since = Instant::now();
            return Poll::Pending;
        }
        ring(&mut self.alarm, cx, || self.since + limit)
    }

    /// Ready when the try's time is over. To be asked once the request is on its way to the endpoint.
    pub(super) fn poll_try(&mut self, cx: &mut Context<'_>, uploaded: bool) -> Poll<()> {
        match self.per_try {
            Some(limit) if uploaded => ring(&mut self.try_alarm, cx, || Instant::now() + limit),
            _ => Poll::Pending,
        }
    }

    /// Another try begins.
    pub(super) fn next_try(&mut self) {
        self.try_alarm = None;
    }

    /// What an endpoint is told of its time; 1 ms if there is none left.
    pub(super) fn left(&self, tries: u32) -> Option<Duration> {
        let spent = if tries > 1 { self.since.elapsed() } else { Duration::ZERO };
        let left = self.limit.map(|limit| limit.saturating_sub(spent).max(Duration::from_millis(1)));
        match (self.per_try, left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }

    /// Since the end of the request.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

fn ring(alarm: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>, end: impl FnOnce() -> Instant) -> Poll<()> {
    alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end().into()))).as_mut().poll(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_told_the_shorter_time() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let now = Instant::now();
        let began = now.checked_sub(Duration::from_secs(60)).unwrap();
        for (limit, per_try, since, tries, expected) in [
            (None, None, now, 1, None),
            (seconds(5), None, now, 1, seconds(5)),
            (None, seconds(2), began, 3, seconds(2)),
            (seconds(5), seconds(2), now, 1, seconds(2)),
            (seconds(2), seconds(5), now, 1, seconds(2)),
            (seconds(2), seconds(1), began, 2, Some(Duration::from_millis(1))),
        ] {
            assert_eq!(Clock::new(limit, per_try, since).left(tries), expected, "{limit:?} {per_try:?}");
        }
    }
}
