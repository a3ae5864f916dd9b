// SPDX-License-Identifier: MIT OR Apache-2.0

//! The conditions that have to hold when a storm is over.

use std::time::{Duration, Instant};

use bus1_uapi as abi;

use super::Failed;
use crate::cases::{claim_all, Resource};
use crate::client::Peer;
use crate::host::{Bus, Errno as E};

/// Longest time until the last peer of a killed process is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Amounts that one peer of each user can claim at another one, of each resource.
pub fn room(bus: &dyn Bus, users: &[u32]) -> Result<Vec<[usize; 4]>, Failed> {
    let open = |user| bus.open(user).map(Peer::new);
    let failed = |errno: E| Failed(format!("cannot look for room: {errno:?}"));
    let all = [
        Resource::Slices,
        Resource::Handles,
        Resource::Bytes,
        Resource::Descriptors,
    ];
    users
        .iter()
        .map(|&user| {
            let mut room = [0; 4];
            for (room, resource) in room.iter_mut().zip(all) {
                let (receiver, sender) = (open(user).map_err(failed)?, open(user).map_err(failed)?);
                let to = receiver
                    .give(&sender, receiver.new_node())
                    .map_err(failed)?;
                *room = claim_all(resource, &sender, to);
            }
            Ok(room)
        })
        .collect()
}

/// Checks that a peer which went through the storm gives everything back, and counts nothing then.
pub fn survivor(hub: Peer) -> Result<(), Failed> {
    // The other hubs and the last dying processes may still hold something of it.
    let flags = abi::PEER_RESET_FLAG_FLUSH | abi::PEER_RESET_FLAG_FLUSH_SEED;
    hub.flush(flags)
        .map_err(|errno| Failed(format!("PEER_RESET says {errno:?}")))?;
    let left: Vec<_> = hub
        .door()
        .counts()
        .into_iter()
        // Its user's are those of other peers, too.
        .filter(|(name, n)| *n != 0 && !name.starts_with("user-"))
        .collect();
    if !left.is_empty() {
        return Err(Failed(format!(
            "a peer that was flushed still counts {left:?}"
        )));
    }
    if hub.events().hangup {
        return Err(Failed(
            "a peer was disconnected that nobody has disconnected".to_owned(),
        ));
    }
    Ok(())
}

/// Checks that the bus is empty after all peers were closed.
pub fn nothing_left(bus: &dyn Bus) -> Result<(), Failed> {
    let started = Instant::now();
    while let Some(what) = bus.left_over() {
        // A process that was killed may take its time.
        if started.elapsed() > PATIENCE {
            return Err(Failed(format!(
                "all peers are closed, but the bus still counts {what}"
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
