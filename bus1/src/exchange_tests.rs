// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the bus may leave of an exchange, by a host that does as it is told: signals come when they
//! like on the real one.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus1_uapi::{
    CmdExchange, Msg, CMD_EXCHANGE, DEADLINE_NEVER, DEADLINE_NOW, EXCHANGE_FLAG_INSTALL_FDS,
    EXCHANGE_FLAG_SEND, MSG_NODE_RELEASE,
};
use rustix::io::Errno as Raw;

use super::deadline;
use crate::connection::{Connection, Parts};
use crate::errno::Errno;
use crate::error::Error;
use crate::host::Host;
use crate::transport::Transport;

type Step = Box<dyn FnOnce(&mut CmdExchange) -> Result<(), Raw> + Send>;

/// A host that knows one command, and what to say to it.
struct Scripted(Arc<Mutex<VecDeque<Step>>>);

// SAFETY: it receives no slices.
unsafe impl Transport for Scripted {
    fn host(&self) -> Host {
        Host::Kernel
    }

    unsafe fn ioctl(&self, cmd: u32, arg: u64) -> Result<(), Errno> {
        assert_eq!(cmd, CMD_EXCHANGE);
        let step = self
            .0
            .lock()
            .unwrap()
            .pop_front()
            .expect("one call too many");
        let arg = std::ptr::with_exposed_provenance_mut::<CmdExchange>(arg as usize);
        // SAFETY: it is what the command takes.
        step(unsafe { &mut *arg }).map_err(Errno::from)
    }

    fn pool(&self) -> Result<(*const u8, u64), Errno> {
        Ok((std::ptr::null(), 4096))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        Err(Raw::BADF.into())
    }
}

/// Runs an exchange of two slices, one message to 7, and room for two; all steps have to be used.
fn run(steps: impl IntoIterator<Item = Step>) -> (Result<Vec<Msg>, Error>, bool, usize) {
    let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
    let connection = Connection::new(Box::new(Scripted(steps.clone())), 4);
    let parts = Parts {
        vecs: &[],
        handles: &[],
        fds: &[],
    };
    let mut msgs = [Msg::default(); 2];
    // SAFETY: there are no slices.
    let exchanged =
        unsafe { connection.exchange(&[0x10, 0x20], Some((7, &parts)), &mut msgs, DEADLINE_NEVER) };
    assert!(steps.lock().unwrap().is_empty(), "some calls were not made");
    let received = exchanged.received.map(|n| msgs[..n].to_vec());
    (received, exchanged.sent, exchanged.kept)
}

fn step(step: impl FnOnce(&mut CmdExchange) -> Result<(), Raw> + Send + 'static) -> Step {
    Box::new(step)
}

/// What is left when so many slices are done.
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
    let msg = Msg {
        kind: MSG_NODE_RELEASE,
        destination: 4,
        ..Default::default()
    };
    let room = std::ptr::with_exposed_provenance_mut::<Msg>(arg.ptr_msgs as usize);
    // SAFETY: there is room for as many as it says, which is not 0.
    unsafe { room.write(msg) };
    arg.n_msgs = 1;
}

const ALL: u64 = EXCHANGE_FLAG_SEND | EXCHANGE_FLAG_INSTALL_FDS;

#[test]
fn the_whole_is_asked_at_once() {
    let (received, sent, kept) = run([step(|arg| {
        assert_eq!((arg.size, arg.flags), (144, ALL));
        assert_eq!(offsets(arg), [0x10, 0x20]);
        assert_eq!((arg.n_msgs, arg.max_offset), (2, 4096));
        assert_eq!(arg.deadline, DEADLINE_NEVER);
        assert_eq!(arg.send.n_destinations, 1);
        receive_one(arg);
        Ok(())
    })]);
    assert_eq!(received.unwrap()[0].kind, MSG_NODE_RELEASE);
    assert_eq!((sent, kept), (true, 0));
}

#[test]
fn after_a_signal_only_what_is_left_is_asked() {
    let (received, sent, kept) = run([
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
    assert_eq!(received.unwrap().len(), 1);
    assert_eq!((sent, kept), (true, 0));
}

#[test]
fn a_slice_that_is_gone_is_passed_over() {
    let (received, sent, kept) = run([
        step(|_| Err(Raw::NXIO)),
        step(|arg| {
            assert_eq!(offsets(arg), [0x20]);
            receive_one(arg);
            Ok(())
        }),
    ]);
    assert_eq!((received.unwrap().len(), sent, kept), (1, true, 0));
    // But a handle that is not there is an error, and so it was not sent.
    let (received, sent, kept) = run([step(|arg| {
        after_slices(arg, 2);
        Err(Raw::NXIO)
    })]);
    assert_eq!(received, Err(Error::UnknownHandle));
    assert_eq!((sent, kept), (false, 0));
}

#[test]
fn nothing_in_time_is_no_error() {
    for errno in [Raw::AGAIN, Raw::TIMEDOUT] {
        let (received, sent, kept) = run([step(move |arg| {
            after_slices(arg, 2);
            arg.flags &= !EXCHANGE_FLAG_SEND;
            Err(errno)
        })]);
        assert_eq!((received, sent, kept), (Ok(vec![]), true, 0));
    }
}

#[test]
fn a_failure_says_how_far_it_came() {
    let (received, sent, kept) = run([step(|arg| {
        after_slices(arg, 1);
        Err(Raw::SHUTDOWN)
    })]);
    assert_eq!((received, sent, kept), (Err(Error::Disconnected), false, 1));
    let (received, sent, kept) = run([step(|arg| {
        after_slices(arg, 2);
        Err(Raw::DQUOT)
    })]);
    assert_eq!((received, sent, kept), (Err(Error::Quota), false, 0));
    let (received, sent, kept) = run([step(|arg| {
        after_slices(arg, 2);
        arg.flags &= !EXCHANGE_FLAG_SEND;
        Err(Raw::MFILE)
    })]);
    assert_eq!(received, Err(Error::TooManyDescriptors));
    assert_eq!((sent, kept), (true, 0));
}

#[test]
fn deadlines_lie_ahead() {
    assert_eq!(deadline(Duration::ZERO), DEADLINE_NOW);
    assert_eq!(deadline(Duration::MAX), DEADLINE_NEVER);
    let near = deadline(Duration::from_secs(1));
    let far = deadline(Duration::from_secs(3600));
    assert!(far - near >= 3_599_000_000_000, "{near} {far}");
    assert!(deadline(Duration::from_nanos(1)) > 1);
}
