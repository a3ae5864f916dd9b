// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of the kernel's headers, which Rust cannot call
 *
 * Each function here does one step for the Rust file that is named with it,
 * where its use is explained.
 */
#include <linux/anon_inodes.h>
#include <linux/compat.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/time_namespace.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/*
 * The limits of each user, in the order of bus::Limits. Parameters that are
 * declared in Rust are not shown in sysfs.
 */
static unsigned long user_max[4] = { 131072, 2097152, 0, 32768 };

module_param_named(user_slices_max, user_max[0], ulong, 0444);
MODULE_PARM_DESC(user_slices_max, "Slices of each user (default 131072)");
module_param_named(user_handles_max, user_max[1], ulong, 0444);
MODULE_PARM_DESC(user_handles_max, "Handles of each user (default 2097152)");
module_param_named(user_inflight_bytes_max, user_max[2], ulong, 0444);
MODULE_PARM_DESC(user_inflight_bytes_max,
		 "Bytes that each user may be sent and keep (default: an eighth of the memory)");
module_param_named(user_inflight_fds_max, user_max[3], ulong, 0444);
MODULE_PARM_DESC(user_inflight_fds_max,
		 "Descriptors in flight from and to each user (default 32768)");

/* main.rs: the limits as they are in effect, which sysfs shows from then on */
const unsigned long *bus1_user_limits(void)
{
	if (!user_max[2])
		user_max[2] = totalram_pages() / 8 << PAGE_SHIFT;
	/* More than there can be, with room for sums. */
	user_max[2] = min_t(u64, user_max[2], 1ULL << 62);
	return user_max;
}

static char *bus1_devnode(const struct device *dev, umode_t *mode)
{
	if (mode)
		*mode = 0666;
	return NULL;
}

static const struct class bus1_class = {
	.name = "bus1",
	.devnode = bus1_devnode,
};
static int bus1_major;

/* device.rs: removes /dev/bus1 */
void bus1_unregister(void)
{
	device_destroy(&bus1_class, MKDEV(bus1_major, 0));
	__unregister_chrdev(bus1_major, 0, 1, "bus1");
	class_unregister(&bus1_class);
}

/* device.rs: makes /dev/bus1 */
int bus1_register(const struct file_operations *fops)
{
	int err = class_register(&bus1_class);
	struct device *dev;

	if (err)
		return err;
	bus1_major = __register_chrdev(0, 0, 1, "bus1", fops);
	if (bus1_major < 0) {
		class_unregister(&bus1_class);
		return bus1_major;
	}
	dev = device_create(&bus1_class, NULL, MKDEV(bus1_major, 0), NULL,
			    "bus1");
	if (IS_ERR(dev))
		bus1_unregister();
	return PTR_ERR_OR_ZERO(dev);
}

/*
 * file.rs: can this file hold references to files of any kind? vhost does by
 * way of an address space. Its devices are known by the name of their module,
 * so it must not be built in.
 */
static_assert(!IS_BUILTIN(CONFIG_VHOST));

bool bus1_file_pins_files(struct file *file)
{
	unsigned long magic = file_inode(file)->i_sb->s_magic;
	struct module *owner = file->f_op->owner;
	struct socket *sock;

	/* An O_PATH file is only a place in the tree. */
	if (file->f_mode & FMODE_PATH)
		return false;

	sock = sock_from_file(file);
	if (sock)
		return READ_ONCE(sock->ops)->family == PF_UNIX;

	/* The operations of io_uring are not exported; its name is its own. */
	if (magic == ANON_INODE_FS_MAGIC)
		return !strcmp(file->f_path.dentry->d_name.name, "[io_uring]");

	return magic == BINDERFS_SUPER_MAGIC ||
	       (owner && (!strcmp(module_name(owner), "binder_linux") ||
			  !strcmp(module_name(owner), "rust_binder") ||
			  strstarts(module_name(owner), "vhost")));
}

/*
 * file.rs: takes back descriptor @fd if it still stands for @file.
 *
 * That is not the end of the file, which the message still has. It is no close
 * either: the operation flush of a file can take as long as the file's maker
 * likes, and the receiver was never told of the descriptor. Only locks of other
 * threads that found it are dropped, which no file's maker can delay.
 *
 * The slot is emptied under the lock, which leaves the number reserved as
 * get_unused_fd_flags() does; so nobody can get it before it is given back.
 * @file is never the one that the running ioctl came through, since bus1 files
 * are not received: closing it here cannot pull that from under fdget().
 */
void bus1_take_back_fd(unsigned int fd, struct file *file)
{
	struct files_struct *files = current->files;
	struct fdtable *fdt;

	spin_lock(&files->file_lock);
	fdt = files_fdtable(files);
	if (fd < fdt->max_fds && rcu_access_pointer(fdt->fd[fd]) == file)
		rcu_assign_pointer(fdt->fd[fd], NULL);
	else
		file = NULL;
	spin_unlock(&files->file_lock);

	if (file) {
		put_unused_fd(fd);
		if (!(file->f_mode & FMODE_PATH))
			locks_remove_posix(file, files);
		fput(file);
	}
}

/* memory.rs: a file with an inode, and so an i_mapping, of its own. */
struct file *bus1_new_pool_file(void)
{
	static const struct file_operations fops = { .owner = THIS_MODULE };

	return anon_inode_create_getfile("[bus1-pool]", &fops, NULL, O_RDONLY,
					 NULL);
}

/* entry.rs: pins @n pages, up to the first that cannot be; returns how many. */
size_t bus1_pin(atomic_long_t *entry, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		long old = atomic_long_read(&entry[i]);

		do {
			if (!old || !(~old & ~PAGE_MASK))
				return i;
		} while (!atomic_long_try_cmpxchg_acquire(&entry[i], &old,
							  old + 1));
	}
	return n;
}

/* entry.rs: undoes bus1_pin() for pages that are all pinned. */
void bus1_unpin(atomic_long_t *entry, size_t n)
{
	while (n--)
		atomic_long_fetch_sub_release(1, entry++);
}

/*
 * entry.rs: locks the page of an entry and takes a reference to it. NULL if
 * there is none, or if its memory is broken: the fault handler would look for
 * a mapping of such a page, and ours have none.
 *
 * The page may be freed meanwhile, and be anything: so the reference is one
 * that only a folio in use gives, and the entry is read again once it is held,
 * as in filemap_get_entry(), and again once the page is locked.
 */
struct page *bus1_lock_page(const atomic_long_t *entry)
{
	struct folio *folio;
	unsigned long page;
	bool got;

	while ((page = atomic_long_read_acquire(entry) & PAGE_MASK)) {
		rcu_read_lock();
		folio = virt_to_folio((void *)page);
		got = folio_try_get(folio);
		rcu_read_unlock();
		if (!got)
			continue;
		if ((atomic_long_read_acquire(entry) & PAGE_MASK) == page) {
			folio_lock(folio);
			if ((atomic_long_read(entry) & PAGE_MASK) == page &&
			    !folio_test_hwpoison(folio))
				return folio_page(folio, 0);
			got = !folio_test_hwpoison(folio);
			folio_unlock(folio);
		}
		folio_put(folio);
		if (!got)
			break;
	}
	return NULL;
}

/* entry.rs: locks the page at a kernel address, unless it is locked. */
bool bus1_lock_idle_page(const void *address)
{
	return trylock_page(virt_to_page(address));
}

/*
 * entry.rs: empties an entry whose page is idle, not locked and in no page
 * table. Returns the page's address, or 0.
 *
 * A message may pin the page at any moment, and its receiver then waits for the
 * page lock when it faults. So the holder, a sender, is not preempted here: it
 * could stay away as long as others like. (On RT, waking such a task may sleep.)
 */
unsigned long bus1_take_unmapped(atomic_long_t *entry)
{
	long address = atomic_long_read(entry);
	bool taken = false;
	struct page *page;

	if (!address || address & ~PAGE_MASK)
		return 0;
	page = virt_to_page((void *)address);
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_disable();
	if (trylock_page(page)) {
		taken = !folio_mapped(page_folio(page)) &&
			atomic_long_try_cmpxchg_acquire(entry, &address, 0);
		unlock_page(page);
	}
	if (!IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_enable();
	return taken ? address : 0;
}

/* entry.rs: unlocks the page at a kernel address. */
void bus1_unlock_page(const void *address)
{
	unlock_page(virt_to_page(address));
}

/* entry.rs: is the page at a kernel address in any page table? */
bool bus1_page_is_mapped(const void *address)
{
	return folio_mapped(virt_to_folio(address));
}

/* peer.rs, caller.rs, memory.rs: is the running task being killed? */
bool bus1_is_killed(void)
{
	return fatal_signal_pending(current);
}

/* sleep.rs: turns a time of the task's CLOCK_MONOTONIC into one of the system's. */
s64 bus1_host_time(s64 at)
{
	return timens_ktime_to_host(CLOCK_MONOTONIC, at);
}

/* caller.rs: reads one number. */
bool bus1_get_user(u64 *to, u64 address)
{
	return !get_user(*to, (u64 __user *)address);
}

/*
 * caller.rs: reads one iovec, of a 32-bit program if @compat. False if it
 * cannot be read, or reaches beyond the task's address space.
 */
bool bus1_get_iovec(u64 *start, s64 *len, u64 address, bool compat)
{
	const u64 end = TASK_SIZE;
	void __user *base;
	u64 used;

	if (compat) {
		const struct compat_iovec __user *from = compat_ptr(address);

		if (address > U32_MAX || get_user(*start, &from->iov_base) ||
		    get_user(*len, &from->iov_len))
			return false;
		*len = (compat_ssize_t)*len;
	} else {
		const struct iovec __user *from = (void __user *)address;

		scoped_user_read_access(from, fault) {
			unsafe_get_user(base, &from->iov_base, fault);
			unsafe_get_user(*len, &from->iov_len, fault);
		}
		*start = (unsigned long)base;
		*len = (ssize_t)*len;
	}
	/* Negative lengths are refused later; a tag is no part of the address. */
	used = *len < 0 ? 0 : *len;
	return used <= end && untagged_addr(*start) <= end - used;
fault:
	return false;
}
