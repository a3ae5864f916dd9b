// SPDX-License-Identifier: MIT OR Apache-2.0

//! Callers that are stuck in a page fault, for as long as these cases like, disturb nobody.

use bus1_uapi as abi;

use super::quota::{claim_all, Resource};
use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::process::{fork, End};
use crate::sys::userfault::StallingPage;

pub const CASES: &[Case] = &[
    case!(receiver_goes_on, "6: a sender stalled in a page fault delays nobody").kernel(),
    case!(receiver_may_be_reset, "6: not the receiver's RESET").kernel(),
    case!(receiver_may_disconnect, "6: not the receiver's DISCONNECT").kernel(),
    case!(receiver_may_be_closed, "6: not the receiver's close").kernel(),
    case!(node_may_be_destroyed, "3.5: no transaction is ever staged across a page fault").kernel(),
    case!(other_receivers_go_on, "3.5: no transaction is ever staged across a page fault").kernel(),
    case!(the_senders_own_peer_goes_on, "6: delays nobody").kernel(),
    case!(stalled_in_any_array, "6: a sender stalled in a page fault delays nobody").kernel(),
    case!(stalled_in_the_errors, "3.5: nothing that can sleep on user space").kernel(),
    case!(stalled_in_other_commands, "3.5: nothing that can sleep on user space").kernel(),
    case!(receiver_stalled_on_the_way_out, "3.5: nothing that can sleep on user space").kernel(),
    case!(stalled_receiver_may_disconnect, "5 PEER_DISCONNECT: never waits for another").kernel(),
    case!(transfer_stalled_on_the_way_out, "3.5: nothing that can sleep on user space").kernel(),
    case!(sender_is_killed_there, "6: or killed there, delays nobody").kernel().alone(),
    case!(killed_sender_gives_charges_back, "7: charges are conserved exactly").kernel().alone(),
];

/// Lets the stalled one go, also when the case fails.
struct Resume<'a>(&'a StallingPage);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// Runs `act` while another thread is stalled in `call`, and gives what that returns afterwards.
fn during<T: Send>(page: &StallingPage, call: impl FnOnce() -> T + Send, act: impl FnOnce()) -> T {
    std::thread::scope(|scope| {
        let call = scope.spawn(call);
        page.wait_for_fault();
        let resume = Resume(page);
        act();
        drop(resume);
        call.join().expect("the stalled call panicked")
    })
}

struct Scene {
    receiver: Peer,
    sender: Peer,
    node: u64,
    to: u64,
    page: StallingPage,
}

fn scene(env: &Env) -> Scene {
    let [receiver, sender] = env.peers();
    let (node, to) = receiver.node_for(&sender);
    Scene { receiver, sender, node, to, page: StallingPage::new(b"stalled payload.") }
}

impl Scene {
    /// Sends 16 bytes from the stalling page, and does `act` meanwhile.
    fn send_during(&self, act: impl FnOnce()) -> crate::host::Result {
        let (sender, to, addr) = (&self.sender, self.to, self.page.addr(0));
        during(&self.page, || sender.message().to(&[to]).vector(addr, 16).send(), act)
    }
}

fn receiver_goes_on(env: &Env) {
    let scene = scene(env);
    let other = env.peer();
    let to = other.handle_of(&scene.receiver);
    let sent = scene.send_during(|| {
        scene.receiver.nothing();
        for i in 0..100_u8 {
            other.message().to(&[to]).bytes(&[i]).send().unwrap();
            let offset = scene.receiver.text(&[i]).msg.offset;
            scene.receiver.release_slice(offset).unwrap();
            scene.receiver.nothing();
            assert!(!scene.receiver.events().readable);
        }
    });
    assert_eq!(sent, Ok(()));
    scene.receiver.text(b"stalled payload.");
}

fn receiver_may_be_reset(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        scene.sender.node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
    scene.receiver.nothing();
    scene.receiver.limit([512, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    let to = scene.sender.handle_of(&scene.receiver);
    assert_eq!(claim_all(Resource::Slices, &scene.sender, to), 256, "nothing is charged");
}

fn receiver_may_disconnect(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.disconnect().unwrap();
        assert!(scene.receiver.events().hangup);
        scene.sender.node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
}

fn receiver_may_be_closed(env: &Env) {
    let Scene { receiver, sender, to, page, .. } = scene(env);
    let call = || sender.message().to(&[to]).vector(page.addr(0), 16).send();
    let sent = during(&page, call, || {
        receiver.close();
        sender.node_destroy(to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
}

fn node_may_be_destroyed(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.destroy(&[scene.node]).unwrap();
        scene.receiver.node_destroy(scene.node);
        scene.sender.node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
    scene.receiver.nothing();
}

fn other_receivers_go_on(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 3] = env.peers();
    let to = receivers.each_ref().map(|receiver| sender.handle_of(receiver));
    let other = env.peer();
    let other_to = receivers.each_ref().map(|receiver| other.handle_of(receiver));
    let page = StallingPage::new(b"stalled payload.");
    let call = || sender.message().to(&to).vector(page.addr(0), 16).send();
    let sent = during(&page, call, || {
        for _ in 0..20 {
            other.message().to(&other_to).bytes(b"overtakes").send().unwrap();
            for receiver in &receivers {
                receiver.text(b"overtakes");
                receiver.nothing();
            }
        }
    });
    assert_eq!(sent, Ok(()));
    for receiver in &receivers {
        receiver.text(b"stalled payload.");
    }
}

fn the_senders_own_peer_goes_on(env: &Env) {
    // Another thread on the same descriptor.
    let scene = scene(env);
    let (own, to_sender) = scene.sender.node_for(&scene.receiver);
    let sent = scene.send_during(|| {
        scene.sender.message().to(&[scene.to]).bytes(b"overtakes").send().unwrap();
        scene.receiver.text(b"overtakes");
        scene.receiver.message().to(&[to_sender]).bytes(b"answer").send().unwrap();
        assert_eq!(scene.sender.text(b"answer").msg.destination, own);
        scene.sender.query().unwrap();
        scene.sender.destroy_and_release(&[own]).unwrap();
        scene.receiver.node_destroy(to_sender);
    });
    assert_eq!(sent, Ok(()));
    scene.receiver.text(b"stalled payload.");
}

fn stalled_in_any_array(env: &Env) {
    for array in 0..5 {
        let [receiver, sender, other] = env.peers();
        let (_, to) = receiver.node_for(&sender);
        let other_to = other.handle_of(&receiver);
        let null = std::fs::File::open("/dev/null").unwrap();
        let payload = *b"payload.";
        let base = payload.as_ptr().expose_provenance() as u64;
        let content = match array {
            0 => to.to_ne_bytes().to_vec(),
            1 => [base.to_ne_bytes(), 8_u64.to_ne_bytes()].concat(),
            2 => sender.new_node().to_ne_bytes().to_vec(),
            3 => std::os::fd::AsRawFd::as_raw_fd(&null).to_ne_bytes().to_vec(),
            _ => Vec::new(),
        };
        let page = StallingPage::new(&content);
        let addr = page.addr(0);
        let call = || {
            let message = sender.message().to(&[to]).bytes(&payload).edit(|arg| match array {
                0 => arg.ptr_destinations = addr,
                1 => arg.ptr_vecs = addr,
                2 => (arg.ptr_handles, arg.n_handles) = (addr, 1),
                3 => (arg.ptr_fds, arg.n_fds) = (addr, 1),
                _ => (),
            });
            if array == 4 {
                // The argument itself: a SEND of nothing to nobody.
                return sender.ioctl(abi::CMD_SEND, addr);
            }
            message.send()
        };
        let sent = during(&page, call, || {
            other.message().to(&[other_to]).bytes(b"overtakes").send().unwrap();
            receiver.text(b"overtakes");
            receiver.nothing();
        });
        assert_eq!(sent, Ok(()), "array {array}");
        if array < 4 {
            receiver.text(b"payload.");
        }
        receiver.nothing();
    }
}

fn stalled_in_the_errors(env: &Env) {
    let [receiver, sender, other] = env.peers();
    let (node, to) = receiver.node_for(&sender);
    let other_to = other.handle_of(&receiver);
    let page = StallingPage::on_write(&[0xff; 4]);
    let addr = page.addr(0);
    let send = || {
        let message = sender.message().to(&[to]).bytes(b"slow").proceed();
        message.edit(|arg| arg.ptr_errors = addr).send()
    };
    let sent = during(&page, send, || {
        other.message().to(&[other_to]).bytes(b"overtakes").send().unwrap();
        receiver.text(b"overtakes");
        receiver.nothing();
        receiver.destroy(&[node]).unwrap();
        receiver.node_destroy(node);
    });
    // The node died before the message had its place in the order.
    assert_eq!(sent, Ok(()));
    assert_eq!(page.peek(0, 4), libc::EHOSTUNREACH.to_ne_bytes());
    receiver.nothing();
}

fn stalled_in_other_commands(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    let check = || {
        b.message().to(&[to]).bytes(b"goes on").send().unwrap();
        a.text(b"goes on");
        a.nothing();
    };
    let page = StallingPage::new(&0x5000_u64.to_ne_bytes());
    let mut destroy = abi::CmdNodesDestroy { flags: 0, ptr_nodes: page.addr(0), n_nodes: 1 };
    let destroyed = during(&page, || a.command(abi::CMD_NODES_DESTROY, &mut destroy), check);
    assert_eq!(destroyed, Ok(()));
    a.node_destroy(0x5000);

    let page = StallingPage::new(&to.to_ne_bytes());
    let released = during(&page, || b.ioctl(abi::CMD_HANDLE_RELEASE, page.addr(0)), check);
    assert_eq!(released, Ok(()));
    a.node_release(node);

    let page = StallingPage::on_write(&[0; 32]);
    let asked = during(&page, || a.ioctl(abi::CMD_PEER_QUERY, page.addr(0)), || {
        a.limit([7, u32::MAX, u32::MAX, u32::MAX]).unwrap();
        a.nothing();
    });
    assert_eq!(asked, Ok(()));
}

fn receiver_stalled_on_the_way_out(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"first").send().unwrap();
    let arg = abi::CmdRecv { max_offset: a.mapped(), ..Default::default() };
    let page = StallingPage::on_write(&arg.to_bytes());
    let received = during(&page, || a.ioctl(abi::CMD_RECV, page.addr(0)), || {
        b.message().to(&[to]).bytes(b"second").send().unwrap();
        // Another thread of the receiver takes what the stalled one was about to.
        a.text(b"first");
        b.message().to(&[to]).bytes(b"third").send().unwrap();
    });
    assert_eq!(received, Ok(()));
    let arg = abi::CmdRecv::from_bytes(&page.peek(0, abi::CmdRecv::SIZE).try_into().unwrap());
    assert_eq!(a.read_pool(arg.msg.offset, arg.msg.n_bytes), b"second");
    a.text(b"third");
    a.nothing();
}

fn stalled_receiver_may_disconnect(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"never taken").send().unwrap();
    let arg = abi::CmdRecv { max_offset: a.mapped(), ..Default::default() };
    let page = StallingPage::on_write(&arg.to_bytes());
    let received = during(&page, || a.ioctl(abi::CMD_RECV, page.addr(0)), || {
        a.disconnect().unwrap();
        b.node_destroy(to);
    });
    assert_eq!(received, Err(E::SHUTDOWN));
}

fn transfer_stalled_on_the_way_out(env: &Env) {
    let [a, b] = env.peers();
    let node = a.new_node();
    let arg = abi::CmdHandleTransfer {
        flags: 0,
        src_handle: node,
        dst_fd: b.fd() as u64,
        dst_handle: abi::HANDLE_INVALID,
    };
    let page = StallingPage::on_write(&arg.to_bytes());
    let given = during(&page, || a.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)), || {
        a.query().unwrap();
        b.nothing();
        b.disconnect().unwrap();
    });
    // Whichever came first in the end, both were free to go on.
    assert!(given == Ok(()) || given == Err(E::SHUTDOWN), "{given:?}");
}

/// Forks a process that sends from a stalling page of its own, and kills it there.
fn kill_in_send(sender: &Peer, to: u64) {
    let (mut out, into) = std::io::pipe().unwrap();
    let child = fork(|| {
        let page = StallingPage::new(b"never");
        std::thread::scope(|scope| {
            scope.spawn(|| sender.message().to(&[to]).vector(page.addr(0), 8).send());
            page.wait_for_fault();
            std::io::Write::write_all(&mut &into, b"!").unwrap();
            loop {
                std::thread::park();
            }
        })
    });
    std::io::Read::read_exact(&mut out, &mut [0; 1]).unwrap();
    child.kill();
    assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
}

fn sender_is_killed_there(env: &Env) {
    let [receiver, sender, other] = env.peers();
    let (_, to) = receiver.node_for(&sender);
    let other_to = other.handle_of(&receiver);
    for _ in 0..3 {
        kill_in_send(&sender, to);
        receiver.nothing();
        other.message().to(&[other_to]).bytes(b"goes on").send().unwrap();
        receiver.text(b"goes on");
    }
    sender.message().to(&[to]).bytes(b"same peer, another process").send().unwrap();
    receiver.text(b"same peer, another process");
    receiver.close();
    sender.node_destroy(to);
}

fn killed_sender_gives_charges_back(env: &Env) {
    let [receiver, sender] = env.peers();
    receiver.limit([8, u32::MAX, 16, u32::MAX]).unwrap();
    let to = sender.handle_of(&receiver);
    for _ in 0..5 {
        kill_in_send(&sender, to);
    }
    assert_eq!(claim_all(Resource::Slices, &sender, to), 4);
    receiver.drain();
    assert_eq!(claim_all(Resource::Bytes, &sender, to), 8);
}
