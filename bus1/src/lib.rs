// SPDX-License-Identifier: MIT OR Apache-2.0

//! Capability-based messages between the threads and processes of one machine.
//!
//! bus1 is a message bus without a broker: messages go from the sender's memory straight into a
//! pool that the receiver has mapped, copied once. Only a holder of a [`Handle`] may send to the
//! [`Node`] behind it, or can even name it. All messages of all peers stand in one global order,
//! also those that go to many receivers at once.
//!
//! | type | is |
//! |---|---|
//! | [`Peer`] | a participant: a queue, nodes, handles |
//! | [`Node`] | an object of a peer, which messages are sent to; dropping it destroys it |
//! | [`Handle`] | the right to send to a node; dropping the last clone gives it back |
//! | [`Outgoing`] | a message to send: payload, handles, descriptors |
//! | [`Event`] | the things that a peer receives: messages, and notices about nodes |
//! | [`Message`] | a received message; dropping it gives its memory back |
//! | [`Host`] | where the bus runs: in the kernel (`/dev/bus1`), or in this process |
//!
//! # Quick start
//!
//! A server and a client. The first handle is [transferred](Peer::transfer); from then on handles
//! travel in messages.
//!
//! ```
//! use bus1::{Event, Host, Outgoing, Peer};
//!
//! // On the embedded host this runs everywhere. `Peer::open()` takes /dev/bus1 where it exists.
//! let server = Peer::open_on(Host::Embedded)?;
//! let client = Peer::open_on(Host::Embedded)?;
//!
//! let service = server.create_node()?;
//! let handle = server.transfer(service.handle(), &client)?.expect("the node is alive");
//!
//! // The client asks, and sends along where to answer.
//! let answers = client.create_node()?;
//! client.send(&handle, &Outgoing::new().payload(b"6 * 7").handle(answers.handle()))?;
//!
//! // The server answers to the handle that came with the question.
//! let Event::Message(mut question) = server.recv()? else { panic!("a question was sent") };
//! assert_eq!(question.payload(), b"6 * 7");
//! assert_eq!(question.destination(), service.id());
//! let client_handle = question.take_handles().remove(0).expect("the client is alive");
//! server.send(&client_handle, &Outgoing::new().payload(b"42"))?;
//!
//! let Event::Message(answer) = client.recv()? else { panic!("an answer was sent") };
//! assert_eq!(answer.payload(), b"42");
//!
//! // The server gives its handle back; the client learns that no answer can come any more.
//! drop(client_handle);
//! assert!(matches!(client.recv()?, Event::NodeReleased(id) if id == answers.id()));
//!
//! // The server ends; the client learns that as well.
//! drop((service, server, question));
//! assert!(matches!(client.recv()?, Event::NodeDestroyed(id) if id == handle.id()));
//! # Ok::<(), bus1::Error>(())
//! ```
//!
//! # What it promises
//!
//! - **Order.** If two peers each receive parts of two transactions, they do so in the same order.
//!   If one call had returned before another began, whatever connects the two, no peer receives the
//!   second one's message first. [`Peer::send_to`] is one transaction: all receivers or none.
//! - **Rights.** A handle is unforgeable, and only a holder can pass it on.
//! - **Release.** An owner is notified when the last handle to a node is gone; a holder is notified
//!   when the node is.
//! - **No waiting.** No call waits for another peer, except those that receive.
//! - **Round trips.** [`Peer::call`] and [`Peer::reply_and_wait`] send and wait in one system call
//!   each, [`Peer::recv_many`] receives many messages in one.
//!
//! # What it does not promise
//!
//! - It does not say who sent a message. A receiver knows which node the message was sent to, and
//!   whom it gave handles of that node.
//! - It does not block a sender whose receiver is slow: the sender gets [`Error::Quota`] or
//!   [`Error::PoolFull`], and decides.
//! - It does not look into the payload, and knows no names: handles come from messages, from
//!   [`Peer::transfer`], or with an inherited descriptor ([`Peer::from_fd`]).
//!
//! # Hosts
//!
//! [`Peer::open`] takes the kernel's host if `/dev/bus1` exists, otherwise the one inside this
//! process, **where only threads of this process can be reached**. `BUS1_HOST=kernel` or `embedded`
//! in the environment overrides it. Both are the same bus and behave alike.

#![warn(missing_docs)]

// Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//   errno, id, limits, deadline
//   error
//   host, gate
//   transport: the way to a host
//   kernel, embedded: the hosts
//   connection: commands
//   registry: rights by ID
//   handle
//   message, outgoing
//   event, node
//   exchange
//   peer
//   send, recv, room, usage
//   call

mod call;
mod connection;
mod deadline;
mod embedded;
mod errno;
mod error;
mod event;
mod exchange;
mod gate;
mod handle;
mod host;
mod id;
mod kernel;
mod limits;
mod message;
mod node;
mod outgoing;
mod peer;
mod recv;
mod registry;
mod room;
mod send;
mod transport;
mod usage;

pub use errno::Errno;
pub use error::{Error, Result};
pub use event::Event;
pub use exchange::CallError;
pub use handle::Handle;
pub use host::Host;
pub use id::HandleId;
pub use limits::Limits;
pub use message::Message;
pub use node::Node;
pub use outgoing::Outgoing;
pub use peer::Peer;
pub use send::{Refusal, SendError};
pub use usage::{Amounts, Level, Obstacle, Resource, Usage};

// The example of the README runs with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
