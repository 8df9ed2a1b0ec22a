//! Clients that ask on and on, and count what they hear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use portcullis_testkit::{Call, Connection, Key, patient};
use tokio::task::JoinHandle;

use crate::figures;

/// A request, and the answer that is right.
#[derive(Clone)]
pub(super) struct Wish {
    key: String,
    method: &'static str,
    status: u16,
}

impl Wish {
    /// An order, for whoever may read orders.
    pub(super) fn get(key: &Key, status: u16) -> Self {
        Self { key: key.text.clone(), method: "GET", status }
    }

    /// Some thousand bytes, for whoever has a key.
    pub(super) fn post(key: &Key, status: u16) -> Self {
        Self { key: key.text.clone(), method: "POST", status }
    }

    /// An order for a key that was never made.
    pub(super) fn unknown(text: &str) -> Self {
        Self { key: text.to_owned(), method: "GET", status: 401 }
    }

    pub(super) fn is_for(&self, key: &Key) -> bool {
        self.key == key.text
    }

    fn call(&self, to: SocketAddr) -> Call {
        let call = match self.method {
            "POST" => Call::to(to, "POST", "/any/thing").pattern(5_000),
            method => Call::to(to, method, "/v1/orders/1"),
        };
        call.header("x-api-key", &self.key)
    }
}

/// Clients at work.
pub(super) struct Load {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answers: AtomicU64,
    lost: AtomicU64,
    wrong: AtomicU64,
}

/// What clients saw.
#[derive(Debug)]
pub(super) struct Counted {
    answers: u64,
    /// Requests without an answer.
    lost: u64,
    /// Answers of another status.
    wrong: u64,
}

impl Counted {
    /// Notes as figures what became of requests in `event`.
    pub(super) fn note(&self, event: &str) {
        let Self { answers, lost, wrong } = self;
        for (figure, number) in [("requests without an answer", lost), ("answered otherwise", wrong)] {
            figures::note(event, figure, format!("{number} of {answers}"), "0", *number == 0);
        }
    }

    /// # Panics
    /// When a request was lost or answered otherwise, or fewer than `least` were made.
    pub(super) fn all_was_as_wished(&self, least: u64) {
        assert_eq!((self.lost, self.wrong), (0, 0), "{self:?}");
        assert!(self.answers > least, "{self:?}");
    }
}

impl Load {
    /// So many clients at each address, each with all wishes in turn, and a rest after each.
    pub(super) fn start(at: &[SocketAddr], clients: usize, rest: Duration, wishes: &[Wish]) -> Self {
        let seen = Arc::new(Seen::default());
        let clients = at.iter().flat_map(|address| (0..clients).map(move |number| (*address, number)));
        let clients = clients.map(|(address, number)| {
            let mut wishes = wishes.to_vec();
            let first = number % wishes.len();
            wishes.rotate_left(first);
            tokio::spawn(client(address, wishes, rest, Arc::clone(&seen)))
        });
        Self { clients: clients.collect(), seen }
    }

    /// How many answers there were until now.
    pub(super) fn answers(&self) -> u64 {
        self.seen.answers.load(Ordering::Relaxed)
    }

    pub(super) async fn end(self) -> Counted {
        self.seen.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            tokio::time::timeout(patient(Duration::from_secs(30)), client).await.unwrap().unwrap();
        }
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counted { answers: count(&self.seen.answers), lost: count(&self.seen.lost), wrong: count(&self.seen.wrong) }
    }
}

/// Asks one thing after the other over a connection that is kept, as pools of clients do, and never asks twice.
async fn client(to: SocketAddr, wishes: Vec<Wish>, rest: Duration, seen: Arc<Seen>) {
    let mut connection = Connection::h1(to).await;
    for wish in wishes.iter().cycle() {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let method = wish.method;
        match connection.attempt(wish.call(to)).await {
            Ok(answer) => {
                seen.answers.fetch_add(1, Ordering::Relaxed);
                if answer.status != wish.status {
                    eprintln!("{method} was answered {} instead of {}: {}", answer.status, wish.status, answer.text());
                    seen.wrong.fetch_add(1, Ordering::Relaxed);
                }
                if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    connection = Connection::h1(to).await;
                }
            }
            Err(why) => {
                eprintln!("{method} was lost: {why}");
                seen.lost.fetch_add(1, Ordering::Relaxed);
                connection = Connection::h1(to).await;
            }
        }
        tokio::time::sleep(rest).await;
    }
}
