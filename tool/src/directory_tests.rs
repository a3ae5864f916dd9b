// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directory among workers that do not do what they should.

use super::*;
use bus1::Host;

/// A directory with one publisher and one subscriber, and no crew to look at.
struct Demo {
    directory: Directory,
    crew: Crew,
}

/// A peer with the handle that a worker gets.
struct Impostor {
    peer: Peer,
    directory: Handle,
}

impl Demo {
    fn new() -> Self {
        let peer = Peer::open_on(Host::Embedded).unwrap();
        let crew = Crew::new(&peer);
        let directory = Directory::new(peer, Interrupt::default(), 1, 1).unwrap();
        Self { directory, crew }
    }

    /// Takes the seat of the only worker of a role.
    fn seat(&self, role: Role) -> Impostor {
        let peer = Peer::open_on(Host::Embedded).unwrap();
        let mut seats = self.directory.seats.iter();
        let node = &seats.find(|seat| seat.id.role == role).unwrap().node;
        let transferred = self.directory.peer.transfer(node.handle(), &peer);
        let directory = transferred.unwrap().unwrap();
        Impostor { peer, directory }
    }

    fn step(&mut self) -> Result<()> {
        self.directory.step(&mut self.crew)
    }

    /// Returns the complaint about the next report.
    fn complaint(&mut self) -> String {
        format!("{:#}", self.step().unwrap_err())
    }
}

impl Impostor {
    fn tell(&self, control: &Control) {
        self.send(&control.encode().unwrap(), None);
    }

    fn send(&self, payload: &[u8], node: Option<&Node>) {
        let message = Outgoing::new().payload(payload);
        let message = message.handles(node.map(Node::handle));
        self.peer.send(&self.directory, &message).unwrap();
    }

    /// Greets with a node of its own.
    fn greet(&self) -> Node {
        let node = self.peer.create_node().unwrap();
        self.send(&Control::Hello.encode().unwrap(), Some(&node));
        node
    }
}

fn done() -> Control {
    Control::Done(Done {
        messages: u64::MAX,
        over_quota: u64::MAX,
        pool_full: u64::MAX,
        start: u64::MAX,
    })
}

#[test]
fn the_death_of_a_worker_is_an_error_until_it_has_finished() {
    let mut demo = Demo::new();
    let publisher = demo.seat(Role::Publisher);
    let node = publisher.greet();
    demo.step().unwrap();
    drop(node);
    assert_eq!(demo.complaint(), "publisher 0 is gone");

    let mut demo = Demo::new();
    let publisher = demo.seat(Role::Publisher);
    let node = publisher.greet();
    publisher.tell(&done());
    drop(node);
    for _ in 0..3 {
        demo.step().unwrap();
    }
    assert!(demo.directory.done[0].is_some());
}

#[test]
fn only_workers_that_were_started_are_counted() {
    let mut demo = Demo::new();
    // A worker that greets twice, or with another's node, does not stand for two.
    let publisher = demo.seat(Role::Publisher);
    let node = publisher.greet();
    demo.step().unwrap();
    assert_eq!(demo.directory.by_handle.len(), 1);
    publisher.send(&Control::Hello.encode().unwrap(), Some(&node));
    assert_eq!(demo.complaint(), "publisher 0 came twice");

    let subscriber = demo.seat(Role::Subscriber);
    let shared = publisher.peer.transfer(node.handle(), &subscriber.peer);
    let hello = Control::Hello.encode().unwrap();
    let message = Outgoing::new().payload(&hello);
    let shared = shared.unwrap().unwrap();
    let message = message.handle(&shared);
    let sent = subscriber.peer.send(&subscriber.directory, &message);
    sent.unwrap();
    assert_eq!(demo.complaint(), "subscriber 0 has another worker's node");

    // A greeting without a node is that of a worker that is gone.
    subscriber.tell(&Control::Hello);
    assert_eq!(demo.complaint(), "subscriber 0 is gone");
    assert_eq!(demo.directory.by_handle.len(), 1);
}

#[test]
fn a_worker_reports_only_what_is_its_to_report() {
    let received = || Control::Received {
        first: 0,
        entries: vec![1, 2],
    };
    let mut demo = Demo::new();
    let (publisher, subscriber) = (demo.seat(Role::Publisher), demo.seat(Role::Subscriber));
    publisher.tell(&received());
    assert!(demo.complaint().starts_with("publisher 0 sent what is not"));
    subscriber.tell(&done());
    assert!(demo
        .complaint()
        .starts_with("subscriber 0 sent what is not"));
    subscriber.tell(&Control::Expect { publishers: 7 });
    assert!(demo
        .complaint()
        .starts_with("subscriber 0 sent what is not"));
    subscriber.send(b"\xff\xff", None);
    assert!(demo
        .complaint()
        .starts_with("subscriber 0 is not understood"));

    publisher.tell(&done());
    demo.step().unwrap();
    publisher.tell(&done());
    assert_eq!(demo.complaint(), "publisher 0 goes on after its end");
}

#[test]
fn an_interrupt_is_looked_at_before_anything_is_taken() {
    let mut demo = Demo::new();
    demo.directory.interrupt.raise();
    assert!(demo.complaint().starts_with("interrupted"));
}
