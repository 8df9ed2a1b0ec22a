//! Where the names of targets lead. They are looked up beside the way of requests, again and again; requests use the last
//! good answer.
//!
//! Owns the addresses of one target. Must not know what is done with a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use super::standing::jittered;

/// Between two lookups of a name, whoever asks for one.
const PAUSE: Duration = Duration::from_secs(1);
/// After a lookup that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Into how many parts the time for a connection is split at most, where there are as many addresses.
const MOST_PARTS: usize = 3;

/// What is known of a name.
#[derive(Debug, Clone)]
enum Known {
    /// It was not looked up yet.
    Nothing,
    /// It was never found, and why.
    Failed(Arc<str>),
    /// At least one address.
    Addresses(Arc<[SocketAddr]>),
}

/// The addresses of one target.
#[derive(Debug)]
pub(crate) struct Addresses {
    host: String,
    port: u16,
    /// Whether it has to be looked up.
    is_name: bool,
    known: watch::Sender<Known>,
    /// Asks for a lookup before its time.
    wanted: Notify,
    /// Where the next connection begins.
    next: AtomicUsize,
}

impl Addresses {
    /// Of an address, which is known, or of a name, of which nothing is known yet.
    pub(crate) fn new(host: String, port: u16) -> Self {
        let address = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
        let known = address.map_or(Known::Nothing, |address| Known::Addresses(Arc::from([address])));
        Self {
            host,
            port,
            is_name: address.is_none(),
            known: watch::Sender::new(known),
            wanted: Notify::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether it has to be looked up.
    pub(crate) const fn is_name(&self) -> bool {
        self.is_name
    }

    /// Whether a connection to `address` still leads to where the name says.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        match &*self.known.borrow() {
            Known::Addresses(all) => all.contains(&address),
            Known::Nothing | Known::Failed(_) => true,
        }
    }

    /// Connects to one of them: each connection begins at the next, and goes on to others when that fails or takes more
    /// than its part of `time`. The caller bounds the whole.
    ///
    /// # Errors
    /// Of the last address, or of the lookup where the name was never found.
    pub(crate) async fn connect(&self, time: Duration) -> io::Result<(TcpStream, SocketAddr)> {
        let all = self.known().await?;
        let order = in_turn(&all, self.next.fetch_add(1, Ordering::Relaxed));
        let part = time / u32::try_from(order.len().min(MOST_PARTS)).unwrap_or(1);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (at, address) in order.iter().enumerate() {
            let connecting = TcpStream::connect(address);
            let connected = if at + 1 == order.len() {
                connecting.await
            } else {
                tokio::time::timeout(part, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match connected {
                Ok(stream) => return Ok((stream, *address)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks for a lookup soon: nobody answers where the name led.
    pub(crate) fn look_again(&self) {
        if self.is_name {
            self.wanted.notify_one();
        }
    }

    /// Looks the name up for ever, about once every `refresh`, sooner when asked or when it fails. One lookup is under way
    /// at a time, however long it takes.
    pub(super) async fn keep_looking<L>(&self, refresh: Duration, lookup: impl Fn(String, u16) -> L)
    where
        L: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        loop {
            let found = lookup(self.host.clone(), self.port).await;
            let wait = if self.learn(found) { jittered(refresh) } else { AFTER_FAILURE.min(refresh) };
            tokio::time::sleep(PAUSE.min(refresh)).await;
            tokio::select! {
                () = tokio::time::sleep(wait.saturating_sub(PAUSE)) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// The addresses, once the name was looked up for the first time.
    async fn known(&self) -> io::Result<Arc<[SocketAddr]>> {
        let mut seen = self.known.subscribe();
        let known = match seen.wait_for(|known| !matches!(known, Known::Nothing)).await {
            Ok(known) => known.clone(),
            Err(_) => Known::Nothing,
        };
        match known {
            Known::Addresses(all) => Ok(all),
            Known::Failed(why) => {
                self.look_again();
                Err(io::Error::new(io::ErrorKind::NotFound, format!("the name cannot be looked up: {why}")))
            }
            Known::Nothing => Err(io::Error::new(io::ErrorKind::NotFound, "the name was not looked up yet")),
        }
    }

    /// Takes over what a lookup found; a failure leaves the last good answer. Whether it found something.
    fn learn(&self, found: io::Result<Vec<SocketAddr>>) -> bool {
        let found = found.and_then(|all| match all.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
            false => Ok(all),
        });
        let host = &self.host;
        match found {
            Ok(mut all) => {
                let mut seen = std::collections::HashSet::new();
                all.retain(|address| seen.insert(*address));
                let changed = self.known.send_if_modified(|known| {
                    let is_same = matches!(known, Known::Addresses(before) if is_same_set(before, &all));
                    if !is_same {
                        *known = Known::Addresses(all.into());
                    }
                    !is_same
                });
                if changed {
                    tracing::debug!(host, "the name of a target leads to other addresses");
                }
                true
            }
            Err(error) => {
                tracing::warn!(host, %error, "the name of a target cannot be looked up");
                self.known.send_if_modified(|known| {
                    let is_unknown = !matches!(known, Known::Addresses(_));
                    if is_unknown {
                        *known = Known::Failed(error.to_string().into());
                    }
                    is_unknown
                });
                false
            }
        }
    }
}

/// Asks the operating system, on a thread that may wait.
pub(super) async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect())
}

fn is_same_set(before: &[SocketAddr], after: &[SocketAddr]) -> bool {
    before.len() == after.len() && after.iter().all(|address| before.contains(address))
}

/// Those of the family that the system prefers, beginning at another each time, and then the others: where it prefers
/// one, the other may lead nowhere.
fn in_turn(all: &[SocketAddr], turn: usize) -> smallvec::SmallVec<[SocketAddr; 8]> {
    let is_preferred = |address: &&SocketAddr| address.is_ipv4() == all[0].is_ipv4();
    let mut order: smallvec::SmallVec<[SocketAddr; 8]> = all.iter().filter(is_preferred).copied().collect();
    let count = order.len().max(1);
    order.rotate_left(turn % count);
    order.extend(all.iter().filter(|address| !is_preferred(address)).copied());
    order
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
