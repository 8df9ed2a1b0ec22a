//! A TCP link between two parties that a test can slow down, freeze, cut, and mend.

use std::net::SocketAddr;
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

/// A link to one address. Dropping it cuts it for good.
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// A link whose far end is `to`.
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, watched) = watch::channel(State::Up(Duration::ZERO));
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, watched.clone()));
            }
        });
        Self { address, state, accepting }
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

    /// Passes everything again.
    pub fn mend(&self) {
        self.state.send_replace(State::Up(Duration::ZERO));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_replace(State::Cut);
    }
}

async fn carry(near: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) {
    // A reset, not an orderly end: that is what a broken link looks like.
    let _ = near.set_zero_linger();
    if *state.borrow() == State::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true), far.set_zero_linger());
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut there = tokio::spawn(pump(near_read, far_write, state.clone()));
    let mut back = tokio::spawn(pump(far_read, near_write, state.clone()));
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

/// One direction; the end of it is passed on as a half-close.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
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
