//! How much memory does a configuration take, for each rule? Everything counts: the snapshot, and what a reload needs.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use limani::bench::Configuration;

use support::Table;

/// Counts what is allocated and not yet freed.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let load = |rules| {
        let table = Table::new(rules);
        let before = HELD.load(Ordering::Relaxed);
        let mut configuration = Configuration::load(&table.settings).expect("the table is good");
        assert_eq!(configuration.rules(), rules);
        // What a second generation shares with the first is not held twice.
        table.change(1);
        drop(configuration.reload());
        configuration.survey();
        HELD.load(Ordering::Relaxed) - before
    };
    let small = load(1_000);
    for rules in [10_000, 100_000] {
        let each = (load(rules) - small) / (rules - 1_000);
        println!("{rules} rules: {each} bytes for each (limit 2048)");
    }
}
