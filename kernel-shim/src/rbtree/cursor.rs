// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cursors: a node of a tree and its neighbours.
//!
//! Invariant: the key a cursor is at is in the tree for as long as the cursor
//! lives.

use super::RBTreeNode;
use crate::work::step;
use core::ops::Bound::{Excluded, Unbounded};
use std::collections::BTreeMap;

const PRESENT: &str = "a cursor is at a node of its tree";

/// A node of a tree that is only looked at.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, rbtree::RBTree};
///
/// let mut tree = RBTree::new();
/// for key in [10, 20, 30] {
///     tree.try_create_and_insert(key, key * 10, GFP_KERNEL)?;
/// }
/// let cursor = tree.cursor_lower_bound(&11).unwrap();
/// assert_eq!(cursor.current(), (&20, &200));
/// assert_eq!(cursor.peek_next(), Some((&30, &300)));
/// # Ok::<(), Error>(())
/// ```
pub struct Cursor<'a, K, V> {
    map: &'a BTreeMap<K, V>,
    current: (&'a K, &'a V),
}

impl<'a, K: Ord, V> Cursor<'a, K, V> {
    pub(super) fn at(map: &'a BTreeMap<K, V>, key: &K) -> Option<Self> {
        step();
        let current = map.get_key_value(key)?;
        Some(Self { map, current })
    }

    /// Returns the node.
    pub fn current(&self) -> (&K, &V) {
        self.current
    }

    /// Returns the node before, in order of the keys.
    pub fn peek_prev(&self) -> Option<(&K, &V)> {
        prev(self.map, self.current.0)
    }

    /// Returns the node after, in order of the keys.
    pub fn peek_next(&self) -> Option<(&K, &V)> {
        next(self.map, self.current.0)
    }
}

/// A node of a tree that can be changed, moved from and removed.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, rbtree::RBTree};
///
/// let mut tree = RBTree::new();
/// for key in [10, 20, 30] {
///     tree.try_create_and_insert(key, key * 10, GFP_KERNEL)?;
/// }
/// let (cursor, node) = tree.cursor_front_mut().unwrap().remove_current();
/// assert_eq!(node.to_key_value(), (10, 100));
/// // At the next node, or the one before where the last was removed.
/// assert_eq!(cursor.unwrap().current(), (&20, &200));
/// # Ok::<(), Error>(())
/// ```
pub struct CursorMut<'a, K, V> {
    map: &'a mut BTreeMap<K, V>,
    key: K,
}

impl<'a, K: Ord + Clone, V> CursorMut<'a, K, V> {
    pub(super) fn at(map: &'a mut BTreeMap<K, V>, key: K) -> Self {
        step();
        Self { map, key }
    }

    /// Returns the node.
    pub fn current(&self) -> (&K, &V) {
        self.map.get_key_value(&self.key).expect(PRESENT)
    }

    /// Returns the node, with a value that can be changed.
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        (&self.key, self.map.get_mut(&self.key).expect(PRESENT))
    }

    /// Takes the node out. The cursor goes to the next node; where there is
    /// none, to the one before; in an empty tree, nowhere.
    pub fn remove_current(self) -> (Option<Self>, RBTreeNode<K, V>) {
        let node = self.map.remove_entry(&self.key).expect(PRESENT);
        let neighbour = next(self.map, &self.key)
            .or_else(|| prev(self.map, &self.key))
            .map(|(key, _)| key.clone());
        let cursor = neighbour.map(|key| Self::at(self.map, key));
        (cursor, RBTreeNode::from_parts(node))
    }

    /// Takes out the node before, if there is one.
    pub fn remove_prev(&mut self) -> Option<RBTreeNode<K, V>> {
        let key = prev(self.map, &self.key)?.0.clone();
        self.map.remove_entry(&key).map(RBTreeNode::from_parts)
    }

    /// Takes out the node after, if there is one.
    pub fn remove_next(&mut self) -> Option<RBTreeNode<K, V>> {
        let key = next(self.map, &self.key)?.0.clone();
        self.map.remove_entry(&key).map(RBTreeNode::from_parts)
    }

    /// Moves to the node before, if there is one; otherwise ends.
    pub fn move_prev(self) -> Option<Self> {
        let key = prev(self.map, &self.key)?.0.clone();
        Some(Self::at(self.map, key))
    }

    /// Moves to the node after, if there is one; otherwise ends.
    pub fn move_next(self) -> Option<Self> {
        let key = next(self.map, &self.key)?.0.clone();
        Some(Self::at(self.map, key))
    }

    /// Returns the node before.
    pub fn peek_prev(&self) -> Option<(&K, &V)> {
        prev(self.map, &self.key)
    }

    /// Returns the node after.
    pub fn peek_next(&self) -> Option<(&K, &V)> {
        next(self.map, &self.key)
    }

    /// Returns the node before, with a value that can be changed.
    pub fn peek_prev_mut(&mut self) -> Option<(&K, &mut V)> {
        self.map.range_mut(..&self.key).next_back()
    }

    /// Returns the node after, with a value that can be changed.
    pub fn peek_next_mut(&mut self) -> Option<(&K, &mut V)> {
        self.map.range_mut((Excluded(&self.key), Unbounded)).next()
    }
}

fn prev<'m, K: Ord, V>(map: &'m BTreeMap<K, V>, key: &K) -> Option<(&'m K, &'m V)> {
    map.range(..key).next_back()
}

fn next<'m, K: Ord, V>(map: &'m BTreeMap<K, V>, key: &K) -> Option<(&'m K, &'m V)> {
    map.range((Excluded(key), Unbounded)).next()
}
