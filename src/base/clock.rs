//! What time is it? Asked at the edge and passed on as a value.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970 (Unix time); 0 on a clock that stands before it.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
