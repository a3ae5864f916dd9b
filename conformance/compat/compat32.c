/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A 32-bit program against /dev/bus1 of a 64-bit kernel: the path through
 * compat_ioctl, where struct iovec is half as wide and every pointer is
 * extended to 64 bits.
 *
 * It needs no C library, so no 32-bit one has to be installed:
 *
 *   gcc -m32 -O1 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector \
 *       -fno-pie -nostdlib -static -I uapi/include \
 *       -idirafter /usr/include/$(gcc -print-multiarch) \
 *       -o compat32 conformance/compat/compat32.c
 *
 * One line `test NAME ... ok` or `... FAILED (...)` for each case, in an order
 * in which each builds on those before; then `N passed, N failed`. Exit 1 if
 * any failed or the device cannot be opened.
 */
#include <stdint.h>

#include <asm/unistd.h>
#include <linux/bus1.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/personality.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/uio.h>

_Static_assert(sizeof(void *) == 4 && sizeof(struct iovec) == 8, "build it with -m32");

#define POOL (1u << 20)
#define TARGET 8 /* the node that messages go to */
#define PASSED 16 /* the node that a message carries */
#define UNKNOWN 0x7ffffff3 /* an ID with both flag bits that nobody was given */

long syscall6(long nr, long a, long b, long c, long d, long e, long f);

__asm__(".text\n"
	".globl syscall6\n"
	"syscall6:\n"
	"	pushl %ebx\n	pushl %esi\n	pushl %edi\n	pushl %ebp\n"
	"	movl 20(%esp), %eax\n"
	"	movl 24(%esp), %ebx\n	movl 28(%esp), %ecx\n	movl 32(%esp), %edx\n"
	"	movl 36(%esp), %esi\n	movl 40(%esp), %edi\n	movl 44(%esp), %ebp\n"
	"	int $0x80\n"
	"	popl %ebp\n	popl %edi\n	popl %esi\n	popl %ebx\n"
	"	ret\n");

#define sys3(nr, a, b, c) syscall6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)

/* The compiler may call these two whatever the flags. */
void *memset(void *to, int byte, __SIZE_TYPE__ n)
{
	for (volatile char *at = to; n--; at++)
		*at = byte;
	return to;
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ n)
{
	volatile char *at = to;
	for (const char *next = from; n--; at++, next++)
		*at = *next;
	return to;
}

static void print(const char *text)
{
	unsigned n = 0;
	while (text[n])
		n++;
	sys3(__NR_write, 1, text, n);
}

/* Decimal if it is small, as counts and errnos are; else hexadecimal. */
static void print_number(long long value)
{
	char text[24], *at = text + sizeof(text) - 1;
	int small = value > -1000000 && value < 1000000;
	unsigned rest = value < 0 ? -value : value;

	*at = 0;
	if (small) {
		do
			*--at = '0' + rest % 10;
		while (rest /= 10);
		if (value < 0)
			*--at = '-';
	} else {
		for (int i = 0; i < 16; i++)
			*--at = "0123456789abcdef"[((uint64_t)value >> (4 * i)) & 15];
		*--at = 'x';
		*--at = '0';
	}
	print(at);
}

static int fail(int line, long long got, long long wanted)
{
	print("FAILED (line ");
	print_number(line);
	print(": got ");
	print_number(got);
	print(", wanted ");
	print_number(wanted);
	print(")\n");
	return 1;
}

#define EXPECT(expression, wanted) \
	do { \
		long long got_ = (long long)(expression); \
		long long wanted_ = (long long)(wanted); \
		if (got_ != wanted_) \
			return fail(__LINE__, got_, wanted_); \
	} while (0)

#define ADDRESS(pointer) ((__u64)(uintptr_t)(pointer))

static int peer = -1;
static const volatile char *pool;
static int pipe_ends[2];
static char first[] = "thirty-", second[] = "two bits";
static const char whole[] = "thirty-two bits";
static struct iovec text[2] = { { first, 7 }, { second, 8 } };

static long command(int fd, unsigned long number, void *argument)
{
	return sys3(__NR_ioctl, fd, number, argument);
}

static long receive(struct bus1_cmd_recv *recv, __u64 flags)
{
	memset(recv, 0x5a, sizeof(*recv));
	recv->flags = flags;
	recv->max_offset = POOL;
	return command(peer, BUS1_CMD_RECV, recv);
}

/* The text to one destination: what most cases need. */
static long send_text(int fd, __u64 destination)
{
	struct bus1_cmd_send send = {
		.ptr_destinations = ADDRESS(&destination),
		.n_destinations = 1,
		.ptr_vecs = ADDRESS(text),
		.n_vecs = 2,
	};
	return command(fd, BUS1_CMD_SEND, &send);
}

/* The text to TARGET with other vectors: for the faults. */
static long send_vecs(__u64 vecs, __u64 n_vecs)
{
	__u64 destination = TARGET;
	struct bus1_cmd_send send = {
		.ptr_destinations = ADDRESS(&destination),
		.n_destinations = 1,
		.ptr_vecs = vecs,
		.n_vecs = n_vecs,
	};
	return command(peer, BUS1_CMD_SEND, &send);
}

static long release_slice(__u64 offset)
{
	return command(peer, BUS1_CMD_SLICE_RELEASE, &offset);
}

static long release_handle(int fd, __u64 id)
{
	return command(fd, BUS1_CMD_HANDLE_RELEASE, &id);
}

/* How many leading bytes at @offset of the pool are the text. */
static unsigned text_at(__u64 offset)
{
	unsigned n = 0;
	while (n < 15 && pool[(unsigned)offset + n] == whole[n])
		n++;
	return n;
}

static long poll_events(void)
{
	struct pollfd poll = { .fd = peer, .events = POLLIN | POLLOUT };
	long ready = sys3(__NR_poll, &poll, 1, 0);
	return ready < 0 ? ready : poll.revents;
}

static int query_limits(void)
{
	struct bus1_cmd_peer_reset query = { .peer_flags = 7 };
	EXPECT(command(peer, BUS1_CMD_PEER_QUERY, &query), 0);
	EXPECT(query.peer_flags, 0);
	EXPECT(query.max_slices > 0 && query.max_handles > 0, 1);
	EXPECT(query.max_inflight_bytes > 0 && query.max_inflight_fds > 0, 1);
	query.flags = 1;
	EXPECT(command(peer, BUS1_CMD_PEER_QUERY, &query), -EINVAL);
	return 0;
}

static int reset_keeps_and_sets_limits(void)
{
	struct bus1_cmd_peer_reset query = { 0 }, reset;
	EXPECT(command(peer, BUS1_CMD_PEER_QUERY, &query), 0);
	memset(&reset, 0xff, sizeof(reset));
	reset.flags = 0;
	reset.max_slices = 77;
	EXPECT(command(peer, BUS1_CMD_PEER_RESET, &reset), 0);
	unsigned handles = query.max_handles;
	EXPECT(command(peer, BUS1_CMD_PEER_QUERY, &query), 0);
	EXPECT(query.max_slices, 77);
	EXPECT(query.max_handles, handles);
	reset.max_slices = 0x80000000;
	EXPECT(command(peer, BUS1_CMD_PEER_RESET, &reset), -EINVAL);
	return 0;
}

static int map_the_pool_read_only(void)
{
	long at = syscall6(__NR_mmap2, 0, POOL, PROT_READ | PROT_WRITE, MAP_SHARED, peer, 0);
	EXPECT(at, -EPERM);
	at = syscall6(__NR_mmap2, 0, POOL, PROT_READ, MAP_SHARED, peer, 0);
	/* Addresses above 2 GiB are negative here; errors are the last page. */
	if ((unsigned long)at > -4096ul)
		EXPECT(at, 0);
	pool = (const volatile char *)at;
	return 0;
}

static int send_vectors_handle_and_descriptor(void)
{
	__u64 destination = TARGET, handle = PASSED;
	EXPECT(sys3(__NR_pipe, pipe_ends, 0, 0), 0);
	struct bus1_cmd_send send = {
		.ptr_destinations = ADDRESS(&destination),
		.n_destinations = 1,
		.ptr_vecs = ADDRESS(text),
		.n_vecs = 2,
		.ptr_handles = ADDRESS(&handle),
		.n_handles = 1,
		.ptr_fds = ADDRESS(&pipe_ends[1]),
		.n_fds = 1,
	};
	EXPECT(poll_events(), POLLOUT);
	EXPECT(command(peer, BUS1_CMD_SEND, &send), 0);
	EXPECT(poll_events(), POLLIN | POLLOUT);
	return 0;
}

static int receive_them(void)
{
	/* 15 bytes, one ID, one descriptor: 16 + 8 + 8 are too long for 24. */
	struct bus1_cmd_recv recv = { .max_offset = 24 };
	EXPECT(command(peer, BUS1_CMD_RECV, &recv), -ERANGE);
	EXPECT(receive(&recv, BUS1_RECV_FLAG_INSTALL_FDS), 0);
	EXPECT(poll_events(), POLLOUT);
	EXPECT(recv.msg.type, BUS1_MSG_DATA);
	EXPECT(recv.msg.flags, 0);
	EXPECT(recv.msg.destination, TARGET);
	EXPECT(recv.msg.n_bytes, 15);
	EXPECT(recv.msg.n_handles, 1);
	EXPECT(recv.msg.n_fds, 1);
	EXPECT(recv.msg.offset % 8, 0);
	EXPECT(recv.msg.offset + 32 <= POOL, 1);

	const volatile char *slice = pool + (unsigned)recv.msg.offset;
	EXPECT(text_at(recv.msg.offset), 15);
	EXPECT(slice[15], 0);
	EXPECT(*(const volatile __u64 *)(slice + 16), PASSED);
	EXPECT(*(const volatile __s32 *)(slice + 28), 0);

	/* The descriptor is a new one, close-on-exec, and the same pipe. */
	int fd = *(const volatile __s32 *)(slice + 24);
	char byte = 0;
	EXPECT(fd >= 0 && fd != pipe_ends[0] && fd != pipe_ends[1] && fd != peer, 1);
	EXPECT(sys3(__NR_fcntl64, fd, F_GETFD, 0), FD_CLOEXEC);
	EXPECT(sys3(__NR_close, pipe_ends[1], 0, 0), 0);
	EXPECT(sys3(__NR_write, fd, "!", 1), 1);
	EXPECT(sys3(__NR_read, pipe_ends[0], &byte, 1), 1);
	EXPECT(byte, '!');
	EXPECT(sys3(__NR_close, fd, 0, 0), 0);
	EXPECT(sys3(__NR_read, pipe_ends[0], &byte, 1), 0);
	EXPECT(sys3(__NR_close, pipe_ends[0], 0, 0), 0);

	EXPECT(release_slice(recv.msg.offset), 0);
	EXPECT(release_slice(recv.msg.offset), -ENXIO);
	return 0;
}

static int release_the_received_handle(void)
{
	struct bus1_cmd_recv recv;
	EXPECT(receive(&recv, 0), -EAGAIN);
	EXPECT(release_handle(peer, PASSED), 0);
	EXPECT(release_handle(peer, PASSED), -EBUSY);
	EXPECT(release_handle(peer, UNKNOWN), -ENXIO);
	/* That was the last reference beside the pin. */
	EXPECT(receive(&recv, 0), 0);
	EXPECT(recv.msg.type, BUS1_MSG_NODE_RELEASE);
	EXPECT(recv.msg.destination, PASSED);
	EXPECT(recv.msg.offset, BUS1_OFFSET_INVALID);
	EXPECT(recv.msg.n_bytes | recv.msg.n_handles | recv.msg.n_fds, 0);
	return 0;
}

static int faulty_vectors(void)
{
	static struct iovec bad[2] = { { first, 7 }, { (void *)8, 8 } };
	struct bus1_cmd_recv recv;
	EXPECT(send_vecs(8, 1), -EFAULT);
	EXPECT(send_vecs(0xfffffffffffff000ull, 1), -EFAULT);
	/* Half of the pointer is right: it must not be cut off. */
	EXPECT(send_vecs(ADDRESS(text) | 1ull << 32, 2), -EFAULT);
	EXPECT(send_vecs(ADDRESS(bad), 2), -EFAULT);
	EXPECT(command(peer, BUS1_CMD_SEND, (void *)8), -EFAULT);
	EXPECT(receive(&recv, 0), -EAGAIN);
	return 0;
}

/* Refused before the handle, which is unknown: what no 32-bit program can have. */
static int vectors_outside_come_first(void)
{
	static struct iovec outside[] = {
		{ (void *)0xffffe000, 1 },
		{ (void *)0xfffffff8, 8 },
		{ (void *)0xffffffff, 0 },
		{ (void *)0x90000000, 0x7ffff000 },
	};
	static struct iovec vecs[2] = { { first, 0xffffffff } };
	__u64 handle = UNKNOWN;
	struct bus1_cmd_send send = { .ptr_handles = ADDRESS(&handle), .n_handles = 1 };

	for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		send.ptr_vecs = ADDRESS(&outside[i]);
		send.n_vecs = 1;
		EXPECT(command(peer, BUS1_CMD_SEND, &send), -EFAULT);
		/* Also before a length that is negative. */
		vecs[1] = outside[i];
		send.ptr_vecs = ADDRESS(vecs);
		send.n_vecs = 2;
		EXPECT(command(peer, BUS1_CMD_SEND, &send), -EFAULT);
	}
	/* The payload itself is read at last. */
	vecs[0] = (struct iovec){ (void *)8, 8 };
	send.n_vecs = 1;
	EXPECT(command(peer, BUS1_CMD_SEND, &send), -ENXIO);
	return 0;
}

static int lengths_of_vectors(void)
{
	static struct iovec long_ones[2] = { { first, 0x40000000 }, { first, 0x40000000 } };
	static struct iovec negative[1] = { { first, 0xffffffff } };
	struct bus1_cmd_recv recv;
	EXPECT(send_vecs(ADDRESS(long_ones), 2), -EMSGSIZE);
	EXPECT(send_vecs(ADDRESS(negative), 1), -EINVAL);
	EXPECT(send_vecs(ADDRESS(text), 1025), -EMSGSIZE);
	EXPECT(receive(&recv, 0), -EAGAIN);
	return 0;
}

static int too_many_and_bad_descriptors(void)
{
	static __s32 fds[BUS1_FD_MAX + 1];
	struct bus1_cmd_send send = { .ptr_fds = ADDRESS(fds), .n_fds = BUS1_FD_MAX + 1 };
	EXPECT(command(peer, BUS1_CMD_SEND, &send), -EMSGSIZE);
	send.n_fds = 1;
	fds[0] = -1;
	EXPECT(command(peer, BUS1_CMD_SEND, &send), -EBADF);
	fds[0] = peer;
	EXPECT(command(peer, BUS1_CMD_SEND, &send), -EOPNOTSUPP);
	return 0;
}

static int continue_reports_each_destination(void)
{
	__u64 destinations[2] = { TARGET, UNKNOWN };
	__s32 errors[3] = { -1, -1, -1 };
	struct bus1_cmd_send send = {
		.flags = BUS1_SEND_FLAG_CONTINUE,
		.ptr_destinations = ADDRESS(destinations),
		.ptr_errors = ADDRESS(errors),
		.n_destinations = 2,
		.ptr_vecs = ADDRESS(text),
		.n_vecs = 2,
	};
	struct bus1_cmd_recv recv;
	EXPECT(command(peer, BUS1_CMD_SEND, &send), 0);
	EXPECT(errors[0], 0);
	EXPECT(errors[1], ENXIO);
	EXPECT(errors[2], -1);
	EXPECT(receive(&recv, 0), 0);
	EXPECT(recv.msg.flags, 0);
	EXPECT(text_at(recv.msg.offset), 15);
	EXPECT(release_slice(recv.msg.offset), 0);
	return 0;
}

static int exchange_with_itself(void)
{
	__u64 destination = TARGET, offset;
	struct bus1_msg msgs[2];
	struct bus1_cmd_recv recv;
	struct bus1_cmd_exchange exchange = {
		.size = sizeof(exchange),
		.flags = BUS1_EXCHANGE_FLAG_SEND,
		.n_msgs = 2,
		.ptr_msgs = ADDRESS(msgs),
		.max_offset = POOL,
		.deadline = BUS1_DEADLINE_NEVER,
		.send = {
			.ptr_destinations = ADDRESS(&destination),
			.n_destinations = 1,
			.ptr_vecs = ADDRESS(text),
			.n_vecs = 2,
		},
	};
	EXPECT(command(peer, BUS1_CMD_EXCHANGE, &exchange), 0);
	EXPECT(exchange.n_msgs, 1);
	EXPECT(msgs[0].type, BUS1_MSG_DATA);
	EXPECT(msgs[0].destination, TARGET);
	EXPECT(text_at(msgs[0].offset), 15);

	/* Its slice goes, the text comes, and half a pointer is no pointer. */
	offset = msgs[0].offset;
	exchange.ptr_slices = ADDRESS(&offset);
	exchange.n_slices = 1;
	exchange.ptr_msgs = ADDRESS(msgs) | 1ull << 32;
	EXPECT(command(peer, BUS1_CMD_EXCHANGE, &exchange), -EFAULT);
	EXPECT(exchange.flags, 0);
	EXPECT(exchange.n_slices, 0);
	EXPECT(exchange.ptr_slices, ADDRESS(&offset + 1));
	EXPECT(exchange.n_msgs, 1);
	EXPECT(receive(&recv, 0), 0);
	EXPECT(text_at(recv.msg.offset), 15);

	offset = recv.msg.offset;
	exchange.ptr_slices = ADDRESS(&offset);
	exchange.n_slices = 1;
	exchange.deadline = 1;
	EXPECT(command(peer, BUS1_CMD_EXCHANGE, &exchange), -ETIMEDOUT);
	EXPECT(release_slice(offset), -ENXIO);
	exchange.deadline = BUS1_DEADLINE_NOW;
	EXPECT(command(peer, BUS1_CMD_EXCHANGE, &exchange), -EAGAIN);
	return 0;
}

static int transfer_to_a_second_peer(void)
{
	struct bus1_cmd_recv recv;
	long other = sys3(__NR_open, "/dev/bus1", O_RDWR | O_CLOEXEC, 0);
	EXPECT(other >= 0, 1);
	struct bus1_cmd_handle_transfer transfer = {
		.src_handle = TARGET,
		.dst_fd = (__u64)other,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	EXPECT(command(peer, BUS1_CMD_HANDLE_TRANSFER, &transfer), 0);
	EXPECT(transfer.dst_handle & 7, BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE);

	EXPECT(send_text(other, transfer.dst_handle), 0);
	EXPECT(receive(&recv, 0), 0);
	EXPECT(recv.msg.type, BUS1_MSG_DATA);
	EXPECT(recv.msg.destination, TARGET);
	EXPECT(text_at(recv.msg.offset), 15);
	EXPECT(release_slice(recv.msg.offset), 0);

	EXPECT(release_handle(other, transfer.dst_handle), 0);
	EXPECT(receive(&recv, 0), 0);
	EXPECT(recv.msg.type, BUS1_MSG_NODE_RELEASE);
	EXPECT(recv.msg.destination, TARGET);
	EXPECT(sys3(__NR_close, other, 0, 0), 0);
	return 0;
}

static int destroy_both_nodes_at_once(void)
{
	__u64 nodes[2] = { TARGET, PASSED };
	struct bus1_cmd_nodes_destroy destroy = { .ptr_nodes = ADDRESS(nodes), .n_nodes = 2 };
	struct bus1_cmd_recv recv;
	EXPECT(command(peer, BUS1_CMD_NODES_DESTROY, &destroy), 0);
	for (int i = 0; i < 2; i++) {
		EXPECT(receive(&recv, 0), 0);
		EXPECT(recv.msg.type, BUS1_MSG_NODE_DESTROY);
		EXPECT(recv.msg.destination, nodes[i]);
		EXPECT(recv.msg.flags, i == 0 ? BUS1_MSG_FLAG_CONTINUE : 0);
	}
	EXPECT(command(peer, BUS1_CMD_NODES_DESTROY, &destroy), -ESTALE);
	EXPECT(send_text(peer, TARGET), -EHOSTUNREACH);
	EXPECT(release_handle(peer, TARGET), 0);
	EXPECT(release_handle(peer, PASSED), 0);
	return 0;
}

static int unknown_command(void)
{
	__u64 none = 0;
	EXPECT(command(peer, _IOWR(BUS1_IOCTL_MAGIC, 0x7f, __u64), &none), -ENOTTY);
	return 0;
}

static long map_page(int fd, int kind)
{
	return syscall6(__NR_mmap2, 0, 4096, PROT_READ, kind, fd, 0);
}

/*
 * Old programs have this personality. For them the kernel adds PROT_EXEC to
 * PROT_READ, except for files of a file system that is mounted noexec.
 */
static int reading_that_implies_executing(void)
{
	const unsigned long noexec = MS_REMOUNT | MS_BIND | MS_NOEXEC;
	long before = sys3(__NR_personality, 0xffffffff, 0, 0);
	EXPECT(sys3(__NR_personality, before | READ_IMPLIES_EXEC, 0, 0), before);
	EXPECT(map_page(peer, MAP_SHARED), -EPERM);
	EXPECT(map_page(peer, MAP_PRIVATE), -EPERM);

	/* In a mount namespace of its own. */
	EXPECT(sys3(__NR_unshare, CLONE_NEWNS, 0, 0), 0);
	EXPECT(syscall6(__NR_mount, 0, (long)"/dev", 0, noexec, 0, 0), 0);
	long other = sys3(__NR_open, "/dev/bus1", O_RDWR | O_CLOEXEC, 0);
	EXPECT(other >= 0, 1);
	for (int i = 0; i < 2; i++) {
		long at = map_page(other, i ? MAP_SHARED : MAP_PRIVATE);
		EXPECT((unsigned long)at <= -4096ul, 1);
		EXPECT(sys3(__NR_mprotect, at, 4096, PROT_READ), 0);
		EXPECT(sys3(__NR_mprotect, at, 4096, PROT_READ | PROT_EXEC), -EACCES);
		EXPECT(sys3(__NR_munmap, at, 4096, 0), 0);
	}
	EXPECT(sys3(__NR_close, other, 0, 0), 0);
	EXPECT(sys3(__NR_personality, before, 0, 0), before | READ_IMPLIES_EXEC);
	return 0;
}

static int disconnect_leaves_the_mapping(void)
{
	struct bus1_cmd_recv recv;
	EXPECT(send_text(peer, TARGET), 0);
	EXPECT(receive(&recv, 0), 0);
	EXPECT(command(peer, BUS1_CMD_PEER_DISCONNECT, &recv), -EINVAL);
	EXPECT(command(peer, BUS1_CMD_PEER_DISCONNECT, 0), 0);
	EXPECT(command(peer, BUS1_CMD_PEER_DISCONNECT, 0), -ESHUTDOWN);
	EXPECT(send_text(peer, TARGET), -ESHUTDOWN);
	EXPECT(poll_events(), POLLHUP);
	EXPECT(text_at(recv.msg.offset), 15);
	EXPECT(sys3(__NR_close, peer, 0, 0), 0);
	EXPECT(text_at(recv.msg.offset), 15);
	EXPECT(sys3(__NR_munmap, pool, POOL, 0), 0);
	return 0;
}

static int run(void)
{
#define CASE(name) { #name, name }
	static const struct {
		const char *name;
		int (*run)(void);
	} cases[] = {
		CASE(query_limits),
		CASE(reset_keeps_and_sets_limits),
		CASE(map_the_pool_read_only),
		CASE(send_vectors_handle_and_descriptor),
		CASE(receive_them),
		CASE(release_the_received_handle),
		CASE(faulty_vectors),
		CASE(vectors_outside_come_first),
		CASE(lengths_of_vectors),
		CASE(too_many_and_bad_descriptors),
		CASE(continue_reports_each_destination),
		CASE(exchange_with_itself),
		CASE(transfer_to_a_second_peer),
		CASE(destroy_both_nodes_at_once),
		CASE(unknown_command),
		CASE(reading_that_implies_executing),
		CASE(disconnect_leaves_the_mapping),
	};
	const int n = sizeof(cases) / sizeof(cases[0]);
	int failed = 0;

	peer = sys3(__NR_open, "/dev/bus1", O_RDWR | O_CLOEXEC, 0);
	if (peer < 0) {
		print("compat32: cannot open /dev/bus1: errno ");
		print_number(-peer);
		print(". Load the module bus1 first.\n");
		return 1;
	}
	for (int i = 0; i < n; i++) {
		print("test compat32_");
		print(cases[i].name);
		print(" ... ");
		/* Without the mapping most others would only crash. */
		int bad = i > 2 && !pool;
		if (bad)
			print("FAILED (the pool is not mapped)\n");
		else if (!(bad = cases[i].run()))
			print("ok\n");
		failed += bad;
	}
	print_number(n - failed);
	print(" passed, ");
	print_number(failed);
	print(" failed\n");
	return failed != 0;
}

__attribute__((noreturn, force_align_arg_pointer)) void _start(void)
{
	syscall6(__NR_exit_group, run(), 0, 0, 0, 0, 0);
	__builtin_unreachable();
}
