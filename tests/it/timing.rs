//! How long a refusal takes tells nothing: unknown, nearly right, revoked, disabled and expired keys, and those of a suspended
//! owner, are refused alike, by the clock as by the bytes.
//!
//! The method is that of dudect (Reparaz, Balasch, Verbauwhede, 2016): kinds take turns in random order, the slowest tenth
//! of all is left out, and Welch's t compares each kind with the unknown keys. `PORTCULLIS_TEST_TIMINGS` says how many
//! samples of each kind there are (default 4000). An executable that was not optimised is no measure of nanoseconds: there
//! no kind may differ by more than a twentieth. `PORTCULLIS_TEST_BINARY` names one that was.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portcullis_testkit::{Gateway, Key, KeySpec, eventually, key_text};

use crate::besieged::scaled;
use crate::{figures, scene};

/// Beyond this |t| a difference is no chance.
const THRESHOLD: f64 = 4.5;
/// How much longer than the refusal of an unknown key any may take where the gateway was not optimised.
const SHARE: f64 = 0.05;
/// Chance may be against us, and a busy machine is: a difference that is real is found again.
const ATTEMPTS: usize = 3;
/// Keys of each kind.
const KEYS: usize = 4;

const KINDS: [&str; 6] = ["unknown", "nearly right", "revoked", "disabled", "expired", "of a suspended owner"];

/// Numbers that are the same for the same seed (Marsaglia's xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// Another key of the same shape, with the right checksum.
fn but_for_one_character(key: &str) -> String {
    let (body, last) = key[..key.len() - 6].split_at(key.len() - 7);
    let body = format!("{body}{}", if last == "a" { 'b' } else { 'a' });
    let sum = key_text::checksum(&body);
    body + &sum
}

/// Keys of every kind, all refused.
async fn keys_of_every_kind(gateway: &Gateway) -> Vec<Vec<String>> {
    let owner = gateway.cli(&["owners", "create", "--name", "ACME", "--output", "json"]).await.success().json();
    let owner = owner["id"].as_str().unwrap().to_owned();
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let mut unknown = || {
        let body: String = (0..32).map(|_| char::from(b'a' + u8::try_from(chance.below(26)).unwrap())).collect();
        let body = format!("pc_live_sk_{body}");
        let sum = key_text::checksum(&body);
        body + &sum
    };
    let mut kinds = vec![(0..KEYS).map(|_| unknown()).collect::<Vec<String>>(), Vec::new()];
    for kind in &KINDS[1..] {
        let mut keys: Vec<Key> = Vec::new();
        for number in 0..KEYS {
            let spec = KeySpec::new(&format!("{kind} {number}"), "read:orders");
            let spec = match *kind {
                "expired" => spec.expires_in("1s"),
                "of a suspended owner" => spec.option("--owner", &owner),
                _ => spec,
            };
            keys.push(gateway.create(spec).await);
        }
        for key in &keys {
            match *kind {
                "revoked" => drop(gateway.cli(&["keys", "revoke", &key.id]).await.success()),
                "disabled" => drop(gateway.cli(&["keys", "disable", &key.id]).await.success()),
                _ => {}
            }
        }
        match *kind {
            "nearly right" => kinds[1] = keys.iter().map(|key| but_for_one_character(&key.text)).collect(),
            _ => kinds.push(keys.into_iter().map(|key| key.text).collect()),
        }
    }
    let _ = gateway.cli(&["owners", "suspend", &owner]).await.success();
    for key in kinds.iter().flatten() {
        let call = || gateway.get("/v1/orders/1").header("authorization", &format!("Bearer {key}"));
        eventually!("it is refused", call().await.status == 401);
    }
    kinds
}

/// One connection, and one request after the other on it.
struct Stopwatch {
    stream: TcpStream,
    answer_bytes: Option<usize>,
}

impl Stopwatch {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, answer_bytes: None }
    }

    /// How long it takes until all of the answer is there. Answers of other lengths would tell kinds apart without a clock.
    fn time(&mut self, request: &[u8]) -> f64 {
        let mut answer = [0; 4096];
        let begun = Instant::now();
        self.stream.write_all(request).unwrap();
        let mut read = self.stream.read(&mut answer).unwrap();
        while self.answer_bytes.is_some_and(|wanted| read < wanted) {
            read += self.stream.read(&mut answer[read..]).unwrap();
        }
        let took = begun.elapsed();
        assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer[..read]));
        let wanted = *self.answer_bytes.get_or_insert(read);
        assert_eq!(read, wanted, "{}", String::from_utf8_lossy(&answer[..read]));
        took.as_secs_f64() * 1e6
    }
}

/// Samples of every kind, in microseconds.
fn measure(address: SocketAddr, requests: &[Vec<Vec<u8>>], samples: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut chance = Chance(seed);
    let mut watch = Stopwatch::connect(address);
    for request in requests.iter().flatten().cycle().take(500) {
        watch.time(request);
    }
    let mut order: Vec<usize> = (0..requests.len()).collect();
    let mut times = vec![Vec::with_capacity(samples); requests.len()];
    for _ in 0..samples {
        chance.shuffle(&mut order);
        for &kind in &order {
            let request = &requests[kind][chance.below(KEYS)];
            times[kind].push(watch.time(request));
        }
    }
    times
}

/// How a kind differs from the first.
#[derive(Clone, Copy, Debug)]
struct Difference {
    /// Welch's t.
    t: f64,
    /// Of the mean, as a share of the first's.
    share: f64,
}

/// How each kind differs from the first, without the slowest tenth of all.
fn differences(times: &[Vec<f64>]) -> Vec<Difference> {
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let slowest = all[all.len() * 9 / 10];
    let moments: Vec<(f64, f64)> = times
        .iter()
        .map(|times| {
            let kept: Vec<f64> = times.iter().copied().filter(|&time| time <= slowest).collect();
            let count = kept.len() as f64;
            let mean = kept.iter().sum::<f64>() / count;
            let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        })
        .collect();
    let (first, doubt) = moments[0];
    let difference = |(mean, error): &(f64, f64)| Difference {
        t: (mean - first) / (error + doubt).sqrt(),
        share: (mean - first) / first,
    };
    moments.iter().map(difference).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_refusal_takes_does_not_tell_what_is_wrong_with_a_key() {
    time_tells_nothing("").await;
}

/// A key that nobody has is looked for under each pepper, and without any.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_it_where_keys_are_hashed_with_a_pepper() {
    time_tells_nothing("auth: { peppers: [{ id: one, secret: \"pepper-one-of-thirty-two-letters\" }] }").await;
}

async fn time_tells_nothing(auth: &str) {
    let samples = scaled("PORTCULLIS_TEST_TIMINGS", 4_000);
    // The line of a request is written behind its answer, and here there would be a million of them.
    let sections = format!("workers: 1\nlogging: {{ format: json, access: {{ enabled: false }} }}\n{auth}");
    let (gateway, _origin) = scene::shop_with("", &sections).await;
    let kinds = keys_of_every_kind(&gateway).await;
    let requests: Vec<Vec<Vec<u8>>> = kinds
        .iter()
        .map(|keys| {
            let request = |key: &String| {
                format!("GET /v1/orders/1 HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {key}\r\n\r\n")
                    .into_bytes()
            };
            keys.iter().map(request).collect()
        })
        .collect();
    let is_measure = std::env::var_os("PORTCULLIS_TEST_BINARY").is_some() || !cfg!(debug_assertions);
    let tells = |found: &Difference| if is_measure { found.t.abs() >= THRESHOLD } else { found.share.abs() > SHARE };
    let mut suspected = [true; KINDS.len()];
    let mut smallest = [f64::INFINITY; KINDS.len()];
    for seed in 1..=ATTEMPTS {
        let (address, requests) = (gateway.data(), requests.clone());
        let seed = 0x2545_F491_4F6C_DD1D_u64.wrapping_mul(seed as u64);
        let times = tokio::task::spawn_blocking(move || measure(address, &requests, samples, seed)).await.unwrap();
        let found = differences(&times);
        println!("{samples} samples of each: {:?}", KINDS.iter().zip(&found).collect::<Vec<_>>());
        for (kind, difference) in found.iter().enumerate() {
            suspected[kind] &= tells(difference);
            smallest[kind] = smallest[kind].min(difference.t.abs());
        }
        if !suspected.contains(&true) {
            break;
        }
    }
    for (kind, name) in KINDS.iter().enumerate().skip(1) {
        let peppered = if auth.is_empty() { "" } else { ", with a pepper" };
        let attack = format!("timing of {samples} refusals{peppered}: {name}");
        let t = format!("{:.2}", smallest[kind]);
        figures::note(&attack, "Welch's |t| against unknown", t, "< 4.5", !suspected[kind]);
    }
    let told: Vec<&str> = KINDS.iter().zip(suspected).filter_map(|(name, told)| told.then_some(*name)).collect();
    assert!(told.is_empty(), "time tells {told:?} from unknown keys: t of {smallest:?}");
}

#[test]
fn a_difference_of_a_tenth_of_the_noise_is_found() {
    let mut chance = Chance(7);
    let mut noise = |more: f64| -> Vec<f64> {
        (0..20_000).map(|_| (0..6).map(|_| chance.below(1000) as f64).sum::<f64>() / 100.0 + more).collect()
    };
    // Six of them have a deviation of 7 (the sum of uniform numbers), or 700 / 100.
    let found = differences(&[noise(0.0), noise(0.0), noise(0.7)]);
    assert!(found[0].t == 0.0 && found[1].t.abs() < THRESHOLD && found[2].t > THRESHOLD, "{found:?}");
}
