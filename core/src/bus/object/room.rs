// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A wait for room: from a refused message to the notice that it may be sent now.
//!
//! `docs/room.md` has the design. The state of a wait is in two parts of the handle:
//!
//! - `notice.room`, under the holder's inbox: whether a wait is outstanding, with the memory for
//!   its notice, or the notice is queued. So there is at most one for each handle.
//! - `wait`, under the inbox of the node's owner: the place of the wait in a list.
//!
//! A task that ends a wait takes it out of its list first, and queues the notice after, if the
//! holder still wants it. A task that begins one prepares the notice first, and looks after the
//! wait was put into its list whether the holder still wants it.
//!
//! # Locks
//!
//! Either inbox, never both. Under the owner's: the accounts, or the lock of one list.

use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    charges, Enlisted, EntryReservation, Handle, Inbox, Notice, NoticeState, Wait, WaitEntry,
    WaitPlace, Waits,
};
use crate::bus::pool::Size;
use crate::bus::quota::Level;

/// Most waits of one user. Those beyond are notified at once.
const WAITS_MAX: u32 = 1024;

/// Memory for a wait.
pub(crate) struct WaitReservation<H: Host> {
    notice: EntryReservation<H>,
    entry: WaitEntry<H>,
}

impl<H: Host> WaitReservation<H> {
    /// Allocates memory for a wait and its notice.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            notice: EntryReservation::<H>::new(GFP_KEPT)?,
            entry: WaitEntry::<H>::new(GFP_KEPT)?,
        })
    }
}

/// The outcome of an attempt to begin a wait.
enum Begun {
    /// It is in the list of this level, where so many claimants have credit to be recalled.
    InList(Level, u32),
    /// An earlier wait of the handle, which was released and gained again, goes on.
    Earlier,
    /// There is room, or never will be; or too many wait.
    Over,
}

impl<H: Host> Handle<H> {
    /// Has the holder notified once a message of this size, which was refused, might be granted, or
    /// the node is destroyed. Nothing happens if it is to be notified already.
    #[cold]
    pub(crate) fn wait_for_room(this: &Arc<Self>, size: &Size, memory: WaitReservation<H>) {
        let WaitReservation { notice, entry } = memory;
        let n = this.holder.waits.n.fetch_add(1_u32, Relaxed);
        if this.prepare_room(notice).is_err() {
            this.holder.waits.n.fetch_sub(1_u32, Relaxed);
            return;
        }
        if n >= WAITS_MAX {
            return Self::notify_room(this);
        }
        let wait = Wait {
            handle: this.clone(),
            size: *size,
            looks: 0,
        };
        match this.begin_wait(Enlisted { wait, entry }) {
            Begun::Over => return Self::notify_room(this),
            Begun::Earlier => (),
            Begun::InList(level, keepers) => {
                // Credit that is left, since the caller was killed, would hide what comes back.
                if this.node.owner.recall(level, keepers).is_err() {
                    this.end_wait();
                }
            }
        }
        // Released meanwhile, when it may not have been in the list yet.
        if !this.is_waiting() {
            this.end_wait();
        }
    }

    /// Prepares the notice, unless it is prepared or queued, or the holder dropped the handle.
    /// Returns the memory then.
    fn prepare_room(&self, memory: EntryReservation<H>) -> Result<(), EntryReservation<H>> {
        let mut guard = self.holder.inbox.lock();
        let inbox = &mut *guard;
        let is_open = inbox.open;
        let notice = self.notice.access_mut(inbox);
        if !is_open || !notice.is_wanted() || !matches!(notice.room, NoticeState::Removed) {
            return Err(memory);
        }
        notice.room = NoticeState::Idle(memory);
        Ok(())
    }

    /// Returns whether the notice is prepared.
    fn is_waiting(&self) -> bool {
        let inbox = self.holder.inbox.lock();
        matches!(self.notice.access(&inbox).room, NoticeState::Idle(_))
    }

    /// Puts a wait into the list of the account that refuses.
    fn begin_wait(&self, new: Enlisted<H>) -> Begun {
        let size = new.wait.size;
        let mut guard = self.node.owner.inbox.lock();
        let inbox = &mut *guard;
        if self.wait.access(inbox).is_some() {
            drop(guard);
            return Begun::Earlier;
        }
        let Some(level) = self.refuses(inbox, &size) else {
            drop(guard);
            return Begun::Over;
        };
        let ticket = self.in_list(inbox, level, |waits| waits.put(new));
        let Ok(ticket) = ticket else {
            drop(guard);
            return Begun::Over;
        };
        let uid = self.holder.uid();
        *self.wait.access_mut(inbox) = Some(WaitPlace { level, uid, ticket });
        let keepers = match level {
            Level::Sender => {
                self.holder.waits.n_sending.fetch_add(1_u32, Relaxed);
                0
            }
            _ => inbox.ledger.begin_wait(level),
        };
        // Asked once more: from here on, what is given back sees the wait.
        if self.refuses(inbox, &size) != Some(level) {
            let taken = self.take_wait(inbox);
            drop(guard);
            drop(taken);
            return Begun::Over;
        }
        Begun::InList(level, keepers)
    }

    /// Returns the account that refuses a message of this size now; that of the peer also for its
    /// pool. None if it would be granted, or the node is gone. Under the owner's inbox.
    fn refuses(&self, inbox: &mut Inbox<H>, size: &Size) -> Option<Level> {
        let (holder, owner) = (&self.holder, &self.node.owner);
        if !inbox.open || self.node.is_dead() {
            return None;
        }
        if holder.refuses_fds(owner, size) {
            return Some(Level::Sender);
        }
        if let Some((level, _)) = inbox.ledger.refuses(holder.claimant(), &charges(size)) {
            return Some(level);
        }
        let size = size.slice_size();
        let has_room = size < H::Pool::SIZE && {
            inbox.drop_warm();
            inbox.slices.has_room(size)
        };
        (!has_room).then_some(Level::Peer)
    }

    /// Shows `step` the list of this level that the wait is in, or is to be in.
    fn in_list<T>(
        &self,
        inbox: &mut Inbox<H>,
        level: Level,
        step: impl FnOnce(&mut Waits<H>) -> T,
    ) -> T {
        match level {
            Level::Peer => step(&mut inbox.waits),
            Level::User => step(&mut self.node.owner.waits.receiving.lock()),
            Level::Sender => step(&mut self.holder.waits.sending.lock()),
        }
    }

    /// Takes the wait out of its list, under the owner's inbox. Returns what is to be dropped
    /// without locks.
    fn take_wait(&self, inbox: &mut Inbox<H>) -> Option<Enlisted<H>> {
        let place = self.wait.access_mut(inbox).take()?;
        let taken = self.in_list(inbox, place.level, |waits| waits.take(place));
        match place.level {
            Level::Sender => {
                self.holder.waits.n_sending.fetch_sub(1_u32, Relaxed);
            }
            level => inbox.ledger.end_wait(level),
        }
        taken
    }

    /// Ends the wait in the list of this level if what was refused could be granted now, if that
    /// was asked often enough, or in any case without a `size`. Otherwise the wait goes to the end
    /// of its user's. The wait may have got another place since the caller found it: it is looked
    /// at all the same, since the other look may have been too early.
    pub(crate) fn look_for_room(this: &Arc<Self>, level: Level, size: Option<Size>) {
        let mut guard = this.node.owner.inbox.lock();
        let inbox = &mut *guard;
        let place = *this.wait.access(inbox);
        let Some(place) = place.filter(|place| place.level == level) else {
            return;
        };
        if size.is_some_and(|size| this.refuses(inbox, &size) == Some(level)) {
            let ticket = this.in_list(inbox, level, |waits| waits.put_back(place));
            if let Some(ticket) = ticket {
                *this.wait.access_mut(inbox) = Some(WaitPlace { ticket, ..place });
                return;
            }
        }
        let taken = this.take_wait(inbox);
        drop(guard);
        drop(taken);
        Self::notify_room(this);
    }

    /// Ends the wait, if there is one: the node is dead, or the holder dropped the handle.
    pub(crate) fn end_wait(&self) {
        let taken = self.take_wait(&mut self.node.owner.inbox.lock());
        if let Some(Enlisted { wait, .. }) = taken {
            Self::notify_room(&wait.handle);
        }
    }

    /// Ends the wait, if there is one, after the holder dropped the handle, and lets others have the
    /// room that it leaves.
    #[cold]
    pub(crate) fn leave_waits(&self) {
        self.end_wait();
        self.holder.look_at_waits();
        self.holder.pass_room_on(&self.node.owner);
    }

    /// Queues the prepared notice, if the holder still wants it. The wait is in no list.
    fn notify_room(this: &Arc<Self>) {
        let holder = &this.holder;
        let mut guard = holder.inbox.lock();
        let inbox = &mut *guard;
        let notice = this.notice.access_mut(inbox);
        let is_wanted = notice.is_wanted();
        let Some(memory) = notice.room.take() else {
            return;
        };
        holder.waits.n.fetch_sub(1_u32, Relaxed);
        if !inbox.open || !is_wanted {
            // The memory is freed without the lock.
            drop(guard);
            return;
        }
        let key = inbox.queue.push_notice(Notice::Room(this.clone()), memory);
        this.notice.access_mut(inbox).room = NoticeState::Queued(key);
        drop(guard);
        holder.wake();
    }

    /// Takes the notice back, of a handle that the holder drops. Returns whether the wait is to be
    /// ended. Under the holder's inbox.
    pub(crate) fn withdraw_room(&self, inbox: &mut Inbox<H>) -> bool {
        let notice = self.notice.access_mut(inbox);
        match core::mem::replace(&mut notice.room, NoticeState::Removed) {
            NoticeState::Removed => false,
            NoticeState::Idle(_) => {
                self.holder.waits.n.fetch_sub(1_u32, Relaxed);
                true
            }
            NoticeState::Queued(key) => {
                // The caller has a reference to the handle, so this one is not the last.
                inbox.queue.remove(&key);
                true
            }
        }
    }
}
