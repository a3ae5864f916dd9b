// SPDX-License-Identifier: MIT OR Apache-2.0

//! Descriptors that travel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::fs::{open, Mode, OFlags};
use rustix::io::{fcntl_getfd, FdFlags};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::env::Env;
use crate::host::Errno as E;

const BINDER: &str = "/dev/binder";
const VHOST_NET: &str = "/dev/vhost-net";
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

#[case("abi.md#fds-travel")]
fn pipe_travels(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (out, mut into) = std::io::pipe().unwrap();
    b.message()
        .to(&[to])
        .bytes(b"read this")
        .fds(&[out.as_raw_fd()])
        .send()
        .unwrap();
    drop(out);
    into.write_all(b"through the pipe").unwrap();
    drop(into);
    let message = a.expect_text(b"read this");
    assert_eq!(message.msg.n_fds, 1);
    let mut text = String::new();
    let out: OwnedFd = message.fds.into_iter().next().unwrap();
    File::from(out).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through the pipe");
}

fn memory_file(content: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("case", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(content).unwrap();
    file
}

#[case("abi.md#fds-travel")]
fn same_open_file_arrives(env: &Env) {
    use std::io::{Seek, SeekFrom};
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let mut file = memory_file(b"0123456789");
    b.message()
        .to(&[to])
        .fds(&[file.as_raw_fd()])
        .send()
        .unwrap();
    let received = File::from(a.expect_data().fds.remove(0));
    // One open file description has one position.
    file.seek(SeekFrom::Start(4)).unwrap();
    let mut two = [0; 2];
    (&received).read_exact(&mut two).unwrap();
    assert_eq!(&two, b"45");
    assert_eq!(file.stream_position().unwrap(), 6);
}

#[case("abi.md#fds-travel")]
fn access_mode_stays(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let file = open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    b.message()
        .to(&[to])
        .fds(&[file.as_raw_fd()])
        .send()
        .unwrap();
    let received = a.expect_data().fds.remove(0);
    assert_eq!(rustix::io::write(received, b"no"), Err(E::BADF));
}

#[case("abi.md#fds-travel", "abi.md#fds-refused")]
fn many_kinds_may_travel(env: &Env) {
    use rustix::event::{epoll, eventfd, EventfdFlags};
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let files: Vec<OwnedFd> = vec![
        memory_file(b"").into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/").unwrap().into(),
        File::open("/proc/self/status").unwrap().into(),
        std::io::pipe().unwrap().0.into(),
        eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    ];
    for file in &files {
        b.message()
            .to(&[to])
            .fds(&[file.as_raw_fd()])
            .send()
            .unwrap();
        let received = a.expect_data().fds.remove(0);
        let (left, right) = (
            rustix::fs::fstat(file).unwrap(),
            rustix::fs::fstat(received).unwrap(),
        );
        assert_eq!((left.st_dev, left.st_ino), (right.st_dev, right.st_ino));
    }
    // An epoll instance holds no files, it forgets them when they are closed.
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    match b.message().to(&[to]).fds(&[poller.as_raw_fd()]).send() {
        Ok(()) => assert_eq!(a.expect_data().fds.len(), 1),
        Err(errno) => assert_eq!(errno, E::OPNOTSUPP),
    }
}

#[case("abi.md#send-eopnotsupp", "abi.md#fds-refused")]
fn bus1_files_are_refused(env: &Env) {
    let [a, b, c] = env.peers();
    let to = b.handle_of(&a);
    for peer in [&a, &b, &c] {
        assert_eq!(
            b.message().to(&[to]).fds(&[peer.fd()]).send(),
            Err(E::OPNOTSUPP)
        );
    }
    c.disconnect().unwrap();
    assert_eq!(
        b.message().to(&[to]).fds(&[c.fd()]).send(),
        Err(E::OPNOTSUPP)
    );
    assert_eq!(b.message().fds(&[c.fd()]).seed().send(), Err(E::OPNOTSUPP));
    a.expect_nothing();
}

#[case("abi.md#send-eopnotsupp", "abi.md#fds-refused")]
fn unix_sockets_are_refused(env: &Env) {
    use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (stream, _other) = UnixStream::pair().unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let (packet, _other) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let dir = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("listener")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let fds = [
        stream.as_raw_fd(),
        datagram.as_raw_fd(),
        packet.as_raw_fd(),
        listener.as_raw_fd(),
    ];
    for fd in fds {
        assert_eq!(b.message().to(&[to]).fds(&[fd]).send(), Err(E::OPNOTSUPP));
    }
    a.expect_nothing();
}

#[case("abi.md#send-eopnotsupp", "abi.md#fds-refused")]
fn io_uring_is_refused(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let ring = crate::sys::process::io_uring();
    assert_eq!(
        b.message().to(&[to]).fds(&[ring.as_raw_fd()]).send(),
        Err(E::OPNOTSUPP)
    );
    a.expect_nothing();
}

#[case(
    "abi.md#send-eopnotsupp",
    "abi.md#fds-refused",
    kernel,
    needs(BINDER, "binder_linux")
)]
fn binder_is_refused(env: &Env) {
    expect_device_refused(env, BINDER);
}

/// Expects that a device may not travel, except as a place in the tree.
fn expect_device_refused(env: &Env, path: &str) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let device = File::options().read(true).write(true).open(path).unwrap();
    let sent = b.message().to(&[to]).fds(&[device.as_raw_fd()]).send();
    assert_eq!(sent, Err(E::OPNOTSUPP));
    a.expect_nothing();
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let sent = b.message().to(&[to]).fds(&[place.as_raw_fd()]).send();
    assert_eq!(sent, Ok(()));
    assert_eq!(a.expect_data().fds.len(), 1);
}

#[case(
    "abi.md#send-eopnotsupp",
    "abi.md#fds-refused",
    "abi.md#fds-address-space",
    kernel,
    needs(VHOST_NET, "vhost_net")
)]
fn vhost_net_is_refused(env: &Env) {
    expect_device_refused(env, VHOST_NET);
}

#[case(
    "abi.md#send-eopnotsupp",
    "abi.md#fds-refused",
    "abi.md#fds-address-space",
    kernel,
    needs(VHOST_VSOCK, "vhost_vsock")
)]
fn vhost_vsock_is_refused(env: &Env) {
    expect_device_refused(env, VHOST_VSOCK);
}

#[case("abi.md#fds-refused")]
fn other_sockets_may_travel(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    b.message()
        .to(&[to])
        .fds(&[listener.as_raw_fd()])
        .send()
        .unwrap();
    let received = std::net::TcpListener::from(a.expect_data().fds.remove(0));
    assert_eq!(
        received.local_addr().unwrap(),
        listener.local_addr().unwrap()
    );
}

#[case("abi.md#fds-path")]
fn o_path_is_always_fine(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let dir = std::env::temp_dir().join(format!("conformance-path-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let _listener = UnixListener::bind(dir.join("socket")).unwrap();
    let mut paths = vec![dir.join("socket"), dir.clone(), "/dev/null".into()];
    if env.on_kernel() {
        paths.push(crate::host::DEVICE.into());
    }
    for path in &paths {
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let sent = b.message().to(&[to]).fds(&[place.as_raw_fd()]).send();
        assert_eq!(sent, Ok(()), "{}", path.display());
        let received = a.expect_data().fds.remove(0);
        assert!(rustix::fs::fcntl_getfl(received)
            .unwrap()
            .contains(OFlags::PATH));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[case("abi.md#send-eopnotsupp")]
fn one_refused_descriptor_refuses_all(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let null = File::open("/dev/null").unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let fds = [null.as_raw_fd(), socket.as_raw_fd(), null.as_raw_fd()];
    assert_eq!(b.message().to(&[to]).fds(&fds).send(), Err(E::OPNOTSUPP));
    let fds = [null.as_raw_fd(), -1, socket.as_raw_fd()];
    assert_eq!(b.message().to(&[to]).fds(&fds).send(), Err(E::BADF));
    a.expect_nothing();
}

#[case("abi.md#send-ebadf")]
fn bad_number_is_ebadf(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for fd in [-1, -2, i32::MIN, i32::MAX, -100] {
        assert_eq!(
            b.message().to(&[to]).fds(&[fd]).send(),
            Err(E::BADF),
            "{fd}"
        );
        assert_eq!(
            b.message().fds(&[fd]).send(),
            Err(E::BADF),
            "{fd}, to nobody"
        );
    }
    a.expect_nothing();
}

#[case("abi.md#recv-fds")]
fn installed_close_on_exec(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let file = open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    assert!(!fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    b.message()
        .to(&[to])
        .fds(&[file.as_raw_fd()])
        .send()
        .unwrap();
    let received = a.expect_data().fds.remove(0);
    assert!(fcntl_getfd(received).unwrap().contains(FdFlags::CLOEXEC));
}

#[case("abi.md#layout-parts")]
fn order_is_kept(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let files: Vec<_> = (0..100_u8).map(|i| memory_file(&[i; 3])).collect();
    let fds: Vec<_> = files.iter().map(File::as_raw_fd).collect();
    b.message()
        .to(&[to])
        .bytes(b"odd")
        .fds(&fds)
        .send()
        .unwrap();
    for (i, fd) in a.expect_data().fds.into_iter().enumerate() {
        let mut byte = [0; 1];
        rustix::io::pread(fd, &mut byte, 0).unwrap();
        assert_eq!(byte[0], i as u8);
    }
}

#[case("abi.md#fds-travel")]
fn same_descriptor_many_times(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (mut out, into) = std::io::pipe().unwrap();
    b.message()
        .to(&[to])
        .fds(&[into.as_raw_fd(); 10])
        .send()
        .unwrap();
    drop(into);
    let fds = a.expect_data().fds;
    for fd in &fds {
        rustix::io::write(fd, b".").unwrap();
    }
    drop(fds);
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"..........");
}

#[case("abi.md#fds-travel")]
fn each_receipt_is_a_new_number(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let file = memory_file(b"");
    for _ in 0..3 {
        b.message()
            .to(&[to])
            .fds(&[file.as_raw_fd()])
            .send()
            .unwrap();
    }
    let mut fds: Vec<_> = (0..3).flat_map(|_| a.expect_data().fds).collect();
    assert!(fds.iter().all(|fd| fd.as_raw_fd() != file.as_raw_fd()));
    fds.sort_by_key(AsRawFd::as_raw_fd);
    fds.dedup_by_key(|fd| fd.as_raw_fd());
    assert_eq!(fds.len(), 3);
}

#[case("abi.md#fds-kept")]
fn sender_may_close_at_once(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let file = memory_file(b"kept alive by the message");
    b.message()
        .to(&[to])
        .fds(&[file.as_raw_fd()])
        .send()
        .unwrap();
    drop(file);
    let mut bytes = [0; 25];
    rustix::io::pread(&a.expect_data().fds[0], &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"kept alive by the message");
}

#[case("abi.md#fds-kept")]
fn sender_may_die_at_once(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let file = memory_file(b"kept");
    b.message()
        .to(&[to])
        .fds(&[file.as_raw_fd()])
        .send()
        .unwrap();
    drop(file);
    b.close();
    let message = a.expect_data();
    assert_eq!(message.msg.kind, abi::MSG_DATA);
    let mut bytes = [0; 4];
    rustix::io::pread(&message.fds[0], &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"kept");
}
