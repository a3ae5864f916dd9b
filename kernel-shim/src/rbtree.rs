// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ordered maps, as `kernel::rbtree`.
//!
//! Invariant: the nodes are those of a `BTreeMap`; callers see the behaviour of
//! the kernel's tree: an insertion replaces the whole node, key
//! included, and gives back the old one.

mod cursor;
mod node;

use crate::work::step;
use crate::{alloc::Flags, error::Result};
use std::collections::btree_map::{self, BTreeMap};

pub use cursor::{Cursor, CursorMut};
pub use node::{Entry, OccupiedEntry, RBTreeNode, RBTreeNodeReservation, VacantEntry};

/// A map sorted by key.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, rbtree::{RBTree, RBTreeNode}};
///
/// let mut tree = RBTree::new();
/// tree.try_create_and_insert(2, "b", GFP_KERNEL)?;
///
/// // Memory first, insertion later: it cannot fail.
/// let node = RBTreeNode::new(1, "a", GFP_KERNEL)?;
/// assert!(tree.insert(node).is_none());
///
/// let old = tree.try_create_and_insert(2, "c", GFP_KERNEL)?.unwrap();
/// assert_eq!(old.to_key_value(), (2, "b"));
/// assert!(tree.iter().eq([(&1, &"a"), (&2, &"c")]));
/// # Ok::<(), Error>(())
/// ```
pub struct RBTree<K, V> {
    map: BTreeMap<K, V>,
}

impl<K, V> RBTree<K, V> {
    /// Makes an empty tree.
    pub fn new() -> Self {
        Self {
            map: BTreeMap::new(),
        }
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Returns the nodes, sorted by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.map.iter())
    }

    /// Returns the nodes, sorted by key, with values that can be changed.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        IterMut(self.map.iter_mut())
    }

    /// Returns the keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'_ K> {
        self.map.keys().inspect(|_| step())
    }

    /// Returns the values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = &'_ V> {
        self.map.values().inspect(|_| step())
    }

    /// Returns the values, sorted by key, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &'_ mut V> {
        self.map.values_mut().inspect(|_| step())
    }
}

impl<K: Ord, V> RBTree<K, V> {
    /// Allocates a node and inserts it; see [`RBTree::insert`].
    pub fn try_create_and_insert(
        &mut self,
        key: K,
        value: V,
        flags: Flags,
    ) -> Result<Option<RBTreeNode<K, V>>> {
        Ok(self.insert(RBTreeNode::new(key, value, flags)?))
    }

    /// Inserts a node. It takes the place of one with the same key, which is
    /// given back.
    pub fn insert(&mut self, node: RBTreeNode<K, V>) -> Option<RBTreeNode<K, V>> {
        step();
        let (key, value) = node.to_key_value();
        // A plain insertion would keep the old key, while the kernel's tree
        // takes the new one; equal keys need not be the same.
        let old = self.map.remove_entry(&key).map(RBTreeNode::from_parts);
        self.map.insert(key, value);
        old
    }

    /// Returns the entry of `key`, to look at and then change.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        step();
        match self.map.entry(key) {
            btree_map::Entry::Vacant(entry) => Entry::Vacant(VacantEntry(entry)),
            btree_map::Entry::Occupied(entry) => Entry::Occupied(OccupiedEntry(entry)),
        }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        step();
        self.map.get(key)
    }

    /// Returns the value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        step();
        self.map.get_mut(key)
    }

    /// Takes out the node of `key`.
    pub fn remove_node(&mut self, key: &K) -> Option<RBTreeNode<K, V>> {
        step();
        self.map.remove_entry(key).map(RBTreeNode::from_parts)
    }

    /// Takes out the node of `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        step();
        self.map.remove(key)
    }

    /// Returns a cursor at the smallest key; `None` in an empty tree.
    pub fn cursor_front(&self) -> Option<Cursor<'_, K, V>> {
        Cursor::at(&self.map, self.map.first_key_value()?.0)
    }

    /// Returns a cursor at the largest key; `None` in an empty tree.
    pub fn cursor_back(&self) -> Option<Cursor<'_, K, V>> {
        Cursor::at(&self.map, self.map.last_key_value()?.0)
    }

    /// Returns a cursor at the smallest key that is not below `key`, if there is one.
    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        Cursor::at(&self.map, self.map.range(key..).next()?.0)
    }
}

impl<K: Ord + Clone, V> RBTree<K, V> {
    /// Returns the node of `key`, to be changed or removed.
    pub fn find_mut(&mut self, key: &K) -> Option<OccupiedEntry<'_, K, V>> {
        step();
        let found = self.map.get_key_value(key)?.0.clone();
        match self.map.entry(found) {
            btree_map::Entry::Occupied(entry) => Some(OccupiedEntry(entry)),
            btree_map::Entry::Vacant(_) => None,
        }
    }

    /// Returns a cursor for changes at the smallest key; `None` in an empty tree.
    pub fn cursor_front_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let key = self.map.first_key_value()?.0.clone();
        Some(CursorMut::at(&mut self.map, key))
    }

    /// Returns a cursor for changes at the largest key; `None` in an empty tree.
    pub fn cursor_back_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let key = self.map.last_key_value()?.0.clone();
        Some(CursorMut::at(&mut self.map, key))
    }

    /// Returns a cursor for changes at the smallest key that is not below `key`, if there is one.
    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let key = self.map.range(key..).next()?.0.clone();
        Some(CursorMut::at(&mut self.map, key))
    }
}

impl<K, V> Default for RBTree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, K, V> IntoIterator for &'a RBTree<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut RBTree<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// The nodes of a tree, sorted by key.
pub struct Iter<'a, K, V>(btree_map::Iter<'a, K, V>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        step();
        self.0.next()
    }
}

/// The nodes of a tree, sorted by key, with values that can be changed.
pub struct IterMut<'a, K, V>(btree_map::IterMut<'a, K, V>);

impl<'a, K, V> Iterator for IterMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        step();
        self.0.next()
    }
}

#[cfg(test)]
mod tests;
