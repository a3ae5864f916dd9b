// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND: sends one message to one or many nodes.
//!
//! All that can fail or sleep comes first and is undone by dropping a [`Pending`]: reserve at every
//! destination, copy the payload, report errors, link the handles. Then the parts are staged and
//! committed in a few bounded steps, between which nothing can block:
//!
//! 1. each part is staged at its queue, where its node is checked once more;
//! 2. the transaction is committed by one addition, above the places of all parts and above the
//!    floor that receivers raised meanwhile.
//!
//! A part is refused if its node is dead, or if the user has too many undecided transactions in the
//! queue. A destruction that finds a part staged for its node kills the transaction. In both cases
//! all parts are taken back; then the call fails or, if it may be partial, the other parts are sent
//! as a new transaction. A message with one part is stamped and queued in one critical section.
//!
//! # Locks
//!
//! One inbox at a time, for each step.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::command::pending::{fill_all, Pending, Resolved};
use crate::bus::command::room::NewWaits;
use crate::bus::host::{Files, Host, KillCheck, Payload, WakeHint, Waker};
use crate::bus::object::{charges, ensure, Distinct, Handles, Peer, Resolver};
use crate::bus::order::Transaction;
use crate::bus::pool::Size;
use crate::errno::{EDQUOT, EHOSTUNREACH, ESHUTDOWN};

/// A message to send.
///
/// The caller bounds the lists: at most 0x7ffff000 bytes, and no more destinations or handles than
/// the limits of its user allow handles.
pub struct Outgoing<'a, H: Host, P: Payload<H>> {
    /// IDs of the handles to send to, each at most once.
    pub destinations: &'a [u64],
    /// IDs of the handles to pass on.
    pub handles: &'a [u64],
    /// Gets the descriptors to pass on, if any; called once, after the handles were found.
    pub files: Option<&'a mut dyn FnMut() -> Result<H::Files>>,
    /// The bytes.
    pub payload: P,
    /// A destination that fails does not stop the others.
    pub partial: bool,
    /// The sender waits for room at destinations that refuse for now.
    pub waits: bool,
    /// The caller's next step, for the wake-ups.
    pub hint: WakeHint,
}

impl<H: Host, P: Payload<H>> Outgoing<'_, H, P> {
    /// Finds the handles, then the files, that are to be passed on.
    ///
    /// # Errors
    ///
    /// ENXIO, EDQUOT for a handle; those of `files`.
    pub(crate) fn resolve(&mut self, resolver: &mut Resolver<'_, H>) -> Result<Resolved<H>> {
        let mut handles = Handles::with_capacity(self.handles.len(), GFP_CALL)?;
        let mut kill_check = KillCheck::default();
        for &id in self.handles {
            kill_check.step::<H>(1)?;
            handles.push(Some(resolver.find(id)?), GFP_CALL)?;
        }
        let files = match &mut self.files {
            Some(files) => Some(files()?),
            None => None,
        };
        let size = Size {
            n_bytes: self.payload.len(),
            n_handles: handles.len(),
            n_fds: files.as_ref().map_or(0, Files::count),
        };
        Ok(Resolved {
            handles,
            files,
            size,
        })
    }
}

/// The reason why the parts of a message were taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A destruction killed the transaction after a part was staged for one of its nodes.
    Killed,
    /// The destination of this part refused it.
    At { part: usize, error: Error },
}

/// A message on its way to all of its destinations.
struct Multicast<'p, 'a, 'w, H: Host, P: Payload<H>> {
    from: &'p Arc<Peer<H>>,
    out: Outgoing<'a, H, P>,
    resolved: Resolved<H>,
    /// One part for each destination that was reached, in their order.
    parts: KVVec<Pending<'p, H>>,
    /// Makes the errors of the destinations known.
    write: &'w mut dyn FnMut(&mut dyn Iterator<Item = i32>) -> Result,
    waits: Option<NewWaits<H>>,
}

impl<H: Host, P: Payload<H>> Multicast<'_, '_, '_, H, P> {
    /// Writes the error of each destination to the caller. A destination that was not reached
    /// yet has not failed.
    fn tell(&mut self) -> Result {
        let errno = |part: usize| {
            let error = self.parts.get(part).and_then(|pending| pending.error);
            error.map_or(0, |error| -error.to_errno())
        };
        (self.write)(&mut (0..self.out.destinations.len()).map(errno))
    }

    /// Ends a part whose destination failed. Fails if that fails the whole.
    fn failed(&mut self, part: usize, error: Error) -> Result {
        let pending = &mut self.parts[part];
        let error = NewWaits::prepare(&mut self.waits, pending.handle.as_ref(), error);
        pending.fail(error);
        if self.out.partial {
            return Ok(());
        }
        self.tell()?;
        Err(error)
    }

    /// Charges and reserves at every destination.
    fn reserve(&mut self, resolver: &mut Resolver<'_, H>) -> Result {
        let destinations = self.out.destinations;
        let mut distinct = Distinct::new(destinations);
        let mut kill_check = KillCheck::default();
        for (part, &id) in destinations.iter().enumerate() {
            kill_check.step::<H>(1)?;
            let mut pending = Pending::new(self.from, None);
            let reserved = distinct.find(resolver, id).and_then(|handle| {
                pending.handle = Some(handle);
                let reserved = pending.reserve(&self.resolved, destinations.len() > 1);
                reserved.map_err(|error| pending.refused(&self.resolved.size, error))
            });
            self.parts.push(pending, GFP_CALL)?;
            match reserved {
                Ok(()) => (),
                // Not the destination's fault: the caller itself is gone, or memory is short.
                Err(error) if error == ESHUTDOWN || error == ENOMEM => return Err(error),
                Err(error) => self.failed(part, error)?,
            }
        }
        Ok(())
    }

    /// Sends the message to all destinations.
    fn send(&mut self, resolver: &mut Resolver<'_, H>) -> Result {
        self.reserve(resolver)?;
        fill_all(&mut self.parts, &mut self.out.payload)?;
        if self.out.partial {
            self.tell()?;
        }
        if !self.resolved.handles.is_empty() {
            let mut kill_check = KillCheck::default();
            for pending in self.parts.iter_mut() {
                pending.link(&self.resolved.handles, &mut kill_check)?;
            }
        }
        self.commit()
    }

    /// Queues all parts at one point of the order, and leaves the queued ones empty.
    fn commit(&mut self) -> Result {
        // Each turn except the last finds one more destination that fails.
        loop {
            let done = match &mut self.parts[..] {
                [] => Ok(()),
                [only] => only
                    .deliver()
                    .map_err(|error| Refusal::At { part: 0, error }),
                _ => self.commit_several(&self.from.transaction()?),
            };
            let Err(refusal) = done else {
                break;
            };
            for part in 0..self.parts.len() {
                let pending = &self.parts[part];
                if pending.error.is_some() {
                    continue;
                }
                let error = match refusal {
                    _ if pending.check_early().is_err() => EHOSTUNREACH,
                    Refusal::At { part: at, error } if at == part => error,
                    // The room of the user is the same for all parts for this peer.
                    Refusal::At {
                        part: at,
                        error: EDQUOT,
                    } if Arc::ptr_eq(pending.to(), self.parts[at].to()) => EDQUOT,
                    _ => continue,
                };
                self.failed(part, error)?;
            }
            self.tell()?;
            ensure(!H::is_killed(), EINTR)?;
        }
        let sent = self.parts.iter().filter(|part| part.error.is_none());
        // All receivers are woken before any handle is confirmed, which takes locks of its owner.
        for pending in sent.clone() {
            pending.to().waker().wake(self.out.hint);
        }
        sent.for_each(Pending::confirm);
        Ok(())
    }

    /// Carries out the numbered steps of the file header. On error nothing was sent, and nothing
    /// is staged.
    fn commit_several(&mut self, transaction: &Arc<Transaction>) -> Result<(), Refusal> {
        // 1 and 2
        let staged = self.stage(transaction);
        let done = staged.and_then(|at| transaction.commit(at).ok_or(Refusal::Killed));
        if done.is_err() {
            for (part, pending) in self.parts.iter_mut().enumerate() {
                pending.unstage(&transaction.staged_key(part as u32));
            }
        }
        done.map(drop)
    }

    /// Stages all parts, in their order. Returns the timestamp to commit at.
    fn stage(&mut self, transaction: &Arc<Transaction>) -> Result<u64, Refusal> {
        let mut at = 0;
        for (part, pending) in self.parts.iter_mut().enumerate() {
            let staged = pending.stage(transaction, part as u32);
            at = at.max(staged.map_err(|error| Refusal::At { part, error })?);
        }
        Ok(at)
    }
}

impl<H: Host> Peer<H> {
    /// Sends one message to all destinations, as one transaction.
    ///
    /// `write` gets the errors of the destinations (0 or a positive errno, in their order): before
    /// anything is sent if the message is partial, and otherwise if one of them is why it fails. It
    /// may sleep, and may be called again if the errors change. An error of its own fails the call.
    ///
    /// # Errors
    ///
    /// In the order in which they are looked for: ENXIO, EDQUOT for a handle, those of `files`; per
    /// destination ENXIO, ENOTUNIQ, EHOSTUNREACH, EDQUOT, EMSGSIZE, EXFULL; EFAULT for the payload.
    /// ENOMEM and ESHUTDOWN at any time; EINTR if the caller is killed before anything is staged.
    pub fn send<P: Payload<H>>(
        this: &Arc<Self>,
        mut out: Outgoing<'_, H, P>,
        write: &mut dyn FnMut(&mut dyn Iterator<Item = i32>) -> Result,
    ) -> Result {
        let mut resolver = Resolver::new(this);
        let resolved = out.resolve(&mut resolver)?;
        let mut all = Multicast {
            from: this,
            parts: KVVec::with_capacity(out.destinations.len(), GFP_CALL)?,
            write,
            waits: out.waits.then(|| NewWaits::new(resolved.size)),
            out,
            resolved,
        };
        let sent = all.send(&mut resolver);
        if let Some(waits) = all.waits.take() {
            // Not while charges of its own are in the way.
            drop(all);
            waits.begin(sent);
        }
        sent?;
        resolver.finish();
        Ok(())
    }

    /// Sends bytes, at most 0x7ffff000, to one destination, as most messages are sent.
    ///
    /// # Errors
    ///
    /// The errors of [`Peer::send`], except those for handles and files.
    pub fn send_bytes<P: Payload<H>>(
        this: &Arc<Self>,
        id: u64,
        payload: &mut P,
        hint: WakeHint,
    ) -> Result {
        let mut resolver = Resolver::new(this);
        let mut pending = Pending::new(this, Some(resolver.find(id)?));
        let size = Size {
            n_bytes: payload.len(),
            ..Size::default()
        };
        let booked = pending.book(&size, &charges(&size)).map(|_| ());
        booked.map_err(|error| pending.refused(&size, error))?;
        pending.pin()?;
        pending.fill(payload)?;
        pending.deliver()?;
        pending.to().waker().wake(hint);
        resolver.finish();
        Ok(())
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
