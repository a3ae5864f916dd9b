// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of `sort.rs`.

extern crate std;
use super::sort;
use proptest::prelude::*;
use std::vec::Vec;

proptest! {
    #[test]
    fn sorts_as_the_library_does(mut items: Vec<u8>) {
        let mut sorted = items.clone();
        sorted.sort_unstable();
        sort(&mut items);
        prop_assert_eq!(items, sorted);
    }
}
