//! Which cell of a sharded value belongs to this thread? Threads never share one, so that counting never contends.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A number that no other thread has, counted from 0 in the order of first use.
pub(crate) fn of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine)
}
