// SPDX-License-Identifier: MIT OR Apache-2.0

//! A receiver of a history: logs its messages, destroys and renews its nodes, answers now and then.

use std::time::Duration;

use bus1_uapi as abi;
use rand::Rng;

use super::actor::{control_part, is_full, Stage, Trouble, Voice};
use super::log::{Actor, Got, Sent, What};
use super::payload::{self, Header, FLAG_LAST};
use super::shared::{Phase, SLOTS};
use crate::host::Errno as E;

/// Number of receptions of which one is followed by a message to another receiver.
const ANSWERS: u32 = 64;
/// Number of receptions of which one is followed by the destruction of a node.
const DESTRUCTIONS: u32 = 3000;
/// Longest time without any message.
const SILENCE: Duration = Duration::from_secs(60);

/// One of the nodes that come and go.
#[derive(Clone, Copy)]
struct Node {
    /// Of the node of the moment.
    id: u64,
    /// True if it was destroyed and the notice is still to come.
    destroyed: bool,
}

/// Returns the ID of the receiver's node at `slot` that was made for the time number `times`.
fn node_id(slot: usize, times: u64) -> u64 {
    times << 8 | (slot as u64) << 2
}

/// Returns the node that an ID stands for.
fn slot_of(id: u64) -> u8 {
    (id >> 2) as u8 & 0x3f
}

/// Returns the ID of a receiver's node that is never destroyed.
pub fn control_id() -> u64 {
    node_id(SLOTS, 0)
}

/// A receiver at work.
struct Ear<'a> {
    stage: &'a Stage,
    me: usize,
    voice: Voice<'a>,
    nodes: [Node; SLOTS],
    got: Vec<Got>,
    farewells: usize,
}

/// Makes a node of the receiver anew, and sends its handle to all senders.
pub fn renew(stage: &Stage, me: usize, slot: usize, times: u64) -> Result<u64, Trouble> {
    let id = node_id(slot, times);
    let peer = &stage.peers[stage.options.senders + me];
    for sender in 0..stage.options.senders {
        let handle = loop {
            match peer.give(&stage.peers[sender], id) {
                Ok(handle) => break handle,
                Err(errno) if is_full(errno) && !stage.shared.has_failed() => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(format!("HANDLE_TRANSFER says {errno:?}")),
            }
        };
        stage.shared.announce(me, slot, sender, handle);
    }
    Ok(id)
}

/// Plays receiver number `me` until all others have said farewell.
pub fn play(stage: &Stage, me: usize) -> Result<(Vec<Sent>, Vec<Got>), Trouble> {
    let voice = Voice::new(stage, stage.options.senders + me);
    let nodes = std::array::from_fn(|slot| Node {
        id: node_id(slot, 1),
        destroyed: false,
    });
    let mut ear = Ear {
        stage,
        me,
        voice,
        nodes,
        got: Vec::new(),
        farewells: 0,
    };
    let (senders, receivers) = (stage.options.live_senders(), stage.options.receivers);
    let mut parted = false;
    while ear.farewells < senders + receivers - 1 {
        if ear.farewells >= senders && !parted {
            // No message is left to answer to. Answers of other receivers still come.
            parted = true;
            for receiver in (0..receivers).filter(|&receiver| receiver != me) {
                ear.voice.farewell(receiver)?;
            }
        }
        ear.listen()?;
    }
    // The last farewell may have been the last of a sender, too.
    if !parted {
        for receiver in (0..receivers).filter(|&receiver| receiver != me) {
            ear.voice.farewell(receiver)?;
        }
    }
    if stage.options.stalls {
        ear.wait_for_stops()?;
        while ear.take_next()? {}
    }
    Ok((ear.voice.sent, ear.got))
}

impl Ear<'_> {
    /// Takes one message, or waits for one.
    fn listen(&mut self) -> Result<(), Trouble> {
        if self.take_next()? {
            return Ok(());
        }
        // Short naps, so that the end of another actor is not missed.
        let mut waited = Duration::ZERO;
        while !self.voice.peer().wait(Duration::from_secs(1)) {
            waited += Duration::from_secs(1);
            if self.stage.shared.has_failed() {
                return Err("another actor gave up".to_owned());
            }
            if waited >= SILENCE {
                return Err(format!("no message for {} s", SILENCE.as_secs()));
            }
        }
        Ok(())
    }

    /// Waits until senders are stopped for good.
    fn wait_for_stops(&self) -> Result<(), Trouble> {
        while !self.stage.shared.has_entered(Phase::Stopped) {
            self.voice.nap()?;
        }
        Ok(())
    }

    /// Takes one message. False if there is none.
    fn take_next(&mut self) -> Result<bool, Trouble> {
        let peer = self.voice.peer();
        let msg = match peer.receive().header() {
            Ok(msg) => msg,
            Err(E::AGAIN) => return Ok(false),
            Err(errno) => return Err(format!("RECV says {errno:?}")),
        };
        let done = match msg.kind {
            abi::MSG_DATA => self.take(&msg),
            abi::MSG_NODE_DESTROY if msg.destination & abi::HANDLE_FLAG_REMOTE != 0 => {
                let what = What::Destroyed(msg.destination);
                self.note(&msg, what, false);
                let released = peer.release(msg.destination);
                released.map_err(|errno| format!("HANDLE_RELEASE says {errno:?}"))
            }
            abi::MSG_NODE_DESTROY => self.renew_node(msg.destination),
            // Senders release handles of nodes that are gone, which is no event.
            other => Err(format!(
                "a receiver received a message of type {other}: {msg:?}"
            )),
        };
        done.map(|()| true)
    }

    fn note(&mut self, msg: &abi::Msg, what: What, corrupt: bool) {
        let more = msg.flags & abi::MSG_FLAG_CONTINUE != 0;
        let slot = usize::from(slot_of(msg.destination));
        // A later node of the same slot has a higher ID, so any other one is gone.
        let late = matches!(what, What::Data { .. })
            && self
                .nodes
                .get(slot)
                .is_some_and(|node| node.id != msg.destination);
        self.got.push(Got {
            what,
            more,
            corrupt,
            late,
        });
    }

    fn take(&mut self, msg: &abi::Msg) -> Result<(), Trouble> {
        let peer = self.voice.peer();
        let header = payload::get(&peer.read_pool(msg.offset, msg.n_bytes));
        let released = peer.release_slice(msg.offset);
        released.map_err(|errno| format!("SLICE_RELEASE says {errno:?}"))?;
        let slot = slot_of(msg.destination);
        let Header {
            actor,
            serial,
            flags,
        } = header.unwrap_or(Header {
            actor: Actor::MAX,
            serial: 0,
            flags: 0,
        });
        self.note(
            msg,
            What::Data {
                actor,
                serial,
                slot,
            },
            header.is_none(),
        );
        if flags & FLAG_LAST != 0 {
            self.farewells += 1;
            return Ok(());
        }
        let goes_on = self.farewells < self.stage.options.live_senders();
        if goes_on && self.voice.random.random_ratio(1, ANSWERS) {
            self.answer((actor, serial))?;
        }
        let is_over = self.stage.shared.has_entered(Phase::Stopped);
        if !is_over && self.voice.random.random_ratio(1, DESTRUCTIONS) {
            self.destroy_node()?;
        }
        Ok(())
    }

    /// Sends to another receiver, because of the message that was just received.
    fn answer(&mut self, cause: (Actor, u32)) -> Result<(), Trouble> {
        let receivers = self.stage.options.receivers;
        if receivers < 2 {
            return Ok(());
        }
        let other = (self.me + self.voice.random.random_range(1..receivers)) % receivers;
        let to = self.stage.to_control[self.stage.options.senders + self.me][other];
        match self
            .voice
            .send(&[to], &[control_part(other)], 0, false, Some(cause))
        {
            Ok(()) => Ok(()),
            // Never mind: it would be waiting for one that may be waiting, too.
            Err(errno) if is_full(errno) => Ok(()),
            Err(errno) => Err(format!("SEND says {errno:?}")),
        }
    }

    /// Destroys one of the own nodes. Its notice comes after the last message to it.
    fn destroy_node(&mut self) -> Result<(), Trouble> {
        let slot = self.voice.random.random_range(0..SLOTS);
        let node = &mut self.nodes[slot];
        if !node.destroyed {
            node.destroyed = true;
            let destroyed = self.voice.peer().destroy(&[node.id]);
            destroyed.map_err(|errno| format!("NODES_DESTROY says {errno:?}"))?;
        }
        Ok(())
    }

    /// Makes the next node after the notice of an own node has come.
    fn renew_node(&mut self, id: u64) -> Result<(), Trouble> {
        let released = self.voice.peer().release(id);
        released.map_err(|errno| format!("HANDLE_RELEASE of an own node says {errno:?}"))?;
        let slot = usize::from(slot_of(id));
        let id = renew(self.stage, self.me, slot, (id >> 8) + 1)?;
        self.nodes[slot] = Node {
            id,
            destroyed: false,
        };
        Ok(())
    }
}
