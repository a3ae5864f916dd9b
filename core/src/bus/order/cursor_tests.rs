// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Walks over the entries of a queue, and the holes that they leave.

use std::vec::Vec;

use super::*;
use crate::bus::order::test_queue::*;

/// Parts that are alone in this queue go to the ring where they come last there, and to the tree
/// otherwise; holes of a purge change nothing.
#[test]
fn parts_come_at_their_place_among_messages() {
    for hole in [None, Some(4)] {
        let mut test = TestQueue::new();
        let transactions: Vec<_> = (1..5).map(transaction).collect();
        for (t, id) in transactions.iter().zip([10, 20, 30, 40]) {
            test.stage_some(t, 0, id);
        }
        for id in [0, 2, 4] {
            test.push(id);
        }
        if let Some(hole) = hole {
            let mut cursor = test.queue.cursor();
            while let Some(at) = test.queue.advance(&mut cursor) {
                let here = test.queue.entry_at(&at);
                if here.is_some_and(|head| id_of(&head.entry) == hole) {
                    test.queue.remove_at(&at);
                }
            }
        }
        // Of the pushed ones 0 is at 20, 2 at 24, 4 at 28.
        for (t, at) in transactions.iter().zip([20, 24, 26, 40]) {
            assert_eq!(t.commit(at), Some(at));
        }
        test.push(6);
        let all = [0, 10, 2, 20, 30, 4, 40, 6].into_iter();
        let all: Vec<u64> = all.filter(|&id| Some(id) != hole).collect();
        assert_eq!(test.take_all(), all);
    }
}

/// A cursor passes each committed entry once, where entries before and behind it are taken out and
/// others are committed meanwhile.
#[test]
fn a_cursor_passes_each_entry_once() {
    let mut test = TestQueue::new();
    for id in 0..8 {
        test.push(id);
    }
    let mut cursor = test.queue.cursor();
    let mut seen = Vec::new();
    while let Some(at) = test.queue.advance(&mut cursor) {
        let Some(here) = test.queue.entry_at(&at) else {
            continue;
        };
        let key = here.key;
        let seen_id = id_of(&here.entry);
        seen.push(seen_id);
        match seen_id {
            // The head moves to 2, and the ring passes over the hole at 4.
            0 => assert_eq!(test.take(), Some(0)),
            2 => {
                let next = test.queue.advance(&mut { cursor }).unwrap();
                assert_eq!(id(&test.queue.remove_at(&next).unwrap()), 4);
                assert!(test.queue.remove_at(&next).is_none());
            }
            // The tree, where an entry is added behind the cursor.
            5 => {
                assert_eq!(id(&test.queue.remove_at(&at).unwrap()), 5);
                assert!(test.queue.entry_at(&at).is_none());
                assert!(test.push(9) > key);
            }
            _ => (),
        }
    }
    assert_eq!(seen, [0, 2, 6, 1, 3, 5, 7, 9]);
    assert!(matches!(cursor, Cursor::End));
    assert!(test.queue.advance(&mut cursor).is_none());
    assert!(test.queue.entry_at(&cursor).is_none() && test.queue.remove_at(&cursor).is_none());
    assert_eq!(test.take_all(), [1, 2, 3, 6, 7, 9]);
}
