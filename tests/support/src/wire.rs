//! A TCP link between two parties that a test can slow down, freeze, cut, and mend.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does with what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Passes it on, this much later.
    Up(Duration),
    /// Keeps connections and passes nothing.
    Frozen,
    /// Resets every connection and takes no new one for longer than a moment.
    Cut,
}

/// On which side of what it waits for a link is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// It does not arrive.
    Before,
    /// It arrives, and what the far end says to it does not.
    After,
}

/// What a link waits for until it is cut.
#[derive(Clone, Debug)]
struct Trap {
    /// Seen on one connection in this order, on their way to the far end. None may come in two pieces.
    signs: Vec<Vec<u8>>,
    side: Side,
}

/// A link to one address. Dropping it cuts it for good.
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    trap: Arc<Mutex<Option<Trap>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// A link whose far end is `to`.
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, _) = watch::channel(State::Up(Duration::ZERO));
        let trap = Arc::default();
        let (states, traps) = (state.clone(), Arc::clone(&trap));
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = Far { address: to, state: states.clone(), trap: Arc::clone(&traps) };
                tokio::spawn(far.carry(near));
            }
        });
        Self { address, state, trap, accepting }
    }

    /// Its near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every piece arrives this much later.
    pub fn slow(&self, latency: Duration) {
        self.state.send_replace(State::Up(latency));
    }

    /// Connections stay and nothing passes: a far end that died without a word.
    pub fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    /// Resets every connection, and every new one at once.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Cuts itself once a connection has carried `signs` to the far end, in this order: at the last of them.
    pub fn cut_at(&self, signs: &[&str], side: Side) {
        let signs = signs.iter().map(|sign| sign.as_bytes().to_vec()).collect();
        *self.trap.lock().unwrap() = Some(Trap { signs, side });
    }

    /// Whether it is cut, by itself or by the test.
    pub fn is_cut(&self) -> bool {
        *self.state.borrow() == State::Cut
    }

    /// Passes everything again, and waits for nothing.
    pub fn mend(&self) {
        *self.trap.lock().unwrap() = None;
        self.state.send_replace(State::Up(Duration::ZERO));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_replace(State::Cut);
    }
}

/// The far end as one connection knows it.
struct Far {
    address: SocketAddr,
    state: watch::Sender<State>,
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Far {
    async fn carry(self, near: TcpStream) {
        // A reset, not an orderly end: that is what a broken link looks like.
        let _ = near.set_zero_linger();
        let mut state = self.state.subscribe();
        if *state.borrow() == State::Cut {
            return;
        }
        let Ok(far) = TcpStream::connect(self.address).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true), far.set_zero_linger());
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        // Set by the way there, for the way back: what comes next cuts the link.
        let caught = Arc::new(AtomicBool::new(false));
        let (mut seen, on_its_way) = (0, Arc::clone(&caught));
        let (trap, states) = (Arc::clone(&self.trap), self.state.clone());
        let watching = move |piece: &[u8]| {
            let trap = trap.lock().unwrap();
            let Some(trap) = trap.as_ref() else {
                seen = 0;
                return;
            };
            while trap.signs.get(seen).is_some_and(|sign| piece.windows(sign.len()).any(|at| at == sign)) {
                seen += 1;
            }
            if seen == trap.signs.len() {
                match trap.side {
                    Side::Before => drop(states.send_replace(State::Cut)),
                    Side::After => on_its_way.store(true, Ordering::Release),
                }
            }
        };
        let states = self.state.clone();
        let answered = move |_: &[u8]| {
            if caught.load(Ordering::Acquire) {
                states.send_replace(State::Cut);
            }
        };
        let mut there = tokio::spawn(pump(near_read, far_write, self.state.subscribe(), watching));
        let mut back = tokio::spawn(pump(far_read, near_write, self.state.subscribe(), answered));
        let cut = async {
            let _ = state.wait_for(|now| *now == State::Cut).await;
        };
        tokio::select! {
            () = cut => {}
            _ = async { let _ = (&mut there).await; let _ = (&mut back).await; } => {}
        }
        there.abort();
        back.abort();
    }
}

/// One direction, every piece shown to `watch` before it goes on; the end of it is passed on as a half-close.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    mut watch: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        watch(&buffer[..read]);
        let Ok(now) = state.wait_for(|now| matches!(now, State::Up(_))).await.map(|now| *now) else { return };
        if let State::Up(latency) = now
            && !latency.is_zero()
        {
            tokio::time::sleep(latency).await;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
