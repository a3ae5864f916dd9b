// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers of one process: opening and closing, messages, bad addresses, many at once.

mod common;

use bus1_embedded::abi::*;
use bus1_embedded::{Bus, Errno, Limits, Usage};
use common::{address, ioctl, pointer, vectors, Client};

#[test]
fn the_last_clone_disconnects() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    let clone = owner.peer.clone();
    assert_eq!(clone.info().id, owner.peer.info().id);
    drop(owner);
    sender.send(&[handle], &[b"still there"], &[], &[]).unwrap();
    drop(clone);
    let refused = sender.send(&[handle], &[b"gone"], &[], &[]);
    assert_eq!(refused, Err(Errno::HOSTUNREACH));
    drop(sender);
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn a_map_outlives_its_peer() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    sender.send(&[handle], &[b"kept"], &[], &[]).unwrap();
    let offset = owner.receive().unwrap().msg.offset;
    let Client { peer, map } = owner;
    drop((peer, sender, bus));
    let mut bytes = [0; 4];
    assert!(map.read(offset, &mut bytes));
    assert_eq!(&bytes, b"kept");
}

#[test]
fn a_disconnected_peer_hangs_up() {
    let bus = Bus::new().unwrap();
    let client = Client::new(&bus);
    let ready = client.peer.poll();
    assert!(!ready.hangup && !ready.readable);
    client.disconnect().unwrap();
    let ready = client.peer.wait(None);
    assert!(ready.hangup && !ready.readable);
    assert_eq!(client.disconnect(), Err(Errno::SHUTDOWN));
    assert_eq!(client.peer.pool().err(), Some(Errno::SHUTDOWN));
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    sender
        .send(
            &[handle],
            &[b"head ", b"", &large, b" tail"],
            &[handle, 16],
            &[],
        )
        .unwrap();

    assert!(owner.peer.wait(None).readable);
    let received = owner.receive().unwrap();
    assert_eq!(received.msg.kind, MSG_DATA);
    assert_eq!(received.msg.destination, 8);
    assert_eq!(received.bytes, [b"head ", &large[..], b" tail"].concat());
    assert_eq!(received.handles[0], 8);
    assert_ne!(received.handles[1] & HANDLE_FLAG_REMOTE, 0);
    assert_eq!(owner.receive(), Err(Errno::AGAIN));

    owner.release_slice(received.msg.offset).unwrap();
    assert_eq!(owner.release_slice(received.msg.offset), Err(Errno::NXIO));
}

#[test]
fn trusted_addresses_do_the_same() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = [owner.transfer(8, &sender.peer).unwrap()];
    let vecs = vectors(&[b"trust", b"", b"ed"]);
    let mut send = CmdSend {
        ptr_destinations: pointer(&handle),
        n_destinations: 1,
        ptr_vecs: pointer(&vecs),
        n_vecs: 3,
        ..Default::default()
    };
    // SAFETY: all that the argument points to is alive.
    unsafe { sender.peer.ioctl(CMD_SEND, address(&mut send)) }.unwrap();
    let mut recv = CmdRecv {
        max_offset: owner.map.len() as u64,
        ..Default::default()
    };
    // SAFETY: the argument points to nothing.
    unsafe { owner.peer.ioctl(CMD_RECV, address(&mut recv)) }.unwrap();
    let mut bytes = [0; 7];
    assert!(owner.map.read(recv.msg.offset, &mut bytes));
    assert_eq!((&bytes, recv.msg.n_bytes), (b"trusted", 7));
}

#[test]
fn a_null_argument_is_a_fault_of_every_command_with_and_without_a_descriptor() {
    let bus = Bus::new().unwrap();
    let client = Client::new(&bus);
    for with_descriptor in [false, true] {
        if with_descriptor {
            client.peer.descriptor().unwrap();
        }
        for cmd in [
            CMD_PEER_QUERY,
            CMD_PEER_RESET,
            CMD_HANDLE_RELEASE,
            CMD_HANDLE_TRANSFER,
            CMD_NODES_DESTROY,
            CMD_SLICE_RELEASE,
            CMD_SEND,
            CMD_RECV,
            CMD_EXCHANGE,
        ] {
            // SAFETY: null is an address that may always be given.
            let null = unsafe { client.peer.ioctl(cmd, 0) };
            assert_eq!(null, Err(Errno::FAULT), "{cmd:#x}, {with_descriptor}");
            // SAFETY: as above.
            let null = unsafe { client.peer.ioctl_checked(cmd, 0) };
            assert_eq!(null, Err(Errno::FAULT), "{cmd:#x}, {with_descriptor}");
        }
    }
}

/// Memory of which only the first of two pages may be accessed.
fn half_a_map() -> memmap2::MmapMut {
    let map = memmap2::MmapMut::map_anon(8192).unwrap();
    // SAFETY: the second page is referred to by nobody from here on.
    unsafe {
        let second = map.as_ptr().add(4096).cast_mut();
        rustix::mm::mprotect(second.cast(), 4096, rustix::mm::MprotectFlags::empty()).unwrap();
    }
    map
}

#[test]
fn bad_addresses_fault_and_leave_no_trace() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = [owner.transfer(8, &sender.peer).unwrap()];
    let before = (owner.peer.info(), sender.peer.info());
    let half = half_a_map();
    let edge = half.as_ptr().expose_provenance() + 4096;

    let vecs = vectors(&[b"whole"]);
    let good = CmdSend {
        ptr_destinations: pointer(&handle),
        n_destinations: 1,
        ptr_vecs: pointer(&vecs),
        n_vecs: 1,
        ..Default::default()
    };
    let send = |mut command: CmdSend| ioctl(&sender.peer, CMD_SEND, address(&mut command));
    for bad in [0, 8, edge - 8, edge, usize::MAX - 7] {
        assert_eq!(
            ioctl(&sender.peer, CMD_SEND, bad),
            Err(Errno::FAULT),
            "{bad:#x}"
        );
        assert_eq!(
            ioctl(&owner.peer, CMD_RECV, bad),
            Err(Errno::FAULT),
            "{bad:#x}"
        );
    }
    for bad in [8, edge as u64 - 4, u64::MAX - 7] {
        let fault = Err(Errno::FAULT);
        assert_eq!(
            send(CmdSend {
                ptr_destinations: bad,
                ..good
            }),
            fault,
            "{bad:#x}"
        );
        assert_eq!(
            send(CmdSend {
                ptr_vecs: bad,
                ..good
            }),
            fault,
            "{bad:#x}"
        );
        assert_eq!(
            send(CmdSend {
                ptr_handles: bad,
                n_handles: 1,
                ..good
            }),
            fault,
            "{bad:#x}"
        );
        let fds = send(CmdSend {
            ptr_fds: bad + 4,
            n_fds: 1,
            ..good
        });
        assert_eq!(fds, fault, "{bad:#x}");
    }
    // Payload that ends too early, starts too late, or is not there.
    for piece in [[edge - 100, 200], [edge, 1], [8, 1], [usize::MAX - 7, 1]] {
        let vecs = [[edge - 100, 100], piece];
        let fault = send(CmdSend {
            ptr_vecs: pointer(&vecs),
            n_vecs: 2,
            ..good
        });
        assert_eq!(fault, Err(Errno::FAULT), "{piece:x?}");
    }
    assert_eq!(owner.receive(), Err(Errno::AGAIN));
    assert_eq!((owner.peer.info(), sender.peer.info()), before);

    // A result that cannot be written leaves the message where it was.
    send(good).unwrap();
    let mut memory = memmap2::MmapMut::map_anon(4096).unwrap();
    let recv = CmdRecv {
        max_offset: 4096,
        ..Default::default()
    };
    memory[..CmdRecv::SIZE].copy_from_slice(&recv.to_bytes());
    let memory = memory.make_read_only().unwrap();
    let fault = ioctl(&owner.peer, CMD_RECV, memory.as_ptr().expose_provenance());
    assert_eq!(fault, Err(Errno::FAULT));
    assert_eq!(owner.receive().unwrap().bytes, b"whole");
    drop((owner, sender));
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn vectors_have_limits() {
    let bus = Bus::with_limits(Limits {
        bytes: 1 << 31,
        ..Limits::default()
    })
    .unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = [owner.transfer(8, &sender.peer).unwrap()];
    let send = |vecs: &[[usize; 2]]| {
        let mut command = CmdSend {
            ptr_destinations: pointer(&handle),
            n_destinations: 1,
            ptr_vecs: pointer(vecs),
            n_vecs: vecs.len() as u64,
            ..Default::default()
        };
        ioctl(&sender.peer, CMD_SEND, address(&mut command))
    };
    let byte = pointer(b"x") as usize;
    assert_eq!(send(&[[byte, 1], [byte, usize::MAX]]), Err(Errno::INVAL));
    assert_eq!(send(&[[byte, isize::MAX as usize]; 3]), Err(Errno::MSGSIZE));
    assert_eq!(send(&[[byte, 0x7fff_f000], [byte, 1]]), Err(Errno::MSGSIZE));
    assert_eq!(send(&[[byte, 1]; 1025]), Err(Errno::MSGSIZE));
    // Nothing is read where nothing is to be sent.
    send(&[[8, 0], [byte, 1]]).unwrap();
    send(&[[byte, 1]; 1024]).unwrap();
    assert_eq!(owner.receive().unwrap().bytes, b"x");
    assert_eq!(owner.receive().unwrap().bytes, [b'x'; 1024]);
}

#[test]
fn unknown_commands_and_users() {
    let bus = Bus::new().unwrap();
    let peer = bus.open_as(1234).unwrap();
    assert_eq!(peer.info().uid, 1234);
    assert_eq!(ioctl(&peer, 0xc008_967f, 0), Err(Errno::NOTTY));
    let own = Bus::global().open().unwrap();
    assert_eq!(own.info().uid, rustix::process::getuid().as_raw());
}

#[test]
fn hundreds_of_peers_talk_at_once() {
    const PEERS: usize = 300;
    let bus = Bus::new().unwrap();
    let clients: Vec<_> = (0..PEERS).map(|_| Client::new(&bus)).collect();
    let handles: Vec<_> = (0..PEERS)
        .map(|i| {
            clients[i]
                .transfer(8, &clients[(i + 1) % PEERS].peer)
                .unwrap()
        })
        .collect();
    for i in 0..PEERS {
        let text = format!("to {i}");
        let sender = &clients[(i + 1) % PEERS];
        sender
            .send(&[handles[i]], &[text.as_bytes()], &[], &[])
            .unwrap();
    }
    for (i, client) in clients.iter().enumerate() {
        assert_eq!(
            client.receive().unwrap().bytes,
            format!("to {i}").as_bytes()
        );
    }
    drop(clients);
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn a_pool_shows_no_leftovers() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    // The padding of a slice is cleared even where another slice was before.
    sender.send(&[handle], &[&[0xaa; 4096]], &[], &[]).unwrap();
    let first = owner.receive().unwrap().msg.offset;
    owner.release_slice(first).unwrap();
    sender.send(&[handle], &[b"abc"], &[], &[]).unwrap();
    let second = owner.receive().unwrap().msg.offset;
    assert_eq!(first, second, "the slice is used again");
    let mut slice = [0; 8];
    assert!(owner.map.read(second, &mut slice));
    assert_eq!(&slice, b"abc\0\0\0\0\0");

    // A large slice that was released is no memory any more, except where small ones come and go.
    const LARGE: usize = 7 << 20;
    sender
        .send(&[handle], &[&vec![0xbb; LARGE]], &[], &[])
        .unwrap();
    let large = owner.receive().unwrap().msg.offset;
    owner.release_slice(large).unwrap();
    let mut bytes = vec![0; LARGE];
    assert!(owner.map.read(large, &mut bytes));
    let left = bytes.iter().filter(|byte| **byte != 0).count();
    assert!(left <= 5 << 20, "{left} bytes were kept");
}
