/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The prototypes of glue.c. glue.rs has them in Rust: a change here needs
 * the same change there.
 */
#ifndef BUS1_GLUE_H
#define BUS1_GLUE_H

#include <linux/fs.h>
#include <linux/mm.h>

/* main.rs */
const unsigned long *bus1_user_limits(void);

/* entry.rs */
size_t bus1_pin(atomic_long_t *entry, size_t n);
void bus1_unpin(atomic_long_t *entry, size_t n);
struct page *bus1_lock_page(const atomic_long_t *entry);
bool bus1_lock_idle_page(const void *address, bool wait);
void bus1_unlock_page(const void *address);
bool bus1_page_is_mapped(const void *address);

/* file.rs */
bool bus1_file_pins_files(struct file *file);
void bus1_take_back_fd(unsigned int fd, struct file *file);

/* memory.rs */
struct file *bus1_new_pool_file(void);

/* glue.rs */
bool bus1_is_killed(void);

/* caller.rs */
bool bus1_get_iovec(u64 *start, s64 *len, u64 address, bool compat);
bool bus1_get_user(u64 *to, u64 address);

/* waker.rs */
s64 bus1_host_time(s64 at);

#endif
