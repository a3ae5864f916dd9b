// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Lists that are mostly empty or of one element, and then need no memory of their own.
//!
//! A message mostly has one destination and carries no handles; it should not pay for more.

use core::ops::{Deref, DerefMut};

use kernel::alloc::Flags;
use kernel::prelude::*;

/// A list of which the first element lies in place.
pub enum Few<T> {
    /// None or one.
    One(Option<T>),
    /// Any number.
    Many(KVVec<T>),
}

impl<T> Few<T> {
    /// An empty list.
    pub const NONE: Self = Self::One(None);

    /// An empty list with room for `n`. ENOMEM.
    pub fn with_capacity(n: usize, flags: Flags) -> Result<Self> {
        Ok(match n {
            0 | 1 => Self::NONE,
            _ => Self::Many(KVVec::with_capacity(n, flags)?),
        })
    }

    /// Makes sure that the next [`Few::push`] does not fail. ENOMEM.
    pub fn reserve_one(&mut self, flags: Flags) -> Result {
        match self {
            Self::One(None) => (),
            Self::One(first) => {
                let mut many = KVVec::with_capacity(4, flags)?;
                if let Some(first) = first.take() {
                    many.push(first, flags)?;
                }
                *self = Self::Many(many);
            }
            Self::Many(many) => many.reserve(1, flags)?,
        }
        Ok(())
    }

    /// Appends. ENOMEM, and `item` is dropped.
    pub fn push(&mut self, item: T, flags: Flags) -> Result {
        self.reserve_one(flags)?;
        match self {
            Self::One(place) => *place = Some(item),
            Self::Many(many) => many.push(item, flags)?,
        }
        Ok(())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => one.as_slice(),
            Self::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => one.as_mut_slice(),
            Self::Many(many) => many,
        }
    }
}

#[cfg(test)]
#[path = "few_tests.rs"]
mod tests;
