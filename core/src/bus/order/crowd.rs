// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Crowds: the undecided transactions that users have in a queue. Each of them costs every step at
//! the queue a look, so the queue's caller bounds them.
//!
//! # Locks
//!
//! None of its own; the queue lies in the peer's inbox.

use crate::bus::order::group::{Entry, Queued};
use crate::bus::order::key::Key;
use crate::bus::order::queue::Queue;

/// Numbers of transactions that have parts staged in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Transactions of one user.
    pub(crate) of_user: u64,
    /// Transactions of all users.
    pub(crate) of_all: u64,
    /// Number of users that have some.
    pub(crate) users: u32,
}

impl<M: Queued> Queue<M> {
    /// Counts the groups of messages that are staged here, by their makers' users. Groups that were
    /// committed since the last pull are counted too.
    #[cold]
    pub(crate) fn crowd(&mut self, uid: u32) -> Crowd {
        // The tree is in the order of users.
        self.put_lone_into_tree();
        let mut crowd = Crowd::default();
        let mut last = None;
        for group in self.staged() {
            // Destructions cannot be refused, so they take nobody's room.
            let (Some(staged), Entry::Message(_)) = (&group.staged, &group.first) else {
                continue;
            };
            let user = staged.transaction.uid;
            crowd.of_all += 1;
            crowd.of_user += u64::from(user == uid);
            crowd.users += u32::from(last != Some(user));
            last = Some(user);
        }
        crowd
    }

    /// Returns whether the transaction of the part with the staged key `place` has a part here that
    /// is staged.
    pub(crate) fn is_staged(&mut self, place: &Key) -> bool {
        self.staged_mut(place).is_some()
    }
}
