// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two publishers that do not know of each other, and three subscribers: all subscribers receive
//! all messages in one order.
//!
//!     cargo run --release --example multicast

use std::thread;

use bus1::{Event, Handle, Node, Outgoing, Peer, Result};

const MESSAGES: usize = 1_000;

/// Sends numbered messages to all subscribers.
fn publish(peer: &Peer, name: &str, subscribers: &[Handle]) -> Result<()> {
    for number in 0..MESSAGES {
        let line = format!("{name} {number}");
        let message = Outgoing::new().payload(line.as_bytes());
        loop {
            match peer.send_to(subscribers, &message) {
                Ok(()) => break,
                // A subscriber is behind; no subscriber got it.
                Err(error) if error.error().is_temporary() => thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Receives as many messages.
fn subscribe(peer: &Peer, messages: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < messages {
        if let Event::Message(message) = peer.recv()? {
            lines.push(String::from_utf8_lossy(message.payload()).into_owned());
        }
    }
    Ok(lines)
}

fn main() -> Result<()> {
    let publishers = [("red", Peer::open()?), ("blue", Peer::open()?)];
    let mut subscribers: Vec<(Peer, Node)> = Vec::new();
    for _ in 0..3 {
        let peer = Peer::open()?;
        let node = peer.create_node()?;
        subscribers.push((peer, node));
    }

    let orders = thread::scope(|threads| -> Result<Vec<Vec<String>>> {
        for (name, publisher) in &publishers {
            let mut handles = Vec::new();
            for (peer, node) in &subscribers {
                handles.extend(peer.transfer(node.handle(), publisher)?);
            }
            threads.spawn(move || {
                if let Err(error) = publish(publisher, name, &handles) {
                    eprintln!("{name}: {error}");
                    std::process::exit(1);
                }
            });
        }
        let receivers: Vec<_> = subscribers
            .iter()
            .map(|(peer, _)| threads.spawn(|| subscribe(peer, publishers.len() * MESSAGES)))
            .collect();
        receivers
            .into_iter()
            .map(|thread| thread.join().expect("a subscriber does not panic"))
            .collect()
    })?;

    assert!(orders.iter().all(|order| *order == orders[0]));
    println!(
        "{} messages, and {} subscribers saw them in one order, for example:",
        orders[0].len(),
        orders.len()
    );
    let middle = orders[0].len() / 2;
    for line in &orders[0][middle..middle + 5] {
        println!("  {line}");
    }
    Ok(())
}
