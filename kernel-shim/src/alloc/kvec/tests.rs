// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the vectors: the kernel's growth, and every call against a plain
//! `std` vector.

use super::*;
use crate::prelude::*;
use proptest::prelude::{any, prop_oneof, proptest, Just, Strategy};
use std::rc::Rc;

fn of(elements: &[u32]) -> KVec<u32> {
    let mut v = KVec::new();
    v.extend_from_slice(elements, GFP_KERNEL).unwrap();
    v
}

#[test]
fn capacity_doubles_as_in_the_kernel() {
    let mut v = KVec::new();
    let mut seen = std::vec::Vec::new();
    for i in 0..9u64 {
        v.push(i, GFP_KERNEL).unwrap();
        seen.push(v.capacity());
    }
    assert_eq!(seen, [1, 2, 4, 4, 8, 8, 8, 8, 16]);

    let mut v = KVec::<u64>::with_capacity(10, GFP_KERNEL).unwrap();
    assert_eq!(v.capacity(), 10);
    v.reserve(25, GFP_KERNEL).unwrap();
    assert_eq!(v.capacity(), 25);
}

#[test]
fn too_much_memory_is_an_error_and_changes_nothing() {
    let mut v = of(&[1, 2]);
    assert_eq!(v.reserve(usize::MAX, GFP_KERNEL), Err(AllocError));
    assert_eq!(v.reserve(usize::MAX / 8, GFP_KERNEL), Err(AllocError));
    assert_eq!(v, [1, 2]);
    assert!(KVec::<u8>::with_capacity(usize::MAX, GFP_KERNEL).is_err());
}

#[test]
fn without_room_the_element_comes_back() {
    let mut v = KVec::with_capacity(2, GFP_KERNEL).unwrap();
    v.push_within_capacity(1).unwrap();
    assert!(matches!(
        v.insert_within_capacity(2, 9),
        Err(InsertError::IndexOutOfBounds(9))
    ));
    v.insert_within_capacity(0, 0).unwrap();
    assert_eq!(v.push_within_capacity(2).unwrap_err().0, 2);
    assert!(matches!(
        v.insert_within_capacity(0, 9),
        Err(InsertError::OutOfCapacity(9))
    ));
    assert_eq!(Error::from(PushError(1)), EINVAL);
    assert_eq!(v, [0, 1]);
}

#[test]
fn remove_beyond_the_end_is_an_error() {
    let mut v = of(&[5, 6, 7]);
    assert_eq!(v.remove(1).unwrap(), 6);
    assert_eq!(Error::from(v.remove(2).unwrap_err()), EINVAL);
    assert_eq!(v, [5, 7]);
}

#[test]
fn drain_all_drops_the_rest_and_keeps_the_memory() {
    let shared = Rc::new(());
    let mut v = KVec::new();
    for _ in 0..5 {
        v.push(shared.clone(), GFP_KERNEL).unwrap();
    }
    let capacity = v.capacity();
    let first = v.drain_all().next();
    assert!(first.is_some());
    assert_eq!(Rc::strong_count(&shared), 2);
    assert!(v.is_empty());
    assert_eq!(v.capacity(), capacity);
}

#[test]
fn iteration_by_value_can_be_stopped_and_collected() {
    let mut elements = of(&[1, 2, 3, 4]).into_iter();
    assert_eq!(elements.next(), Some(1));
    assert_eq!(elements.size_hint(), (3, Some(3)));
    assert_eq!(elements.collect(GFP_KERNEL), [2, 3, 4]);
}

#[test]
fn slices_work_as_on_any_list() {
    let mut v = of(&[3, 1, 2]);
    v.sort();
    v[0] = 10;
    v[1..].reverse();
    for element in &mut v {
        *element += 1;
    }
    assert_eq!(v, [11, 4, 3]);
    assert_eq!((&v).into_iter().copied().max(), Some(11));
    assert_eq!(std::format!("{v:?}"), "[11, 4, 3]");
    assert_eq!(KVec::<u8>::zeroed(3, GFP_KERNEL).unwrap(), [0, 0, 0]);
    let same: KVVec<u32> = KVVec::from_elem(7, 2, GFP_KERNEL).unwrap();
    assert_eq!(same, [7, 7]);
}

#[derive(Clone, Debug)]
enum Op {
    Push(u32),
    Pop,
    Remove(usize),
    Truncate(usize),
    Resize(usize, u32),
    Extend(std::vec::Vec<u32>),
    Retain(u32),
    Drain,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<u32>().prop_map(Op::Push),
        2 => Just(Op::Pop),
        2 => (0..12usize).prop_map(Op::Remove),
        1 => (0..12usize).prop_map(Op::Truncate),
        1 => (0..12usize, any::<u32>()).prop_map(|(n, v)| Op::Resize(n, v)),
        1 => proptest::collection::vec(any::<u32>(), 0..6).prop_map(Op::Extend),
        1 => (1..5u32).prop_map(Op::Retain),
        1 => Just(Op::Drain),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_list(ops in proptest::collection::vec(op(), 0..60)) {
        let mut v = KVec::new();
        let mut model = std::vec::Vec::new();
        for op in ops {
            match op {
                Op::Push(x) => {
                    v.push(x, GFP_KERNEL).unwrap();
                    model.push(x);
                }
                Op::Pop => assert_eq!(v.pop(), model.pop()),
                Op::Remove(i) => {
                    let expected = (i < model.len()).then(|| model.remove(i));
                    assert_eq!(v.remove(i).ok(), expected);
                }
                Op::Truncate(n) => {
                    v.truncate(n);
                    model.truncate(n);
                }
                Op::Resize(n, x) => {
                    v.resize(n, x, GFP_KERNEL).unwrap();
                    model.resize(n, x);
                }
                Op::Extend(more) => {
                    v.extend_from_slice(&more, GFP_KERNEL).unwrap();
                    model.extend(more);
                }
                Op::Retain(d) => {
                    v.retain(|x| *x % d == 0);
                    model.retain(|x| *x % d == 0);
                }
                Op::Drain => {
                    let drained: std::vec::Vec<_> = v.drain_all().collect();
                    assert_eq!(drained, core::mem::take(&mut model));
                }
                Op::Clear => {
                    v.clear();
                    model.clear();
                }
            }
            assert_eq!(v.as_slice(), model.as_slice());
            assert_eq!((v.len(), v.is_empty()), (model.len(), model.is_empty()));
        }
    }
}
