// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of the Linux kernel's `kernel` crate that the bus1 core uses, for
//! user space.
//!
//! The core is written once, against the kernel's own Rust API, and compiled
//! into the module unchanged. In user space it is compiled against this crate,
//! which it imports under the name `kernel`. A call that compiles against the
//! kernel's crate compiles here, and the other way round, except for the
//! differences below. The crate has only the part that the core needs; `tests/surface`
//! has all of it in a file that compiles, and passes, in a kernel module too.
//!
//! # Differences from the kernel's crate
//!
//! Needs more than in the kernel:
//!
//! - [`rbtree::RBTree`]: a [`rbtree::CursorMut`] and `find_mut` need
//!   `K: Ord + Clone`, a [`rbtree::Cursor`] and `cursor_front`/`cursor_back`
//!   need `K: Ord`. The tree is a `BTreeMap`: it allocates when a node is
//!   inserted, so a node or a reservation guarantees here only what the
//!   allocator of the process guarantees (an insertion that cannot get memory
//!   aborts the process).
//! - `#[pin_data]` and `#[pinned_drop]` name the crate `pinned-init` by path: a
//!   crate that uses them lists `pinned-init` (the version of this crate,
//!   without default features) among its own dependencies.
//! - [`sync::atomic::Atomic::new`], `KVec::len`, `KVec::capacity` and
//!   `KVec::is_empty` are not `const`.
//!
//! Does less than in the kernel:
//!
//! - No `Arc<T>` to `Arc<dyn Trait>` and no `KBox<T>` to `KBox<dyn Trait>`.
//! - `#[pin_data]` makes no `project()`, and in an initialiser a field cannot
//!   refer to a field initialised before it: both came after the published
//!   version of `pinned-init`.
//! - Memory that the system does not give is an [`alloc::AllocError`] for a
//!   vector only; for the rest it aborts, as it does everywhere in `std`. The
//!   feature `fault` lets a test make each of these calls fail (module
//!   `fault`).
//! - [`alloc::Flags`] are accepted and ignored: nothing here is atomic context
//!   and nothing is accounted.
//! - A panic while a lock is held releases the lock; there is no poisoning.
//! - Nothing that needs unsafe code of the caller: no `into_raw`, no raw locks.
//!
//! Does more than in the kernel:
//!
//! - [`lockdep`] checks a declared order of locks in debug builds, as the
//!   kernel's lockdep does with the observed order.
//! - The feature `cachelines` lets a test record what a thread writes (module
//!   `cachelines`).
//! - The feature `steps` lets a test interleave calls on one thread (module `steps`).
//! - Under `--cfg loom` the locks, the atomics, the barriers and `Arc` are
//!   loom's, and [`sync::LockedBy`] reports unordered access. Everything made
//!   of them must then be made inside `loom::model`.
//!
//! # Unsafe code
//!
//! In the locks and in `LockedBy` (access to the protected data), in `Arc` (the
//! shared memory), where a value is initialised in place or its pin is moved
//! into another owner, and where numbers are bytes. The core itself has none.

pub mod alloc;
pub mod cachelines;
pub mod error;
pub mod fault;
pub mod init;
pub mod lockdep;
pub mod prelude;
pub mod print;
pub mod rbtree;
pub mod steps;
pub mod sync;
pub mod transmute;
pub mod types;
pub mod work;

#[doc(hidden)]
pub use pinned_init as __pinned_init;

pub use error::Result;

/// Checks a constant condition at compile time.
///
/// # Examples
///
/// ```
/// kernel_shim::static_assert!(size_of::<u64>() == 8);
/// ```
#[macro_export]
macro_rules! static_assert {
    ($condition:expr $(, $arg:literal)? $(,)?) => {
        const _: () = ::core::assert!($condition $(, $arg)?);
    };
}
