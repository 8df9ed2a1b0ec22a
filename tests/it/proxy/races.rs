//! Kept connections that end just as the next request is sent: every answer is the request's own, and nothing that must
//! not be done twice arrives twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use portcullis_testkit::{Connection, RawPeer, ScriptedOrigin};

use crate::besieged::scaled;
use crate::scene;

/// How many requests unless `PORTCULLIS_TEST_RACES` says otherwise.
const REQUESTS: usize = 5_000;
/// Connections of clients.
const CLIENTS: usize = 8;

/// Numbers that are the same for the same seed (Marsaglia's xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How often each request arrived whole, by its line.
#[derive(Default)]
struct Arrivals(Mutex<HashMap<String, usize>>);

impl Arrivals {
    fn note(&self, head: &str) -> String {
        let line = head.split(" HTTP/").next().unwrap().to_owned();
        *self.0.lock().unwrap().entry(line.clone()).or_default() += 1;
        line
    }
}

/// Answers with the request's own line, and ends the connection somewhere around the next request.
async fn fickle(mut peer: RawPeer, arrivals: Arc<Arrivals>, mut chance: Chance) {
    while let Some(head) = peer.head().await {
        if head.to_ascii_lowercase().contains("content-length: 5") {
            peer.bytes(5).await;
        }
        let line = arrivals.note(&head);
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len())).await;
        let instant = Duration::from_micros(chance.below(1500));
        match chance.below(10) {
            0 => return,
            1 => return peer.reset(),
            2 => return tokio::time::sleep(instant).await,
            3 => {
                tokio::time::sleep(instant).await;
                return peer.reset();
            }
            4 => {
                // In the midst of the next head.
                let some = 1 + usize::try_from(chance.below(60)).unwrap();
                let _head = tokio::time::timeout(Duration::from_millis(20), peer.bytes(some)).await;
                return;
            }
            5 => {
                // Behind it, without an answer.
                if let Ok(Some(head)) = tokio::time::timeout(Duration::from_millis(20), peer.head()).await {
                    arrivals.note(&head);
                }
                return;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_around_the_next_request_cost_no_order_and_no_answer_goes_astray() {
    let requests = scaled("PORTCULLIS_TEST_RACES", REQUESTS);
    let seed = u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos()) | 1;
    println!("seed {seed}");
    let (arrivals, number) = (Arc::new(Arrivals::default()), AtomicUsize::new(1));
    let noted = Arc::clone(&arrivals);
    let upstream = ScriptedOrigin::start(move |peer| {
        let connection = number.fetch_add(1, Ordering::Relaxed) as u64;
        fickle(peer, Arc::clone(&noted), Chance(seed.wrapping_mul(connection.wrapping_mul(2) + 1) | 1))
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 2\nlogging: { access: { enabled: false } }").await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let calls: Vec<_> = (0..requests / CLIENTS)
                .map(|at| match at % 3 {
                    0 => (format!("GET /{client}-{at}"), gateway.get(&format!("/{client}-{at}"))),
                    _ => (format!("POST /{client}-{at}"), gateway.post(&format!("/{client}-{at}")).body("order")),
                })
                .collect();
            let data = gateway.data();
            tokio::spawn(async move {
                let mut connection = Connection::h1(data).await;
                let mut answers = Vec::new();
                for (line, call) in calls {
                    let answer = connection.send(call).await;
                    if answer.status != 200 {
                        // Behind a body that was not read whole, the connection ends.
                        connection = Connection::h1(data).await;
                    }
                    answers.push((line, answer));
                }
                answers
            })
        })
        .collect();
    let (mut answered, mut lost) = (0usize, 0usize);
    for client in clients {
        for (line, answer) in client.await.unwrap() {
            match answer.status {
                200 => assert_eq!(answer.text(), line, "seed {seed}: an answer to something else"),
                502 => lost += 1,
                _ => panic!("seed {seed}: {line}: {answer:?}"),
            }
            answered += usize::from(answer.status == 200);
            let times = arrivals.0.lock().unwrap().get(&line).copied().unwrap_or(0);
            let most = if line.starts_with("POST") { 1 } else { 2 };
            assert!(times <= most, "seed {seed}: {line} arrived {times} times");
            assert!(times > 0 || answer.status == 502, "seed {seed}: {line} was answered by nobody");
        }
    }
    println!("{answered} answered, {lost} lost to a connection that ended under them");
    assert!(answered > requests / 2, "seed {seed}: {answered} of {requests}");
}
