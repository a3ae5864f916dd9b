// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Entries of a tree: those that are taken out in one pass, and those that are not used any more, a
//! few at a time.

use kernel::rbtree::{RBTree, RBTreeNodeReservation};

/// Offers `take` each value of `tree`. Removes the entries from whose values it takes something,
/// and hands to `out` what was taken, with the entry's memory.
pub(crate) fn take_out<K: Ord + Copy, V, T>(
    tree: &mut RBTree<K, V>,
    mut take: impl FnMut(&mut V) -> Option<T>,
    mut out: impl FnMut(T, RBTreeNodeReservation<K, V>),
) {
    let mut cursor = tree.cursor_front_mut();
    while let Some(mut here) = cursor {
        cursor = if let Some(taken) = take(here.current_mut().1) {
            let last = here.peek_next().is_none();
            let (next, node) = here.remove_current();
            out(taken, node.into_reservation());
            // At the end the cursor falls back to the one before, which was seen already.
            next.filter(|_| !last)
        } else {
            here.move_next()
        };
    }
}

/// Number of entries that a search looks at.
const STEPS: usize = 8;
/// Number of entries that a search finds at most. Where entries are added one at a time, with a
/// search for each, those that are not used become fewer.
pub(crate) const FOUND: usize = 2;

/// Looks at the next few entries of `tree` from `hand` on, at most to the last one. Returns the
/// keys of those that are `unused`, and moves `hand` behind what was looked at.
pub(crate) fn find_unused<K: Ord + Copy, V>(
    tree: &mut RBTree<K, V>,
    hand: &mut Option<K>,
    mut unused: impl FnMut(&mut V) -> bool,
) -> [Option<K>; FOUND] {
    let (mut found, mut n) = ([None; FOUND], 0);
    for _ in 0..STEPS {
        let from = hand.and_then(|from| tree.cursor_lower_bound(&from));
        let Some(here) = from.or_else(|| tree.cursor_front()) else {
            break;
        };
        let key = *here.current().0;
        *hand = here.peek_next().map(|(&next, _)| next);
        if tree.get_mut(&key).is_some_and(&mut unused) {
            found[n] = Some(key);
            n += 1;
        }
        if hand.is_none() || n == FOUND {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::bus::allocation::GFP_KEPT;

    #[test]
    fn a_hand_goes_round_and_finds_what_is_unused() {
        let mut tree = RBTree::new();
        let mut hand = None;
        let all = |_: &mut u32| true;
        assert_eq!(find_unused(&mut tree, &mut hand, all), [None; 2]);
        for n in 0..14u32 {
            tree.try_create_and_insert(n, n, GFP_KEPT).unwrap();
        }
        let mut seen = Vec::new();
        let expected = [
            ([Some(5), None], 0..8),
            ([Some(10), None], 8..14),
            ([Some(5), None], 0..8),
        ];
        for (found, looked_at) in expected {
            let unused = |n: &mut u32| {
                seen.push(*n);
                [5, 10].contains(n)
            };
            assert_eq!(find_unused(&mut tree, &mut hand, unused), found);
            assert!(seen.drain(..).eq(looked_at));
        }
        assert_eq!(find_unused(&mut tree, &mut hand, all), [Some(8), Some(9)]);
        assert_eq!(find_unused(&mut tree, &mut hand, all), [Some(10), Some(11)]);
    }
}
