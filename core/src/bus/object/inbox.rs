// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The inbox: everything of a peer that others may touch. It has the queue, the stock of blank
//! messages, the memory that is kept warm, the pool's allocator and the quota, and drops entries in
//! a purge.
//!
//! # Locks
//!
//! The inbox lock guards all of this, with the `shared` part of the nodes that the peer owns, the
//! `share` part of all handles to these, and the `notice` part of the peer's own handles.

use core::ops::Range;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    ensure, slice_charges, BlankMessage, Denied, Dying, EntryRef, Message, Notice, NoticeState,
    Removed, Reservations, RoomNotice, Seed, SliceReservation, Waits,
};
use crate::bus::order::{Crowd, Cursor, Key, Queue};
use crate::bus::pool::{Allocator, GivenSlices, Slice, UNIT};
use crate::bus::quota::{
    divisor, only, Amounts, Claimant, KeptCharges, Ledger, User, BYTES, HANDLES, NOTHING, SLICES,
};

/// Number of blank messages that a peer keeps.
const STOCK: usize = 4;
/// Most bytes of memory that a peer keeps for the next message.
const WARM_MAX: u64 = 4096;
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
    pub(crate) given: GivenSlices,
    pub(crate) ledger: Ledger,
    /// None once the peer is disconnected.
    pub(crate) pool: Option<H::Pool>,
    pub(crate) seed: Option<Arc<Seed<H>>>,
    pub(crate) dying: Dying<H>,
    /// Waits for room that the peer's own limits, or its pool, have to give.
    pub(crate) waits: Waits<H>,
    /// Charges for slices that the user has, once the peer is disconnected.
    pub(crate) kept: Option<KeptCharges>,
    /// Blank messages, for the next ones: a peer that keeps up with its senders needs no new
    /// memory.
    stock: KVec<BlankMessage<H>>,
}

/// The rest of the work after a slice was freed.
pub(crate) struct Freed<H: Host> {
    /// The pool to unpin the slice from.
    pub(crate) unpin_from: Option<H::Pool>,
    /// Waits for room are to be looked at.
    pub(crate) due: bool,
}

// Pinned data is behind pointers; nothing in the inbox itself minds being moved.
impl<H: Host> Unpin for Inbox<H> {}

impl<H: Host> Inbox<H> {
    /// Makes the inbox of the peer of this user and ID.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(user: &Arc<User>, peer: u64, pool: H::Pool) -> Result<Self> {
        let memory = SliceReservation::new(8)?;
        Ok(Self {
            open: true,
            queue: Queue::new(memory.ring),
            // A bit less than a power of two, which a small slice cuts out of without leaving its
            // bin.
            slices: Allocator::new(H::Pool::SIZE - UNIT, memory.extents)?,
            given: memory.given,
            ledger: Ledger::new(user, peer)?,
            pool: Some(pool),
            seed: None,
            dying: Dying::new(),
            waits: Waits::new(),
            kept: None,
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
        self.ledger.claim(claimant, charges, ledger)?;
        let warm = self.slices.reserve_warm(size);
        let number = match warm {
            Some(number) => Ok(number),
            None => self.reserve_slice(size),
        };
        let number = number.inspect_err(|_| self.ledger.release(claimant.peer, charges))?;
        let slice = Slice {
            number,
            offset: self.slices.offset(number),
            size,
            // A payload is shorter than 2^31 bytes, and IDs and numbers take less than that.
            n_bytes: charges[BYTES] as u32,
            payer: claimant.peer,
        };
        let blank = self.stock.pop().ok_or(Denied::NeedsMessage)?;
        Ok(blank.into_message(slice, warm.is_some()))
    }

    fn reserve_slice(&mut self, size: u64) -> Result<u32, Denied> {
        ensure(size < H::Pool::SIZE, EMSGSIZE)?;
        self.drop_warm();
        Ok(self.slices.reserve(size)?)
    }

    /// Frees the slice that was kept warm.
    pub(crate) fn drop_warm(&mut self) {
        let freed = self.slices.drop_warm();
        self.unpin(freed);
    }

    /// Frees a slice. True if it is still to be unpinned: a small one that was is kept as it is.
    #[inline(always)]
    pub(crate) fn free(&mut self, slice: &Slice, pinned: bool) -> bool {
        if !pinned || slice.size > WARM_MAX {
            self.slices.free(slice.number);
            return pinned;
        }
        let freed = self.slices.keep_warm(slice.number);
        self.unpin(freed);
        false
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
        if let Some(slices) = reservations.slices.take() {
            // The index looks into the extents, which have the same numbers before and after.
            reservations.slices = Some(SliceReservation {
                given: self.given.grow(&self.slices, slices.given),
                extents: self.slices.grow(slices.extents),
                ring: self.queue.grow(slices.ring),
            });
        }
        if let Some(mut blank) = reservations.message.take() {
            blank.assign(self.pool.clone());
            reservations.message = self.keep(blank);
        }
    }

    /// Returns whether a transaction of user `uid` may stage a part at `place`.
    #[inline]
    pub(crate) fn admits(&mut self, place: &Key, uid: u32) -> bool {
        self.queue.pull();
        !self.queue.has_staged() || self.has_room_for(place, uid)
    }

    /// Returns whether a user may have one more undecided transaction, or has this one already: the
    /// first foreign user [`UNDECIDED_MAX`] / 4 at least, as with any other resource.
    #[cold]
    fn has_room_for(&mut self, place: &Key, uid: u32) -> bool {
        let Crowd {
            of_user,
            of_all,
            users,
        } = self.queue.crowd(uid);
        let by = match uid == self.ledger.owner() {
            true => 1,
            // The owning user is counted too, if it has some.
            false => divisor(users + u32::from(of_user == 0)),
        };
        let free = UNDECIDED_MAX.saturating_sub(of_all - of_user);
        (of_user + 1).saturating_mul(by) <= free || self.queue.is_staged(place)
    }

    /// Keeps memory for the next message, or returns it, to be freed without locks.
    #[inline]
    pub(crate) fn keep(&mut self, blank: BlankMessage<H>) -> Option<BlankMessage<H>> {
        let full = self.stock.push_within_capacity(blank).err();
        full.map(|full| full.0)
    }

    /// Gives back what peer `payer` was charged for `n` handles.
    pub(crate) fn discharge_handles(&mut self, payer: u64, n: usize) {
        if self.open && n != 0 {
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
            EntryRef::Message(message) => !message.is_stale(self),
            EntryRef::Notice(notice) => self.wants_notice(notice),
        }
    }

    fn wants_notice(&self, notice: &Notice<H>) -> bool {
        match notice {
            Notice::Released(node) => !node.is_released(self),
            Notice::Destroyed(handle) | Notice::Room(handle) => handle.notice.access(self).held,
        }
    }

    /// Takes the head out of the queue, whose key is `key`.
    #[inline(always)]
    pub(crate) fn pop(&mut self, key: &Key) -> Option<Removed<H>> {
        let removed = self.queue.pop(key)?;
        self.note_removed(&removed);
        Some(removed)
    }

    /// Takes a committed part or notice out of the queue.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Removed<H>> {
        let removed = self.queue.remove(key)?;
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
            Removed::Notice(Notice::Room(handle), _) => {
                handle.notice.access_mut(self).room = RoomNotice::None;
                return;
            }
        };
        *state = NoticeState::Removed;
    }

    /// Frees a slice that was taken from the user. Returns what is left to do without the lock.
    #[inline(always)]
    pub(crate) fn free_given(&mut self, slice: &Slice) -> Option<Freed<H>> {
        let unpin = self.free(slice, true);
        self.ledger.release(slice.payer, &slice_charges(slice));
        // Mostly the slice is kept warm, and nobody waits for room.
        if unpin || self.ledger.due {
            return Some(self.freed(unpin));
        }
        None
    }

    #[cold]
    fn freed(&mut self, unpin: bool) -> Freed<H> {
        Freed {
            unpin_from: self.pool.clone().filter(|_| unpin),
            due: self.ledger.take_due(),
        }
    }

    /// Closes the inbox. Returns its contents, to be dropped without locks.
    pub(crate) fn close(&mut self) -> Self {
        self.open = false;
        // Only slices that the user was given stay pinned.
        self.drop_warm();
        let mut held = NOTHING;
        (held[SLICES], held[BYTES]) = (self.given.n(), self.given.n_bytes());
        Self {
            open: false,
            kept: Some(self.ledger.keep_charges(held)),
            queue: self.queue.drain(),
            slices: core::mem::replace(&mut self.slices, Allocator::EMPTY),
            given: core::mem::replace(&mut self.given, GivenSlices::EMPTY),
            ledger: self.ledger.close(),
            pool: self.pool.take(),
            seed: self.seed.take(),
            // Calls that destroy nodes go on, and end the waits for them.
            dying: Dying::new(),
            waits: Waits::new(),
            stock: core::mem::replace(&mut self.stock, KVec::new()),
        }
    }
}
