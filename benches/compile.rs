//! What does it cost to read a configuration for the first time, and again after one small file changed?

mod support;

/// The product's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use limani::bench::Configuration;

use support::Table;

const RULES: usize = 10_000;

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    let table = Table::new(RULES);
    group.bench_function("first", |bencher| {
        bencher.iter(|| Configuration::load(&table.settings).expect("the table is good"));
    });
    let mut configuration = Configuration::load(&table.settings).expect("the table is good");
    configuration.survey();
    let mut turn = 0;
    // What is replaced is dropped by another thread, as in the gateway.
    group.bench_function("reload", |bencher| {
        let change = |turn: &mut usize| {
            *turn += 1;
            table.change(*turn);
        };
        bencher.iter_batched(|| change(&mut turn), |()| configuration.reload(), BatchSize::PerIteration);
        assert_eq!(configuration.rules(), RULES + 5);
    });
    group.bench_function("survey", |bencher| {
        let change = |turn: &mut usize| {
            *turn += 1;
            table.change(*turn);
        };
        bencher.iter_batched_ref(
            || {
                change(&mut turn);
                let mut configuration = Configuration::load(&table.settings).expect("the table is good");
                configuration.survey();
                change(&mut turn);
                configuration.reload();
                configuration
            },
            Configuration::survey,
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
