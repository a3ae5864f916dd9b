// SPDX-License-Identifier: MIT OR Apache-2.0

//! PEER_QUERY, and the limits of PEER_RESET.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Limits;
use crate::env::Env;
use crate::host::Errno as E;

/// The smallest number that is no limit.
const TOO_MANY: u32 = i32::MAX as u32 + 1;

#[case("abi.md#limit-start")]
fn defaults_are_the_published_ones(env: &Env) {
    assert_eq!(env.peer().expect_limits(), Limits::DEFAULT);
    let users = env.bus().user_limits();
    let peers = Limits::DEFAULT;
    assert_eq!(users.slices, 8 * peers.slices);
    assert_eq!(users.handles, 32 * peers.handles);
    assert_eq!(users.fds, 8 * peers.fds);
    assert!(users.bytes >= peers.bytes);
}

#[case("abi.md#every-einval-flags")]
fn query_flags_must_be_zero(env: &Env) {
    let peer = env.peer();
    for flags in [1, 2, 3, 1 << 63, u64::MAX] {
        let mut arg = abi::CmdPeerReset {
            flags,
            ..Default::default()
        };
        assert_eq!(peer.command(abi::CMD_PEER_QUERY, &mut arg), Err(E::INVAL));
        assert_eq!(arg.max_slices, 0, "nothing is written");
    }
}

#[case("abi.md#query-limits")]
fn query_clears_peer_flags(env: &Env) {
    let mut arg = abi::CmdPeerReset {
        peer_flags: 0x1234,
        ..Default::default()
    };
    env.peer().command(abi::CMD_PEER_QUERY, &mut arg).unwrap();
    assert_eq!((arg.flags, arg.peer_flags), (0, 0));
}

#[case("abi.md#reset-limits")]
fn limits_are_set_one_by_one(env: &Env) {
    let peer = env.peer();
    let mut wanted = peer.expect_limits();
    for i in 0..4 {
        let limit = 100 + i as u32;
        *wanted.each_mut()[i] = limit;
        let mut set = Limits::KEEP;
        *set.each_mut()[i] = limit;
        peer.limit(set).unwrap();
        assert_eq!(peer.expect_limits(), wanted);
    }
}

#[case("abi.md#reset-limits", "abi.md#limit-edquot")]
fn limits_may_be_zero(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    peer.limit(Limits::all(0)).unwrap();
    assert_eq!(peer.expect_limits(), Limits::all(0));
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    assert_eq!(peer.give_self(peer.new_node()), Err(E::DQUOT));
}

#[case("abi.md#reset-einval")]
fn limits_up_to_int_max(env: &Env) {
    let peer = env.peer();
    for i in 0..4 {
        for bad in [TOO_MANY, u32::MAX - 1] {
            let mut set = Limits::KEEP;
            *set.each_mut()[i] = bad;
            assert_eq!(peer.limit(set), Err(E::INVAL), "{bad:#x} as number {i}");
        }
    }
    peer.limit(Limits::all(i32::MAX as u32)).unwrap();
    assert_eq!(peer.expect_limits(), Limits::all(i32::MAX as u32));
}

#[case("abi.md#reset-einval")]
fn peer_flags_must_be_all_ones(env: &Env) {
    let peer = env.peer();
    for peer_flags in [0, 1, u64::MAX - 1, u64::from(u32::MAX)] {
        let limits = Limits {
            slices: 5,
            ..Limits::KEEP
        };
        let arg = abi::CmdPeerReset {
            peer_flags,
            ..limits.reset()
        };
        assert_eq!(peer.reset(arg), Err(E::INVAL));
        assert_ne!(peer.expect_limits().slices, 5);
    }
}

#[case("abi.md#reset-einval", "abi.md#no-trace")]
fn refused_reset_changes_nothing(env: &Env) {
    let peer = env.peer();
    let before = peer.expect_limits();
    assert_eq!(
        peer.limit(Limits {
            slices: 1,
            handles: 2,
            bytes: 3,
            fds: TOO_MANY
        }),
        Err(E::INVAL)
    );
    assert_eq!(peer.expect_limits(), before);
    let arg = abi::CmdPeerReset {
        flags: 4,
        peer_flags: u64::MAX,
        ..Default::default()
    };
    assert_eq!(peer.reset(arg), Err(E::INVAL));
    assert_eq!(peer.expect_limits(), before);
}

#[case("abi.md#query-limits")]
fn limits_belong_to_one_peer(env: &Env) {
    let [a, b] = env.peers();
    let few = Limits {
        slices: 1,
        handles: 2,
        bytes: 3,
        fds: 4,
    };
    a.limit(few).unwrap();
    assert_eq!(b.expect_limits(), Limits::DEFAULT);
    assert_eq!(a.expect_limits(), few);
}

#[case("abi.md#reset-limits")]
fn limit_below_what_is_held_stops_claims_only(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    for _ in 0..10 {
        sender.message().to(&[to]).bytes(b"held").send().unwrap();
    }
    peer.limit(Limits {
        slices: 4,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    for _ in 0..10 {
        peer.expect_text(b"held");
    }
    peer.expect_nothing();
}

#[case("abi.md#reset-limits")]
fn raised_limit_admits_again(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    peer.limit(Limits {
        slices: 0,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    peer.limit(Limits {
        slices: 2,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Ok(()));
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
}
