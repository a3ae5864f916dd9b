// SPDX-License-Identifier: MIT OR Apache-2.0

//! The round trip through dbus-broker: a client calls a method of another, three processes on one
//! CPU. Both clients are as lean as can be: they send the same bytes again and again, and look at
//! only the length of the messages that come.
//!
//! The broker is started as its launcher does it: it gets a controller, which hands it a listening
//! socket and a policy.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{ensure, Context, Result};
use rustix::io::{fcntl_setfd, FdFlags};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{set_parent_process_death_signal, Signal};

use super::round_trip::{point, SCENARIO, SIZES};
use crate::measure::Bench;
use crate::process::{pin, Partner};

/// Folder that `cargo xtask bench` puts the program with its libraries in.
const FOLDER: &str = "dbus-broker";
/// Path that the bus listens at.
const SOCKET: &str = "/run/bus1-bench-dbus";
/// All processes are on this one.
const CPU: usize = 0;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Fields of a header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

/// Bytes of a header before its fields.
const FIXED: usize = 16;

/// Runs all sizes, if the broker is there.
pub fn run(bench: &mut Bench) {
    if !bench.wants(SCENARIO, "dbus-broker") {
        return;
    }
    if !Path::new(FOLDER).is_dir() {
        eprintln!("dbus-broker is left out: there is no folder {FOLDER}");
        return;
    }
    for size in SIZES {
        bench.run(point("dbus-broker", size), || round_trip(size));
    }
}

/// Bytes in the format of D-Bus, little-endian.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// Writes an array whose elements are aligned to `to`.
    fn array(&mut self, to: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let len = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        elements(self);
        let bytes = (self.0.len() - start) as u32;
        self.0[len..len + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    fn field(&mut self, code: u8, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        value(self);
    }
}

/// Returns a whole message; `fields` adds those of its header but the signature.
fn message(
    kind: u8,
    serial: u32,
    signature: &str,
    body: &[u8],
    fields: impl FnOnce(&mut Wire),
) -> Vec<u8> {
    let mut wire = Wire::default();
    wire.0.extend_from_slice(&[b'l', kind, 0, 1]);
    wire.u32(body.len() as u32);
    wire.u32(serial);
    wire.array(8, |wire| {
        fields(wire);
        if !signature.is_empty() {
            wire.field(SIGNATURE, "g", |wire| wire.signature(signature));
        }
    });
    wire.align(8);
    wire.0.extend_from_slice(body);
    wire.0
}

/// Returns a call of a method.
fn call(
    [destination, path, interface, member]: [&str; 4],
    signature: &str,
    body: &[u8],
    fds: u32,
) -> Vec<u8> {
    message(CALL, 1, signature, body, |wire| {
        wire.field(PATH, "o", |wire| wire.text(path));
        wire.field(INTERFACE, "s", |wire| wire.text(interface));
        wire.field(MEMBER, "s", |wire| wire.text(member));
        if !destination.is_empty() {
            wire.field(DESTINATION, "s", |wire| wire.text(destination));
        }
        if fds > 0 {
            wire.field(UNIX_FDS, "u", |wire| wire.u32(fds));
        }
    })
}

/// A connection to the broker.
struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    /// Proves its identity.
    fn new(mut stream: UnixStream) -> Result<Self> {
        // The user is that of the socket; descriptors may be passed.
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"AGREE_UNIX_FD\r\n") {
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .context("dbus-broker hung up while we logged in")?;
            answer.push(byte[0]);
        }
        Ok(Self {
            stream,
            buffer: vec![0; 4096],
            filled: 0,
        })
    }

    /// Connects, and gets a name of its own.
    fn connect() -> Result<(Self, String)> {
        let stream = UnixStream::connect(SOCKET).context("cannot connect to dbus-broker")?;
        let mut client = Self::new(stream)?;
        let bus = [
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "Hello",
        ];
        client.put(&call(bus, "", &[], 0))?;
        let body = client.wait_for(RETURN)?;
        let name = body.get(4..body.len().saturating_sub(1));
        let name = String::from_utf8_lossy(name.context("no name in the answer to Hello")?);
        Ok((client, name.into_owned()))
    }

    fn put(&self, bytes: &[u8]) -> Result<()> {
        (&self.stream)
            .write_all(bytes)
            .context("write to dbus-broker")
    }

    /// Receives one message, and gives its kind and where in the buffer its body is.
    fn get(&mut self) -> Result<(u8, std::ops::Range<usize>)> {
        loop {
            if let Some((kind, body)) = parse(&self.buffer[..self.filled]) {
                if body.end <= self.filled {
                    return Ok((kind, body));
                }
                self.buffer.resize(body.end.max(self.buffer.len()), 0);
            }
            let got = (&self.stream).read(&mut self.buffer[self.filled..])?;
            ensure!(got > 0, "dbus-broker hung up");
            self.filled += got;
        }
    }

    /// Forgets the message that `get` found.
    fn drop_until(&mut self, end: usize) {
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
    }

    /// Returns the body of the next message of this kind.
    fn wait_for(&mut self, wanted: u8) -> Result<Vec<u8>> {
        loop {
            let (kind, body) = self.get()?;
            let end = body.end;
            let bytes = self.buffer[body].to_vec();
            self.drop_until(end);
            ensure!(
                kind != ERROR,
                "dbus-broker refuses: {}",
                String::from_utf8_lossy(&bytes)
            );
            if kind == wanted {
                return Ok(bytes);
            }
        }
    }
}

/// Returns kind and body of the message that begins here, if its header is here so far.
fn parse(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let start = (FIXED + word(12)? as usize).next_multiple_of(8);
    Some((bytes[1], start..start + word(4)? as usize))
}

/// Writes a policy that allows all to all.
fn policy(wire: &mut Wire) {
    const BATCH: &str = "bta(btbs)a(btssssuutt)a(btssssuutt)";
    wire.signature(&format!("(a(u({BATCH}))a(buu({BATCH}))a(ss)bs)"));
    let allow = |wire: &mut Wire| {
        wire.align(8);
        wire.u32(1);
        wire.u64(1);
    };
    wire.align(8);
    wire.array(8, |wire| {
        // Every user.
        wire.u32(u32::MAX);
        allow(wire);
        wire.array(8, |wire| {
            allow(wire);
            // Every name that begins with nothing.
            wire.u32(1);
            wire.text("");
        });
        for _ in ["send", "receive"] {
            wire.array(8, |wire| {
                allow(wire);
                for _ in ["name", "path", "interface", "member"] {
                    wire.text("");
                }
                wire.u32(0);
                wire.u32(0);
                wire.u64(0);
                wire.u64(u64::MAX);
            });
        }
    });
    wire.array(8, |_| {});
    wire.array(8, |_| {});
    wire.u32(0);
    wire.text("session");
}

/// The broker, ended when dropped.
struct Broker {
    child: Child,
    controller: Client,
}

impl Broker {
    fn start() -> Result<Self> {
        let _ = std::fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).with_context(|| format!("no socket {SOCKET}"))?;
        // The broker accepts until no client is left.
        listener.set_nonblocking(true).context("O_NONBLOCK")?;
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        fcntl_setfd(&theirs, FdFlags::empty()).context("F_SETFD")?;
        let folder = Path::new(FOLDER).canonicalize().context(FOLDER)?;
        let mut command = Command::new(folder.join("ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(&folder)
            .arg(folder.join("dbus-broker"))
            .args(["--controller", &theirs.as_raw_fd().to_string()])
            .args(["--machine-id", "0123456789abcdef0123456789abcdef"])
            .args(["--max-bytes", "1000000000", "--max-objects", "1000000"])
            .args(["--max-matches", "1000000", "--max-fds", "1000"]);
        let prepare = || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            pin(CPU).map_err(std::io::Error::other)
        };
        // SAFETY: only system calls on the child's own thread.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().context("cannot run dbus-broker")?;
        drop(theirs);
        let mut broker = Self {
            child,
            controller: Client::new(ours)?,
        };
        broker.listen(&listener)?;
        Ok(broker)
    }

    fn listen(&mut self, listener: &UnixListener) -> Result<()> {
        let mut body = Wire::default();
        body.text("/org/bus1/DBus/Listener/0");
        body.u32(0);
        policy(&mut body);
        let bus = [
            "",
            "/org/bus1/DBus/Broker",
            "org.bus1.DBus.Broker",
            "AddListener",
        ];
        let bytes = call(bus, "ohv", &body.0, 1);
        let controller = &mut self.controller;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [listener.as_fd()];
        let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
        ensure!(pushed, "no space for a descriptor");
        let vecs = [IoSlice::new(&bytes)];
        let sent = sendmsg(&controller.stream, &vecs, &mut control, SendFlags::empty())
            .context("sendmsg to dbus-broker")?;
        ensure!(sent == bytes.len(), "dbus-broker took a part of a message");
        controller.wait_for(RETURN).context("AddListener")?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // If it has ended already there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Arguments of `size` bytes: an array of bytes.
fn payload(size: usize) -> (&'static str, Vec<u8>) {
    if size == 0 {
        return ("", Vec::new());
    }
    let mut wire = Wire::default();
    wire.array(1, |wire| wire.0.resize(wire.0.len() + size, 1));
    ("ay", wire.0)
}

fn round_trip(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let broker = Broker::start()?;
    let (mut server, server_name) = Client::connect()?;
    let (mut client, client_name) = Client::connect()?;
    let (signature, body) = payload(size);
    let target = [&server_name, "/", "org.bus1.Bench", "Ask"];
    let question = call(target, signature, &body, 0);
    // The client asks with one serial all the time, of which only one call is ever open.
    let answer = message(RETURN, 1, signature, &body, |wire| {
        wire.field(REPLY_SERIAL, "u", |wire| wire.u32(1));
        wire.field(DESTINATION, "s", |wire| wire.text(&client_name));
    });
    let expected = body.len();
    let partner = Partner::start(CPU, move || loop {
        next(&mut server, CALL, expected)?;
        server.put(&answer)?;
    })?;
    Ok(move || {
        let _ = (&partner, &broker);
        client.put(&question)?;
        next(&mut client, RETURN, expected)
    })
}

/// Receives a message of a kind, passes over others before it, and looks at its length.
fn next(client: &mut Client, wanted: u8, expected: usize) -> Result<()> {
    loop {
        let (kind, body) = client.get()?;
        ensure!(kind != ERROR, "dbus-broker delivered an error");
        let len = body.len();
        client.drop_until(body.end);
        if kind == wanted {
            ensure!(len == expected, "{len} bytes in place of {expected}");
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_as_it_is_read() {
        let (signature, body) = payload(64);
        let bytes = call([":1.7", "/", "a.b", "C"], signature, &body, 0);
        let (kind, range) = parse(&bytes).unwrap();
        assert_eq!((kind, range.end), (CALL, bytes.len()));
        assert_eq!(&bytes[range], &body[..]);
        assert_eq!(body.len(), 4 + 64);
        assert_eq!(parse(&bytes[..10]), None);
    }
}
