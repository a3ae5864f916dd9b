// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sorting in place, without recursion and without a panic in it.
//!
//! The sort of `core::slice` panics where an order is not total, and the kernel's check of the object
//! code does not know that this panic does not return.

/// Sorts by heap: no memory, and never more than about 2·n·log2(n) comparisons.
pub(super) fn sort<T: Ord>(items: &mut [T]) {
    for root in (0..items.len() / 2).rev() {
        sift(items, root);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        if let Some(heap) = items.get_mut(..end) {
            sift(heap, 0);
        }
    }
}

/// Moves the item at `root` down until no item below it is greater.
fn sift<T: Ord>(heap: &mut [T], mut root: usize) {
    loop {
        let left = 2 * root + 1;
        let greater = usize::from(heap.get(left) < heap.get(left + 1));
        let child = left + greater;
        if child >= heap.len() || heap[child] <= heap[root] {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

#[cfg(test)]
#[path = "sort_tests.rs"]
mod tests;
