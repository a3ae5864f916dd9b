// SPDX-License-Identifier: MIT OR Apache-2.0

//! A service and its client in two processes, on the bus of the kernel module.
//!
//!     cargo run --release --example two_processes

use std::error::Error;
use std::os::fd::AsFd;
use std::process::{exit, Command};
use std::{env, io};

use bus1::{Event, HandleId, Host, Outgoing, Peer};

/// Owns a node, starts the client with a handle to it, and answers one question.
fn serve() -> Result<(), Box<dyn Error>> {
    let server = Peer::open_on(Host::Kernel)?;
    let service = server.create_node()?;

    // The client's peer gets the handle, and becomes the standard input of the client's process.
    let peer = Peer::open_on(Host::Kernel)?;
    let handle = server.transfer_to_fd(service.handle(), &peer)?;
    let mut process = Command::new(env::current_exe()?)
        .arg(handle.expect("the node is alive").raw().to_string())
        .stdin(peer.duplicate_fd()?)
        .spawn()?;
    drop(peer);

    let Event::Message(mut question) = server.recv()? else {
        return Err("the client ended without a question".into());
    };
    let answer = question.payload().to_ascii_uppercase();
    let client = question
        .take_handles()
        .remove(0)
        .ok_or("the client ended")?;
    server.send(&client, &Outgoing::new().payload(&answer))?;

    let status = process.wait()?;
    status
        .success()
        .then_some(())
        .ok_or("the client failed".into())
}

/// Asks the service, and sends along a handle for the answer.
fn ask(service: HandleId) -> Result<(), Box<dyn Error>> {
    let fd = io::stdin().as_fd().try_clone_to_owned()?;
    // SAFETY: The server has dropped its own peer, so nothing else uses this one.
    let peer = unsafe { Peer::from_fd(fd) }?;
    let service = peer.adopt_handle(service);

    let answers = peer.create_node()?;
    let question = Outgoing::new().payload(b"hello").handle(answers.handle());
    let Event::Message(answer) = peer.call(&service, &question)? else {
        return Err("the service ended without an answer".into());
    };
    println!("{}", answer.payload().escape_ascii());
    Ok(())
}

fn main() {
    let done = match env::args().nth(1) {
        None => serve(),
        Some(handle) => ask(HandleId::from_raw(handle.parse().expect("a number"))),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        exit(1);
    }
}
