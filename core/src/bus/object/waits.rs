// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Lists of waits for room, by the account that refused.
//!
//! # Invariants
//!
//! - A wait is in one list, and the handle has its place there; both change together, under
//!   the inbox of the node's owner.
//!
//! # Locks
//!
//! A [`Waits`] lies in the inbox of a peer, for what that peer's limits and its pool refused, or in
//! a [`UserWaits`], whose lock (rank 5) is the last: nothing is taken under it.

use ::pin_init::pin_init_array_from_fn;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, new_spinlock, Arc, SpinLock, SpinLockGuard};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::Host;
use crate::bus::object::permits::Permits;
use crate::bus::object::{Handle, Inbox, Peer};
use crate::bus::pool::Size;
use crate::bus::quota::{self, Level};

/// Most waits in a list that are looked at after something was given back. The receipt of a notice
/// looks at one more, so that a sender that gives up delays no other.
const LOOKS: usize = 8;
/// Most waits in a list, except that each user may have [`SURE`] there in any case. One beyond is
/// notified at once.
const LIST_MAX: usize = 1024;
/// Waits that each user may have in a list, however many others have there: so a user that fills a
/// list keeps no other from waiting.
const SURE: usize = 64;
/// Most looks in vain at one wait; then it is notified, and its sender tries again. So nobody makes
/// others look for ever by waiting.
const PATIENCE: u32 = 64;

/// A refused message that a peer waits to send.
pub(crate) struct Wait<H: Host> {
    pub(crate) handle: Arc<Handle<H>>,
    pub(crate) size: Size,
    /// Number of looks in vain.
    pub(crate) looks: u32,
}

/// A wait with its memory in a list.
pub(crate) struct Enlisted<H: Host> {
    pub(crate) wait: Wait<H>,
    pub(crate) entry: WaitEntry<H>,
}

/// The place of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitPlace {
    /// The account that refused, whose list it is in.
    pub(crate) level: Level,
    /// The user that waits.
    pub(crate) uid: u32,
    pub(crate) ticket: u64,
}

/// Finds a wait in its list. A later wait of a user has a higher ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitKey {
    uid: u32,
    ticket: u64,
}

/// Memory for a wait in a list.
pub(crate) type WaitEntry<H> = RBTreeNodeReservation<WaitKey, Option<Wait<H>>>;

/// Waits for room in one account.
pub(crate) struct Waits<H: Host> {
    by_user: RBTree<WaitKey, Option<Wait<H>>>,
    len: usize,
    last_ticket: u64,
    /// The user whose wait was looked at last.
    last_uid: Option<u32>,
}

// The waits are behind pointers.
impl<H: Host> Unpin for Waits<H> {}

impl<H: Host> Waits<H> {
    /// Makes an empty list.
    pub(crate) fn new() -> Self {
        Self {
            by_user: RBTree::new(),
            len: 0,
            last_ticket: 0,
            last_uid: None,
        }
    }

    /// Puts a wait behind all others of its user. Returns its ticket, or the wait if there are too
    /// many.
    pub(crate) fn put(&mut self, new: Enlisted<H>) -> Result<u64, Enlisted<H>> {
        if self.len >= LIST_MAX && self.has(new.wait.handle.holder.uid(), SURE) {
            return Err(new);
        }
        Ok(self.insert(new))
    }

    /// Returns whether a user has at least `n` waits in the list.
    fn has(&self, uid: u32, n: usize) -> bool {
        let mut ticket = 0;
        (0..n).all(|_| {
            let here = self.by_user.cursor_lower_bound(&WaitKey { uid, ticket });
            let key = here.map(|here| *here.current().0);
            ticket = key.map_or(0, |key| key.ticket + 1);
            key.is_some_and(|key| key.uid == uid)
        })
    }

    /// Puts a wait behind all others of its user. Returns its ticket.
    fn insert(&mut self, new: Enlisted<H>) -> u64 {
        self.last_ticket += 1;
        let key = WaitKey {
            uid: new.wait.handle.holder.uid(),
            ticket: self.last_ticket,
        };
        let node = new.entry.into_node(key, Some(new.wait));
        self.by_user.insert(node);
        self.len += 1;
        key.ticket
    }

    /// Puts a wait that was looked at in vain behind all others of its user. Returns its new
    /// ticket; None, and it stays, if there were too many such looks.
    pub(crate) fn put_back(&mut self, place: WaitPlace) -> Option<u64> {
        let WaitPlace { uid, ticket, .. } = place;
        let wait = self.by_user.get_mut(&WaitKey { uid, ticket })?.as_mut()?;
        wait.looks += 1;
        if wait.looks >= PATIENCE {
            return None;
        }
        let taken = self.take(place)?;
        Some(self.insert(taken))
    }

    /// Takes a wait out.
    pub(crate) fn take(&mut self, place: WaitPlace) -> Option<Enlisted<H>> {
        let WaitPlace { uid, ticket, .. } = place;
        let key = WaitKey { uid, ticket };
        let wait = self.by_user.get_mut(&key)?.take()?;
        let entry = self.by_user.remove_node(&key)?.into_reservation();
        self.len -= 1;
        Some(Enlisted { wait, entry })
    }

    /// Returns the number of waits that are to be looked at now: `looks`, or all if the account is
    /// idle.
    pub(crate) fn turns(&self, looks: usize, is_idle: bool) -> usize {
        match is_idle {
            true => self.len,
            false => self.len.min(looks),
        }
    }

    /// Returns the wait whose turn it is, the first of the next user.
    pub(crate) fn next(&mut self) -> Option<Turn<H>> {
        let next = self.last_uid.and_then(|uid| uid.checked_add(1));
        let from = WaitKey {
            uid: next.unwrap_or(0),
            ticket: 0,
        };
        let here = self.by_user.cursor_lower_bound(&from);
        let here = here.or_else(|| self.by_user.cursor_front())?;
        let (key, wait) = here.current();
        self.last_uid = Some(key.uid);
        let wait = wait.as_ref()?;
        Some(Turn {
            handle: wait.handle.clone(),
            size: wait.size,
        })
    }
}

/// A wait that is to be looked at.
pub(crate) struct Turn<H: Host> {
    pub(crate) handle: Arc<Handle<H>>,
    pub(crate) size: Size,
}

/// The waits that concern the accounts of one user, and the permits to destroy nodes of its
/// peers.
#[pin_data]
pub(crate) struct UserWaits<H: Host> {
    pub(crate) user: Arc<quota::User>,
    /// Of its tasks.
    #[pin]
    pub(crate) permits: Permits,
    /// Of the tasks of other users, which close its peers.
    #[pin]
    pub(crate) strangers: Permits,
    /// Number of waits of the user's peers, in any list.
    pub(crate) n: Atomic<u32>,
    /// Number of waits in `sending`. Raised before the account is asked for the last time, and
    /// looked at after something was given back; the account's lock orders the two.
    pub(crate) n_sending: Atomic<u32>,
    /// For room at the peers of the user.
    #[pin]
    pub(crate) receiving: SpinLock<Waits<H>>,
    /// Of the user's peers, for descriptors in flight.
    #[pin]
    pub(crate) sending: SpinLock<Waits<H>>,
}

impl<H: Host> UserWaits<H> {
    /// Makes empty lists.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(user: Arc<quota::User>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                user,
                permits <- pin_init_array_from_fn(|_| new_mutex!((), "bus1::permit")),
                strangers <- pin_init_array_from_fn(|_| new_mutex!((), "bus1::permit")),
                n: Atomic::new(0),
                n_sending: Atomic::new(0),
                receiving <- new_spinlock!(Waits::new(), "bus1::waits"),
                sending <- new_spinlock!(Waits::new(), "bus1::waits"),
            }),
            GFP_KEPT,
        )
    }

    /// Looks at `looks` waits for descriptors in flight, of this user. Out of line, since each place
    /// that may drop a message has a call of it.
    #[cold]
    fn look_at_sending(&self, looks: usize) {
        if self.n_sending.load(Relaxed) != 0 {
            let is_idle = self.user.sends_no_fds();
            look_at(&self.sending, Level::Sender, looks, is_idle);
        }
    }
}

impl<H: Host> Peer<H> {
    /// Looks at the waits that something that was given back at this peer may have ended.
    #[cold]
    pub(crate) fn look_at_waits(&self) {
        self.look_at_some_waits(LOOKS);
    }

    /// Looks at so many waits in each list of this peer and its user, or at all if the account is
    /// idle.
    fn look_at_some_waits(&self, looks: usize) {
        let inbox = self.inbox.lock();
        let is_idle = inbox.ledger.is_idle();
        let turns = inbox.waits.turns(looks, is_idle);
        drop(inbox);
        for _ in 0..turns {
            let turn = self.inbox.lock().waits.next();
            look(turn, Level::Peer, is_idle);
        }
        let waits = &self.waits.receiving;
        look_at(waits, Level::User, looks, self.user.is_idle());
    }

    /// Looks at one more wait in each list that a wait of this peer for room at `owner` may have
    /// been in: that one was notified, and may not use the room.
    #[cold]
    pub(crate) fn pass_room_on(&self, owner: &Self) {
        owner.look_at_some_waits(1);
        self.waits.look_at_sending(1);
    }

    /// Looks at the waits at this peer and its user, if something was given back since the last
    /// look.
    #[cold]
    pub(crate) fn look_at_waits_if_due(&self) {
        self.unlock(self.inbox.lock());
    }

    /// Unlocks its inbox, and looks at the waits that something given back under it may have ended.
    #[inline(always)]
    pub(crate) fn unlock(&self, inbox: SpinLockGuard<'_, Inbox<H>>) {
        if inbox.ledger.due {
            return self.unlock_and_look(inbox);
        }
        drop(inbox);
    }

    #[cold]
    fn unlock_and_look(&self, mut inbox: SpinLockGuard<'_, Inbox<H>>) {
        inbox.ledger.take_due();
        drop(inbox);
        self.look_at_waits();
    }
}

/// Giving back, in the steps that have no inbox locked already.
impl<H: Host> Peer<H> {
    /// Takes the credit of a few claimants. Returns their number, 0 if none has any.
    pub(crate) fn recall_some(&self) -> u32 {
        let n = self.inbox.lock().ledger.recall();
        self.look_at_waits_if_due();
        n
    }

    /// Gives back what peer `payer` was charged for `n` handles.
    pub(crate) fn discharge_handles(&self, payer: u64, n: usize) {
        self.inbox.lock().discharge_handles(payer, n);
        self.look_at_waits_if_due();
    }
}

/// Looks at waits for room in the account of a user.
fn look_at<H: Host>(waits: &SpinLock<Waits<H>>, level: Level, looks: usize, is_idle: bool) {
    let turns = waits.lock().turns(looks, is_idle);
    for _ in 0..turns {
        let turn = waits.lock().next();
        look(turn, level, is_idle);
    }
}

/// Looks at one wait.
fn look<H: Host>(turn: Option<Turn<H>>, level: Level, is_idle: bool) {
    if let Some(Turn { handle, size }) = turn {
        Handle::look_for_room(&handle, level, (!is_idle).then_some(size));
    }
}

/// Descriptors in flight, charged to the user that sent them, until this is dropped; then the waits
/// for that are looked at.
pub(crate) struct SentFds<H: Host> {
    // Dropped in this order.
    _charge: quota::SentFds,
    _waits: SendingWaits<H>,
}

/// The waits of the user that sent descriptors.
struct SendingWaits<H: Host> {
    waits: Arc<UserWaits<H>>,
}

impl<H: Host> SentFds<H> {
    /// Charges `n` descriptors that `from` sends to `to`.
    ///
    /// # Errors
    ///
    /// EDQUOT if the user has too many in flight; ENOMEM.
    pub(crate) fn charge(from: &Peer<H>, to: &Peer<H>, n: usize) -> Result<Self> {
        Ok(Self {
            _charge: quota::SentFds::charge(&from.user, to.claimant(), n)?,
            _waits: SendingWaits {
                waits: from.waits.clone(),
            },
        })
    }
}

impl<H: Host> Drop for SendingWaits<H> {
    fn drop(&mut self) {
        self.waits.look_at_sending(LOOKS);
    }
}
