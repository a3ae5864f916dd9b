// SPDX-License-Identifier: MIT OR Apache-2.0

//! A publisher: multicasts its share of the text to all subscribers.

use std::fs::File;

use anyhow::{bail, Context, Result};
use bus1::{Handle, Outgoing};

use crate::backoff::{self, Refused};
use crate::clock::now;
use crate::pieces::{Block, Pieces};
use crate::wire::{Control, Done, Header, Kind};
use crate::worker::Worker;

/// Multicasts between two looks at what came in.
const LOOK: u64 = 256;

/// The order that a publisher gets.
struct Order {
    publishers: u32,
    rounds: u64,
    block: Block,
    text: File,
    subscribers: Vec<Handle>,
}

/// Waits for its order, then works it off.
pub fn publish(worker: &Worker) -> Result<()> {
    let order = receive(worker)?;
    let mut publisher = Publisher {
        worker,
        subscribers: &order.subscribers,
        refused: Refused::default(),
        sequence: 0,
    };
    let start = now();
    // Pieces are dealt out in turns.
    let mut turn = 0u64;
    for _ in 0..order.rounds {
        let mut pieces = Pieces::new(&order.text, order.block);
        while let Some(piece) = pieces.next().context("cannot read the text")? {
            if turn % u64::from(order.publishers) == u64::from(worker.index) {
                publisher.multicast(Kind::Piece, piece)?;
            }
            turn += 1;
        }
    }
    publisher.multicast(Kind::End, b"")?;
    worker.tell(&Control::Done(Done {
        messages: publisher.sequence,
        over_quota: publisher.refused.over_quota,
        pool_full: publisher.refused.pool_full,
        start,
    }))
}

fn receive(worker: &Worker) -> Result<Order> {
    let mut message = worker.recv()?;
    let Control::Publish {
        publishers,
        rounds,
        block,
    } = Control::decode(message.payload())?
    else {
        bail!("an order was expected, and another message came");
    };
    let subscribers = message
        .take_handles()
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .context("a subscriber was gone before the start")?;
    let text = message
        .take_fds()
        .pop()
        .context("the order came without a text")?;
    Ok(Order {
        publishers,
        rounds,
        block,
        text: text.into(),
        subscribers,
    })
}

struct Publisher<'a> {
    worker: &'a Worker,
    subscribers: &'a [Handle],
    refused: Refused,
    sequence: u64,
}

impl Publisher<'_> {
    /// Sends a piece to all subscribers in one transaction.
    fn multicast(&mut self, kind: Kind, piece: &[u8]) -> Result<()> {
        let header = Header::new(kind, self.worker.index, self.sequence, piece).to_bytes();
        let message = Outgoing::new().payload(&header).payload(piece);
        let send = || self.worker.peer.send_to(self.subscribers, &message);
        backoff::send(&mut self.refused, || Ok(()), send)
            .with_context(|| format!("cannot publish message {}", self.sequence))?;
        self.sequence += 1;
        if self.sequence % LOOK == 0 {
            while let Some(event) = self.worker.peer.try_recv().context("cannot receive")? {
                self.worker.understand(event)?;
            }
        }
        Ok(())
    }
}
