// SPDX-License-Identifier: GPL-2.0-only

//! Files of messages, and the workers that close the files that no receiver was given.
//!
//! The last reference to a file closes it, and that can take as long as the file's maker likes: a
//! TCP socket with SO_LINGER waits for its peer. The task that drops a message must not wait for
//! that, since it is mostly another user's: it receives, resets, disconnects or closes. So workers
//! of the module do it. They are no part of the system's queues, nor is delayed fput().
//!
//! Each user has at most one worker at a time, which closes the files that this user sent one after
//! the other. So a file that takes long holds up only files of the user that sent it, and no user
//! can occupy all workers.
//!
//! Nothing is allocated when files are dropped: the memory for that is allocated with the
//! [`Batch`]. A user with too many files that are still to be closed cannot send more of them.
//!
//! # Locks
//!
//! `bus1::closer`, a spin lock, guards the backlogs. Nothing is locked under it.

use core::pin::Pin;
use core::ptr::NonNull;

use kernel::bindings::{self, workqueue_struct};
use kernel::fs::File;
use kernel::impl_has_work;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::aref::ARef;
use kernel::sync::{new_spinlock, Arc, SpinLock, UniqueArc};
use kernel::workqueue::{new_work, Queue, Work, WorkItem};

use crate::bus;
use crate::errno::EDQUOT;
use crate::gfp::ACCOUNT_MAYFAIL;

/// The files of one message.
#[pin_data]
struct Batch {
    files: KVec<ARef<File>>,
    /// ID of the user that sent them.
    uid: u32,
    closer: Arc<Closer>,
    /// Memory for the user's backlog, if there is none yet.
    backlog: Option<RBTreeNodeReservation<u32, Backlog>>,
    /// The next batch of the backlog.
    next: Option<Pin<UniqueArc<Batch>>>,
    #[pin]
    work: Work<Batch>,
}

impl_has_work! {
    impl HasWork<Self> for Batch { self.work }
}

/// The files of one user that a worker is closing, or is going to close.
struct Backlog {
    n_files: usize,
    /// The batches that the worker has not begun with.
    first: Option<Pin<UniqueArc<Batch>>>,
}

/// The workers.
#[pin_data]
pub(crate) struct Closer {
    queue: NonNull<workqueue_struct>,
    /// Most files of a user that are still to be closed when it sends more.
    most: usize,
    /// Users with files to close, by ID. Each has a worker.
    #[pin]
    users: SpinLock<RBTree<u32, Backlog>>,
}

// SAFETY: The backlogs are locked, and a workqueue may be used from any thread.
unsafe impl Send for Closer {}
// SAFETY: The backlogs are locked, and a workqueue may be used from any thread.
unsafe impl Sync for Closer {}

impl Closer {
    /// Makes a closer without work, for users of these limits. Its queue is there until
    /// [`Closer::stop`].
    pub(crate) fn new(limits: &bus::Limits) -> Result<Arc<Self>> {
        let (name, flags) = (c"bus1-close".as_char_ptr(), bindings::wq_flags_WQ_UNBOUND);
        let most_active = bindings::wq_consts_WQ_MAX_ACTIVE as c_int;
        // SAFETY: The format takes no arguments.
        let queue = unsafe { bindings::alloc_workqueue_noprof(name, flags, most_active) };
        let new = pin_init!(Self {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
            most: limits[bus::FDS] as usize,
            users <- new_spinlock!(RBTree::new(), "bus1::closer"),
        }? Error);
        Arc::pin_init(new, GFP_KERNEL)
    }

    /// Waits until all files are closed, and ends the workers.
    ///
    /// # Safety
    ///
    /// Called once, when there are no files in flight any more.
    pub(crate) unsafe fn stop(&self) {
        // SAFETY: By the caller nothing is queued any more.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
    }

    /// Queues a batch to be closed, to which there is no other reference.
    fn add(self: &Arc<Self>, mut batch: Pin<UniqueArc<Batch>>) {
        let mut users = self.users.lock();
        let this = batch.as_mut().project();
        let n_files = this.files.len();
        if let Some(backlog) = users.get_mut(this.uid) {
            backlog.n_files += n_files;
            *this.next = backlog.first.take();
            backlog.first = Some(batch);
        } else if let Some(reservation) = this.backlog.take() {
            let first = None;
            users.insert(reservation.into_node(*this.uid, Backlog { n_files, first }));
            drop(users);
            // SAFETY: The queue is there as long as files are in flight.
            let queue = unsafe { Queue::from_raw(self.queue.as_ptr()) };
            // The work was never queued, so this queues it.
            let _ = queue.enqueue(Arc::from(batch));
        }
    }

    /// Closes the files of a batch. Returns the next batch of the user, if there is one.
    fn close(&self, batch: &mut Pin<UniqueArc<Batch>>) -> Option<Pin<UniqueArc<Batch>>> {
        let this = batch.as_mut().project();
        let (uid, n_files) = (*this.uid, this.files.len());
        for file in this.files.drain_all() {
            // SAFETY: The reference is given up. The worker holds no locks.
            unsafe { bindings::__fput_sync(ARef::into_raw(file).as_ptr().cast()) };
        }
        let mut users = self.users.lock();
        let backlog = users.get_mut(&uid)?;
        backlog.n_files -= n_files;
        if let Some(mut next) = backlog.first.take() {
            backlog.first = next.as_mut().project().next.take();
            return Some(next);
        }
        let last = users.remove_node(&uid);
        drop(users);
        drop(last);
        None
    }
}

impl WorkItem for Batch {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let closer = this.closer.clone();
        // It stays to the end: work in the same place would wait for this worker.
        let Some(mut first) = Arc::into_unique_or_drop(this) else {
            return;
        };
        let mut next = closer.close(&mut first);
        while let Some(mut batch) = next {
            next = closer.close(&mut batch);
        }
    }
}

/// A reference to the files of a message. The last one has them closed by a worker.
#[derive(Clone)]
pub(crate) struct Cargo(Option<Arc<Batch>>);

impl Cargo {
    /// Packs files that a user sends.
    ///
    /// # Errors
    ///
    /// EDQUOT if too many files of the user are still to be closed; ENOMEM.
    pub(crate) fn new(closer: &Arc<Closer>, uid: u32, files: KVec<ARef<File>>) -> Result<Self> {
        let backlog = closer
            .users
            .lock()
            .get(&uid)
            .map_or(0, |backlog| backlog.n_files);
        if backlog + files.len() > closer.most {
            return Err(EDQUOT);
        }
        let batch = pin_init!(Batch {
            files,
            uid,
            closer: closer.clone(),
            backlog: Some(RBTreeNodeReservation::new(ACCOUNT_MAYFAIL)?),
            next: None,
            work <- new_work!("bus1::close"),
        }? Error);
        Ok(Self(Some(Arc::pin_init(batch, ACCOUNT_MAYFAIL)?)))
    }

    /// Returns the files.
    pub(crate) fn files(&self) -> &[ARef<File>] {
        self.0.as_ref().map_or(&[], |batch| &batch.files)
    }

    /// Gives the reference up, of a receiver that was given the files: if it is the last one, this
    /// task gives up the references to the files, which are its own to close.
    pub(crate) fn hand_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        let last = self.0.take().and_then(Arc::into_unique_or_drop);
        if let Some(batch) = last {
            batch.closer.clone().add(batch);
        }
    }
}

impl bus::Files for Cargo {
    fn count(&self) -> usize {
        self.files().len()
    }
}
