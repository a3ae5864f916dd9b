// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Taking many entries out of a tree in one pass.

use kernel::rbtree::{RBTree, RBTreeNode};

/// Keeps the entries of `tree` for which `keep` holds, and hands the others to `out`.
pub(crate) fn retain<K: Ord + Copy, V>(
    tree: &mut RBTree<K, V>,
    mut keep: impl FnMut(&mut V) -> bool,
    mut out: impl FnMut(RBTreeNode<K, V>),
) {
    let mut cursor = tree.cursor_front_mut();
    while let Some(mut here) = cursor {
        cursor = if keep(here.current_mut().1) {
            here.move_next()
        } else {
            let last = here.peek_next().is_none();
            let (next, node) = here.remove_current();
            out(node);
            // At the end the cursor falls back to the one before, which was seen already.
            next.filter(|_| !last)
        };
    }
}
