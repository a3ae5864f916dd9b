// SPDX-License-Identifier: GPL-2.0-only

//! Files of messages, and the workers that close the files that no receiver was given.
//!
//! The last reference to a file closes it, and that can take as long as the file's maker likes: a
//! TCP socket with SO_LINGER waits for its peer. The task that drops a message must not wait for
//! that, since it is mostly another user's: it receives, resets, disconnects or closes. So workers
//! of the module do it. They are no part of the system's queues, nor is delayed fput().
//!
//! A file is closed on account of the user who opened it, for that one decides how long it takes:
//! not the sender, who may have been handed it by a stranger. Each opener has at most
//! [`WORKERS_MAX`] workers at a time. So files that take long hold up only files of the same opener,
//! and only once there are as many of them as workers; and few users cannot occupy all workers.
//!
//! Nothing is allocated when files are dropped: all that it takes is made with the [`Parcel`]. Files
//! of an opener cannot be sent while too many of them are still to be closed.
//!
//! # Locks
//!
//! `bus1::closer`, a spin lock, guards the backlogs. Nothing is locked under it. A message whose
//! files are handed over, or that is sent while few files wait, does not take it.

use core::pin::Pin;
use core::ptr::NonNull;

use kernel::bindings::{self, workqueue_struct};
use kernel::fs::File;
use kernel::impl_has_work;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, Arc, SpinLock, UniqueArc};
use kernel::workqueue::{new_work, Queue, Work, WorkItem};

use crate::bus;
use crate::errno::EDQUOT;
use crate::gfp::ACCOUNT_MAYFAIL;

/// Most workers of one opener, each of which closes one file after the other.
const WORKERS_MAX: usize = 4;

/// A file of a message, with all that it takes to have it closed by a worker.
#[pin_data]
struct Parcel {
    /// None once it is closed.
    file: Option<ARef<File>>,
    /// The user who opened it.
    opener: u32,
    closer: Arc<Closer>,
    /// Memory for the opener's backlog, if there is none yet.
    backlog: Option<RBTreeNodeReservation<u32, Backlog>>,
    /// The next one that waits for a worker.
    next: Option<Owned>,
    #[pin]
    work: Work<Parcel>,
}

type Owned = Pin<KBox<Parcel>>;

impl_has_work! {
    impl HasWork<Self> for Parcel { self.work }
}

/// The files of one opener that are still to be closed.
struct Backlog {
    /// Their number. The opener has as many workers, up to [`WORKERS_MAX`].
    n_files: usize,
    /// The first of those that have no worker yet.
    waiting: Option<Owned>,
}

/// The backlogs of all openers, and the queue that their workers run on.
#[pin_data]
pub(crate) struct Closer {
    queue: NonNull<workqueue_struct>,
    /// Most files of an opener that are still to be closed when more of them are sent.
    most: usize,
    /// Number of files that are still to be closed, of all openers.
    n_files: Atomic<usize>,
    /// Users who opened files that are still to be closed, by ID.
    #[pin]
    openers: SpinLock<RBTree<u32, Backlog>>,
}

// SAFETY: The backlogs are locked, and a workqueue may be used from any thread.
unsafe impl Send for Closer {}
// SAFETY: The backlogs are locked, and a workqueue may be used from any thread.
unsafe impl Sync for Closer {}

/// The closer with its workqueue: on drop it waits until all files are closed, and ends the workers.
pub(crate) struct Workers(pub(crate) Arc<Closer>);

impl Workers {
    /// Makes a closer without work, for users of these limits.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(limits: &bus::Limits) -> Result<Self> {
        let name = c"bus1-close".as_char_ptr();
        let flags = bindings::wq_flags_WQ_UNBOUND;
        let most_active = bindings::wq_consts_WQ_MAX_ACTIVE as c_int;
        let new = UniqueArc::new_uninit(GFP_KERNEL)?;
        // SAFETY: The format takes no arguments.
        let queue = unsafe { bindings::alloc_workqueue_noprof(name, flags, most_active) };
        let new = new.pin_init_with(pin_init!(Closer {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
            most: limits[bus::FDS] as usize,
            n_files: Atomic::new(0),
            openers <- new_spinlock!(RBTree::new(), "bus1::closer"),
        }? Error))?;
        Ok(Self(new.into()))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // SAFETY: The device is gone or was never there, so no files are in flight, and nothing is
        // queued any more: workers queue nothing, and this waits until they have ended.
        unsafe { bindings::destroy_workqueue(self.0.queue.as_ptr()) };
    }
}

impl Closer {
    /// Returns whether files of this opener may be sent. Mostly so few files wait that no opener
    /// can have too many.
    fn admits(&self, opener: u32) -> bool {
        let is_short = |backlog: &Backlog| backlog.n_files < self.most;
        self.n_files.load(Relaxed) < self.most
            || self.openers.lock().get(&opener).is_none_or(is_short)
    }

    /// Has a file closed.
    fn add(&self, mut parcel: Owned) {
        self.n_files.add(1_usize, Relaxed);
        let mut openers = self.openers.lock();
        let this = parcel.as_mut().project();
        if let Some(backlog) = openers.get_mut(this.opener) {
            backlog.n_files += 1;
            if backlog.n_files > WORKERS_MAX {
                *this.next = backlog.waiting.take();
                backlog.waiting = Some(parcel);
                return;
            }
        } else if let Some(reservation) = this.backlog.take() {
            let backlog = Backlog {
                n_files: 1,
                waiting: None,
            };
            openers.insert(reservation.into_node(*this.opener, backlog));
        }
        drop(openers);
        // SAFETY: The queue is there as long as files are in flight.
        unsafe { Queue::from_raw(self.queue.as_ptr()) }.enqueue(parcel);
    }

    /// Notes that a file of this opener was closed. Returns the next one for the worker.
    fn end(&self, opener: u32) -> Option<Owned> {
        self.n_files.fetch_sub(1_usize, Relaxed);
        let mut openers = self.openers.lock();
        let backlog = openers.get_mut(&opener)?;
        backlog.n_files -= 1;
        if let Some(mut next) = backlog.waiting.take() {
            backlog.waiting = next.as_mut().project().next.take();
            return Some(next);
        }
        if backlog.n_files == 0 {
            let last = openers.remove_node(&opener);
            drop(openers);
            drop(last);
        }
        None
    }
}

impl WorkItem for Parcel {
    type Pointer = Owned;

    /// Closes the file, and then those of its opener that wait for a worker.
    fn run(first: Owned) {
        let mut next = Some(first);
        while let Some(mut parcel) = next {
            let this = parcel.as_mut().project();
            if let Some(file) = this.file.take() {
                // SAFETY: The reference is given up. The worker holds no locks.
                unsafe { bindings::__fput_sync(ARef::into_raw(file).as_ptr().cast()) };
            }
            next = this.closer.end(*this.opener);
        }
    }
}

/// A reference to the files of a message. The last one has them closed by workers.
#[derive(Clone)]
pub(crate) struct Cargo(Option<Arc<KVec<Owned>>>);

impl Cargo {
    /// Packs files.
    ///
    /// # Errors
    ///
    /// EDQUOT if too many files of an opener are still to be closed; ENOMEM.
    pub(crate) fn new(closer: &Arc<Closer>, files: KVec<ARef<File>>) -> Result<Self> {
        let mut parcels = KVec::with_capacity(files.len(), ACCOUNT_MAYFAIL)?;
        for file in files {
            // SAFETY: A file keeps the credentials with which it was opened; they are constant.
            let opener = unsafe { (*(*file.as_ptr()).f_cred).uid.val };
            if !closer.admits(opener) {
                return Err(EDQUOT);
            }
            let parcel = pin_init!(Parcel {
                file: Some(file),
                opener,
                closer: closer.clone(),
                backlog: Some(RBTreeNodeReservation::new(ACCOUNT_MAYFAIL)?),
                next: None,
                work <- new_work!("bus1::close"),
            }? Error);
            parcels.push(KBox::pin_init(parcel, ACCOUNT_MAYFAIL)?, ACCOUNT_MAYFAIL)?;
        }
        Ok(Self(Some(Arc::new(parcels, ACCOUNT_MAYFAIL)?)))
    }

    /// Returns the files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        let parcels = self.0.iter().flat_map(|parcels| parcels.iter());
        parcels.filter_map(|parcel| parcel.file.as_deref())
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
        let Some(mut parcels) = last else {
            return;
        };
        for parcel in parcels.drain_all() {
            parcel.closer.clone().add(parcel);
        }
    }
}

impl bus::Files for Cargo {
    fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |parcels| parcels.len())
    }
}
