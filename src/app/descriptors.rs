//! How many sockets may be open? As many as the system lets this process have.

/// Raises the soft limit of open files to the hard one. Failing that, the limit stays as it is. The answer is the limit
/// in force; `None` if the system does not tell.
#[allow(unsafe_code, reason = "the standard library has no call for it")]
pub(super) fn raise_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, writable value of the type that getrlimit fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return None;
    }
    let before = limit.rlim_cur;
    if before >= limit.rlim_max {
        return Some(before);
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live value that setrlimit only reads.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    tracing::debug!(limit = limit.rlim_max, raised, "open files");
    Some(if raised { limit.rlim_max } else { before })
}
