// SPDX-License-Identifier: MIT OR Apache-2.0

//! Exchanges that the bus leaves half done, on a host that does as a test says: signals come at any
//! time on the real one.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use bus1_ioctl::{Execute, SendArgs};
use bus1_uapi::{
    CmdExchange, Msg, CMD_EXCHANGE, DEADLINE_NEVER, EXCHANGE_FLAG_INSTALL_FDS, EXCHANGE_FLAG_SEND,
    MSG_NODE_RELEASE,
};
use rustix::io::Errno as Raw;

use super::Connection;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::transport::{PoolView, Transport};

type Step = Box<dyn FnOnce(&mut CmdExchange) -> Result<(), Raw> + Send>;

/// A host that knows one command, and what to answer to it.
struct Scripted(Arc<Mutex<VecDeque<Step>>>);

impl Execute for Scripted {
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> Result<(), Raw> {
        assert_eq!(cmd, CMD_EXCHANGE);
        let step = self
            .0
            .lock()
            .unwrap()
            .pop_front()
            .expect("one call too many");
        let arg = std::ptr::with_exposed_provenance_mut::<CmdExchange>(arg);
        // SAFETY: the argument is the structure that the command takes.
        step(unsafe { &mut *arg })
    }
}

// SAFETY: it receives no slices.
unsafe impl Transport for Scripted {
    fn host(&self) -> Host {
        Host::Kernel
    }

    fn pool(&self) -> Result<PoolView> {
        Ok(PoolView {
            start: std::ptr::null(),
            len: 4096,
        })
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        Err(Error::BadDescriptor)
    }
}

/// The outcome of an exchange of a test.
#[derive(Debug, PartialEq)]
struct Went {
    received: Result<Vec<Msg>>,
    sent: bool,
    kept: usize,
}

/// Runs an exchange of two slices, one message to 7, and room for two; all steps have to be used.
fn run(steps: impl IntoIterator<Item = Step>) -> Went {
    let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
    let connection = Connection::new(Box::new(Scripted(steps.clone())), 4);
    let message = SendArgs::new().destinations(&[7]);
    let mut room = [Msg::default(); 2];
    // SAFETY: there are no slices.
    let exchanged =
        unsafe { connection.exchange(&[0x10, 0x20], Some(message), &mut room, Deadline::NEVER) };
    assert!(steps.lock().unwrap().is_empty(), "some calls were not made");
    Went {
        received: exchanged
            .received
            .map(|received| room[..received.n].to_vec()),
        sent: exchanged.sent,
        kept: exchanged.kept,
    }
}

fn step(step: impl FnOnce(&mut CmdExchange) -> Result<(), Raw> + Send + 'static) -> Step {
    Box::new(step)
}

/// Takes so many slices off the argument, as the bus does when they are given back.
fn after_slices(arg: &mut CmdExchange, n: u64) {
    arg.ptr_slices += 8 * n;
    arg.n_slices -= n;
}

fn offsets(arg: &CmdExchange) -> Vec<u64> {
    let offsets = std::ptr::with_exposed_provenance::<u64>(arg.ptr_slices as usize);
    (0..arg.n_slices as usize)
        // SAFETY: the command takes as many numbers there.
        .map(|i| unsafe { offsets.add(i).read() })
        .collect()
}

fn receive_one(arg: &mut CmdExchange) {
    let room = std::ptr::with_exposed_provenance_mut::<Msg>(arg.ptr_msgs as usize);
    // SAFETY: there is room for as many as it says, which is not 0.
    unsafe { room.write(RECEIVED) };
    arg.n_msgs = 1;
}

const ALL: u64 = EXCHANGE_FLAG_SEND | EXCHANGE_FLAG_INSTALL_FDS;

/// The message that [`receive_one`] brings.
const RECEIVED: Msg = Msg {
    kind: MSG_NODE_RELEASE,
    flags: 0,
    destination: 4,
    offset: 0,
    n_bytes: 0,
    n_handles: 0,
    n_fds: 0,
};

/// Returns an exchange that did everything and received one message.
fn all_done() -> Went {
    Went {
        received: Ok(vec![RECEIVED]),
        sent: true,
        kept: 0,
    }
}

#[test]
fn the_whole_is_asked_at_once() {
    let went = run([step(|arg| {
        assert_eq!((arg.size, arg.flags), (144, ALL));
        assert_eq!(offsets(arg), [0x10, 0x20]);
        assert_eq!((arg.n_msgs, arg.max_offset), (2, 4096));
        assert_eq!(arg.deadline, DEADLINE_NEVER);
        assert_eq!(arg.send.n_destinations, 1);
        receive_one(arg);
        Ok(())
    })]);
    assert_eq!(went, all_done());
}

#[test]
fn after_a_signal_only_what_is_left_is_asked() {
    let went = run([
        step(|arg| {
            after_slices(arg, 1);
            Err(Raw::INTR)
        }),
        step(|arg| {
            assert_eq!((arg.flags, offsets(arg)), (ALL, vec![0x20]));
            after_slices(arg, 1);
            arg.flags &= !EXCHANGE_FLAG_SEND;
            Err(Raw::INTR)
        }),
        step(|_| Err(Raw::INTR)),
        step(|arg| {
            assert_eq!((arg.flags, arg.n_slices), (EXCHANGE_FLAG_INSTALL_FDS, 0));
            assert_eq!((arg.n_msgs, arg.deadline), (2, DEADLINE_NEVER));
            receive_one(arg);
            Ok(())
        }),
    ]);
    assert_eq!(went, all_done());
}

#[test]
fn a_slice_that_is_gone_is_passed_over() {
    let went = run([
        step(|_| Err(Raw::NXIO)),
        step(|arg| {
            assert_eq!(offsets(arg), [0x20]);
            receive_one(arg);
            Ok(())
        }),
    ]);
    assert_eq!(went, all_done());
    // A handle that is not there is an error, and so the message was not sent.
    let went = run([step(|arg| {
        after_slices(arg, 2);
        Err(Raw::NXIO)
    })]);
    assert_eq!(went.received, Err(Error::UnknownHandle));
    assert_eq!((went.sent, went.kept), (false, 0));
}

#[test]
fn nothing_in_time_is_no_error() {
    for errno in [Raw::AGAIN, Raw::TIMEDOUT] {
        let went = run([step(move |arg| {
            after_slices(arg, 2);
            arg.flags &= !EXCHANGE_FLAG_SEND;
            Err(errno)
        })]);
        assert_eq!(went.received, Ok(vec![]));
        assert_eq!((went.sent, went.kept), (true, 0));
    }
}

#[test]
fn the_errno_of_nothing_is_a_failure_of_the_steps_before() {
    for errno in [Raw::AGAIN, Raw::TIMEDOUT] {
        // Of the release of the second slice.
        let went = run([step(move |arg| {
            after_slices(arg, 1);
            Err(errno)
        })]);
        assert!(matches!(went.received, Err(Error::Os { .. })), "{went:?}");
        assert_eq!((went.sent, went.kept), (false, 1));
        // Of SEND.
        let went = run([step(move |arg| {
            after_slices(arg, 2);
            Err(errno)
        })]);
        assert!(matches!(went.received, Err(Error::Os { .. })), "{went:?}");
        assert_eq!((went.sent, went.kept), (false, 0));
    }
}

#[test]
fn a_failure_says_how_far_it_came() {
    let went = run([step(|arg| {
        after_slices(arg, 1);
        Err(Raw::SHUTDOWN)
    })]);
    assert_eq!(went.received, Err(Error::Disconnected));
    assert_eq!((went.sent, went.kept), (false, 1));
    let went = run([step(|arg| {
        after_slices(arg, 2);
        Err(Raw::DQUOT)
    })]);
    assert_eq!(went.received, Err(Error::Quota));
    assert_eq!((went.sent, went.kept), (false, 0));
    let went = run([step(|arg| {
        after_slices(arg, 2);
        arg.flags &= !EXCHANGE_FLAG_SEND;
        Err(Raw::MFILE)
    })]);
    assert_eq!(went.received, Err(Error::TooManyDescriptors));
    assert_eq!((went.sent, went.kept), (true, 0));
}
