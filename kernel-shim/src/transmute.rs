// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers, and slices of numbers, as bytes.

/// Types for which any bit pattern is valid.
///
/// # Safety
///
/// Any bytes of its size are a value of the type, and it has no interior mutability.
pub unsafe trait FromBytes {}

/// Types that can be looked at as bytes.
///
/// # Safety
///
/// No byte of a value is uninitialised, and the type has no interior mutability.
pub unsafe trait AsBytes {
    /// Returns the bytes of the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel_shim::transmute::AsBytes;
    ///
    /// assert_eq!([0x0101_u16, 0x0202].as_bytes(), [1, 1, 2, 2]);
    /// ```
    fn as_bytes(&self) -> &[u8] {
        let start = core::ptr::from_ref(self).cast::<u8>();
        // SAFETY: These are the bytes of the value, all of which are initialised, and nobody changes
        // them as long as it is borrowed.
        unsafe { core::slice::from_raw_parts(start, size_of_val(self)) }
    }

    /// Returns the bytes of the value, to be changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel_shim::transmute::AsBytes;
    ///
    /// let mut numbers = [0_u32; 2];
    /// numbers.as_bytes_mut()[4..].copy_from_slice(&7_u32.to_ne_bytes());
    /// assert_eq!(numbers, [0, 7]);
    /// ```
    fn as_bytes_mut(&mut self) -> &mut [u8]
    where
        Self: FromBytes,
    {
        let start = core::ptr::from_mut(self).cast::<u8>();
        // SAFETY: As in `as_bytes`; the value is borrowed by this only, and any bytes are a value.
        unsafe { core::slice::from_raw_parts_mut(start, size_of_val(self)) }
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        // SAFETY: Every bit of a number counts, and any bits are one.
        unsafe impl FromBytes for $number {}
        // SAFETY: A number has no padding.
        unsafe impl AsBytes for $number {}
    )*};
}

numbers! { u8 u16 u32 u64 usize i8 i16 i32 i64 isize }

// SAFETY: There is nothing between the elements.
unsafe impl<T: FromBytes> FromBytes for [T] {}
// SAFETY: There is nothing between the elements.
unsafe impl<T: AsBytes> AsBytes for [T] {}
