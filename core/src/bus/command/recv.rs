// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! RECV: takes the next message or notice.
//!
//! 1. settle the queue, and look at the head without taking it. A head that the peer no longer
//!    wants is taken out and dropped, and the look begins anew; so is a part behind the head;
//! 2. write the result to the caller and, if the caller wants them, install the descriptors. No
//!    lock is held, so a fault or a full descriptor table leaves the message where it is;
//! 3. take the head, if it is still the same and a look would still give the same result; otherwise
//!    start again;
//! 4. give handles their IDs, complete the slice, and make it the user's.
//!
//! Steps 3 and 4 cannot fail; see [`deliver`](super::deliver). No entry stores whether a part
//! follows: RECV looks at the next entry, in 1 and again in 3.
//!
//! # Locks
//!
//! The inbox for 1 and 3; table and inbox for 4.

use kernel::prelude::*;

use crate::abi::*;
use crate::bus::command::caller::{Caller, Installed};
use crate::bus::host::{Files, Host};
use crate::bus::object::{check, ensure, EntryRef, Inbox, Message, Notice, Peer, Removed};
use crate::bus::order::Key;

/// The choices of a caller that receives, and the addresses that the result is written to.
pub struct Receiver<'c, C> {
    /// The task that receives: its memory and descriptors.
    pub caller: &'c C,
    /// Address that the message is written to.
    pub msg_addr: u64,
    /// Writes the number of received messages, for a caller that receives several. The last step that
    /// can fail.
    pub write_count: Option<&'c dyn Fn() -> Result>,
    /// Offset that the slice has to end at or before.
    pub max_offset: u64,
    /// The caller wants descriptors.
    pub wants_files: bool,
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
    /// Describes a notice.
    #[cold]
    fn of_notice(inbox: &Inbox<H>, notice: &Notice<H>) -> Self {
        let (kind, destination) = match notice {
            Notice::Released(node) => (MSG_NODE_RELEASE, node.id),
            Notice::Destroyed(handle) => (MSG_NODE_DESTROY, handle.notice.access(inbox).id),
            Notice::Room(handle) => (MSG_ROOM, handle.notice.access(inbox).id),
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
        Self {
            msg,
            end: message.slice.end(),
            files: files.cloned(),
        }
    }
}

/// The result of a look at the head of the queue.
enum Look<H: Host> {
    /// An entry to be received, and its key.
    Found(Key, Description<H>),
    /// The head or the part behind it, which the peer no longer wants, and which was taken out.
    Stale(Removed<H>),
}

/// The part that follows the head in the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Following {
    Wanted,
    /// A part that the peer no longer wants, which has to be taken out first.
    Unwanted(Key),
    Nothing,
}

impl<H: Host> Inbox<H> {
    /// Settles the queue, looks at the head, and describes it. None if nothing is ready.
    // Inlined, so that the description is made where it stays.
    #[inline(always)]
    fn look(&mut self, wants_files: bool) -> Option<Look<H>> {
        self.queue.settle();
        let head = self.queue.head()?;
        let key = head.key;
        if !self.wants(head.entry) {
            return self.pop(&key).map(Look::Stale);
        }
        let following = self.following(&key);
        if let Following::Unwanted(next) = following {
            return self.pop(&next).map(Look::Stale);
        }
        let mut description = match head.entry {
            EntryRef::Message(message) => Description::of_message(message, wants_files),
            EntryRef::Notice(notice) => Description::of_notice(self, notice),
        };
        if following == Following::Wanted {
            description.msg.flags = MSG_FLAG_CONTINUE;
        }
        Some(Look::Found(key, description))
    }

    /// Looks at the part that follows the head, at `key`, in the same transaction.
    #[inline(always)]
    pub(crate) fn following(&self, key: &Key) -> Following {
        if !key.is_part() {
            return Following::Nothing;
        }
        match self.queue.following(key) {
            Some(next) if self.wants(next.entry) => Following::Wanted,
            Some(next) => Following::Unwanted(next.key),
            None => Following::Nothing,
        }
    }
}

/// Writes `msg` to the receiver, and installs the descriptors; then `take` makes that final. False,
/// with the descriptors taken back, if `take` returns false.
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
    let write_count = || receiver.write_count.map_or(Ok(()), |write| write());
    let Some(files) = files else {
        write_count()?;
        return Ok(take(&[]));
    };
    let installed = caller.install(files)?;
    write_count()?;
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
    /// EAGAIN if nothing is ready; ERANGE if the slice ends beyond `max_offset`; ESHUTDOWN; EFAULT,
    /// and the errors of [`Caller::install`]. Then nothing was taken.
    pub fn recv<C: Caller<H>>(&self, receiver: &Receiver<'_, C>) -> Result {
        loop {
            // 1
            let mut inbox = self.inbox.lock();
            check(inbox.open)?;
            let look = inbox.look(receiver.wants_files).ok_or(EAGAIN)?;
            drop(inbox);
            let (key, Description { msg, end, files }) = match look {
                Look::Found(key, description) => (key, description),
                Look::Stale(removed) => {
                    self.drop_removed(removed);
                    continue;
                }
            };
            ensure(end <= receiver.max_offset, ERANGE)?;
            // 2 to 4
            if hand_over(receiver, &msg, files, |fds| self.take_head(&key, &msg, fds))? {
                return Ok(());
            }
        }
    }
}
