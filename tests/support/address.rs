//! Which loopback address is free? One that no other test of this machine uses: by process and by count.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// A new address of 127.128.0.0/9, for this test alone.
pub fn fresh() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(count < 255, "more gateways in one process than addresses");
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, count)
}
