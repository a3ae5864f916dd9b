// SPDX-License-Identifier: MIT OR Apache-2.0

//! The argument of SEND.
//!
//! Invariant: every pointer in the structure comes from a slice that is borrowed as long as the
//! argument lives; an empty slice is the null pointer.

use std::io::IoSlice;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};

use bus1_uapi::CmdSend;

/// Returns the address of a slice as the interface carries it; 0 for an empty one.
#[inline]
pub(crate) fn address<T>(slice: &[T]) -> u64 {
    if slice.is_empty() {
        0
    } else {
        slice.as_ptr().expose_provenance() as u64
    }
}

/// Returns the address of a slice that the command writes to; 0 for an empty one.
#[inline]
pub(crate) fn address_mut<T>(slice: &mut [T]) -> u64 {
    if slice.is_empty() {
        0
    } else {
        slice.as_mut_ptr().expose_provenance() as u64
    }
}

/// A `struct iovec` of a 64-bit caller, with any address and length.
///
/// [`IoSlice`] is the same for memory that exists.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawVec {
    /// Address of the first byte.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The argument of SEND: flags, destinations, and what the message carries, all borrowed.
///
/// Without a call to one of its methods the message is empty and has no destination. A method that
/// is called again replaces what the call before has set.
///
/// ```
/// use bus1_ioctl::SendArgs;
/// use std::io::IoSlice;
///
/// let payload = [IoSlice::new(b"header"), IoSlice::new(b"body")];
/// let args = SendArgs::new().destinations(&[3, 7]).payload(&payload);
/// assert_eq!((args.command().n_destinations, args.command().n_vecs), (2, 2));
/// ```
#[derive(Debug, Default)]
pub struct SendArgs<'a> {
    command: CmdSend,
    borrowed: PhantomData<(&'a [u8], &'a mut [i32])>,
}

impl<'a> SendArgs<'a> {
    /// Makes an empty message without destinations.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flags, `SEND_FLAG_*`.
    #[inline]
    #[must_use]
    pub fn flags(mut self, flags: u64) -> Self {
        self.command.flags = flags;
        self
    }

    /// Sets the destinations: IDs of the sending peer's handles and nodes.
    #[inline]
    #[must_use]
    pub fn destinations(mut self, ids: &'a [u64]) -> Self {
        self.command.ptr_destinations = address(ids);
        self.command.n_destinations = ids.len() as u64;
        self
    }

    /// Sets the room for one result for each destination: 0, or a positive errno. An empty slice
    /// asks for no results.
    ///
    /// # Panics
    ///
    /// If it is neither empty nor as long as the [destinations](Self::destinations), which have to
    /// be set before.
    #[inline]
    #[must_use]
    pub fn results(mut self, results: &'a mut [i32]) -> Self {
        assert!(
            results.is_empty() || results.len() as u64 == self.command.n_destinations,
            "one result for each destination"
        );
        self.command.ptr_errors = address_mut(results);
        self
    }

    /// Sets the payload: pieces that are sent one after the other.
    #[inline]
    #[must_use]
    pub fn payload(mut self, pieces: &'a [IoSlice<'a>]) -> Self {
        // An `IoSlice` is laid out as an iovec.
        self.command.ptr_vecs = address(pieces);
        self.command.n_vecs = pieces.len() as u64;
        self
    }

    /// Sets the payload to pieces at any address.
    ///
    /// # Safety
    ///
    /// Each piece is readable until the command returns; or it is given only to a peer that checks
    /// every address itself.
    #[inline]
    #[must_use]
    pub unsafe fn raw_payload(mut self, pieces: &'a [RawVec]) -> Self {
        self.command.ptr_vecs = address(pieces);
        self.command.n_vecs = pieces.len() as u64;
        self
    }

    /// Sets the handles that travel with the message: IDs of the sending peer.
    #[inline]
    #[must_use]
    pub fn handles(mut self, ids: &'a [u64]) -> Self {
        self.command.ptr_handles = address(ids);
        self.command.n_handles = ids.len() as u64;
        self
    }

    /// Sets the descriptors that travel with the message.
    #[inline]
    #[must_use]
    pub fn fds(mut self, fds: &'a [BorrowedFd<'a>]) -> Self {
        // A `BorrowedFd` is laid out as its number.
        self.command.ptr_fds = address(fds);
        self.command.n_fds = fds.len() as u64;
        self
    }

    /// Sets the descriptors that travel with the message, by any numbers.
    ///
    /// # Safety
    ///
    /// A number that is open may be duplicated and passed on: no owner of it relies on the
    /// contrary.
    #[inline]
    #[must_use]
    pub unsafe fn raw_fds(mut self, numbers: &'a [RawFd]) -> Self {
        self.command.ptr_fds = address(numbers);
        self.command.n_fds = numbers.len() as u64;
        self
    }

    /// Returns the structure, to be looked at or copied. A copy is not tied to what it points to.
    #[inline]
    #[must_use]
    pub fn command(&self) -> &CmdSend {
        &self.command
    }

    /// Returns the structure, for the command itself.
    #[inline]
    pub(crate) fn command_mut(&mut self) -> &mut CmdSend {
        &mut self.command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn every_part_has_its_own_fields() {
        let file = File::open("/dev/null").unwrap();
        let payload = [IoSlice::new(b"one"), IoSlice::new(b"two!")];
        let (to, handles, fds) = ([3, 7], [11, 13, 17], [file.as_fd()]);
        let mut results = [0; 2];
        let room = results.as_mut_ptr().expose_provenance() as u64;
        let args = SendArgs::new()
            .flags(5)
            .destinations(&to)
            .results(&mut results)
            .payload(&payload)
            .handles(&handles)
            .fds(&fds);
        let wanted = CmdSend {
            flags: 5,
            ptr_destinations: to.as_ptr().addr() as u64,
            ptr_errors: room,
            n_destinations: 2,
            ptr_vecs: payload.as_ptr().addr() as u64,
            n_vecs: 2,
            ptr_handles: handles.as_ptr().addr() as u64,
            n_handles: 3,
            ptr_fds: fds.as_ptr().addr() as u64,
            n_fds: 1,
        };
        assert_eq!(*args.command(), wanted);
    }

    #[test]
    fn pieces_and_descriptors_are_laid_out_as_in_c() {
        let bytes = b"piece";
        let pieces = [IoSlice::new(bytes)];
        // SAFETY: an iovec is two words, and the array has one.
        let vec = unsafe { pieces.as_ptr().cast::<[usize; 2]>().read() };
        assert_eq!(vec, [bytes.as_ptr().addr(), bytes.len()]);
        let file = File::open("/dev/null").unwrap();
        let fds = [file.as_fd()];
        // SAFETY: a descriptor is a number, and the array has one.
        let number = unsafe { fds.as_ptr().cast::<RawFd>().read() };
        assert_eq!(number, file.as_raw_fd());
    }

    #[test]
    fn an_empty_array_has_no_address() {
        let args = SendArgs::new()
            .destinations(&[])
            .results(&mut [])
            .payload(&[])
            .handles(&[])
            .fds(&[]);
        assert_eq!(*args.command(), CmdSend::default());
    }

    #[test]
    #[should_panic(expected = "one result for each destination")]
    fn results_are_as_many_as_destinations() {
        let _ = SendArgs::new().destinations(&[3, 7]).results(&mut [0]);
    }
}
