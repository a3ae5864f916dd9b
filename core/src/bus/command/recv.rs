// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! RECV: from the head of the queue into the caller's hands.
//!
//! 1. look at the head, without taking it;
//! 2. write the result to the caller and, if asked to, give it the descriptors (no lock is held, so
//!    a fault or a full descriptor table leaves the message where it is);
//! 3. take the head, if it is still the same; otherwise start again;
//! 4. give handles their IDs, complete the slice, and make it the user's.
//!
//! Steps 3 and 4 are one critical section; see [`deliver`](super::deliver). No entry stores whether
//! more parts follow: it is seen from the next entry, and one that the peer no longer wants does
//! not count.
//!
//! # Locks
//!
//! The inbox for 1; table and inbox for 3 and 4.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::*;
use crate::bus::command::caller::{Caller, Installed};
use crate::bus::host::{Files, Host};
use crate::bus::object::{
    check, ensure, EntryRef, Handle, Head, Inbox, Message, Notice, Peer, Removed,
};
use crate::bus::order::Key;

/// The choices of a caller that receives, and the addresses that the result is written to.
pub struct Receiver<'c, C> {
    /// The task that receives: its memory and descriptors.
    pub caller: &'c C,
    /// Address that the message is written to.
    pub msg_addr: u64,
    /// Number of messages up to this one, and its address, if the caller wants it.
    pub count: Option<Count>,
    /// The slice has to end at or before this offset.
    pub max_offset: u64,
    /// The caller wants descriptors.
    pub wants_files: bool,
}

/// A number of messages, and the address that it is written to.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Address that the number is written to.
    pub addr: u64,
    /// The number, with the message that is received now.
    pub n: u64,
}

/// A message or a notice as it is written to the caller.
pub(crate) struct Description<H: Host> {
    pub(crate) msg: Msg,
    /// End of its slice, 0 if it has none.
    pub(crate) end: u64,
    /// The files, if the caller wants them.
    pub(crate) files: Option<H::Files>,
}

impl<H: Host> Description<H> {
    /// Describes a notice; the ID of a handle is to be filled in.
    #[cold]
    fn of_notice(notice: &Notice<H>) -> Self {
        let (kind, destination) = match notice {
            Notice::Released(node) => (MSG_NODE_RELEASE, node.id),
            Notice::Destroyed(_) => (MSG_NODE_DESTROY, HANDLE_INVALID),
            Notice::Room(_) => (MSG_ROOM, HANDLE_INVALID),
        };
        let offset = OFFSET_INVALID;
        let msg = Msg {
            kind,
            destination,
            offset,
            ..Msg::default()
        };
        Self {
            msg,
            end: 0,
            files: None,
        }
    }

    /// Describes a message.
    #[inline(always)]
    pub(crate) fn of_message(message: &Message<H>, wants_files: bool) -> Self {
        let files = message.files.as_ref().filter(|_| wants_files);
        let node = message.node.as_ref();
        let msg = Msg {
            kind: MSG_DATA,
            destination: node.map_or(HANDLE_INVALID, |node| node.id),
            offset: message.slice.offset,
            n_bytes: message.n_bytes,
            n_handles: message.handles.len() as u64,
            n_fds: files.map_or(0, |files| files.count() as u64),
            ..Msg::default()
        };
        let (end, files) = (message.slice.end(), files.cloned());
        Self { msg, end, files }
    }
}

/// The head of the queue, as it is found.
enum Look<H: Host> {
    /// An entry to be received, and its key.
    Found(Key, Description<H>),
    /// The head or the part behind it, which nobody wants any more, and which was taken out.
    Stale(Removed<H>),
}

impl<H: Host> Inbox<H> {
    /// Looks at the head, and describes it. None if nothing is ready.
    // Inlined, so that the description is made where it stays.
    #[inline(always)]
    fn look(&mut self, wants_files: bool) -> Option<Look<H>> {
        self.queue.settle();
        let head = self.queue.head()?;
        let key = head.key;
        // The ID of a handle is in the table; see `Peer::recv`.
        let mut description = match head.entry {
            _ if !self.wants(head.entry) => return self.pop(&key).map(Look::Stale),
            EntryRef::Message(message) => Description::of_message(message, wants_files),
            EntryRef::Notice(notice) => Description::of_notice(notice),
        };
        if let Some(next) = self.following(&key) {
            let next_key = next.key;
            if !self.wants(next.entry) {
                return self.remove(&next_key).map(Look::Stale);
            }
            description.msg.flags = MSG_FLAG_CONTINUE;
        }
        Some(Look::Found(key, description))
    }

    /// Returns the next part of the head's transaction, wanted or not.
    #[inline]
    pub(crate) fn following(&self, key: &Key) -> Option<Head<'_, H>> {
        match key.is_part() {
            true => self.queue.following(key),
            false => None,
        }
    }
}

/// Shows the receiver the message or notice at the head, and gives it the descriptors, before
/// `take` makes that final. False if the head was another by then; so the receiver may be shown
/// another one afterwards.
///
/// # Errors
///
/// EFAULT, and those of [`Caller::install`].
pub(crate) fn hand_over<H: Host, C: Caller<H>>(
    receiver: &Receiver<'_, C>,
    msg: &Msg,
    files: Option<H::Files>,
    take: impl FnOnce(&[i32]) -> bool,
) -> Result<bool> {
    let caller = receiver.caller;
    caller.write(receiver.msg_addr, &msg.to_bytes())?;
    if let Some(Count { addr, n }) = receiver.count {
        caller.write(addr, &n.to_ne_bytes())?;
    }
    let Some(files) = files else {
        return Ok(take(&[]));
    };
    let installed = caller.install(files)?;
    let taken = take(installed.numbers());
    if taken {
        installed.keep();
    }
    Ok(taken)
}

impl<H: Host> Peer<H> {
    /// Receives the message or notice at the head of the queue.
    ///
    /// # Errors
    ///
    /// EAGAIN if nothing is ready, ERANGE, or an error of the receiver's; then nothing happened.
    pub fn recv<C: Caller<H>>(&self, receiver: &Receiver<'_, C>) -> Result {
        loop {
            // 1
            let mut inbox = self.inbox.lock();
            check(inbox.open)?;
            let look = inbox.look(receiver.wants_files).ok_or(EAGAIN)?;
            drop(inbox);
            let (
                key,
                Description {
                    mut msg,
                    end,
                    files,
                },
            ) = match look {
                Look::Found(key, description) => (key, description),
                Look::Stale(removed) => {
                    self.drop_removed(removed);
                    continue;
                }
            };
            if msg.kind != MSG_DATA && !self.fill_in_id(&key, &mut msg) {
                continue;
            }
            ensure(end <= receiver.max_offset, ERANGE)?;
            // 2 to 4
            if hand_over(receiver, &msg, files, |fds| self.take_head(&key, &msg, fds))? {
                return Ok(());
            }
        }
    }

    /// Fills in the ID of the handle that the notice at `key` is for, if it is for one. False if the
    /// notice is gone.
    #[cold]
    fn fill_in_id(&self, key: &Key, msg: &mut Msg) -> bool {
        if msg.destination != HANDLE_INVALID {
            return true;
        }
        let table = self.table.lock();
        let inbox = self.inbox.lock();
        let handle = inbox.queue.get(key).and_then(handle_of);
        if let Some(handle) = handle {
            msg.destination = handle.local.access(&table).id;
        }
        handle.is_some()
    }
}

/// Returns the handle of the receiver that a notice is for.
pub(crate) fn handle_of<H: Host>(entry: EntryRef<'_, H>) -> Option<&Arc<Handle<H>>> {
    match entry {
        EntryRef::Notice(Notice::Destroyed(handle) | Notice::Room(handle)) => Some(handle),
        _ => None,
    }
}
