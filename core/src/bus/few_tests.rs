// SPDX-License-Identifier: GPL-2.0 OR MIT

use kernel::prelude::*;

use super::Few;

#[test]
fn elements_stay_in_order() {
    let mut few = Few::NONE;
    for i in 0..9 {
        assert_eq!(few.len(), i);
        few.push(i, GFP_KERNEL).unwrap();
        assert!(few.iter().copied().eq(0..=i));
    }
    few[3] = 7;
    assert_eq!(few[3], 7);
}

#[test]
fn room_is_made_for_more_than_one() {
    for n in 0..4 {
        let mut few = Few::with_capacity(n, GFP_KERNEL).unwrap();
        assert!(few.is_empty());
        (0..n).for_each(|i| few.push(i, GFP_KERNEL).unwrap());
        assert!(few.iter().copied().eq(0..n));
    }
}
