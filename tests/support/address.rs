//! Which loopback address is free? One that no other test of this machine uses: who has it holds a socket there.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Nobody serves on it.
const CLAIM: u16 = 65_535;

/// A new address of 127.128.0.0/9, for this process alone, until it ends.
pub fn fresh() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(count < 1 << 16, "all addresses are taken");
        let [_, b, c, d] = (std::process::id() << 8).wrapping_add(count).to_be_bytes();
        let address = Ipv4Addr::new(127, 128 | b, c, d);
        if let Ok(claim) = UdpSocket::bind((address, CLAIM)) {
            std::mem::forget(claim);
            return address;
        }
    }
}
