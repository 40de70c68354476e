//! What does it cost to read a configuration for the first time, and again after one small file changed?

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
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
    let mut turn = 0;
    group.bench_function("reload", |bencher| {
        bencher.iter(|| {
            turn += 1;
            table.change(turn);
            assert_eq!(configuration.reload(), RULES + 5);
        });
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
