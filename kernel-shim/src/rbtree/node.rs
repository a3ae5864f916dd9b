// SPDX-License-Identifier: MIT OR Apache-2.0

//! Nodes that are not in a tree, and places in a tree.
//!
//! A node or a reservation is the permission to insert: making one is the step
//! that can fail.

use crate::{alloc::Flags, error::Result, fault};
use core::marker::PhantomData;
use std::collections::btree_map;

/// Memory for a node, without a key and a value.
pub struct RBTreeNodeReservation<K, V>(PhantomData<fn() -> (K, V)>);

impl<K, V> RBTreeNodeReservation<K, V> {
    /// Allocates the memory.
    pub fn new(_flags: Flags) -> Result<Self> {
        fault::check()?;
        Ok(Self(PhantomData))
    }

    /// Makes a node of it.
    pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
        RBTreeNode { key, value }
    }
}

/// A node that can be inserted without a failure.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, rbtree::RBTreeNode};
///
/// let node = RBTreeNode::new(1, 'a', GFP_KERNEL)?;
/// let reservation = node.into_reservation();
/// assert_eq!(reservation.into_node(2, 'b').to_key_value(), (2, 'b'));
/// # Ok::<(), Error>(())
/// ```
pub struct RBTreeNode<K, V> {
    key: K,
    value: V,
}

impl<K, V> RBTreeNode<K, V> {
    /// Allocates a node; drops `key` and `value` where that fails.
    pub fn new(key: K, value: V, flags: Flags) -> Result<Self> {
        Ok(RBTreeNodeReservation::new(flags)?.into_node(key, value))
    }

    pub(super) fn from_parts((key, value): (K, V)) -> Self {
        Self { key, value }
    }

    /// Frees the memory and gives out key and value.
    pub fn to_key_value(self) -> (K, V) {
        (self.key, self.value)
    }

    /// Drops key and value and keeps the memory.
    pub fn into_reservation(self) -> RBTreeNodeReservation<K, V> {
        RBTreeNodeReservation(PhantomData)
    }
}

/// The place of a key in a tree.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, rbtree::{Entry, RBTree, RBTreeNodeReservation}};
///
/// let mut tree = RBTree::new();
/// let memory = RBTreeNodeReservation::new(GFP_KERNEL)?;
/// match tree.entry(1) {
///     Entry::Vacant(place) => *place.insert(10, memory) += 1,
///     Entry::Occupied(mut node) => *node.get_mut() = 0,
/// }
/// assert_eq!(tree.get(&1), Some(&11));
/// # Ok::<(), Error>(())
/// ```
pub enum Entry<'a, K, V> {
    /// There is no node with the key.
    Vacant(VacantEntry<'a, K, V>),
    /// There is one.
    Occupied(OccupiedEntry<'a, K, V>),
}

/// The place where a node belongs.
pub struct VacantEntry<'a, K, V>(pub(super) btree_map::VacantEntry<'a, K, V>);

impl<'a, K: Ord, V> VacantEntry<'a, K, V> {
    /// Inserts a node here.
    pub fn insert(self, value: V, _reservation: RBTreeNodeReservation<K, V>) -> &'a mut V {
        self.0.insert(value)
    }
}

/// A node in a tree.
pub struct OccupiedEntry<'a, K, V>(pub(super) btree_map::OccupiedEntry<'a, K, V>);

impl<'a, K: Ord, V> OccupiedEntry<'a, K, V> {
    /// Returns the value.
    pub fn get(&self) -> &V {
        self.0.get()
    }

    /// Returns the value, to be changed.
    pub fn get_mut(&mut self) -> &mut V {
        self.0.get_mut()
    }

    /// Returns the value, to be changed, for as long as the tree is borrowed.
    pub fn into_mut(self) -> &'a mut V {
        self.0.into_mut()
    }

    /// Takes the node out.
    pub fn remove_node(self) -> RBTreeNode<K, V> {
        RBTreeNode::from_parts(self.0.remove_entry())
    }

    /// Takes the node out and gives its value.
    pub fn remove(self) -> V {
        self.0.remove()
    }
}
