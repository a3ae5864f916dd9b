// SPDX-License-Identifier: GPL-2.0 OR MIT
#![cfg(loom)]

mod common;

use common::*;
use loom::thread;

fn model(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 100_000;
    let n = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let m = n.clone();
    let t = std::time::Instant::now();
    builder.check(move || {
        m.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        f()
    });
    println!("{:?} executions in {:?}", n, t.elapsed());
}

#[test]
fn two_multicasts() {
    let bound = std::env::var("B").map_or(1, |b| b.parse().unwrap());
    model(bound, || {
        let world = World::default();
        let (r, s) = (world.open(1), world.open(1));
        let (a, b) = (world.open(1), world.open(1));
        let to_a = [r.transfer(0, &a).unwrap(), s.transfer(0, &a).unwrap()];
        let to_b = [r.transfer(0, &b).unwrap(), s.transfer(0, &b).unwrap()];
        let other = thread::spawn(move || {
            b.send(Letter::new(&[to_b[1], to_b[0]], b"b")).unwrap();
        });
        a.send(Letter::new(&to_a, b"a")).unwrap();
        other.join().unwrap();
        let data = |all: Vec<Received>| all.into_iter().map(|r| r.data).collect::<Vec<_>>();
        let at_r = data(r.take_all());
        let at_s = data(s.take_all());
        assert_eq!(at_r.len(), 2);
        assert_eq!(at_r, at_s);
        drop((r, s, a));
        world.end();
    });
}
