// SPDX-License-Identifier: MIT OR Apache-2.0

//! Callers that are stuck in a page fault, for as long as these cases like, disturb no other task.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use super::quota::{claim_all, Resource};
use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::process::{fork, End};
use crate::sys::userfault::StallingPage;

/// Lets the stalled one go, also when the case fails.
struct Resume<'a>(&'a StallingPage);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// Runs `act` while another thread is stalled in `call`, and returns the result of `call`.
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
    Scene {
        receiver,
        sender,
        node,
        to,
        page: StallingPage::new(b"stalled payload."),
    }
}

impl Scene {
    /// Sends 16 bytes from the stalling page, and does `act` meanwhile.
    fn send_during(&self, act: impl FnOnce()) -> crate::host::Result {
        let (sender, to, addr) = (&self.sender, self.to, self.page.addr(0));
        during(
            &self.page,
            || sender.message().to(&[to]).vector(addr, 16).send(),
            act,
        )
    }
}

#[case("abi.md#no-blocking", kernel)]
fn receiver_goes_on(env: &Env) {
    let scene = scene(env);
    let other = env.peer();
    let to = other.handle_of(&scene.receiver);
    let sent = scene.send_during(|| {
        scene.receiver.expect_nothing();
        for i in 0..100_u8 {
            other.message().to(&[to]).bytes(&[i]).send().unwrap();
            let offset = scene.receiver.expect_text(&[i]).msg.offset;
            scene.receiver.release_slice(offset).unwrap();
            scene.receiver.expect_nothing();
            assert!(!scene.receiver.events().readable);
        }
    });
    assert_eq!(sent, Ok(()));
    scene.receiver.expect_text(b"stalled payload.");
}

#[case("abi.md#no-blocking", kernel)]
fn receiver_may_be_reset(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        scene.sender.expect_node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
    scene.receiver.expect_nothing();
    scene
        .receiver
        .limit(Limits {
            slices: 512,
            ..Limits::KEEP
        })
        .unwrap();
    let to = scene.sender.handle_of(&scene.receiver);
    assert_eq!(
        claim_all(Resource::Slices, &scene.sender, to),
        256,
        "nothing is charged"
    );
}

#[case("abi.md#no-blocking", kernel)]
fn receiver_may_disconnect(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.disconnect().unwrap();
        assert!(scene.receiver.events().hangup);
        scene.sender.expect_node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
}

#[case("abi.md#no-blocking", kernel)]
fn receiver_may_be_closed(env: &Env) {
    let Scene {
        receiver,
        sender,
        to,
        page,
        ..
    } = scene(env);
    let call = || sender.message().to(&[to]).vector(page.addr(0), 16).send();
    let sent = during(&page, call, || {
        receiver.close();
        sender.expect_node_destroy(to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
}

#[case("ordering.md#delay", kernel)]
fn node_may_be_destroyed(env: &Env) {
    let scene = scene(env);
    let sent = scene.send_during(|| {
        scene.receiver.destroy(&[scene.node]).unwrap();
        scene.receiver.expect_node_destroy(scene.node);
        scene.sender.expect_node_destroy(scene.to);
    });
    assert_eq!(sent, Err(E::HOSTUNREACH));
    scene.receiver.expect_nothing();
}

#[case("ordering.md#delay", kernel)]
fn other_receivers_go_on(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 3] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    let other = env.peer();
    let other_to = receivers
        .each_ref()
        .map(|receiver| other.handle_of(receiver));
    let page = StallingPage::new(b"stalled payload.");
    let call = || sender.message().to(&to).vector(page.addr(0), 16).send();
    let sent = during(&page, call, || {
        for _ in 0..20 {
            other
                .message()
                .to(&other_to)
                .bytes(b"overtakes")
                .send()
                .unwrap();
            for receiver in &receivers {
                receiver.expect_text(b"overtakes");
                receiver.expect_nothing();
            }
        }
    });
    assert_eq!(sent, Ok(()));
    for receiver in &receivers {
        receiver.expect_text(b"stalled payload.");
    }
}

#[case("abi.md#no-blocking", "abi.md#concurrent-callers", kernel)]
fn the_senders_own_peer_goes_on(env: &Env) {
    // Another thread on the same descriptor.
    let scene = scene(env);
    let (own, to_sender) = scene.sender.node_for(&scene.receiver);
    let sent = scene.send_during(|| {
        scene
            .sender
            .message()
            .to(&[scene.to])
            .bytes(b"overtakes")
            .send()
            .unwrap();
        scene.receiver.expect_text(b"overtakes");
        scene
            .receiver
            .message()
            .to(&[to_sender])
            .bytes(b"answer")
            .send()
            .unwrap();
        assert_eq!(scene.sender.expect_text(b"answer").msg.destination, own);
        scene.sender.query().unwrap();
        scene.sender.destroy_and_release(&[own]).unwrap();
        scene.receiver.expect_node_destroy(to_sender);
    });
    assert_eq!(sent, Ok(()));
    scene.receiver.expect_text(b"stalled payload.");
}

#[case("abi.md#no-blocking", "ordering.md#delay", kernel)]
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
            3 => std::os::fd::AsRawFd::as_raw_fd(&null)
                .to_ne_bytes()
                .to_vec(),
            _ => Vec::new(),
        };
        let page = StallingPage::new(&content);
        let addr = page.addr(0);
        let call = || {
            let message = sender
                .message()
                .to(&[to])
                .bytes(&payload)
                .edit(|arg| match array {
                    0 => arg.ptr_destinations = addr,
                    1 => arg.ptr_vecs = addr,
                    2 => (arg.ptr_handles, arg.n_handles) = (addr, 1),
                    3 => (arg.ptr_fds, arg.n_fds) = (addr, 1),
                    _ => (),
                });
            if array == 4 {
                // The argument itself: an empty SEND without destinations.
                return sender.ioctl(abi::CMD_SEND, addr);
            }
            message.send()
        };
        let sent = during(&page, call, || {
            other
                .message()
                .to(&[other_to])
                .bytes(b"overtakes")
                .send()
                .unwrap();
            receiver.expect_text(b"overtakes");
            receiver.expect_nothing();
        });
        assert_eq!(sent, Ok(()), "array {array}");
        if array < 4 {
            receiver.expect_text(b"payload.");
        }
        receiver.expect_nothing();
    }
}

#[case("ordering.md#delay", kernel)]
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
        other
            .message()
            .to(&[other_to])
            .bytes(b"overtakes")
            .send()
            .unwrap();
        receiver.expect_text(b"overtakes");
        receiver.expect_nothing();
        receiver.destroy(&[node]).unwrap();
        receiver.expect_node_destroy(node);
    });
    // The node died before the message had its place in the order.
    assert_eq!(sent, Ok(()));
    assert_eq!(page.peek(0, 4), libc::EHOSTUNREACH.to_ne_bytes());
    receiver.expect_nothing();
}

#[case("ordering.md#delay", kernel)]
fn stalled_in_other_commands(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    let check = || {
        b.message().to(&[to]).bytes(b"goes on").send().unwrap();
        a.expect_text(b"goes on");
        a.expect_nothing();
    };
    let page = StallingPage::new(&0x5000_u64.to_ne_bytes());
    let mut destroy = abi::CmdNodesDestroy {
        flags: 0,
        ptr_nodes: page.addr(0),
        n_nodes: 1,
    };
    let destroyed = during(
        &page,
        || a.command(abi::CMD_NODES_DESTROY, &mut destroy),
        check,
    );
    assert_eq!(destroyed, Ok(()));
    a.expect_node_destroy(0x5000);

    let page = StallingPage::new(&to.to_ne_bytes());
    let released = during(
        &page,
        || b.ioctl(abi::CMD_HANDLE_RELEASE, page.addr(0)),
        check,
    );
    assert_eq!(released, Ok(()));
    a.expect_node_release(node);

    let page = StallingPage::on_write(&[0; 32]);
    let asked = during(
        &page,
        || a.ioctl(abi::CMD_PEER_QUERY, page.addr(0)),
        || {
            a.limit(Limits {
                slices: 7,
                ..Limits::KEEP
            })
            .unwrap();
            a.expect_nothing();
        },
    );
    assert_eq!(asked, Ok(()));
}

#[case("ordering.md#delay", kernel)]
fn receiver_stalled_on_the_way_out(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"first").send().unwrap();
    let arg = abi::CmdRecv {
        max_offset: a.mapped(),
        ..Default::default()
    };
    let page = StallingPage::on_write(&arg.to_bytes());
    let received = during(
        &page,
        || a.ioctl(abi::CMD_RECV, page.addr(0)),
        || {
            b.message().to(&[to]).bytes(b"second").send().unwrap();
            // Another thread of the receiver takes the message of the stalled one.
            a.expect_text(b"first");
            b.message().to(&[to]).bytes(b"third").send().unwrap();
        },
    );
    assert_eq!(received, Ok(()));
    let arg = abi::CmdRecv::from_bytes(&page.peek(0, abi::CmdRecv::SIZE).try_into().unwrap());
    assert_eq!(a.read_pool(arg.msg.offset, arg.msg.n_bytes), b"second");
    a.expect_text(b"third");
    a.expect_nothing();
}

#[case("abi.md#disconnect-keeps", "abi.md#every-eshutdown-late", kernel)]
fn stalled_receiver_may_disconnect(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"never taken").send().unwrap();
    let arg = abi::CmdRecv {
        max_offset: a.mapped(),
        ..Default::default()
    };
    let page = StallingPage::on_write(&arg.to_bytes());
    let received = during(
        &page,
        || a.ioctl(abi::CMD_RECV, page.addr(0)),
        || {
            a.disconnect().unwrap();
            b.expect_node_destroy(to);
        },
    );
    assert_eq!(received, Err(E::SHUTDOWN));
}

#[case("ordering.md#delay", kernel)]
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
    let given = during(
        &page,
        || a.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)),
        || {
            a.query().unwrap();
            b.expect_nothing();
            b.disconnect().unwrap();
        },
    );
    // Both were free to go on, and either may have come first.
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

#[case("abi.md#no-blocking", kernel, alone)]
fn sender_is_killed_there(env: &Env) {
    let [receiver, sender, other] = env.peers();
    let (_, to) = receiver.node_for(&sender);
    let other_to = other.handle_of(&receiver);
    for _ in 0..3 {
        kill_in_send(&sender, to);
        receiver.expect_nothing();
        other
            .message()
            .to(&[other_to])
            .bytes(b"goes on")
            .send()
            .unwrap();
        receiver.expect_text(b"goes on");
    }
    sender
        .message()
        .to(&[to])
        .bytes(b"same peer, another process")
        .send()
        .unwrap();
    receiver.expect_text(b"same peer, another process");
    receiver.close();
    sender.expect_node_destroy(to);
}

#[case("abi.md#charge-conserved", kernel, alone)]
fn killed_sender_gives_charges_back(env: &Env) {
    let [receiver, sender] = env.peers();
    receiver
        .limit(Limits {
            slices: 8,
            bytes: 16,
            ..Limits::KEEP
        })
        .unwrap();
    let to = sender.handle_of(&receiver);
    for _ in 0..5 {
        kill_in_send(&sender, to);
    }
    assert_eq!(claim_all(Resource::Slices, &sender, to), 4);
    receiver.expect_all();
    assert_eq!(claim_all(Resource::Bytes, &sender, to), 8);
}
