// SPDX-License-Identifier: MIT OR Apache-2.0

//! Wake-ups that wait for the end of a command.
//!
//! The core wakes in the middle of a command. A system call there would delay the rest of it, and
//! the woken thread would run into the locks that the command takes. So inside a [`Scope`], which
//! every command opens, a wake-up is only noted; it is delivered when the command ends or is about
//! to sleep.
//!
//! # Threads that end
//!
//! A peer may be dropped by a destructor of a thread-local, when those of this file are gone
//! already. So nothing here relies on them: without `NOTED` a wake-up is delivered at once, and
//! without `HERE` no scope is counted. A destructor ends its scope before it returns, so nothing is
//! left in `NOTED` when that is destroyed.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use crate::signal::Signal;

/// The progress of one thread in its commands.
struct Here {
    /// Scopes that are open.
    depth: Cell<usize>,
    /// True if something is in [`NOTED`].
    noted: Cell<bool>,
}

thread_local! {
    // Apart from what has to be dropped, so that it is there to the last and cheap to look at.
    static HERE: Here = const { Here { depth: Cell::new(0), noted: Cell::new(false) } };
    /// Wake-ups that wait for the end of the command.
    static NOTED: RefCell<Vec<Arc<Signal>>> = const { RefCell::new(Vec::new()) };
}

/// Delivers a wake-up at the end of the outermost scope of this thread, or at once if none is open.
#[cold]
pub(crate) fn note(signal: &Arc<Signal>) {
    let in_scope = HERE.try_with(|here| here.depth.get() != 0);
    let noted = in_scope == Ok(true)
        && NOTED
            .try_with(|all| enter(&mut all.borrow_mut(), signal))
            .is_ok();
    if !noted {
        signal.deliver();
    } else if HERE.try_with(|here| here.noted.set(true)).is_err() {
        deliver_all();
    }
}

/// Enters a wake-up once for all entries of one peer that become ready in a row.
fn enter(all: &mut Vec<Arc<Signal>>, signal: &Arc<Signal>) {
    if !all.last().is_some_and(|last| Arc::ptr_eq(last, signal)) {
        all.push(signal.clone());
    }
}

/// Delivers the noted wake-ups in the middle of a command. The caller holds no lock of the core.
#[inline]
pub(crate) fn deliver_noted() {
    if HERE.try_with(|here| here.noted.replace(false)) == Ok(true) {
        deliver_all();
    }
}

#[cold]
fn deliver_all() {
    let _ = NOTED.try_with(|all| {
        // To deliver calls nothing that could wake somebody.
        for signal in all.borrow_mut().drain(..) {
            signal.deliver();
        }
    });
}

/// Holds back the wake-ups of this thread; when it is dropped they are delivered.
pub(crate) struct Scope {
    /// Keeps the scope on its thread: another one must not drop it.
    _here: PhantomData<*const ()>,
}

impl Scope {
    /// Opens a scope for this thread. Scopes nest.
    #[inline]
    pub(crate) fn enter() -> Self {
        let _ = HERE.try_with(|here| here.depth.set(here.depth.get() + 1));
        Self { _here: PhantomData }
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        let left = HERE.try_with(|here| {
            let left = here.depth.get().saturating_sub(1);
            here.depth.set(left);
            left
        });
        if left == Ok(0) {
            deliver_noted();
        }
    }
}
