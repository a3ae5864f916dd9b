// SPDX-License-Identifier: MIT OR Apache-2.0

//! The embedded host by criterion: `cargo bench -p bus1-bench`. The scenarios are those of
//! `bus1-bench run --mode native`.

// The items of criterion's macro have no documentation.
#![allow(missing_docs)]

use anyhow::Result;
use bus1_bench::scenario::embedded;
use bus1_bench::scenario::multicast::RECEIVERS;
use bus1_bench::scenario::unicast::SIZES;
use criterion::measurement::WallTime;
use criterion::{
    criterion_group, criterion_main, BenchmarkGroup, BenchmarkId, Criterion, Throughput,
};

/// Measures one body, whose set-up is not counted.
fn measure<B: FnMut() -> Result<()>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    param: usize,
    body: Result<B>,
) {
    let mut body = body.expect("cannot set up");
    group.bench_function(BenchmarkId::new(name, param), |bencher| {
        bencher.iter(|| body().expect("a message failed"));
    });
}

fn unicast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one thread");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        measure(&mut group, "bus1", size, embedded::same_thread(size));
        measure(&mut group, "crossbeam", size, embedded::crossbeam(size));
    }
    group.finish();
    let mut group = criterion.benchmark_group("two threads");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        measure(&mut group, "bus1", size, embedded::peers_of_threads(size));
        measure(
            &mut group,
            embedded::BATCHES,
            size,
            embedded::batches_of_threads(size),
        );
        let channel = embedded::crossbeam_of_threads(size);
        measure(&mut group, "crossbeam", size, channel);
        let channel = embedded::crossbeam_with_buffers(size);
        measure(&mut group, embedded::REUSE, size, channel);
    }
    group.finish();
}

fn multicast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("multicast");
    for n in RECEIVERS {
        group.throughput(Throughput::Elements(n as u64));
        measure(&mut group, "bus1", n, embedded::multicast(n));
        measure(&mut group, "crossbeam", n, embedded::crossbeam_multicast(n));
    }
    group.finish();
}

fn scaling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scaling");
    for pairs in [1, 2] {
        measure(&mut group, "bus1", pairs, embedded::peers_beside(pairs));
        let channels = embedded::beside(pairs, || embedded::crossbeam(64));
        measure(&mut group, "crossbeam", pairs, channels);
    }
    group.finish();
}

criterion_group!(benches, unicast, multicast, scaling);
criterion_main!(benches);
