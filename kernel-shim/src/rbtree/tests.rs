// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the tree against a model: a sorted list of nodes.
//!
//! Two keys of the same order differ in their tag, so that a test sees which of
//! them is in the tree.

use super::*;
use crate::prelude::*;
use core::cmp::Ordering;
use proptest::prelude::{any, prop_oneof, proptest, Strategy};
use std::vec::Vec as StdVec;

#[derive(Clone, Copy, Debug)]
struct Key {
    order: u8,
    tag: u16,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

/// A node in full, with the tag of its key.
type Flat = (u8, u16, u32);

fn flat((key, value): (&Key, &u32)) -> Flat {
    (key.order, key.tag, *value)
}

fn flat_node(node: RBTreeNode<Key, u32>) -> Flat {
    let (key, value) = node.to_key_value();
    flat((&key, &value))
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(Key, u32),
    Remove(Key),
    RemoveNode(Key),
    EntryAdd(Key, u32),
    FindRemove(Key),
    GetMut(Key),
    /// Goes to the start, makes the steps, then takes a node out.
    Cursor(Start, i8, Take),
    AddToAll,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Front,
    Back,
    LowerBound(Key),
}

#[derive(Clone, Copy, Debug)]
enum Take {
    Nothing,
    Current,
    Prev,
    Next,
}

fn key() -> impl Strategy<Value = Key> {
    (0..24u8, any::<u16>()).prop_map(|(order, tag)| Key { order, tag })
}

fn op() -> impl Strategy<Value = Op> {
    use proptest::prelude::Just;
    let start = prop_oneof![
        Just(Start::Front),
        Just(Start::Back),
        key().prop_map(Start::LowerBound)
    ];
    let take = prop_oneof![
        Just(Take::Nothing),
        Just(Take::Current),
        Just(Take::Prev),
        Just(Take::Next)
    ];
    prop_oneof![
        4 => (key(), any::<u32>()).prop_map(|(k, v)| Op::Insert(k, v)),
        1 => key().prop_map(Op::Remove),
        1 => key().prop_map(Op::RemoveNode),
        2 => (key(), any::<u32>()).prop_map(|(k, v)| Op::EntryAdd(k, v)),
        1 => key().prop_map(Op::FindRemove),
        1 => key().prop_map(Op::GetMut),
        4 => (start, -4..5i8, take).prop_map(|(s, n, t)| Op::Cursor(s, n, t)),
        1 => Just(Op::AddToAll),
    ]
}

/// The model: nodes sorted by the order of their keys.
#[derive(Default)]
struct Model(StdVec<Flat>);

impl Model {
    fn find(&self, key: &Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key.order, |n| n.0)
    }

    fn start(&self, start: Start) -> Option<usize> {
        let i = match start {
            Start::Front => 0,
            Start::Back => self.0.len().checked_sub(1)?,
            Start::LowerBound(key) => self.find(&key).unwrap_or_else(|i| i),
        };
        (i < self.0.len()).then_some(i)
    }

    fn at(&self, i: Option<usize>) -> Option<Flat> {
        self.0.get(i?).copied()
    }
}

fn start_mut(tree: &mut RBTree<Key, u32>, start: Start) -> Option<CursorMut<'_, Key, u32>> {
    match start {
        Start::Front => tree.cursor_front_mut(),
        Start::Back => tree.cursor_back_mut(),
        Start::LowerBound(key) => tree.cursor_lower_bound_mut(&key),
    }
}

fn check_shared_cursor(tree: &RBTree<Key, u32>, model: &Model, start: Start) {
    let cursor = match start {
        Start::Front => tree.cursor_front(),
        Start::Back => tree.cursor_back(),
        Start::LowerBound(key) => tree.cursor_lower_bound(&key),
    };
    let at = model.start(start);
    assert_eq!(cursor.as_ref().map(|c| flat(c.current())), model.at(at));
    if let (Some(cursor), Some(at)) = (cursor, at) {
        assert_eq!(cursor.peek_prev().map(flat), model.at(at.checked_sub(1)));
        assert_eq!(cursor.peek_next().map(flat), model.at(Some(at + 1)));
    }
}

fn check_cursor(
    tree: &mut RBTree<Key, u32>,
    model: &mut Model,
    start: Start,
    steps: i8,
    take: Take,
) {
    let Some(mut cursor) = start_mut(tree, start) else {
        assert_eq!(model.start(start), None);
        return;
    };
    let mut at = model.start(start).expect("the tree has a node there");
    for _ in 0..steps.unsigned_abs() {
        let (moved, to) = if steps < 0 {
            (cursor.move_prev(), at.checked_sub(1))
        } else {
            (cursor.move_next(), Some(at + 1))
        };
        assert_eq!(moved.as_ref().map(|c| flat(c.current())), model.at(to));
        let Some(moved) = moved else { return };
        cursor = moved;
        at = to.expect("checked above");
    }

    // Change the node and both neighbours in place.
    *cursor.current_mut().1 ^= 1;
    model.0[at].2 ^= 1;
    if let Some((_, value)) = cursor.peek_prev_mut() {
        *value ^= 2;
        model.0[at - 1].2 ^= 2;
    }
    if let Some((_, value)) = cursor.peek_next_mut() {
        *value ^= 4;
        model.0[at + 1].2 ^= 4;
    }
    assert_eq!(flat(cursor.current()), model.0[at]);
    assert_eq!(cursor.peek_prev().map(flat), model.at(at.checked_sub(1)));
    assert_eq!(cursor.peek_next().map(flat), model.at(Some(at + 1)));

    match take {
        Take::Nothing => {}
        Take::Current => {
            let (cursor, node) = cursor.remove_current();
            assert_eq!(flat_node(node), model.0.remove(at));
            // The next node; without one, the one before.
            let expected = model.at(Some(at)).or(model.at(at.checked_sub(1)));
            assert_eq!(cursor.map(|c| flat(c.current())), expected);
        }
        Take::Prev => {
            let expected = at.checked_sub(1).map(|i| model.0.remove(i));
            assert_eq!(cursor.remove_prev().map(flat_node), expected);
        }
        Take::Next => {
            let expected = (at + 1 < model.0.len()).then(|| model.0.remove(at + 1));
            assert_eq!(cursor.remove_next().map(flat_node), expected);
        }
    }
}

fn run(tree: &mut RBTree<Key, u32>, model: &mut Model, op: Op) {
    match op {
        Op::Insert(key, value) => {
            let old = tree.try_create_and_insert(key, value, GFP_KERNEL).unwrap();
            let new = (key.order, key.tag, value);
            let expected = match model.find(&key) {
                Ok(i) => Some(core::mem::replace(&mut model.0[i], new)),
                Err(i) => {
                    model.0.insert(i, new);
                    None
                }
            };
            assert_eq!(old.map(flat_node), expected);
        }
        Op::Remove(key) => {
            let expected = model.find(&key).ok().map(|i| model.0.remove(i).2);
            assert_eq!(tree.remove(&key), expected);
        }
        Op::RemoveNode(key) => {
            let expected = model.find(&key).ok().map(|i| model.0.remove(i));
            assert_eq!(tree.remove_node(&key).map(flat_node), expected);
        }
        Op::EntryAdd(key, value) => {
            let memory = RBTreeNodeReservation::new(GFP_KERNEL).unwrap();
            match (tree.entry(key), model.find(&key)) {
                (Entry::Vacant(place), Err(i)) => {
                    *place.insert(value, memory) ^= 8;
                    model.0.insert(i, (key.order, key.tag, value ^ 8));
                }
                (Entry::Occupied(mut node), Ok(i)) => {
                    assert_eq!(*node.get(), model.0[i].2);
                    *node.get_mut() ^= 16;
                    *node.into_mut() ^= 32;
                    model.0[i].2 ^= 16 ^ 32;
                }
                _ => panic!("the tree and the model differ on {key:?}"),
            }
        }
        Op::FindRemove(key) => {
            let node = tree.find_mut(&key).map(OccupiedEntry::remove_node);
            let expected = model.find(&key).ok().map(|i| model.0.remove(i));
            assert_eq!(node.map(flat_node), expected);
        }
        Op::GetMut(key) => {
            let found = model.find(&key).ok();
            assert_eq!(tree.get(&key).copied(), model.at(found).map(|n| n.2));
            if let (Some(value), Some(i)) = (tree.get_mut(&key), found) {
                *value ^= 64;
                model.0[i].2 ^= 64;
            }
        }
        Op::Cursor(start, steps, take) => {
            check_shared_cursor(tree, model, start);
            check_cursor(tree, model, start, steps, take);
        }
        Op::AddToAll => {
            for value in tree.values_mut() {
                *value = value.wrapping_add(1);
            }
            for (_, value) in &mut *tree {
                *value = value.wrapping_add(1);
            }
            for node in &mut model.0 {
                node.2 = node.2.wrapping_add(2);
            }
        }
    }
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_list(ops in proptest::collection::vec(op(), 0..80)) {
        let mut tree = RBTree::default();
        let mut model = Model::default();
        for op in ops {
            run(&mut tree, &mut model, op);
            assert_eq!(tree.iter().map(flat).collect::<StdVec<_>>(), model.0);
            assert!(tree.keys().map(|k| k.tag).eq(model.0.iter().map(|n| n.1)));
            assert!(tree.values().copied().eq(model.0.iter().map(|n| n.2)));
            assert_eq!(tree.is_empty(), model.0.is_empty());
        }
    }
}

#[test]
fn a_node_and_its_memory_can_be_used_again() {
    let mut tree = RBTree::new();
    tree.try_create_and_insert(1, std::rc::Rc::new(()), GFP_KERNEL)
        .unwrap();
    let node = tree.remove_node(&1).unwrap();
    let shared = std::rc::Rc::new(());
    let node = node.into_reservation().into_node(2, shared.clone());
    assert!(tree.insert(node).is_none());
    assert_eq!(std::rc::Rc::strong_count(&shared), 2);
    drop(tree);
    assert_eq!(std::rc::Rc::strong_count(&shared), 1);
}

#[test]
fn an_empty_tree_has_no_cursor() {
    let mut tree = RBTree::<u8, u8>::new();
    assert!(tree.cursor_front().is_none() && tree.cursor_back().is_none());
    assert!(tree.cursor_front_mut().is_none() && tree.cursor_back_mut().is_none());
    assert!(tree.cursor_lower_bound(&0).is_none() && tree.cursor_lower_bound_mut(&0).is_none());
}
