//! What holds under attack: the gateway grows by no more than a bound, and others are served.
//!
//! Short here; `PORTCULLIS_TEST_SLOW_CONNECTIONS` (1000), `PORTCULLIS_TEST_RANDOM_KEYS` (50000) and
//! `PORTCULLIS_TEST_SLOWHTTPTEST` (300 connections) make them as long as one likes.

use std::time::Duration;

use portcullis_testkit::{Gateway, Key, Origin, key_text, patient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::besieged::{during, scaled};
use crate::{scene, tools};

/// How much the gateway may grow.
const GROWTH: u64 = 64 << 20;

async fn shop() -> (Gateway, Origin, Key) {
    let (gateway, origin) = scene::shop_with("", "logging: { format: json, access: { enabled: false } }").await;
    let key = gateway.key("neighbour", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    (gateway, origin, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_leave_others_served_and_memory_bounded() {
    let (gateway, _origin, key) = shop().await;
    let (address, total) = (gateway.data(), scaled("PORTCULLIS_TEST_SLOW_CONNECTIONS", 1_000));
    let attack = async move {
        let mut slow = Vec::new();
        for _ in 0..total {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: shop.test\r\n").await.unwrap();
            slow.push(stream);
        }
        for _ in 0..5 {
            for stream in &mut slow {
                let _ = stream.write_all(b"X-A: b\r\n").await;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        slow.len()
    };
    let (opened, noticed) = during(&gateway, &key, attack).await;
    assert_eq!(opened, total);
    noticed.holds(GROWTH);
}

/// Keys nobody ever made, each another.
fn random_key(number: usize) -> String {
    let body = format!("pc_live_sk_{:0>32}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let sum = key_text::checksum(&body);
    body + &sum
}

#[tokio::test(flavor = "multi_thread")]
async fn random_keys_leave_others_served_and_memory_bounded() {
    const AT_ONCE: usize = 50;
    const REFUSED: &[u8] = b"HTTP/1.1 401";
    let (gateway, origin, key) = shop().await;
    origin.forget();
    let (address, total) = (gateway.data(), scaled("PORTCULLIS_TEST_RANDOM_KEYS", 50_000));
    let attack = async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut refused = 0;
        for batch in 0..total / AT_ONCE {
            let asked: String = (0..AT_ONCE)
                .map(|at| {
                    let key = random_key(batch * AT_ONCE + at);
                    format!("GET /v1/orders/1 HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {key}\r\n\r\n")
                })
                .collect();
            stream.write_all(asked.as_bytes()).await.unwrap();
            let (mut said, mut answers) = (Vec::new(), 0);
            while answers < AT_ONCE {
                let read = stream.read_buf(&mut said).await.unwrap();
                assert!(read > 0, "the connection ends after {refused} refusals");
                answers = memchr_count(&said, REFUSED);
            }
            refused += answers;
            // The last of them has a body that may still be on its way: it is no answer of the next batch.
            let mut rest = [0; 4096];
            while tokio::time::timeout(Duration::from_millis(1), stream.read(&mut rest)).await.is_ok() {}
        }
        refused
    };
    let (refused, noticed) = during(&gateway, &key, attack).await;
    assert_eq!(refused, total / AT_ONCE * AT_ONCE);
    noticed.holds(GROWTH);
    let neighbours = origin.requests().iter().filter(|request| request.has("x-portcullis-key-id")).count();
    assert_eq!(neighbours, origin.count(), "nobody else reached the origin");
}

fn memchr_count(text: &[u8], words: &[u8]) -> usize {
    text.windows(words.len()).filter(|window| *window == words).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn slowhttptest_in_its_three_kinds_hurts_nobody_else() {
    let Some(program) = tools::find("slowhttptest") else { return };
    let (gateway, origin, key) = shop().await;
    origin.answer_at("/open/large", portcullis_testkit::Answer::pattern(1 << 20));
    let connections = scaled("PORTCULLIS_TEST_SLOWHTTPTEST", 300).to_string();
    let rate = (connections.parse::<usize>().unwrap() / 2).to_string();
    let kinds: [(&str, &str, &[&str]); 3] = [
        ("-H", "/open/x", &[]),
        ("-B", "/open/x", &["-s", "8192", "-t", "POST"]),
        ("-X", "/open/large", &["-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "1"]),
    ];
    for (kind, path, more) in kinds {
        let url = format!("http://{}{path}", gateway.data());
        let mut args = vec![kind, "-c", &connections, "-r", &rate, "-i", "1", "-l", "5", "-p", "3", "-u", &url];
        args.extend_from_slice(more);
        let (program, args) = (program.clone(), args.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let attack = async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            tokio::time::timeout(patient(Duration::from_secs(60)), tools::run(&program, &args, "")).await
        };
        let (ended, noticed) = during(&gateway, &key, attack).await;
        let (code, said) = ended.expect("it ends");
        assert_eq!(code, 0, "{kind}: {said}");
        noticed.holds(GROWTH);
    }
}
