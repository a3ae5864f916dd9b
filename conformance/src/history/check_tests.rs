// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every promise, broken by hand.

use super::super::log::Part;
use super::*;

const NOBODY: &[u32] = &[0, 0, 0];

fn slot(receiver: u8, slot: u8) -> Part {
    Part {
        receiver,
        target: Target::Slot(slot),
    }
}

fn sent(serial: u32, parts: &[Part], seen: &[u32]) -> Sent {
    Sent {
        serial,
        parts: parts.to_vec(),
        seen: seen.to_vec(),
        cause: None,
    }
}

fn got(actor: Actor, serial: u32, slot: u8, more: bool) -> Got {
    let what = What::Data {
        actor,
        serial,
        slot,
    };
    Got {
        what,
        more,
        corrupt: false,
        late: false,
    }
}

fn destroyed(handle: u64, more: bool) -> Got {
    Got {
        what: What::Destroyed(handle),
        more,
        corrupt: false,
        late: false,
    }
}

/// Returns three actors, of which the last two are the receivers. Actor 0 sends to both, twice to
/// the first; actor 1 destroys a node that both hold, and sends to both; actor 2 makes nothing.
fn good() -> History {
    let both = |a, b| {
        [
            Part {
                receiver: 0,
                target: Target::Handle(a),
            },
            Part {
                receiver: 1,
                target: Target::Handle(b),
            },
        ]
    };
    History {
        sent: vec![
            vec![
                sent(1, &[slot(0, 0), slot(1, 0), slot(0, 1)], NOBODY),
                sent(3, &[slot(0, 0)], &[1, 0, 0]),
            ],
            vec![
                sent(1, &both(3, 11), NOBODY),
                sent(2, &[slot(1, 1), slot(0, 1)], &[1, 1, 0]),
            ],
            vec![],
        ],
        got: vec![
            vec![
                got(0, 1, 0, true),
                got(0, 1, 1, false),
                destroyed(3, false),
                got(0, 3, 0, false),
                got(1, 2, 1, false),
            ],
            vec![
                got(0, 1, 0, false),
                destroyed(11, false),
                got(1, 2, 1, false),
            ],
        ],
        ..History::default()
    }
}

fn place(receiver: u8, at: usize) -> Place {
    Place { receiver, at }
}

fn broken(breaks: impl FnOnce(&mut History)) -> Violation {
    let mut history = good();
    breaks(&mut history);
    check(&history).expect_err("the checker sees nothing wrong")
}

#[test]
fn a_good_history_passes() {
    let summary = check(&good()).unwrap();
    assert_eq!(
        summary,
        Summary {
            transactions: 4,
            multicasts: 3,
            parts: 8
        }
    );
}

#[test]
fn nothing_at_all_passes() {
    assert!(check(&History::default()).is_ok());
}

#[test]
fn changed_payload_is_found() {
    let violation = broken(|history| history.got[1][2].corrupt = true);
    assert_eq!(violation, Violation::Corrupt(place(1, 2)));
}

#[test]
fn late_message_is_found() {
    let violation = broken(|history| history.got[0][3].late = true);
    assert_eq!(violation, Violation::Late(place(0, 3)));
}

#[test]
fn refused_message_that_came_is_found() {
    // Serial 2 of actor 0 is an attempt that failed.
    let violation = broken(|history| history.got[0].push(got(0, 2, 0, false)));
    assert_eq!(violation, Violation::Invented(place(0, 5)));
}

#[test]
fn message_to_a_receiver_not_named_is_found() {
    let violation = broken(|history| history.got[1].push(got(0, 3, 0, false)));
    assert_eq!(violation, Violation::Invented(place(1, 3)));
}

#[test]
fn unknown_destruction_is_found() {
    let violation = broken(|history| history.got[1].push(destroyed(19, false)));
    assert_eq!(violation, Violation::Invented(place(1, 3)));
}

#[test]
fn lost_message_is_found() {
    let violation = broken(|history| {
        history.got[0].remove(3);
    });
    assert_eq!(violation, Violation::Lost(Name(0, 3), 0));
}

#[test]
fn lost_part_is_found() {
    let violation = broken(|history| {
        history.got[0].remove(1);
    });
    assert_eq!(violation, Violation::Lost(Name(0, 1), 0));
}

#[test]
fn half_a_multicast_is_found() {
    let violation = broken(|history| {
        history.got[1].remove(0);
    });
    assert_eq!(violation, Violation::Lost(Name(0, 1), 1));
}

#[test]
fn doubled_message_is_found() {
    let violation = broken(|history| history.got[1].push(got(1, 2, 1, false)));
    assert_eq!(violation, Violation::Doubled(place(1, 3)));
    let violation = broken(|history| history.got[0].insert(4, got(0, 1, 0, false)));
    assert_eq!(violation, Violation::Doubled(place(0, 4)));
    let violation = broken(|history| history.got[0].insert(1, got(0, 1, 0, true)));
    assert_eq!(violation, Violation::Doubled(place(0, 1)));
}

#[test]
fn torn_parts_are_found() {
    let violation = broken(|history| history.got[0].swap(1, 2));
    assert_eq!(violation, Violation::Torn(place(0, 1)));
}

#[test]
fn parts_in_another_order_are_found() {
    let violation = broken(|history| {
        history.got[0].swap(0, 1);
        history.got[0][0].more = true;
        history.got[0][1].more = false;
    });
    assert_eq!(violation, Violation::PartOrder(place(0, 0)));
}

#[test]
fn wrong_flags_are_found() {
    let missing = broken(|history| history.got[0][0].more = false);
    assert_eq!(missing, Violation::Flag(place(0, 0)));
    let empty = broken(|history| history.got[0][1].more = true);
    assert_eq!(empty, Violation::Flag(place(0, 1)));
    let notice = broken(|history| history.got[1][1].more = true);
    assert_eq!(notice, Violation::Flag(place(1, 1)));
}

#[test]
fn two_orders_are_found() {
    let violation = broken(|history| {
        // Either of the two may come first; both receivers have to agree.
        history.sent[1][1].seen = NOBODY.to_vec();
        history.got[1].swap(1, 2);
    });
    assert_eq!(
        violation,
        Violation::Consistency(Name(1, 1), Name(1, 2), [0, 1])
    );
}

#[test]
fn a_stopped_sender_need_not_be_heard_to_the_end() {
    let mut history = good();
    // The last transaction of actor 0 is not received.
    history.got[0].remove(3);
    assert_eq!(check(&history), Err(Violation::Lost(Name(0, 3), 0)));
    // Its call had not returned when the actor was stopped.
    history.stopped.insert(0, 2);
    assert!(check(&history).is_ok());
    // It had.
    history.stopped.insert(0, 3);
    assert_eq!(check(&history), Err(Violation::Lost(Name(0, 3), 0)));
    // Another actor was stopped.
    history.stopped = [(1, 0)].into();
    assert_eq!(check(&history), Err(Violation::Lost(Name(0, 3), 0)));
}

#[test]
fn a_stopped_sender_is_not_torn() {
    let mut history = good();
    history.stopped.insert(0, 0);
    // One of two parts for one receiver.
    history.got[0].remove(1);
    assert_eq!(check(&history), Err(Violation::Lost(Name(0, 1), 0)));
}

#[test]
fn a_circle_over_three_receivers_is_found() {
    // Every two receivers have a single transaction in common, and still no order fits.
    let pair = |a, b| [slot(a, 0), slot(b, 0)];
    let history = History {
        sent: vec![
            vec![sent(1, &pair(0, 1), NOBODY)],
            vec![sent(1, &pair(1, 2), NOBODY)],
            vec![sent(1, &pair(2, 0), NOBODY)],
        ],
        got: vec![
            vec![got(2, 1, 0, false), got(0, 1, 0, false)],
            vec![got(0, 1, 0, false), got(1, 1, 0, false)],
            vec![got(1, 1, 0, false), got(2, 1, 0, false)],
        ],
        ..History::default()
    };
    assert!(matches!(check(&history), Err(Violation::Circle(_))));
}

#[test]
fn effect_before_its_cause_is_found() {
    let violation = broken(|history| {
        // Actor 1 had seen that 3 of actor 0 had returned, and receiver 0 got it afterwards.
        history.sent[1][1].seen = vec![3, 1, 0];
        history.got[0].swap(3, 4);
    });
    assert_eq!(violation, Violation::Causality(Name(0, 3), Name(1, 2), 0));
}

#[test]
fn ones_own_order_is_causal() {
    let violation = broken(|history| {
        history.got[1].clear();
        history.sent = vec![
            vec![
                sent(1, &[slot(0, 0), slot(0, 1)], NOBODY),
                sent(3, &[slot(0, 0)], &[1, 0, 0]),
            ],
            vec![],
            vec![],
        ];
        history.got[0] = vec![got(0, 3, 0, false), got(0, 1, 0, true), got(0, 1, 1, false)];
    });
    assert_eq!(violation, Violation::Causality(Name(0, 1), Name(0, 3), 0));
}

#[test]
fn answer_before_the_question_is_found() {
    let violation = broken(|history| {
        // The second message of actor 1 answers 3 of actor 0.
        history.sent[1][1].cause = Some((0, 3));
        history.got[0].swap(3, 4);
    });
    assert_eq!(violation, Violation::Triangle(Name(0, 3), Name(1, 2), 0));
}
