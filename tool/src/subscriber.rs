// SPDX-License-Identifier: MIT OR Apache-2.0

//! A subscriber: receives everything, checks it, and reports to the directory in which order it
//! came.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::clock::now;
use crate::sequence::{Digest, Publication};
use crate::wire::{Control, Header, Kind, Summary};
use crate::worker::Worker;

/// Entries of one report.
const REPORT: usize = 1024;

/// A report is not kept back for longer.
const DELAY: Duration = Duration::from_millis(50);

/// Receives until all publishers have ended.
pub fn subscribe(worker: &Worker) -> Result<()> {
    let order = worker.recv()?;
    let Control::Expect { publishers } = Control::decode(order.payload())? else {
        bail!("an order was expected, and another message came");
    };
    drop(order);
    let mut subscriber = Subscriber {
        worker,
        next: vec![0; publishers as usize],
        left: publishers,
        digest: Digest::default(),
        told: 0,
        untold: Vec::new(),
        last_told: Instant::now(),
        summary: Summary {
            messages: 0,
            bytes: 0,
            damaged: 0,
            misplaced: 0,
            digest: 0,
            end: 0,
        },
    };
    while subscriber.left > 0 {
        let event = match worker.peer.try_recv().context("cannot receive")? {
            Some(event) => Some(event),
            None => worker.peer.recv_timeout(DELAY).context("cannot receive")?,
        };
        let message = match event {
            Some(event) => worker.understand(event)?,
            None => None,
        };
        if let Some(message) = message {
            subscriber.take(message.payload())?;
        }
        if subscriber.untold.len() >= REPORT || subscriber.last_told.elapsed() >= DELAY {
            subscriber.tell()?;
        }
    }
    subscriber.tell()?;
    subscriber.summary.digest = subscriber.digest.value();
    worker.tell(&Control::Summary(subscriber.summary))
}

struct Subscriber<'a> {
    worker: &'a Worker,
    /// The number that each publisher should send next.
    next: Vec<u64>,
    /// Publishers that have not ended.
    left: u32,
    digest: Digest,
    /// Number of entries of the sequence that the directory knows, and the rest of it.
    told: u64,
    untold: Vec<u64>,
    last_told: Instant,
    summary: Summary,
}

impl Subscriber<'_> {
    /// Checks a publication, in place: it lies where the publisher's send put it.
    fn take(&mut self, payload: &[u8]) -> Result<()> {
        let (header, piece) = Header::split(payload)?;
        let summary = &mut self.summary;
        summary.messages += 1;
        summary.bytes += payload.len() as u64;
        summary.end = now();
        if !header.fits(piece) {
            summary.damaged += 1;
        }
        let next = self.next.get_mut(header.publisher as usize);
        ensure!(next.is_some(), "publisher {} is unknown", header.publisher);
        if let Some(next) = next {
            if *next != header.sequence {
                summary.misplaced += 1;
            }
            *next = header.sequence + 1;
        }
        if header.kind == Kind::End {
            self.left -= 1;
        }
        let publication = Publication {
            publisher: header.publisher.into(),
            sequence: header.sequence,
        };
        let entry = publication.to_entry();
        self.digest.add(entry);
        self.untold.push(entry);
        Ok(())
    }

    /// Tells the directory what was received since the last time.
    fn tell(&mut self) -> Result<()> {
        self.last_told = Instant::now();
        if self.untold.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.untold);
        let n = entries.len() as u64;
        self.worker.tell(&Control::Received {
            first: self.told,
            entries,
        })?;
        self.told += n;
        Ok(())
    }
}
