// SPDX-License-Identifier: MIT OR Apache-2.0

//! QUOTA: the largest message, the limit that refuses one, and what is used; and the error of a
//! message that is larger than could ever be granted.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use super::quota::{claim, claim_all, Resource, Sender};
use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{before_hole, Pages, NOWHERE};

const NONE: [usize; 3] = [0; 3];

fn most(sender: &Peer, to: u64) -> abi::Amounts {
    sender.quota(to, NONE).unwrap().most
}

/// Returns what would refuse a message now: level and resource.
fn refused_by(sender: &Peer, to: u64, message: [usize; 3]) -> (u32, u32) {
    let told = sender.quota(to, message).unwrap();
    (told.level, told.resource)
}

#[case(
    "abi.md#quota-most",
    "abi.md#quota-largest",
    each(Sender::Own, Sender::Foreign)
)]
fn default_limits_allow_8_or_2_mib(env: &Env, from: Sender) {
    let (receiver, sender) = (env.peer(), env.peer_of(from.user()));
    let to = sender.handle_of(&receiver);
    // Half for an own sender, an eighth for a foreign one.
    let part = match from {
        Sender::Own => 2,
        Sender::Foreign => 8,
    };
    let told = most(&sender, to);
    let expected = abi::Amounts {
        slices: 16384 / part,
        // It holds a node itself.
        handles: 65536 / part - 1,
        bytes: (16 << 20) / part,
        fds: 4096 / part,
    };
    assert_eq!(told, expected);
    // That much is granted again and again where nothing is held, and no more.
    let bytes = vec![7; told.bytes as usize + 1];
    for _ in 0..2 {
        let message = sender.message().to(&[to]).bytes(&bytes[1..]);
        assert_eq!(message.send(), Ok(()));
        let pool_size = receiver.door().pool_size();
        let header = receiver.receive().max_offset(pool_size).header().unwrap();
        receiver.release_slice(header.offset).unwrap();
        let message = sender.message().to(&[to]).bytes(&bytes);
        assert_eq!(message.send(), Err(E::MSGSIZE));
    }
}

/// An idle peer grants the largest message that QUOTA names, of each resource, and one more is too
/// large for ever: at the default limits, at lower ones, and where the user's decide.
#[case(
    "abi.md#quota-most",
    "abi.md#quota-largest",
    each(Sender::Own, Sender::Foreign)
)]
fn an_idle_peer_grants_as_much_as_is_told(env: &Env, from: Sender) {
    let low = Limits {
        handles: 81,
        bytes: 4000,
        fds: 80,
        slices: 8,
    };
    let null = File::open("/dev/null").unwrap();
    for limits in [Limits::KEEP, low, Limits::MOST] {
        let (receiver, sender) = (env.peer(), env.peer_of(from.user()));
        receiver.limit(limits).unwrap();
        let to = sender.handle_of(&receiver);
        let told = most(&sender, to);
        let granted = |[handles, bytes, fds]: [usize; 3]| {
            let (handles, bytes) = (vec![to; handles], vec![7; bytes]);
            let message = sender.message().to(&[to]).bytes(&bytes).handles(&handles);
            let sent = message.fds(&vec![null.as_raw_fd(); fds]).send();
            if sent.is_ok() {
                let pool_size = receiver.door().pool_size();
                let header = receiver.receive().max_offset(pool_size).header().unwrap();
                receiver.release_slice(header.offset).unwrap();
            }
            sent
        };
        assert!(told.slices >= 1);
        for (more, expected) in [(0, Ok(())), (1, Err(E::MSGSIZE)), (0, Ok(()))] {
            let handles = told.handles as usize + more;
            // The interface has a limit of its own, which has the same error.
            let fds = told.fds.min(abi::FD_MAX) as usize + more;
            assert_eq!(granted([handles, 0, 0]), expected, "{handles} handles");
            assert_eq!(granted([0, 0, fds]), expected, "{fds} descriptors");
            // The user's limit in bytes grows with the memory of the machine.
            if limits != Limits::MOST {
                let bytes = told.bytes as usize + more;
                assert_eq!(granted([0, bytes, 0]), expected, "{bytes} bytes");
            }
        }
    }
}

/// An error that never passes is not called temporary, whatever else is the matter.
#[case("abi.md#send-emsgsize-quota")]
fn more_than_could_be_granted_is_emsgsize(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    receiver
        .limit(Limits {
            handles: 80,
            bytes: 800,
            fds: 80,
            slices: 80,
        })
        .unwrap();
    let null = File::open("/dev/null").unwrap();
    let fd = null.as_raw_fd();
    for full in [false, true] {
        if full {
            claim_all(Resource::Slices, &sender, to);
            claim_all(Resource::Bytes, &sender, to);
        }
        let message = || sender.message().to(&[to]);
        assert_eq!(message().bytes(&[1; 101]).send(), Err(E::MSGSIZE));
        assert_eq!(message().handles(&[8; 10]).send(), Err(E::MSGSIZE));
        assert_eq!(message().fds(&[fd; 11]).send(), Err(E::MSGSIZE));
        // IDs and numbers count as bytes.
        let both = message().bytes(&[1; 30]).handles(&[8; 9]);
        assert_eq!(both.send(), Err(E::MSGSIZE));
        assert_eq!(message().bytes(&[1; 100]).send().is_ok(), !full);
    }
    assert_eq!(claim(Resource::Bytes, &sender, to, 100), Err(E::DQUOT));
    // One destination of several.
    let other = env.peer();
    let many = [sender.handle_of(&other), to];
    let message = sender.message().to(&many).bytes(&[1; 101]).proceed();
    let outcome = message.outcome();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.errors, [0, E::MSGSIZE.raw_os_error()]);
}

#[case("abi.md#quota-most")]
fn the_limits_are_those_of_the_moment(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    for (bytes, expected) in [(8000, 1000), (7, 0), (16 << 20, 2 << 20)] {
        receiver
            .limit(Limits {
                bytes,
                ..Limits::KEEP
            })
            .unwrap();
        assert_eq!(most(&sender, to).bytes, expected);
    }
    // Without a handle, what the peer may send to itself, as its seed.
    assert_eq!(most(&receiver, abi::HANDLE_INVALID).bytes, 8 << 20);
    receiver.limit(Limits::MOST).unwrap();
    let users = u64::from(env.bus().user_limits().slices);
    assert_eq!(most(&sender, to).slices, users / 16);
    assert_eq!(most(&receiver, abi::HANDLE_INVALID).slices, users / 8);
}

#[case("abi.md#quota-refused")]
fn the_level_and_the_resource_are_told(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    let told = |message| refused_by(&sender, to, message);
    assert_eq!(told([1000, 10, 10]), (abi::QUOTA_LEVEL_NONE, 0));
    assert_eq!(
        told([3 << 20, 0, 0]),
        (abi::QUOTA_LEVEL_PEER, abi::QUOTA_BYTES)
    );
    assert_eq!(
        told([0, 9000, 0]),
        (abi::QUOTA_LEVEL_PEER, abi::QUOTA_HANDLES)
    );
    assert_eq!(told([0, 0, 600]), (abi::QUOTA_LEVEL_PEER, abi::QUOTA_FDS));
    receiver.limit(Limits::MOST).unwrap();
    assert_eq!(
        told([0, 140_000, 0]),
        (abi::QUOTA_LEVEL_USER, abi::QUOTA_HANDLES)
    );
    assert_eq!(
        told([0, 0, 3000]),
        (abi::QUOTA_LEVEL_SENDER, abi::QUOTA_FDS)
    );
    let sum = usize::MAX;
    assert_eq!(
        told([sum, sum, sum]),
        (abi::QUOTA_LEVEL_SENDER, abi::QUOTA_FDS)
    );
    assert_eq!(told([sum, 0, 0]), (abi::QUOTA_LEVEL_PEER, abi::QUOTA_BYTES));
    receiver
        .limit(Limits {
            slices: 0,
            ..Limits::KEEP
        })
        .unwrap();
    assert_eq!(told(NONE), (abi::QUOTA_LEVEL_PEER, abi::QUOTA_SLICES));
}

/// The command says what SEND does.
#[case("abi.md#quota-refused")]
fn a_message_that_nothing_would_refuse_is_granted(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    receiver
        .limit(Limits {
            slices: 1000,
            handles: 1000,
            bytes: 9000,
            fds: 1000,
        })
        .unwrap();
    let null = File::open("/dev/null").unwrap();
    let fd = null.as_raw_fd();
    let (mut sent, mut refused) = (0, 0);
    for i in 0..400 {
        let message = [i * 7 % 90, i * 5 % 12, i * 3 % 9];
        let (level, _) = refused_by(&sender, to, message);
        let granted = sender
            .message()
            .to(&[to])
            .bytes(&vec![1; message[0]])
            .handles(&vec![8; message[1]])
            .fds(&vec![fd; message[2]])
            .send();
        let expected = level == abi::QUOTA_LEVEL_NONE;
        assert_eq!(granted.is_ok(), expected, "{message:?}: {granted:?}");
        *(if expected { &mut sent } else { &mut refused }) += 1;
        if i % 50 == 49 {
            for message in receiver.expect_all() {
                for id in message.handles {
                    receiver.release(id).unwrap();
                }
            }
        }
    }
    assert!(sent > 20 && refused > 20, "{sent} and {refused}");
}

#[case("abi.md#quota-used", "abi.md#fdinfo-usage")]
fn used_amounts_are_told(env: &Env) {
    let [receiver, other, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let before = receiver.quota(abi::HANDLE_INVALID, NONE).unwrap();
    let (user_before, peer_before) = (before.user_used, before.peer_used);
    let null = File::open("/dev/null").unwrap();
    let message = sender.message().to(&[to]).bytes(&[1; 100]);
    message.fds(&[null.as_raw_fd(); 3]).send().unwrap();
    let told = receiver.quota(abi::HANDLE_INVALID, NONE).unwrap();
    let expected = abi::Amounts {
        slices: peer_before.slices + 1,
        handles: peer_before.handles,
        bytes: peer_before.bytes + 112,
        fds: peer_before.fds + 3,
    };
    assert_eq!(told.peer_used, expected);
    assert_eq!(told.user_used.bytes, user_before.bytes + 112);
    assert_eq!(told.sent_fds, before.sent_fds + 3);
    let users = env.bus().user_limits();
    assert_eq!(told.user_max.slices, u64::from(users.slices));
    assert_eq!(told.user_max.fds, u64::from(users.fds));
    // A peer of the same user holds nothing of that, its user does.
    let told = other.quota(abi::HANDLE_INVALID, NONE).unwrap();
    assert_eq!(told.peer_used.bytes, 0);
    assert_eq!(told.user_used.bytes, user_before.bytes + 112);
    for (name, n) in [
        ("charged-slices", expected.slices),
        ("charged-bytes", expected.bytes),
        ("charged-fds", expected.fds),
        ("user-charged-bytes", told.user_used.bytes),
        ("user-charged-fds", told.user_used.fds),
        ("user-max-slices", told.user_max.slices),
        ("user-max-handles", told.user_max.handles),
        ("user-sent-fds", told.sent_fds),
    ] {
        assert_eq!(receiver.count(name), n, "{name}");
    }
}

#[case("abi.md#quota-enxio", "abi.md#quota-ehostunreach")]
fn handles_that_nobody_can_send_to(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    for id in [UNKNOWN_ID, 0x4000, 3] {
        assert_eq!(sender.quota(id, NONE).map(drop), Err(E::NXIO), "{id:#x}");
    }
    let (node, to) = receiver.node_for(&sender);
    assert!(sender.quota(to, NONE).is_ok());
    receiver.destroy_and_release(&[node]).unwrap();
    assert_eq!(sender.quota(to, NONE).map(drop), Err(E::HOSTUNREACH));
}

#[case(
    "abi.md#quota-einval-size",
    "abi.md#quota-e2big",
    "abi.md#quota-efault-size"
)]
fn sizes_of_the_structure(env: &Env) {
    let peer = env.peer();
    let page = Pages::new(3);
    let known = abi::CmdQuota::SIZE;
    let call = |size: u64, beyond: u64| {
        let arg = abi::CmdQuota {
            size,
            handle: abi::HANDLE_INVALID,
            ..Default::default()
        };
        page.poke(0, &arg.to_bytes());
        page.poke(known, &beyond.to_ne_bytes());
        peer.ioctl(abi::CMD_QUOTA, page.addr(0))
    };
    let known = known as u64;
    for size in [0, known - 8, known + 4, known + 4104, u64::MAX] {
        assert_eq!(call(size, 0), Err(E::INVAL), "{size}");
    }
    assert_eq!(call(known, 1), Ok(()));
    assert_eq!(call(known + 8, 0), Ok(()));
    assert_eq!(call(known + 8, 1), Err(E::TOOBIG));
    assert_eq!(call(known + 4096, 0), Ok(()));
    let arg = abi::CmdQuota {
        size: known + 8,
        ..Default::default()
    };
    let (_page, addr) = before_hole(&arg.to_bytes());
    assert_eq!(peer.ioctl(abi::CMD_QUOTA, addr), Err(E::FAULT));
}

#[case("abi.md#quota-einval-flags")]
fn flags_must_be_zero(env: &Env) {
    let peer = env.peer();
    for flags in [1, 1 << 63, u64::MAX] {
        let mut arg = abi::CmdQuota {
            size: abi::CmdQuota::SIZE as u64,
            flags,
            handle: abi::HANDLE_INVALID,
            ..Default::default()
        };
        assert_eq!(peer.command(abi::CMD_QUOTA, &mut arg), Err(E::INVAL));
    }
    assert_eq!(peer.ioctl(abi::CMD_QUOTA, NOWHERE), Err(E::FAULT));
}
