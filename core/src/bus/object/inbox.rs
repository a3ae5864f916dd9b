// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The inbox: everything of a peer that others may touch. It has the queue, the stock of blank
//! messages, the memory that is kept warm, the pool's allocator and the quota, and drops entries in
//! a purge.
//!
//! # Locks
//!
//! The inbox lock guards all of this, with the `shared` part of the nodes that the peer owns, the
//! references of all handles to these, and the `notice` part of the peer's own handles.

use core::ops::Range;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    ensure, Denied, Dying, EntryRef, Message, Notice, NoticeState, Removed, Reservations, Seed,
    SliceReservation, Waits,
};
use crate::bus::order::{Cursor, Key, Queue};
use crate::bus::pool::{Allocator, Slice, UNIT};
use crate::bus::quota::{divisor, only, Amounts, Claimant, Ledger, User, BYTES, HANDLES};

/// Number of blank messages that a peer keeps.
const STOCK: usize = 4;
/// Most bytes of memory that a peer keeps for the next message.
const WARM_MAX: u64 = 4096;
/// Most bytes of a pool that stay for later messages when nothing pins them.
const RETAINED_MAX: u64 = 4 << 20;
/// Bytes by which the part that a pool may retain grows.
const RETAINED_STEP: u64 = 4096;
/// Bytes that each pool may retain, whatever others do: a peer that keeps up with its senders needs
/// no new page.
const RETAINED_MIN: u64 = WARM_MAX;
/// Most undecided transactions that stand in one queue, of all users together. Each costs every
/// message to the peer, and each receipt, a look.
const UNDECIDED_MAX: u64 = 256;
/// Most entries that a purge looks at in one go.
const PURGE_CHUNK: usize = 64;

/// The part of a peer that the inbox lock guards.
pub(crate) struct Inbox<H: Host> {
    /// The peer is connected.
    pub(crate) open: bool,
    pub(crate) queue: Queue<Message<H>>,
    pub(crate) slices: Allocator,
    pub(crate) ledger: Ledger,
    /// The pool retains memory below this offset when nothing pins it.
    retained: u64,
    /// None once the peer is disconnected.
    pub(crate) pool: Option<H::Pool>,
    pub(crate) seed: Option<Arc<Seed<H>>>,
    pub(crate) dying: Dying<H>,
    /// Waits for room that the peer's own limits, or its pool, have to give.
    pub(crate) waits: Waits<H>,
    /// Blank messages, for the next ones: a peer that keeps up with its senders needs no new
    /// memory.
    stock: KVec<KBox<Message<H>>>,
}

// Pinned data is behind pointers; nothing in the inbox itself minds being moved.
impl<H: Host> Unpin for Inbox<H> {}

/// Contents of an inbox that was closed.
pub(crate) struct Remains<H: Host> {
    pub(crate) queue: Queue<Message<H>>,
    pub(crate) slices: Allocator,
    /// Bytes of the pool that may be retained.
    pub(crate) retained: u64,
    pub(crate) pool: Option<H::Pool>,
    pub(crate) seed: Option<Arc<Seed<H>>>,
    _stock: KVec<KBox<Message<H>>>,
}

impl<H: Host> Inbox<H> {
    /// Makes the inbox of the peer of this user and ID.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(user: &Arc<User>, peer: u64, pool: H::Pool) -> Result<Self> {
        let memory = SliceReservation::new(8)?;
        pool.retain(RETAINED_MIN);
        Ok(Self {
            open: true,
            queue: Queue::new(memory.ring),
            // The largest size that `reserve_slice` lets pass.
            slices: Allocator::new(H::Pool::SIZE - UNIT, memory.extents)?,
            ledger: Ledger::new(user, peer)?,
            retained: RETAINED_MIN,
            pool: Some(pool),
            seed: None,
            dying: Dying::<H>::new(),
            waits: Waits::new(),
            stock: KVec::with_capacity(STOCK, GFP_KEPT)?,
        })
    }

    /// Charges `charges` to `claimant` and reserves `size` bytes and memory for the message.
    ///
    /// # Errors
    ///
    /// EMSGSIZE if no pool can hold it; those of [`Denied`].
    #[inline]
    pub(crate) fn reserve(
        &mut self,
        claimant: Claimant,
        charges: &Amounts,
        size: u64,
        mut reservations: Option<&mut Reservations<H>>,
    ) -> Result<KBox<Message<H>>, Denied> {
        if let Some(reservations) = reservations.as_deref_mut() {
            self.install(reservations);
        }
        if self.stock.is_empty() {
            return Err(Denied::NeedsMessage);
        }
        let ledger = reservations.map(|all| &mut all.ledger);
        let claimed = self.ledger.claim(claimant, charges, ledger);
        claimed.map_err(Denied::Quota)?;
        let warm = self.slices.reserve_warm(size);
        let number = warm.map_or_else(|| self.reserve_slice(size), Ok);
        let number = number.inspect_err(|_| self.ledger.release(claimant.peer, charges))?;
        let slice = Slice {
            number,
            offset: self.slices.offset(number),
            size,
            // A payload is shorter than 2^31 bytes, and IDs and numbers take less than that.
            n_bytes: charges[BYTES] as u32,
            payer: claimant.peer,
        };
        let mut message = self.stock.pop().ok_or(Denied::NeedsMessage)?;
        message.slice = slice;
        message.pinned = warm.is_some();
        Ok(message)
    }

    fn reserve_slice(&mut self, size: u64) -> Result<u32, Denied> {
        ensure(size < H::Pool::SIZE, EMSGSIZE)?;
        self.drop_warm();
        self.slices.reserve(size).map_err(Denied::Pool)
    }

    /// Frees the slice that was kept warm.
    pub(crate) fn drop_warm(&mut self) {
        let freed = self.slices.drop_warm();
        self.unpin(freed);
    }

    /// Frees a slice, and gives `charges` back for it. True if it is still to be unpinned: a small
    /// one that was is kept as it is, if its memory may be retained.
    #[inline(always)]
    pub(crate) fn free(&mut self, slice: &Slice, pinned: bool, charges: &Amounts) -> bool {
        self.ledger.release(slice.payer, charges);
        let retained = pinned && (slice.end() <= self.retained || self.retain(slice.end()));
        if !retained || slice.size > WARM_MAX {
            self.slices.free(slice.number);
            return pinned;
        }
        let freed = self.slices.keep_warm(slice.number);
        self.unpin(freed);
        false
    }

    /// Has the pool retain memory up to `end`, or as far as its user's pools together may. Returns
    /// whether it retains all of it.
    #[cold]
    fn retain(&mut self, end: u64) -> bool {
        let wanted = end.next_multiple_of(RETAINED_STEP).min(RETAINED_MAX);
        if let Some(pool) = self.pool.as_ref().filter(|_| wanted > self.retained) {
            self.retained += self.ledger.user.retain(wanted - self.retained);
            pool.retain(self.retained);
        }
        end <= self.retained
    }

    /// Unpins the memory that was kept warm.
    #[inline]
    fn unpin(&self, freed: Option<Range<u64>>) {
        if let (Some(range), Some(pool)) = (freed, &self.pool) {
            pool.unpin(range.start, range.end - range.start);
        }
    }

    /// Installs the memory that was reserved for a booking. The caller frees the rest of
    /// `reservations` without the lock.
    #[cold]
    fn install(&mut self, reservations: &mut Reservations<H>) {
        let slices = reservations.slices.take();
        reservations.slices = slices.map(|slices| SliceReservation {
            extents: self.slices.grow(slices.extents),
            ring: self.queue.grow(slices.ring),
        });
        let blank = reservations.message.take();
        reservations.message = blank.and_then(|blank| self.keep(blank));
    }

    /// Returns whether a transaction of user `uid` may stage a part under the staged key `place`.
    #[inline]
    pub(crate) fn admits(&mut self, place: &Key, uid: u32) -> bool {
        self.queue.pull();
        !self.queue.has_staged() || self.has_room_for(place, uid)
    }

    /// Returns whether a user may have one more undecided transaction in the queue, or has this one
    /// already. The divisors are those of quotas: the first foreign user may have
    /// [`UNDECIDED_MAX`] / 4.
    #[cold]
    fn has_room_for(&mut self, place: &Key, uid: u32) -> bool {
        let crowd = self.queue.crowd(uid);
        let by = match uid == self.ledger.owner() {
            true => 1,
            // The owning user is counted too, if it has some.
            false => divisor(crowd.users + u32::from(crowd.of_user == 0)),
        };
        let free = UNDECIDED_MAX.saturating_sub(crowd.of_all - crowd.of_user);
        (crowd.of_user + 1).saturating_mul(by) <= free || self.queue.is_staged(place)
    }

    /// Keeps a blank message for the next one, or returns it, to be freed without locks.
    #[inline]
    pub(crate) fn keep(&mut self, blank: KBox<Message<H>>) -> Option<KBox<Message<H>>> {
        debug_assert!(blank.is_plain());
        let full = self.stock.push_within_capacity(blank).err();
        full.map(|full| full.0)
    }

    /// Gives back what peer `payer` was charged for `n` handles.
    pub(crate) fn discharge_handles(&mut self, payer: u64, n: usize) {
        if self.open {
            self.ledger.release(payer, &only(HANDLES, n as u64));
        }
    }

    /// Takes the next entry out that stands at or before `until` or is for a node whose anchor was
    /// released, among the next few from `cursor` on. Moves `cursor` behind the last of these.
    pub(crate) fn purge(&mut self, until: u64, cursor: &mut Cursor) -> Option<Removed<H>> {
        for _ in 0..PURGE_CHUNK {
            let at = self.queue.advance(cursor)?;
            let Some(here) = self.queue.entry_at(&at) else {
                continue;
            };
            let stale = match here.entry {
                // A notice of destruction is the holder's to drop.
                EntryRef::Notice(Notice::Destroyed(_)) => false,
                entry => !self.wants(entry),
            };
            if here.key.timestamp <= until || stale {
                let removed = self.queue.remove_at(&at)?;
                self.note_removed(&removed);
                return Some(removed);
            }
        }
        None
    }

    /// Returns whether an entry is still of interest to the user.
    #[inline]
    pub(crate) fn wants(&self, entry: EntryRef<'_, H>) -> bool {
        match entry {
            EntryRef::Message(message) => {
                let node = message.node.as_ref();
                !node.is_some_and(|node| node.is_released(self))
            }
            EntryRef::Notice(notice) => self.wants_notice(notice),
        }
    }

    fn wants_notice(&self, notice: &Notice<H>) -> bool {
        match notice {
            Notice::Released(node) => !node.is_released(self),
            Notice::Destroyed(handle) | Notice::Room(handle) => {
                handle.notice.access(self).is_wanted()
            }
        }
    }

    /// Takes out the head of the queue, or the part that follows it in the same transaction. The
    /// entry's key is `key`.
    #[inline(always)]
    pub(crate) fn pop(&mut self, key: &Key) -> Option<Removed<H>> {
        let removed = self.queue.pop(key)?;
        self.note_removed(&removed);
        Some(removed)
    }

    /// Notes that an entry left the queue.
    #[inline(always)]
    fn note_removed(&mut self, removed: &Removed<H>) {
        let state = match removed {
            Removed::Message(_) => return,
            Removed::Notice(Notice::Destroyed(handle), _) => {
                &mut handle.notice.access_mut(self).destroy
            }
            Removed::Notice(Notice::Released(node), _) => &mut node.shared.access_mut(self).release,
            Removed::Notice(Notice::Room(handle), _) => &mut handle.notice.access_mut(self).room,
        };
        *state = NoticeState::Removed;
    }

    /// Closes the inbox, except for the ledger, and for waits, which the end of their nodes ends.
    /// Kills the undecided messages that are staged, and raises the clock to the decided ones: so
    /// nodes that another call destroys die after these. Returns the contents, to be dropped without
    /// locks.
    pub(crate) fn close(&mut self) -> Remains<H> {
        self.open = false;
        self.queue.kill_staged(|_| true);
        self.queue.pull();
        // Only slices that the user was given stay pinned.
        self.drop_warm();
        Remains {
            queue: self.queue.drain(),
            slices: core::mem::replace(&mut self.slices, Allocator::EMPTY),
            retained: self.retained - RETAINED_MIN,
            pool: self.pool.take(),
            seed: self.seed.take(),
            _stock: core::mem::replace(&mut self.stock, KVec::new()),
        }
    }
}
