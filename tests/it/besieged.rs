//! What others notice while somebody attacks.

use std::future::Future;
use std::time::{Duration, Instant};

use portcullis_testkit::{Connection, Gateway, Key, patient};

use crate::figures::{self, mebibytes};

/// How often each neighbour asks.
const PACE: Duration = Duration::from_millis(4);

/// Longest anyone may wait.
const WAIT: Duration = Duration::from_secs(5);

/// What the neighbours have noticed.
#[derive(Debug)]
pub struct Noticed {
    /// Requests that were answered 200.
    pub served: usize,
    /// What became of the others.
    pub failed: Vec<String>,
    /// Of those answered.
    pub p99: Duration,
    /// By how many bytes the gateway grew at most.
    pub grown: u64,
}

impl Noticed {
    /// They were all served but for one in a thousand, and the gateway grew by no more than this.
    #[track_caller]
    pub fn holds(&self, attack: &str, most_grown: u64) {
        let asked = self.served + self.failed.len();
        let Self { served, failed, p99, grown } = self;
        let (is_served, is_bounded) = (*served > 0 && failed.len() * 1000 <= asked, *grown <= most_grown);
        let share = format!("{:.3} % of {asked}", *served as f64 * 100.0 / asked as f64);
        figures::note(attack, "others served", share, ">= 99.9 %", is_served);
        figures::note(attack, "their p99", format!("{:.1} ms", p99.as_secs_f64() * 1e3), "", true);
        figures::note(attack, "growth", mebibytes(*grown), &format!("<= {}", mebibytes(most_grown)), is_bounded);
        let said = format!("{served} of {asked} were served, p99 {p99:?}; it grew by {grown} bytes; {failed:#?}");
        assert!(is_served, "{attack}: others were not served: {said}");
        assert!(is_bounded, "{attack}: it grew by more than {most_grown} bytes: {said}");
    }
}

/// Runs an attack in a task of its own. Meanwhile a key of the shop reads orders over a kept HTTP/1.1 connection, over
/// HTTP/2, and over a new connection every time.
pub async fn during<T: Send + 'static>(
    gateway: &Gateway,
    key: &Key,
    attack: impl Future<Output = T> + Send + 'static,
) -> (T, Noticed) {
    let before = gateway.resident_bytes();
    let attack = tokio::spawn(attack);
    let (mut kept, mut shared) = (Connection::h1(gateway.data()).await, Connection::h2(gateway.data()).await);
    let (mut took, mut failed, mut grown) = (Vec::new(), Vec::new(), 0);
    for turn in 0.. {
        let begun = Instant::now();
        let call = gateway.get("/v1/orders/1").bearer(key);
        let answer = tokio::time::timeout(patient(WAIT), async {
            match turn % 3 {
                0 => kept.attempt(call).await,
                1 => shared.attempt(call).await,
                _ => call.attempt().await,
            }
        });
        match answer.await {
            Ok(Ok(answer)) if answer.status == 200 => took.push(begun.elapsed()),
            Ok(Ok(answer)) => failed.push(format!("{turn}: {answer:?}")),
            Ok(Err(error)) => failed.push(format!("{turn}: {error}")),
            Err(_) => failed.push(format!("{turn}: nothing in {:?}", patient(WAIT))),
        }
        grown = grown.max(gateway.resident_bytes().saturating_sub(before));
        if attack.is_finished() && turn > 30 {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    took.sort();
    let p99 = took.get(took.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    let noticed = Noticed { served: took.len(), failed, p99, grown };
    (attack.await.expect("the attack itself does not fail"), noticed)
}

/// How much of something a test uses: more where the environment says so.
pub fn scaled<T: std::str::FromStr>(variable: &str, usual: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
