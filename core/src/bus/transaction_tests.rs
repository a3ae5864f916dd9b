// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of `transaction.rs`.

use super::*;

#[test]
fn timestamps_rise_and_never_tie() {
    for after in 0..64 {
        let (message, destruction) = (message_after(after), destruction_after(after));
        assert!(message > after && message <= after + 4 && message % 4 == 0);
        assert!(destruction > after && destruction <= after + 4 && destruction % 4 == 2);
    }
}

#[test]
fn fate_is_decided_once() {
    let t = Transaction::new(1, 1).unwrap();
    assert_eq!(t.fate(), Fate::Staged);
    assert!(t.commit(8));
    t.kill();
    assert_eq!(t.fate(), Fate::Committed(8));

    let t = Transaction::new(1, 2).unwrap();
    t.kill();
    assert!(!t.commit(8));
    assert_eq!(t.fate(), Fate::Killed);
}
