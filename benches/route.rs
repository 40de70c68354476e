//! What does it cost to find a rule? It must not grow with the table.

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use limani::bench::Configuration;

use support::Table;

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for rules in [10, 10_000, 100_000] {
        let table = Table::new(rules);
        let configuration = Configuration::load(&table.settings).expect("the table is good");
        assert_eq!(configuration.rules(), rules);
        let host = format!("h{}.example.com", rules / 5 - 1);
        let headers = HeaderMap::new();
        for (name, path) in [("exact", "/exact"), ("prefix", "/prefix/x"), ("regex", "/regex/h1/7"), ("rest", "/")] {
            group.bench_with_input(BenchmarkId::new(name, rules), path, |bencher, path| {
                bencher.iter(|| configuration.route(black_box(&host), black_box(path), &headers).expect("a rule"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
