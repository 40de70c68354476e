//! How long does one request through a running gateway take, on a connection that is kept?

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use criterion::{Criterion, criterion_group, criterion_main};

use support::backend::Backend;
use support::gateway::TestGateway;
use support::manifests::simple;
use support::raw;

fn forward(criterion: &mut Criterion) {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    let mut group = criterion.benchmark_group("forward");
    for (name, address) in [("direct", web.address), ("gateway", gateway.http())] {
        let mut connection = raw::connect(address);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                connection.write_all(b"GET /status/200 HTTP/1.1\r\nhost: web.test\r\n\r\n").expect("it is open");
                read_answer(&mut connection);
            });
        });
    }
    group.finish();
}

/// Head and the three bytes of the body `200`.
fn read_answer(connection: &mut TcpStream) {
    let mut answer = [0; 2048];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n200") {
        let count = connection.read(&mut answer[length..]).expect("an answer");
        assert!(count > 0, "the connection was closed");
        length += count;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

criterion_group!(benches, forward);
criterion_main!(benches);
