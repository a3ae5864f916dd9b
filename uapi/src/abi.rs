// SPDX-License-Identifier: GPL-2.0-only OR MIT

// The binary interface of bus1: the Rust mirror of include/linux/bus1.h.
//
// Purpose: every number, name and layout that crosses the door, and the
// conversion of each structure from and to plain bytes, so that hosts and
// clients read and write user memory without `unsafe`.
//
// Invariants: every structure is 8-aligned, has no padding, and has one layout
// on 32-bit and 64-bit machines; the assertions below hold it to the published
// figures at compile time, and tests/header.rs holds it to the C header.
//
// This file is compiled twice: as a module of the crate `bus1-uapi`, and, named by path, as a
// module of the kernel host. So it uses only `core`, has no inner attribute and names no crate
// path.

use core::mem::{align_of, size_of};

/// Most descriptors that one message may carry; more is `EMSGSIZE`.
pub const FD_MAX: u64 = 256;

/// No handle. Never a valid ID.
pub const HANDLE_INVALID: u64 = u64::MAX;
/// No slice. Never a valid offset.
pub const OFFSET_INVALID: u64 = u64::MAX;

/// Bit of a handle ID: the bus chose the ID.
pub const HANDLE_FLAG_MANAGED: u64 = 1 << 0;
/// Bit of a handle ID: another peer owns the node.
pub const HANDLE_FLAG_REMOTE: u64 = 1 << 1;

/// `PEER_RESET`: destroy, release and drop everything that the seed does not pin.
pub const PEER_RESET_FLAG_FLUSH: u64 = 1 << 0;
/// `PEER_RESET`: drop the seed.
pub const PEER_RESET_FLAG_FLUSH_SEED: u64 = 1 << 1;

/// `NODES_DESTROY`: release the owner's pins as well.
pub const NODES_DESTROY_FLAG_RELEASE_HANDLES: u64 = 1 << 0;

/// `SEND`: a destination that fails does not stop the others.
pub const SEND_FLAG_CONTINUE: u64 = 1 << 0;
/// `SEND`: the message becomes the sending peer's own seed.
pub const SEND_FLAG_SEED: u64 = 1 << 1;
/// `SEND`: a destination that refuses by `EDQUOT` or `EXFULL` is reported again, once, by a
/// [`MSG_ROOM`] when it may have room.
pub const SEND_FLAG_ROOM: u64 = 1 << 8;

/// `EXCHANGE`: send [`CmdExchange::send`].
pub const EXCHANGE_FLAG_SEND: u64 = 1 << 0;
/// `EXCHANGE`: install the descriptors of the messages, close-on-exec.
pub const EXCHANGE_FLAG_INSTALL_FDS: u64 = 1 << 1;

/// [`CmdExchange::deadline`]: receive what is there, and do not wait.
pub const DEADLINE_NOW: u64 = 0;
/// [`CmdExchange::deadline`]: wait for as long as it takes.
pub const DEADLINE_NEVER: u64 = u64::MAX;

/// `EXCHANGE`: most slices and most messages in one call; more is `EMSGSIZE`.
pub const EXCHANGE_MAX: u64 = 1024;

/// `RECV`: deliver the seed, not the head of the queue.
pub const RECV_FLAG_SEED: u64 = 1 << 0;
/// `RECV`: install the descriptors of the message, close-on-exec.
pub const RECV_FLAG_INSTALL_FDS: u64 = 1 << 1;

/// [`Msg::kind`]: no message. Never delivered.
pub const MSG_NONE: u64 = 0;
/// [`Msg::kind`]: a message from a peer.
pub const MSG_DATA: u64 = 1;
/// [`Msg::kind`]: the owner destroyed a node.
pub const MSG_NODE_DESTROY: u64 = 2;
/// [`Msg::kind`]: nobody else refers to an own node any more.
pub const MSG_NODE_RELEASE: u64 = 3;
/// [`Msg::kind`]: a node that refused a message may have room for it now, or is destroyed; sent
/// only after a SEND with [`SEND_FLAG_ROOM`].
pub const MSG_ROOM: u64 = 16;

/// [`Msg::flags`]: the next part of the same transaction follows.
pub const MSG_FLAG_CONTINUE: u64 = 1 << 0;

/// A type that a structure may be made of: a value whose bytes can be written and read one by one.
trait Plain: Copy {
    fn put(self, out: &mut [u8]);
    fn get(bytes: &[u8]) -> Self;
}

/// Declares a structure of the interface, its size, and its bytes.
macro_rules! plain {
    (
        $(#[$meta:meta])*
        $name:ident, $size:literal {
            $($(#[$field_meta:meta])* $field:ident: $ty:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[repr(C, align(8))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $name {
            /// Size of the structure in bytes.
            pub const SIZE: usize = $size;

            /// Returns the structure as it lies in memory, in native byte order.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut out = [0; $size];
                Plain::put(*self, &mut out);
                out
            }

            /// Returns the structure that these bytes are. Checks no field: every
            /// pattern is a value.
            #[must_use]
            pub fn from_bytes(bytes: &[u8; $size]) -> Self {
                Plain::get(bytes)
            }
        }

        impl Plain for $name {
            fn put(self, out: &mut [u8]) {
                $({
                    let at = core::mem::offset_of!(Self, $field);
                    self.$field.put(&mut out[at..at + size_of::<$ty>()]);
                })*
            }

            fn get(bytes: &[u8]) -> Self {
                Self {
                    $($field: {
                        let at = core::mem::offset_of!(Self, $field);
                        <$ty as Plain>::get(&bytes[at..at + size_of::<$ty>()])
                    },)*
                }
            }
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(align_of::<$name>() == 8);
            // The fields fill the structure: there is no padding.
            assert!(0 $(+ size_of::<$ty>())* == $size);
        };
    };
}

/// Declares how an integer is laid out in bytes.
macro_rules! plain_int {
    ($ty:ty) => {
        impl Plain for $ty {
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_ne_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$ty>()];
                raw.copy_from_slice(bytes);
                Self::from_ne_bytes(raw)
            }
        }
    };
}

plain_int!(u32);
plain_int!(u64);

plain! {
    /// Argument of `PEER_QUERY` and `PEER_RESET`: the limits of a peer.
    ///
    /// `PEER_RESET` takes each limit as a number up to `i32::MAX`, or all-ones
    /// to keep it.
    CmdPeerReset, 32 {
        /// `PEER_QUERY`: 0. `PEER_RESET`: `PEER_RESET_FLAG_*`.
        flags: u64,
        /// `PEER_QUERY`: written as 0. `PEER_RESET`: must be all-ones.
        peer_flags: u64,
        /// Slices that may occupy this peer's pool.
        max_slices: u32,
        /// Handles that this peer may hold, nodes included.
        max_handles: u32,
        /// Bytes that its slices may have, queued or received.
        max_inflight_bytes: u32,
        /// Descriptors of others that may wait in its queue.
        max_inflight_fds: u32,
    }
}

plain! {
    /// Argument of `HANDLE_TRANSFER`: give a handle to another peer at once.
    CmdHandleTransfer, 32 {
        /// Must be 0.
        flags: u64,
        /// ID in the calling peer; an unknown one with clear flag bits creates a node.
        src_handle: u64,
        /// Descriptor of the receiving peer, or all-ones for the calling peer itself.
        dst_fd: u64,
        /// In: [`HANDLE_INVALID`]. Out: the ID in the receiving peer, or
        /// [`HANDLE_INVALID`] if the node is destroyed already.
        dst_handle: u64,
    }
}

plain! {
    /// Argument of `NODES_DESTROY`: destroy own nodes at one point of the order.
    CmdNodesDestroy, 24 {
        /// `NODES_DESTROY_FLAG_*`.
        flags: u64,
        /// Pointer to `n_nodes` IDs (`u64`), each at most once.
        ptr_nodes: u64,
        /// Number of IDs; 0 is fine.
        n_nodes: u64,
    }
}

plain! {
    /// Argument of `SEND`: one message to any number of nodes.
    CmdSend, 80 {
        /// `SEND_FLAG_*`.
        flags: u64,
        /// Pointer to `n_destinations` IDs (`u64`), each at most once.
        ptr_destinations: u64,
        /// Pointer to `n_destinations` results (`i32`): 0 or a positive errno.
        /// May be 0 without [`SEND_FLAG_CONTINUE`].
        ptr_errors: u64,
        /// Number of destinations; 0 is fine.
        n_destinations: u64,
        /// Pointer to `n_vecs` `struct iovec` of the caller's own layout.
        ptr_vecs: u64,
        /// Number of vectors, up to 1024.
        n_vecs: u64,
        /// Pointer to `n_handles` IDs (`u64`) to pass on.
        ptr_handles: u64,
        /// Number of handles.
        n_handles: u64,
        /// Pointer to `n_fds` descriptors (`i32`) to pass on.
        ptr_fds: u64,
        /// Number of descriptors, up to [`FD_MAX`].
        n_fds: u64,
    }
}

plain! {
    /// A received message: `struct bus1_msg`, the second part of [`CmdRecv`].
    Msg, 56 {
        /// `MSG_*`; the field `type` of the C structure.
        kind: u64,
        /// `MSG_FLAG_*`.
        flags: u64,
        /// The receiver's own ID of the node that this is about.
        destination: u64,
        /// Start of the slice in the mapping, or [`OFFSET_INVALID`].
        offset: u64,
        /// Payload bytes, from `offset` on.
        n_bytes: u64,
        /// Handle IDs (`u64`), from the next multiple of 8 on.
        n_handles: u64,
        /// Descriptors (`i32`), right behind the handles; 0 unless
        /// [`RECV_FLAG_INSTALL_FDS`] was given.
        n_fds: u64,
    }
}

plain! {
    /// Argument of `RECV`: take the next message from the queue.
    CmdRecv, 72 {
        /// `RECV_FLAG_*`.
        flags: u64,
        /// Size of the caller's mapping: a slice that ends beyond is `ERANGE`.
        max_offset: u64,
        /// Out: the message.
        msg: Msg,
    }
}

plain! {
    /// [`CmdExchange`] without the message to send, for a reader that reads that later or not at
    /// all.
    CmdExchangeHead, 64 {
        /// Size of the whole [`CmdExchange`]. All fields here are as there.
        size: u64,
        /// `EXCHANGE_FLAG_*`.
        flags: u64,
        /// Offsets to release.
        ptr_slices: u64,
        /// Number of offsets at `ptr_slices`.
        n_slices: u64,
        /// Room for messages.
        n_msgs: u64,
        /// Pointer to the room for messages.
        ptr_msgs: u64,
        /// Size of the mapping.
        max_offset: u64,
        /// Until when to wait.
        deadline: u64,
    }
}

plain! {
    /// Argument of `EXCHANGE`: give slices back, send, wait and receive, in one
    /// call.
    ///
    /// When it fails, `flags` to `n_msgs` are written so that the same call again does the rest.
    CmdExchange, 144 {
        /// The caller's size of this structure, a multiple of 8. Bytes beyond the size that the bus
        /// knows must be 0.
        size: u64,
        /// `EXCHANGE_FLAG_*`. On failure without [`EXCHANGE_FLAG_SEND`] if it
        /// was sent.
        flags: u64,
        /// Pointer to `n_slices` offsets (`u64`) to release first. On failure
        /// moved behind those that were released.
        ptr_slices: u64,
        /// Number of offsets, up to [`EXCHANGE_MAX`]. On failure the number that is left.
        n_slices: u64,
        /// In: room at `ptr_msgs`, up to [`EXCHANGE_MAX`]; 0 is not to receive.
        /// Out: number of messages, at least 1 unless there was no room.
        n_msgs: u64,
        /// Pointer to room for `n_msgs` messages ([`Msg`]).
        ptr_msgs: u64,
        /// As in [`CmdRecv`].
        max_offset: u64,
        /// Until when to wait for the first message: nanoseconds of
        /// `CLOCK_MONOTONIC`, [`DEADLINE_NOW`] or [`DEADLINE_NEVER`].
        deadline: u64,
        /// The message to send, with [`EXCHANGE_FLAG_SEND`]; otherwise not looked at.
        send: CmdSend,
    }
}

/// [`CmdQuota::level`]: no limit would refuse the message.
pub const QUOTA_LEVEL_NONE: u32 = 0;
/// [`CmdQuota::level`]: the receiver's limit.
pub const QUOTA_LEVEL_PEER: u32 = 1;
/// [`CmdQuota::level`]: the limit of the receiver's user.
pub const QUOTA_LEVEL_USER: u32 = 2;
/// [`CmdQuota::level`]: the limit of the sender's user, in flight.
pub const QUOTA_LEVEL_SENDER: u32 = 3;

/// [`CmdQuota::resource`]: slices.
pub const QUOTA_SLICES: u32 = 0;
/// [`CmdQuota::resource`]: handles.
pub const QUOTA_HANDLES: u32 = 1;
/// [`CmdQuota::resource`]: bytes in slices.
pub const QUOTA_BYTES: u32 = 2;
/// [`CmdQuota::resource`]: descriptors in flight.
pub const QUOTA_FDS: u32 = 3;

plain! {
    /// An amount of each resource: `struct bus1_amounts`.
    Amounts, 32 {
        /// Slices.
        slices: u64,
        /// Handles.
        handles: u64,
        /// Bytes in slices.
        bytes: u64,
        /// Descriptors in flight.
        fds: u64,
    }
}

plain! {
    /// Argument of `QUOTA`: what a message may be, and what is used.
    CmdQuota, 192 {
        /// The caller's size of this structure, a multiple of 8. Bytes beyond the size that the bus
        /// knows must be 0.
        size: u64,
        /// Must be 0.
        flags: u64,
        /// ID of the handle to send to, or [`HANDLE_INVALID`] for the calling peer itself.
        handle: u64,
        /// Bytes of payload of a message.
        n_bytes: u64,
        /// Handles of the message.
        n_handles: u64,
        /// Descriptors of the message.
        n_fds: u64,
        /// Out: `QUOTA_LEVEL_*`, which would refuse the message now.
        level: u32,
        /// Out: `QUOTA_*`, the resource of which it would be too much.
        resource: u32,
        /// Out: the most of each that one message may have when the receiver holds nothing.
        most: Amounts,
        /// Out: the amounts that the calling peer holds.
        peer_used: Amounts,
        /// Out: the amounts that the peers of its user hold together.
        user_used: Amounts,
        /// Out: the limits of its user.
        user_max: Amounts,
        /// Out: descriptors that its user has in flight.
        sent_fds: u64,
    }
}

/// The type byte in every command number of the bus.
pub const IOCTL_MAGIC: u32 = 0x96;

/// Encodes a command as `_IOWR(BUS1_IOCTL_MAGIC, nr, T)` of C does: both
/// directions, the size of the argument, the magic, the number.
const fn iowr<T>(nr: u32) -> u32 {
    // On every architecture both direction bits together are the two highest
    // of the word, and all sizes here fit the narrowest size field (13 bits).
    (0b11 << 30) | ((size_of::<T>() as u32) << 16) | (IOCTL_MAGIC << 8) | nr
}

// 0x00 to 0x7f belong to the interface of 2016. Commands added since take numbers from 0x80 up;
// their structures start with a u64 `size`, so that they can grow, and their numbers do not show
// it.

/// Disconnect the peer. Takes no pointer: the argument must be 0.
pub const CMD_PEER_DISCONNECT: u32 = iowr::<u64>(0x00);
/// Read the limits of the peer; takes [`CmdPeerReset`].
pub const CMD_PEER_QUERY: u32 = iowr::<CmdPeerReset>(0x01);
/// Set the limits of the peer and flush it; takes [`CmdPeerReset`].
pub const CMD_PEER_RESET: u32 = iowr::<CmdPeerReset>(0x02);
/// Drop one user reference of a handle; takes a pointer to its ID (`u64`).
pub const CMD_HANDLE_RELEASE: u32 = iowr::<u64>(0x10);
/// Give a handle to another peer; takes [`CmdHandleTransfer`].
pub const CMD_HANDLE_TRANSFER: u32 = iowr::<CmdHandleTransfer>(0x11);
/// Destroy own nodes; takes [`CmdNodesDestroy`].
pub const CMD_NODES_DESTROY: u32 = iowr::<CmdNodesDestroy>(0x20);
/// Give a slice back; takes a pointer to its offset (`u64`).
pub const CMD_SLICE_RELEASE: u32 = iowr::<u64>(0x30);
/// Send a message; takes [`CmdSend`].
pub const CMD_SEND: u32 = iowr::<CmdSend>(0x40);
/// Receive a message; takes [`CmdRecv`].
pub const CMD_RECV: u32 = iowr::<CmdRecv>(0x50);
/// Release, send, wait and receive; takes [`CmdExchange`].
pub const CMD_EXCHANGE: u32 = iowr::<u64>(0x80);
/// [`CmdQuota`]
pub const CMD_QUOTA: u32 = iowr::<u64>(0x81);

const _: () = {
    assert!(CMD_PEER_DISCONNECT == 0xc008_9600);
    assert!(CMD_PEER_QUERY == 0xc020_9601);
    assert!(CMD_PEER_RESET == 0xc020_9602);
    assert!(CMD_HANDLE_RELEASE == 0xc008_9610);
    assert!(CMD_HANDLE_TRANSFER == 0xc020_9611);
    assert!(CMD_NODES_DESTROY == 0xc018_9620);
    assert!(CMD_SLICE_RELEASE == 0xc008_9630);
    assert!(CMD_SEND == 0xc050_9640);
    assert!(CMD_RECV == 0xc048_9650);
    assert!(CMD_EXCHANGE == 0xc008_9680);
    assert!(CMD_QUOTA == 0xc008_9681);
};
