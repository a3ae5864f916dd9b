// SPDX-License-Identifier: MIT OR Apache-2.0

//! All that a failed command must leave as it was.

use crate::client::Peer;
use crate::host::Events;

use super::scene::Scene;

/// The state of a scene, as far as its users can see it without a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    peers: Vec<Look>,
    descriptors: usize,
}

/// The state of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    counts: Vec<(String, u64)>,
    events: Events,
}

/// Returns the number of open descriptors of the calling thread, one for the reading included.
fn descriptors() -> usize {
    let folder = std::fs::read_dir("/proc/thread-self/fd");
    folder.expect("cannot read /proc/thread-self/fd").count()
}

impl Trace {
    /// Returns the state of `scene` now.
    pub fn of(scene: &Scene<'_>) -> Self {
        let look = |peer: &Peer| Look {
            counts: peer.door().counts(),
            events: peer.events(),
        };
        Self {
            peers: scene.peers.iter().map(look).collect(),
            descriptors: descriptors(),
        }
    }

    /// Describes how `self` became `after`, or returns `None` if nothing changed.
    pub fn difference(&self, after: &Self) -> Option<String> {
        if self == after {
            return None;
        }
        let mut all = Vec::new();
        if self.descriptors != after.descriptors {
            let (before, after) = (self.descriptors, after.descriptors);
            all.push(format!("{before} descriptors became {after}"));
        }
        if self.peers.len() != after.peers.len() {
            let (before, after) = (self.peers.len(), after.peers.len());
            all.push(format!("{before} peers became {after}"));
        }
        for (number, (before, after)) in self.peers.iter().zip(&after.peers).enumerate() {
            for ((name, old), (_, new)) in before.counts.iter().zip(&after.counts) {
                if old != new {
                    all.push(format!("{name} of peer {number} from {old} to {new}"));
                }
            }
            if before.events != after.events {
                let (old, new) = (before.events, after.events);
                all.push(format!("poll of peer {number} from {old:?} to {new:?}"));
            }
        }
        Some(all.join(", "))
    }
}
