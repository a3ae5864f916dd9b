// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Faults that the tests plant into the order, one at a time, to show that they find each.

// The schedules that plant them do not run under loom.
#![cfg_attr(loom, allow(dead_code))]

use std::cell::Cell;

/// A fault in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A commit ignores the floor.
    FloorIgnored,
    /// A receiver passes an undecided part and does not raise its floor.
    FloorNotRaised,
    /// A push does not pull before.
    PushWithoutPull,
    /// A stage does not pull before.
    StageWithoutPull,
    /// A destruction kills what is staged for its nodes only after it is committed.
    KilledAfterDeath,
    /// A destruction is not ordered after its notices' places.
    DeathBelowNotices,
    /// A part is joined to its group at another place than its number's.
    PartMisplaced,
    /// A part is staged apart from the others of its transaction.
    PartApart,
    /// The owner drops its pins only after the nodes are dead.
    PinsDroppedLate,
    /// A handle of a dead node is linked.
    LinkedAfterDeath,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::FloorIgnored,
        Self::FloorNotRaised,
        Self::PushWithoutPull,
        Self::StageWithoutPull,
        Self::KilledAfterDeath,
        Self::DeathBelowNotices,
        Self::PartMisplaced,
        Self::PartApart,
        Self::PinsDroppedLate,
        Self::LinkedAfterDeath,
    ];
}

std::thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    static SKIPS: Cell<bool> = const { Cell::new(false) };
}

/// Plants a fault for this thread, or none any more.
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Returns whether this fault is planted.
pub(crate) fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Returns `value`, or the default if this fault is planted.
pub(crate) fn unless<T: Default>(fault: Fault, value: T) -> T {
    match planted(fault) {
        true => T::default(),
        false => value,
    }
}

/// Has the next pull of a queue do nothing if this fault is planted.
pub(crate) fn before_pull(fault: Fault) {
    SKIPS.set(planted(fault));
}

/// Returns whether this pull does nothing.
pub(crate) fn skips_pull() -> bool {
    SKIPS.take()
}
