// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A list that takes memory from the heap only when it has more than a few elements.

use kernel::prelude::*;

use crate::bus::host::GFP_CALL;

/// A list that allocates only beyond `N` elements.
pub(crate) struct Few<T, const N: usize> {
    first: [Option<T>; N],
    n_first: usize,
    rest: KVVec<T>,
}

impl<T, const N: usize> Few<T, N> {
    /// Makes an empty list.
    pub(crate) fn new() -> Self {
        Self {
            first: [const { None }; N],
            n_first: 0,
            rest: KVVec::new(),
        }
    }

    /// Appends an element.
    ///
    /// # Errors
    ///
    /// ENOMEM, never for the first `N`.
    pub(crate) fn push(&mut self, value: T) -> Result {
        match self.first.get_mut(self.n_first) {
            Some(slot) => {
                *slot = Some(value);
                self.n_first += 1;
            }
            None => self.rest.push(value, GFP_CALL)?,
        }
        Ok(())
    }

    /// Returns the elements in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        Iterator::chain(self.first.iter().flatten(), self.rest.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn elements_keep_their_order_beyond_the_first() {
        let mut few = Few::<u32, 3>::new();
        assert_eq!(few.iter().count(), 0);
        for n in 0..10 {
            few.push(n).unwrap();
            let all: Vec<u32> = few.iter().copied().collect();
            assert_eq!(all, (0..=n).collect::<Vec<_>>());
        }
    }
}
