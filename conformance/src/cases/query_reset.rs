// SPDX-License-Identifier: MIT OR Apache-2.0

//! PEER_QUERY, and the limits of PEER_RESET.

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;

pub const CASES: &[Case] = &[
    case!(fresh_peer_has_its_users_limits, "7: a peer starts with its user's limits"),
    case!(defaults_are_the_published_ones, "7: 16384, 65536, 16 MiB, 4096"),
    case!(query_flags_must_be_zero, "5 PEER_QUERY: flags must be 0"),
    case!(query_clears_peer_flags, "5 PEER_QUERY: peer_flags 0"),
    case!(limits_are_set_one_by_one, "5 PEER_RESET: each limit all-ones (keep)"),
    case!(limits_may_be_zero, "5 PEER_RESET: or at most INT_MAX"),
    case!(limits_up_to_int_max, "5 PEER_RESET: or at most INT_MAX, else EINVAL"),
    case!(peer_flags_must_be_all_ones, "5 PEER_RESET: peer_flags must be all-ones"),
    case!(refused_reset_changes_nothing, "5: a failed command leaves no trace"),
    case!(limits_belong_to_one_peer, "2: a peer is ... limits"),
    case!(limit_below_what_is_held_stops_claims_only, "5 PEER_RESET: sets limits"),
    case!(raised_limit_admits_again, "5 PEER_RESET: sets limits"),
];

fn limits(peer: &Peer) -> [u32; 4] {
    let arg = peer.query().unwrap();
    [arg.max_slices, arg.max_handles, arg.max_inflight_bytes, arg.max_inflight_fds]
}

fn fresh_peer_has_its_users_limits(env: &Env) {
    assert_eq!(limits(&env.peer()), env.bus().user_limits());
}

fn defaults_are_the_published_ones(env: &Env) {
    assert_eq!(limits(&env.peer()), [16384, 65536, 16 << 20, 4096]);
}

fn query_flags_must_be_zero(env: &Env) {
    let peer = env.peer();
    for flags in [1, 2, 3, 1 << 63, u64::MAX] {
        let mut arg = abi::CmdPeerReset { flags, ..Default::default() };
        assert_eq!(peer.command(abi::CMD_PEER_QUERY, &mut arg), Err(E::INVAL));
        assert_eq!(arg.max_slices, 0, "nothing is written");
    }
}

fn query_clears_peer_flags(env: &Env) {
    let mut arg = abi::CmdPeerReset { peer_flags: 0x1234, ..Default::default() };
    env.peer().command(abi::CMD_PEER_QUERY, &mut arg).unwrap();
    assert_eq!((arg.flags, arg.peer_flags), (0, 0));
}

fn limits_are_set_one_by_one(env: &Env) {
    let peer = env.peer();
    let mut wanted = limits(&peer);
    for i in 0..4 {
        wanted[i] = 100 + i as u32;
        let mut set = [u32::MAX; 4];
        set[i] = wanted[i];
        peer.limit(set).unwrap();
        assert_eq!(limits(&peer), wanted);
    }
}

fn limits_may_be_zero(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    peer.limit([0; 4]).unwrap();
    assert_eq!(limits(&peer), [0; 4]);
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    assert_eq!(peer.give_self(peer.new_node()), Err(E::DQUOT));
}

fn limits_up_to_int_max(env: &Env) {
    let peer = env.peer();
    for i in 0..4 {
        for bad in [0x8000_0000, u32::MAX - 1] {
            let mut set = [u32::MAX; 4];
            set[i] = bad;
            assert_eq!(peer.limit(set), Err(E::INVAL), "{bad:#x} as number {i}");
        }
    }
    peer.limit([i32::MAX as u32; 4]).unwrap();
    assert_eq!(limits(&peer), [i32::MAX as u32; 4]);
}

fn peer_flags_must_be_all_ones(env: &Env) {
    let peer = env.peer();
    for peer_flags in [0, 1, u64::MAX - 1, u64::from(u32::MAX)] {
        let arg = abi::CmdPeerReset {
            peer_flags,
            max_slices: 5,
            max_handles: u32::MAX,
            max_inflight_bytes: u32::MAX,
            max_inflight_fds: u32::MAX,
            flags: 0,
        };
        assert_eq!(peer.reset(arg), Err(E::INVAL));
        assert_ne!(limits(&peer)[0], 5);
    }
}

fn refused_reset_changes_nothing(env: &Env) {
    let peer = env.peer();
    let before = limits(&peer);
    assert_eq!(peer.limit([1, 2, 3, 0x8000_0000]), Err(E::INVAL));
    assert_eq!(limits(&peer), before);
    let arg = abi::CmdPeerReset { flags: 4, peer_flags: u64::MAX, ..Default::default() };
    assert_eq!(peer.reset(arg), Err(E::INVAL));
    assert_eq!(limits(&peer), before);
}

fn limits_belong_to_one_peer(env: &Env) {
    let [a, b] = env.peers();
    a.limit([1, 2, 3, 4]).unwrap();
    assert_eq!(limits(&b), env.bus().user_limits());
    assert_eq!(limits(&a), [1, 2, 3, 4]);
}

fn limit_below_what_is_held_stops_claims_only(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    for _ in 0..10 {
        sender.message().to(&[to]).bytes(b"held").send().unwrap();
    }
    peer.limit([4, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    for _ in 0..10 {
        peer.text(b"held");
    }
    peer.nothing();
}

fn raised_limit_admits_again(env: &Env) {
    let [peer, sender] = env.peers();
    let (_, to) = peer.node_for(&sender);
    peer.limit([0, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    peer.limit([2, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(sender.message().to(&[to]).send(), Ok(()));
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
}
