// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that one client can pin, and the cgroup that pays for it.

use std::io::{Read, Write};

use super::Report;
use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::{Errno as E, Result};
use crate::sys::cgroup::Cgroup;
use crate::sys::process::{fork, End};
use crate::sys::userfault::StallingPage;

const MIB: usize = 1 << 20;

/// Memory of the machine that is free, in bytes.
fn free() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").expect("cannot read /proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    1024 * number
        .and_then(|kib| kib.parse::<usize>().ok())
        .expect("a number in /proc/meminfo")
}

/// Sends messages of that size until no more is granted, and returns the number of messages.
fn send_all(sender: &Peer, to: u64, bytes: &[u8]) -> usize {
    let send = || -> Result { sender.message().to(&[to]).bytes(bytes).send() };
    std::iter::from_fn(|| send().ok()).count()
}

/// Sends what a receiver is granted and receives it, over and over, until nothing more is granted.
/// No slice is released. Returns the number of messages.
fn keep_all(receiver: &Peer, sender: &Peer, to: u64, bytes: &[u8]) -> usize {
    let all = receiver.door().pool_size();
    let mut kept = 0;
    loop {
        let sent = send_all(sender, to, bytes);
        while receiver.receive().max_offset(all).header().is_ok() {}
        if sent == 0 {
            return kept;
        }
        kept += sent;
    }
}

/// Senders to each hostile receiver.
const SENDERS: usize = 16;

/// The bytes that hostile receivers of one user keep by never releasing a slice, of senders of that
/// user and of a service.
fn slices(env: &Env, report: &mut Report) {
    let bytes = vec![7; MIB];
    let limit = env.bus().user_limits().bytes as usize / MIB;
    for (user, whose) in [(0, "their user"), (1, "another user")] {
        for n in [1, 64] {
            let receivers: Vec<Peer> = (0..n).map(|_| env.peer()).collect();
            let mut kept = 0;
            for receiver in &receivers {
                receiver.limit(Limits::MOST).unwrap();
                let node = receiver.new_node();
                for _ in 0..SENDERS {
                    let sender = env.peer_of(user);
                    let to = receiver.give(&sender, node).unwrap();
                    kept += keep_all(receiver, &sender, to, &bytes);
                }
            }
            let what = format!("MiB kept by {n} receivers, senders of {whose}");
            report.count(what, kept, format_args!("at most {limit}"));
        }
    }
}

/// Callers that are stalled at once.
const STALLED: usize = 64;

/// Memory of stalled SENDs with a fourth of the destinations that can be named, 256 MiB.
fn stalled(env: &Env, report: &mut Report) {
    let sender = env.peer();
    let n = u64::from(env.bus().user_limits().handles / 4);
    let cgroup = Cgroup::new("attack");
    let (mut out, mut into) = std::io::pipe().unwrap();
    let child = fork(|| {
        cgroup.enter();
        let pages: Vec<_> = (0..STALLED).map(|_| StallingPage::new(&[])).collect();
        std::thread::scope(|scope| {
            into.write_all(b"!").unwrap();
            // The parent reads how much is in use before.
            std::thread::sleep(std::time::Duration::from_secs(1));
            for page in &pages {
                let message = || {
                    sender.message().edit(|arg| {
                        (arg.ptr_destinations, arg.n_destinations) = (page.addr(0), n);
                    })
                };
                scope.spawn(move || message().send());
                page.wait_for_fault();
            }
            into.write_all(b"!").unwrap();
            loop {
                std::thread::park();
            }
        })
    });
    out.read_exact(&mut [0]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = (free(), cgroup.charged());
    out.read_exact(&mut [0]).unwrap();
    let taken = before.0.saturating_sub(free());
    let charged = cgroup.charged().saturating_sub(before.1);
    child.kill();
    assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
    let what = format!("{STALLED} stalled SENDs with {n} destinations each");
    let value = format!(
        "{:.1} MB of the machine, {:.1} MB charged to their cgroup",
        taken as f64 / 1e6,
        charged as f64 / 1e6
    );
    report.figure(what, value);
}

/// What a SEND that fails at the limit of its cgroup leaves there.
pub fn cgroup(env: &Env, report: &mut Report) {
    let cgroup = Cgroup::new("attack");
    let limit = 8 * MIB;
    let sender = env.peer();
    let receivers: Vec<Peer> = (1..8).map(|user| env.peer_of(user)).collect();
    let to: Vec<u64> = receivers.iter().map(|one| sender.handle_of(one)).collect();
    let payload = vec![0x77; 7 << 18];
    cgroup.limit(limit);
    let child = fork(|| {
        cgroup.enter();
        let sent = sender.message().to(&to).bytes(&payload).send();
        sent.map_or_else(E::raw_os_error, |()| 0)
    });
    let End::Exit(errno) = child.wait() else {
        report.figure("the sender", "killed");
        return;
    };
    let errno = E::from_raw_os_error(errno);
    let what = "a multicast beyond the limit of its cgroup";
    report.figure(what, format_args!("{errno} (expected ENOMEM)"));
    report.count("processes killed for it", cgroup.oom_kills(), 0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let what = format!("KiB of {} charged to the cgroup 1 s later", limit >> 10);
    report.figure(what, cgroup.charged() >> 10);
}

/// Memory in slices, and memory of stalled calls.
pub fn measure(env: &Env, report: &mut Report) {
    slices(env, report);
    stalled(env, report);
}
