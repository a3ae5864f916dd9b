/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * bus1: capability-based inter-process communication on one machine
 *
 * Everything here is binary interface: names, numbers and layouts are fixed.
 * One open file description of /dev/bus1 is one peer; every operation is an
 * ioctl on it. docs/abi.md describes each command with its checks and errors.
 *
 * Rules that hold for every structure:
 *  - it is aligned to 8 and has no padding, so that 32-bit and 64-bit callers
 *    share one layout. Pointers travel as __u64; only the struct iovec that
 *    @ptr_vecs points to has the caller's own layout.
 *  - bits that are not defined in a flags field must be 0 (EINVAL).
 *  - all commands are encoded read+write and return 0 or a negative errno.
 *
 * abi.rs beside this file's tree is the same interface in Rust; a test
 * compares the two.
 */
#ifndef _LINUX_BUS1_H
#define _LINUX_BUS1_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Most descriptors that one message may carry (beyond: EMSGSIZE). */
#define BUS1_FD_MAX			256

/* No handle, and no slice. Never a valid ID or offset. */
#define BUS1_HANDLE_INVALID		((__u64)-1)
#define BUS1_OFFSET_INVALID		((__u64)-1)

/*
 * The two lowest bits of a handle ID. IDs with both clear are chosen by the
 * peer itself: naming an unknown one creates a node of that ID. IDs with
 * MANAGED set are chosen by the bus and never used twice by the same peer.
 */
#define BUS1_HANDLE_FLAG_MANAGED	(1ULL << 0)	/* the bus chose the ID */
#define BUS1_HANDLE_FLAG_REMOTE		(1ULL << 1)	/* another peer owns the node */

/* struct bus1_cmd_peer_reset, @flags of BUS1_CMD_PEER_RESET */
#define BUS1_PEER_RESET_FLAG_FLUSH	(1ULL << 0)	/* all but the seed */
#define BUS1_PEER_RESET_FLAG_FLUSH_SEED	(1ULL << 1)	/* the seed */

/**
 * struct bus1_cmd_peer_reset - limits of a peer (PEER_QUERY, PEER_RESET)
 * @flags:		QUERY: 0. RESET: BUS1_PEER_RESET_FLAG_*
 * @peer_flags:		QUERY: written as 0. RESET: must be all-ones
 * @max_slices:		slices that may occupy this peer's pool
 * @max_handles:	handles that this peer may hold, nodes included
 * @max_inflight_bytes:	bytes that its slices may have, queued or received
 * @max_inflight_fds:	descriptors of others that may wait in its queue
 *
 * RESET takes each limit as a number up to INT_MAX, or all-ones to keep it.
 */
struct bus1_cmd_peer_reset {
	__u64 flags;
	__u64 peer_flags;
	__u32 max_slices;
	__u32 max_handles;
	__u32 max_inflight_bytes;
	__u32 max_inflight_fds;
} __attribute__((__aligned__(8)));

/**
 * struct bus1_cmd_handle_transfer - give a handle to another peer at once
 * @flags:		must be 0
 * @src_handle:		ID in the calling peer; an unknown one whose flag bits
 *			are clear creates a node
 * @dst_fd:		descriptor of the receiving peer, or all-ones for the
 *			calling peer itself
 * @dst_handle:		in: BUS1_HANDLE_INVALID. out: ID in the receiving peer,
 *			or INVALID if the node is destroyed already
 */
struct bus1_cmd_handle_transfer {
	__u64 flags;
	__u64 src_handle;
	__u64 dst_fd;
	__u64 dst_handle;
} __attribute__((__aligned__(8)));

/* struct bus1_cmd_nodes_destroy, @flags */
#define BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES	(1ULL << 0) /* and the owner's pins */

/**
 * struct bus1_cmd_nodes_destroy - destroy own nodes at one point of the order
 * @flags:		BUS1_NODES_DESTROY_FLAG_*
 * @ptr_nodes:		pointer to @n_nodes IDs (__u64), each at most once
 * @n_nodes:		number of IDs; 0 is fine
 */
struct bus1_cmd_nodes_destroy {
	__u64 flags;
	__u64 ptr_nodes;
	__u64 n_nodes;
} __attribute__((__aligned__(8)));

/* struct bus1_cmd_send, @flags */
#define BUS1_SEND_FLAG_CONTINUE		(1ULL << 0)	/* go on past a failed destination */
#define BUS1_SEND_FLAG_SEED		(1ULL << 1)	/* make it the peer's own seed */
#define BUS1_SEND_FLAG_ROOM		(1ULL << 8)	/* notify of room after EDQUOT, EXFULL */

/**
 * struct bus1_cmd_send - send one message to any number of nodes
 * @flags:		BUS1_SEND_FLAG_*
 * @ptr_destinations:	pointer to @n_destinations IDs (__u64), each at most
 *			once
 * @ptr_errors:		pointer to @n_destinations results (__s32): 0 or that
 *			destination's positive errno. May be 0 without CONTINUE
 * @n_destinations:	number of destinations; 0 is fine
 * @ptr_vecs:		pointer to @n_vecs struct iovec: the payload, in order
 * @n_vecs:		number of vectors, up to UIO_MAXIOV (1024)
 * @ptr_handles:	pointer to @n_handles IDs (__u64) to pass on; the
 *			sender keeps its own
 * @n_handles:		number of handles
 * @ptr_fds:		pointer to @n_fds descriptors (__s32) to pass on
 * @n_fds:		number of descriptors, up to BUS1_FD_MAX
 */
struct bus1_cmd_send {
	__u64 flags;
	__u64 ptr_destinations;
	__u64 ptr_errors;
	__u64 n_destinations;
	__u64 ptr_vecs;
	__u64 n_vecs;
	__u64 ptr_handles;
	__u64 n_handles;
	__u64 ptr_fds;
	__u64 n_fds;
} __attribute__((__aligned__(8)));

/* struct bus1_cmd_recv, @flags */
#define BUS1_RECV_FLAG_SEED		(1ULL << 0)	/* deliver the seed, not the queue */
#define BUS1_RECV_FLAG_INSTALL_FDS	(1ULL << 1)	/* install the descriptors */

/* struct bus1_msg, @type */
#define BUS1_MSG_NONE			0	/* never delivered */
#define BUS1_MSG_DATA			1	/* a message from a peer */
#define BUS1_MSG_NODE_DESTROY		2	/* a node was destroyed by its owner */
#define BUS1_MSG_NODE_RELEASE		3	/* nobody else refers to an own node now */
#define BUS1_MSG_ROOM			16	/* a node that refused may have room now */

/* struct bus1_msg, @flags */
#define BUS1_MSG_FLAG_CONTINUE		(1ULL << 0)	/* the transaction's next part follows */

/**
 * struct bus1_msg - what was received
 * @type:		BUS1_MSG_*
 * @flags:		BUS1_MSG_FLAG_*
 * @destination:	the receiver's own ID of the node that this is about
 * @offset:		where the slice starts in the mapping, or
 *			BUS1_OFFSET_INVALID if there is none (notifications)
 * @n_bytes:		payload bytes, from @offset on
 * @n_handles:		handle IDs (__u64), from the next multiple of 8 on
 * @n_fds:		descriptors (__s32), right behind the handles; 0 unless
 *			BUS1_RECV_FLAG_INSTALL_FDS was given
 */
struct bus1_msg {
	__u64 type;
	__u64 flags;
	__u64 destination;
	__u64 offset;
	__u64 n_bytes;
	__u64 n_handles;
	__u64 n_fds;
} __attribute__((__aligned__(8)));

/**
 * struct bus1_cmd_recv - take the next message from the queue
 * @flags:		BUS1_RECV_FLAG_*
 * @max_offset:		size of the caller's mapping: a slice that ends beyond
 *			is not delivered (ERANGE)
 * @msg:		out: the message
 */
struct bus1_cmd_recv {
	__u64 flags;
	__u64 max_offset;
	struct bus1_msg msg;
} __attribute__((__aligned__(8)));

/* struct bus1_cmd_exchange, @flags */
#define BUS1_EXCHANGE_FLAG_SEND		(1ULL << 0)	/* send @send */
#define BUS1_EXCHANGE_FLAG_INSTALL_FDS	(1ULL << 1)	/* install the descriptors */

/* struct bus1_cmd_exchange, @deadline; any other is a time */
#define BUS1_DEADLINE_NOW		((__u64)0)	/* do not wait */
#define BUS1_DEADLINE_NEVER		((__u64)-1)	/* as long as it takes */

/* Most slices, and most messages, in one exchange (beyond: EMSGSIZE). */
#define BUS1_EXCHANGE_MAX		1024

/**
 * struct bus1_cmd_exchange - give slices back, send, wait and receive at once
 * @size:		the caller's sizeof of this structure
 * @flags:		BUS1_EXCHANGE_FLAG_*. On failure without SEND if it was
 *			sent
 * @ptr_slices:		pointer to @n_slices offsets (__u64) to release first.
 *			On failure moved behind those that were released
 * @n_slices:		number of offsets. On failure what is left
 * @n_msgs:		in: room at @ptr_msgs; 0 is not to receive. out: number
 *			of messages received, at least 1 unless there was no
 *			room
 * @ptr_msgs:		pointer to room for @n_msgs struct bus1_msg
 * @max_offset:		as in struct bus1_cmd_recv
 * @deadline:		until when to wait for the first message: nanoseconds of
 *			CLOCK_MONOTONIC, or BUS1_DEADLINE_*
 * @send:		what to send, with SEND; else not looked at
 *
 * When it fails, @flags to @n_msgs are left so that the same call again does
 * what is left to do.
 */
struct bus1_cmd_exchange {
	__u64 size;
	__u64 flags;
	__u64 ptr_slices;
	__u64 n_slices;
	__u64 n_msgs;
	__u64 ptr_msgs;
	__u64 max_offset;
	__u64 deadline;
	struct bus1_cmd_send send;
} __attribute__((__aligned__(8)));

/* struct bus1_cmd_quota, @level: whose limit would refuse the message */
#define BUS1_QUOTA_LEVEL_NONE		0	/* none: it would be granted */
#define BUS1_QUOTA_LEVEL_PEER		1	/* the receiver's */
#define BUS1_QUOTA_LEVEL_USER		2	/* that of the receiver's user */
#define BUS1_QUOTA_LEVEL_SENDER		3	/* that of the sender's user, in flight */

/* struct bus1_cmd_quota, @resource: of what there would be too much */
#define BUS1_QUOTA_SLICES		0
#define BUS1_QUOTA_HANDLES		1
#define BUS1_QUOTA_BYTES		2
#define BUS1_QUOTA_FDS			3

/**
 * struct bus1_amounts - an amount of each resource
 * @slices:		slices
 * @handles:		handles
 * @bytes:		bytes in slices
 * @fds:		descriptors in flight
 */
struct bus1_amounts {
	__u64 slices;
	__u64 handles;
	__u64 bytes;
	__u64 fds;
} __attribute__((__aligned__(8)));

/**
 * struct bus1_cmd_quota - what a message may be, and what is used
 * @size:		the caller's sizeof of this structure
 * @flags:		must be 0
 * @handle:		ID of the handle to send to, or BUS1_HANDLE_INVALID for
 *			the calling peer itself
 * @n_bytes:		bytes of payload of a message
 * @n_handles:		handles of the message
 * @n_fds:		descriptors of the message
 * @level:		out: BUS1_QUOTA_LEVEL_*, which would refuse the message
 * @resource:		out: BUS1_QUOTA_*, of which it would be too much
 * @most:		out: the most that one message may have of each when
 *			the receiver holds nothing
 * @peer_used:		out: what the calling peer holds
 * @user_used:		out: what the peers of its user hold together
 * @user_max:		out: the limits of its user
 * @sent_fds:		out: descriptors that its user has in flight
 */
struct bus1_cmd_quota {
	__u64 size;
	__u64 flags;
	__u64 handle;
	__u64 n_bytes;
	__u64 n_handles;
	__u64 n_fds;
	__u32 level;
	__u32 resource;
	struct bus1_amounts most;
	struct bus1_amounts peer_used;
	struct bus1_amounts user_used;
	struct bus1_amounts user_max;
	__u64 sent_fds;
} __attribute__((__aligned__(8)));

#define BUS1_IOCTL_MAGIC		0x96

/*
 * The commands. PEER_DISCONNECT is encoded with a __u64, but takes no pointer:
 * its argument must be 0. HANDLE_RELEASE takes a pointer to an ID, and
 * SLICE_RELEASE a pointer to an offset.
 *
 * 0x00 to 0x7f belong to the interface of 2016. Commands added since take
 * numbers from 0x80 up; their structures start with a __u64 @size, the
 * caller's sizeof, so that they can grow, and their numbers encode only that
 * field.
 */
#define BUS1_CMD_PEER_DISCONNECT	_IOWR(BUS1_IOCTL_MAGIC, 0x00, __u64)
#define BUS1_CMD_PEER_QUERY		_IOWR(BUS1_IOCTL_MAGIC, 0x01, struct bus1_cmd_peer_reset)
#define BUS1_CMD_PEER_RESET		_IOWR(BUS1_IOCTL_MAGIC, 0x02, struct bus1_cmd_peer_reset)
#define BUS1_CMD_HANDLE_RELEASE		_IOWR(BUS1_IOCTL_MAGIC, 0x10, __u64)
#define BUS1_CMD_HANDLE_TRANSFER	_IOWR(BUS1_IOCTL_MAGIC, 0x11, struct bus1_cmd_handle_transfer)
#define BUS1_CMD_NODES_DESTROY		_IOWR(BUS1_IOCTL_MAGIC, 0x20, struct bus1_cmd_nodes_destroy)
#define BUS1_CMD_SLICE_RELEASE		_IOWR(BUS1_IOCTL_MAGIC, 0x30, __u64)
#define BUS1_CMD_SEND			_IOWR(BUS1_IOCTL_MAGIC, 0x40, struct bus1_cmd_send)
#define BUS1_CMD_RECV			_IOWR(BUS1_IOCTL_MAGIC, 0x50, struct bus1_cmd_recv)
#define BUS1_CMD_EXCHANGE		_IOWR(BUS1_IOCTL_MAGIC, 0x80, __u64)
#define BUS1_CMD_QUOTA			_IOWR(BUS1_IOCTL_MAGIC, 0x81, __u64)

#endif /* _LINUX_BUS1_H */
