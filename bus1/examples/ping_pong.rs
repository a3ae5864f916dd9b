// SPDX-License-Identifier: MIT OR Apache-2.0

//! A service and a client, each in a thread of its own: the client asks, and sends along the handle
//! to answer to.
//!
//!     cargo run --release --example ping_pong

use std::thread;
use std::time::Instant;

use bus1::{Event, Outgoing, Peer, Result};

const ROUNDS: u32 = 10_000;

/// Answers every question until no client is left.
fn serve(peer: &Peer) -> Result<u32> {
    let mut answered = 0;
    loop {
        match peer.recv()? {
            Event::Message(mut question) => {
                let answer_to = question.take_handles().into_iter().flatten().next();
                if let Some(client) = answer_to {
                    peer.send(&client, &Outgoing::new().payload(question.payload()))?;
                    answered += 1;
                }
            }
            Event::NodeReleased(_) => return Ok(answered),
            _ => {}
        }
    }
}

fn main() -> Result<()> {
    let (server, client) = (Peer::open()?, Peer::open()?);
    let service = server.create_node()?;
    let handle = server
        .transfer(service.handle(), &client)?
        .expect("the service is alive");
    println!("on the {} host", client.host());

    let serving = thread::spawn(move || serve(&server));
    let answers = client.create_node()?;
    let start = Instant::now();
    let mut received = 0;
    for round in 0..ROUNDS {
        let question = round.to_ne_bytes();
        let message = Outgoing::new().payload(&question).handle(answers.handle());
        client.send(&handle, &message)?;
        // The server drops our handle after each answer, of which we get a notice.
        while received <= round {
            if let Event::Message(answer) = client.recv()? {
                assert_eq!(answer.payload(), question);
                received += 1;
            }
        }
    }
    let took = start.elapsed();
    drop(handle);

    let answered = serving.join().expect("the server does not panic")?;
    assert_eq!(answered, ROUNDS);
    println!(
        "{ROUNDS} round trips in {took:.2?}, {:.2?} each",
        took / ROUNDS
    );
    drop(service);
    Ok(())
}
