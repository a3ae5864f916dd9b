// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The structures as plain bytes: each field where the layout puts it, and
//! nothing lost on the way there and back.

use bus1_uapi::*;

/// Bytes that are all different from their neighbours.
fn pattern<const N: usize>() -> [u8; N] {
    std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn every_pattern_survives_the_round_trip() {
    macro_rules! check {
        ($($name:ident)*) => {
            $(
                let bytes = pattern::<{ $name::SIZE }>();
                assert_eq!($name::from_bytes(&bytes).to_bytes(), bytes, stringify!($name));
                assert_eq!($name::default().to_bytes(), [0; $name::SIZE]);
            )*
        };
    }
    check!(CmdPeerReset CmdHandleTransfer CmdNodesDestroy CmdSend CmdRecv CmdExchange Msg);
}

#[test]
fn limits_are_four_words_behind_two_double_words() {
    let bytes = pattern::<{ CmdPeerReset::SIZE }>();
    let reset = CmdPeerReset::from_bytes(&bytes);
    assert_eq!(reset.flags, u64_at(&bytes, 0));
    assert_eq!(reset.peer_flags, u64_at(&bytes, 8));
    assert_eq!(reset.max_slices, u32_at(&bytes, 16));
    assert_eq!(reset.max_handles, u32_at(&bytes, 20));
    assert_eq!(reset.max_inflight_bytes, u32_at(&bytes, 24));
    assert_eq!(reset.max_inflight_fds, u32_at(&bytes, 28));
}

#[test]
fn send_is_ten_double_words_in_order() {
    let bytes = pattern::<{ CmdSend::SIZE }>();
    let send = CmdSend::from_bytes(&bytes);
    let fields = [
        send.flags,
        send.ptr_destinations,
        send.ptr_errors,
        send.n_destinations,
        send.ptr_vecs,
        send.n_vecs,
        send.ptr_handles,
        send.n_handles,
        send.ptr_fds,
        send.n_fds,
    ];
    for (i, field) in fields.into_iter().enumerate() {
        assert_eq!(field, u64_at(&bytes, 8 * i), "field {i}");
    }
}

#[test]
fn the_message_lies_inside_recv() {
    let bytes = pattern::<{ CmdRecv::SIZE }>();
    let recv = CmdRecv::from_bytes(&bytes);
    assert_eq!(recv.flags, u64_at(&bytes, 0));
    assert_eq!(recv.max_offset, u64_at(&bytes, 8));
    let msg = [
        recv.msg.kind,
        recv.msg.flags,
        recv.msg.destination,
        recv.msg.offset,
        recv.msg.n_bytes,
        recv.msg.n_handles,
        recv.msg.n_fds,
    ];
    for (i, field) in msg.into_iter().enumerate() {
        assert_eq!(field, u64_at(&bytes, 16 + 8 * i), "msg field {i}");
    }
    assert_eq!(recv.msg.to_bytes(), bytes[16..]);
}

#[test]
fn the_message_lies_behind_seven_double_words_and_the_size() {
    let bytes = pattern::<{ CmdExchange::SIZE }>();
    let exchange = CmdExchange::from_bytes(&bytes);
    let fields = [
        exchange.size,
        exchange.flags,
        exchange.ptr_slices,
        exchange.n_slices,
        exchange.n_msgs,
        exchange.ptr_msgs,
        exchange.max_offset,
        exchange.deadline,
    ];
    for (i, field) in fields.into_iter().enumerate() {
        assert_eq!(field, u64_at(&bytes, 8 * i), "field {i}");
    }
    assert_eq!(exchange.send.to_bytes(), bytes[64..]);
}
