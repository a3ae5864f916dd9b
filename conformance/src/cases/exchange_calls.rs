// SPDX-License-Identifier: MIT OR Apache-2.0

//! Many clients and several servers that use EXCHANGE: every question is answered exactly once.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bus1_conformance_case::case;

use crate::client::{Exchange, Message, Peer};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::Pages;
use crate::sys::process::{fork, Child, End};
use crate::sys::thread::handle_signal;

const CLIENTS: usize = 6;
const SERVERS: usize = 3;
const QUESTIONS: u64 = 150;

/// The server and its clients, with the handles that they have of each other.
struct Scene {
    server: Peer,
    clients: Vec<Peer>,
    /// The server's, at each client.
    to_server: Vec<u64>,
    /// Each client's, at the server.
    to_clients: Vec<u64>,
    /// Number of answers to each question.
    answered: Pages,
}

impl Scene {
    fn new(env: &Env) -> Self {
        let server = env.peer();
        let clients: Vec<Peer> = (0..CLIENTS).map(|_| env.peer()).collect();
        server.view();
        for client in &clients {
            client.view();
        }
        Self {
            to_server: clients
                .iter()
                .map(|client| client.handle_of(&server))
                .collect(),
            to_clients: clients
                .iter()
                .map(|client| server.handle_of(client))
                .collect(),
            server,
            clients,
            answered: Pages::shared(CLIENTS),
        }
    }

    fn answered(&self, client: usize, question: u64) -> &AtomicU64 {
        // A page for each client.
        let page = self.answered.words().len() / CLIENTS;
        &self.answered.words()[client * page + question as usize]
    }

    /// Asks all questions of one client, each after the answer to the one before.
    fn ask(&self, client: usize) {
        let peer = &self.clients[client];
        let mut held = Vec::new();
        for question in 0..QUESTIONS {
            let bytes = [(client as u64).to_ne_bytes(), question.to_ne_bytes()].concat();
            let message = peer.message().to(&[self.to_server[client]]).bytes(&bytes);
            let answer = finish(
                peer.exchange()
                    .release(&held)
                    .send(message)
                    .room(1)
                    .patient(),
            );
            assert_eq!(answer.bytes, bytes, "the answer to another question");
            held = vec![answer.msg.offset];
        }
        peer.expect_nothing();
    }

    /// Answers until there is nothing more to answer.
    fn answer(&self) {
        let peer = &self.server;
        let mut question = finish(peer.exchange().room(1).patient());
        while !question.bytes.is_empty() {
            let [client, number] =
                [0, 8].map(|at| u64::from_ne_bytes(question.bytes[at..at + 8].try_into().unwrap()));
            self.answered(client as usize, number).fetch_add(1, SeqCst);
            let to = [self.to_clients[client as usize]];
            let message = peer.message().to(&to).bytes(&question.bytes);
            let held = [question.msg.offset];
            let next = finish(
                peer.exchange()
                    .release(&held)
                    .send(message)
                    .room(1)
                    .patient(),
            );
            question = next;
        }
    }

    /// Has all servers end.
    fn dismiss(&self) {
        for _ in 0..SERVERS {
            self.clients[0]
                .message()
                .to(&self.to_server[..1])
                .send()
                .unwrap();
        }
    }

    #[track_caller]
    fn check(&self) {
        for client in 0..CLIENTS {
            for question in 0..QUESTIONS {
                let times = self.answered(client, question).load(SeqCst);
                assert_eq!(times, 1, "question {question} of client {client}");
            }
        }
        self.server.expect_nothing();
        self.clients.iter().for_each(Peer::expect_nothing);
    }
}

/// Returns the message that it brings, after as many interruptions as there are.
fn finish(mut exchange: Exchange<'_>) -> Message {
    loop {
        match exchange.call() {
            Ok(()) => return exchange.messages().remove(0),
            Err(E::INTR) => (),
            Err(errno) => panic!("EXCHANGE says {errno:?}"),
        }
    }
}

#[case("abi.md#exchange-receive")]
fn threads_call(env: &Env) {
    let scene = Scene::new(env);
    std::thread::scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| scene.answer());
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let scene = &scene;
                scope.spawn(move || scene.ask(client))
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        scene.dismiss();
    });
    scene.check();
}

#[case("abi.md#exchange-signals", kernel, alone)]
fn processes_call_under_signals(env: &Env) {
    handle_signal(libc::SIGUSR1, true);
    handle_signal(libc::SIGUSR2, false);
    let scene = &Scene::new(env);
    let start = |body: &dyn Fn()| {
        fork(|| {
            body();
            0
        })
    };
    let servers: Vec<Child> = (0..SERVERS).map(|_| start(&|| scene.answer())).collect();
    let mut clients: Vec<Child> = (0..CLIENTS)
        .map(|client| start(&|| scene.ask(client)))
        .collect();
    // Signals as long as there is a question.
    let mut ends = Vec::new();
    let mut round = 0;
    while !clients.is_empty() {
        for child in servers.iter().chain(&clients) {
            round += 1;
            child.signal(if round % 3 == 0 {
                libc::SIGUSR2
            } else {
                libc::SIGUSR1
            });
        }
        clients.retain_mut(|client| match client.try_wait() {
            Some(end) => {
                ends.push(end);
                false
            }
            None => true,
        });
        std::thread::sleep(Duration::from_micros(500));
    }
    scene.dismiss();
    ends.extend(servers.into_iter().map(Child::wait));
    assert!(ends.iter().all(|&end| end == End::Exit(0)), "{ends:?}");
    scene.check();
}
