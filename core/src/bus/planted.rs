// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Faults that the tests plant into the order, one at a time, to show that they find each.

// The schedules that plant them do not run under loom.
#![cfg_attr(loom, allow(dead_code))]

use std::cell::Cell;

use crate::bus::order::Key;

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
    /// A release notice stays in the queue when the node is held again.
    ReleaseNotWithdrawn,
    /// The parts of a partial SEND that are taken back are not sent again.
    ResendEmpty,
    /// A flush leaves committed entries in the queue.
    FlushKeepsQueue,
    /// A disconnect does not destroy the nodes.
    DisconnectSilent,
    /// A part is taken back by another key than that under which it is staged.
    StagedKeyStale,
    /// A notice that nobody wants is looked for under another key than that of its commit.
    NoticeKeyStale,
    /// The part that follows in the tree is not seen.
    FollowingMissed,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
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
        Self::ReleaseNotWithdrawn,
        Self::ResendEmpty,
        Self::FlushKeepsQueue,
        Self::DisconnectSilent,
        Self::StagedKeyStale,
        Self::NoticeKeyStale,
        Self::FollowingMissed,
    ];

    /// Returns whether this fault is planted.
    pub(crate) fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// Returns `value`, or the default if this fault is planted.
    pub(crate) fn unless<T: Default>(self, value: T) -> T {
        match self.is_planted() {
            true => T::default(),
            false => value,
        }
    }

    /// Has the next pull of a queue do nothing if this fault is planted.
    pub(crate) fn skip_pull(self) {
        SKIPS.set(self.is_planted());
    }
}

std::thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    static SKIPS: Cell<bool> = const { Cell::new(false) };
}

/// Plants a fault for this thread, or none any more.
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Returns whether this pull does nothing.
pub(crate) fn skips_pull() -> bool {
    SKIPS.take()
}

/// Returns the staged key of a part, or one of another group if that is planted.
pub(crate) fn apart(place: Key) -> Key {
    match Fault::PartApart.is_planted() {
        true => Key {
            timestamp: place.timestamp + u64::from(place.part),
            ..place
        },
        false => place,
    }
}

/// Changes the number of a part, if that is planted.
pub(crate) fn misplace(part: &mut u32) {
    if Fault::PartMisplaced.is_planted() {
        *part = u32::MAX / 2 - *part;
    }
}
