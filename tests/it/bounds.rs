//! What holds under attack: the gateway grows by no more than a bound, and others are served.
//!
//! Short here; `PORTCULLIS_TEST_SLOW_CONNECTIONS` (1000), `PORTCULLIS_TEST_RANDOM_KEYS` (50000),
//! `PORTCULLIS_TEST_SLOWHTTPTEST` (300 connections) and `PORTCULLIS_TEST_SLOWHTTPTEST_SECONDS` (5) make them as long as one
//! likes.

use std::time::Duration;

use memchr::memmem;
use portcullis_testkit::{Gateway, Key, Origin, key_text, patient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::besieged::{during, scaled};
use crate::{figures, scene, tools};

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
    noticed.holds(&format!("{total} slow heads"), GROWTH);
}

/// Keys nobody ever made, each another.
fn random_key(number: usize) -> String {
    let body = format!("pc_live_sk_{:0>32}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let sum = key_text::checksum(&body);
    body + &sum
}

/// Asks with so many keys over one connection, many at once; how often it was refused.
async fn guess(address: std::net::SocketAddr, total: usize) -> usize {
    const AT_ONCE: usize = 50;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut asked, mut said, mut refused) = (String::new(), Vec::new(), 0);
    for batch in 0..total / AT_ONCE {
        asked.clear();
        for at in 0..AT_ONCE {
            asked.push_str("GET /v1/orders/1 HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer ");
            asked.push_str(&random_key(batch * AT_ONCE + at));
            asked.push_str("\r\n\r\n");
        }
        // Its answer has no body, so its end is seen.
        asked.push_str("HEAD /nothing HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        said.clear();
        while !said.ends_with(b"\r\n\r\n") || memmem::find(&said, b"HTTP/1.1 404").is_none() {
            let read = stream.read_buf(&mut said).await.unwrap();
            assert!(read > 0, "the connection ends after {refused} refusals");
        }
        refused += memmem::find_iter(&said, b"HTTP/1.1 401").count();
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn random_keys_leave_others_served_and_memory_bounded() {
    let (gateway, origin, key) = shop().await;
    let ((), quiet) = during(&gateway, &key, tokio::time::sleep(Duration::from_secs(2))).await;
    origin.forget();
    let total = scaled("PORTCULLIS_TEST_RANDOM_KEYS", 50_000) / 50 * 50;
    let (refused, noticed) = during(&gateway, &key, guess(gateway.data(), total)).await;
    assert_eq!(refused, total);
    let attack = format!("{total} random keys");
    noticed.holds(&attack, GROWTH);
    let times = noticed.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    figures::note(&attack, "their p99 by that of before", format!("{times:.2}"), "<= 2", times <= 2.0);
    let neighbours = origin.requests().iter().filter(|request| request.has("x-portcullis-key-id")).count();
    assert_eq!(neighbours, origin.count(), "nobody else reached the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn slowhttptest_in_its_three_kinds_hurts_nobody_else() {
    let Some(program) = tools::find("slowhttptest") else { return };
    let (gateway, origin, key) = shop().await;
    origin.answer_at("/open/large", portcullis_testkit::Answer::pattern(1 << 20));
    let connections = scaled("PORTCULLIS_TEST_SLOWHTTPTEST", 300).to_string();
    let rate = (connections.parse::<usize>().unwrap() / 2).to_string();
    let seconds = scaled("PORTCULLIS_TEST_SLOWHTTPTEST_SECONDS", 5);
    let (limit, seconds) = (Duration::from_secs(seconds as u64 + 55), seconds.to_string());
    let kinds: [(&str, &str, &[&str]); 3] = [
        ("-H", "/open/x", &[]),
        ("-B", "/open/x", &["-s", "8192", "-t", "POST"]),
        ("-X", "/open/large", &["-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "1"]),
    ];
    for (kind, path, more) in kinds {
        let url = format!("http://{}{path}", gateway.data());
        let mut args = vec![kind, "-c", &connections, "-r", &rate, "-i", "1", "-l", &seconds, "-p", "3", "-u", &url];
        args.extend_from_slice(more);
        let (program, args) = (program.clone(), args.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let attack = async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            tokio::time::timeout(patient(limit), tools::run(&program, &args, "")).await
        };
        let (ended, noticed) = during(&gateway, &key, attack).await;
        let (code, said) = ended.expect("it ends");
        assert_eq!(code, 0, "{kind}: {said}");
        noticed.holds(&format!("slowhttptest {kind}, {connections} connections"), GROWTH);
    }
}
