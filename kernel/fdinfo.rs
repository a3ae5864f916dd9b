// SPDX-License-Identifier: GPL-2.0-only

//! Numbers about a peer, in `/proc/PID/fdinfo`.

use kernel::bindings::{file, seq_file};
use kernel::seq_file::SeqFile;
use kernel::seq_print;

use crate::peer::PeerFile;

/// Shows numbers about a peer.
///
/// # Safety
///
/// Called for a file with our operations; `seq` is valid.
pub(crate) unsafe extern "C" fn show_fdinfo(seq: *mut seq_file, file: *mut file) {
    // SAFETY: The caller holds the file.
    let info = unsafe { PeerFile::from_raw(file) }.peer.info();
    // SAFETY: The caller lends us `seq`.
    let seq = unsafe { SeqFile::from_raw(seq) };
    seq_print!(seq, "bus1-peer:\t{}\n", info.id);
    seq_print!(seq, "bus1-nodes:\t{}\n", info.nodes);
    seq_print!(seq, "bus1-handles:\t{}\n", info.handles);
    seq_print!(seq, "bus1-queued:\t{}\n", info.queued);
    seq_print!(seq, "bus1-staged:\t{}\n", info.staged);
    seq_print!(seq, "bus1-slices:\t{}\n", info.slices);
    let kinds = ["slices", "handles", "bytes", "fds"];
    for (r, name) in kinds.iter().enumerate() {
        seq_print!(seq, "bus1-charged-{name}:\t{}\n", info.charged[r]);
        seq_print!(seq, "bus1-user-charged-{name}:\t{}\n", info.user_charged[r]);
        seq_print!(seq, "bus1-user-max-{name}:\t{}\n", info.user_limits[r]);
    }
    seq_print!(seq, "bus1-user-sent-fds:\t{}\n", info.sent_fds);
}
