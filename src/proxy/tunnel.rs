//! After an accepted upgrade: two byte streams joined, watched for silence and for the key that admitted them.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::body::BodyError;
use super::connect::Tunnel;
use super::observed::Exchange;
use super::timer::Timers;
use super::watch::KeyWatch;

/// `Sec-WebSocket-Accept` and its kin stay; what matters here is the protocol both sides agreed on.
pub(crate) struct PendingTunnel {
    /// The upstream's stream.
    pub(crate) upstream: Tunnel,
    /// Longest silence in both directions.
    pub(crate) idle: Duration,
    /// Whether the key still holds.
    pub(crate) recheck: Option<KeyWatch>,
    /// Called when the tunnel is over.
    pub(crate) finish: Option<Exchange>,
}

/// How long a side may take to hear that the tunnel is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is read at once in either direction, in bytes.
const BUFFER: usize = 16 * 1024;

/// What a tunnel holds, in bytes.
pub(crate) const TUNNEL_MEMORY: usize = 2 * BUFFER;

/// Joins both streams until either side closes, falls silent, or the key no longer holds.
pub(crate) async fn run<S>(mut client: S, client_read: Vec<u8>, pending: PendingTunnel, timers: Rc<Timers>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let PendingTunnel { upstream: mut tunnel, idle, recheck, finish } = pending;
    let mut moved = 0;
    let timer = timers.timer();
    let joined = join(&mut client, &client_read, &mut tunnel, idle, recheck.as_ref(), &timers, &mut moved);
    let ended = joined.await;
    // Whatever state they are in: both sides learn that it is over, if they still listen.
    let _closed = timer.bound(FAREWELL, tunnel.stream.shutdown()).await;
    let _closed = timer.bound(FAREWELL, client.shutdown()).await;
    if let Some(finish) = finish {
        finish.finish(moved, ended.as_ref());
    }
}

async fn join<S>(
    client: &mut S,
    client_read: &[u8],
    tunnel: &mut Tunnel,
    idle: Duration,
    recheck: Option<&KeyWatch>,
    timers: &Rc<Timers>,
    moved: &mut u64,
) -> Option<BodyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let early = async {
        tunnel.stream.write_all(client_read).await?;
        client.write_all(&tunnel.read).await?;
        client.flush().await?;
        tunnel.stream.flush().await
    };
    if !matches!(timers.timer().bound(idle, early).await, Ok(Ok(()))) {
        return Some(BodyError::ClientGone);
    }
    let activity = std::cell::Cell::new(timers.now_ms());
    let down = std::cell::Cell::new(tunnel.read.len() as u64);
    let (mut client_half, mut client_out) = tokio::io::split(client);
    let (mut upstream_half, mut upstream_out) = tokio::io::split(&mut tunnel.stream);
    let up_copy = copy(&mut client_half, &mut upstream_out, |_| activity.set(timers.now_ms()));
    let down_copy = copy(&mut upstream_half, &mut client_out, |bytes| {
        activity.set(timers.now_ms());
        down.set(down.get() + bytes as u64);
    });
    let both = async { tokio::try_join!(up_copy, down_copy) };
    let watch = async {
        let interval = recheck.map_or(idle, |recheck| recheck.interval()).min(idle);
        let timer = timers.timer();
        loop {
            timer.arm(interval);
            std::future::poll_fn(|cx| timer.poll_elapsed(cx)).await;
            if recheck.is_some_and(|recheck| !recheck.still_holds()) {
                break BodyError::KeyGone;
            }
            let silent_ms = timers.now_ms().saturating_sub(activity.get());
            if u128::from(silent_ms) >= idle.as_millis() {
                break BodyError::Upstream(crate::reply::Failure::UpstreamTimeout);
            }
        }
    };
    let ended = tokio::select! {
        copied = both => copied.err().map(|_| BodyError::ClientGone),
        reason = watch => Some(reason),
    };
    *moved = down.get();
    ended
}

/// Copies until the end of `from`, then closes the write half of `to`: a half-close travels through.
async fn copy<R, W>(from: &mut R, to: &mut W, mut on_moved: impl FnMut(usize)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        on_moved(read);
    }
}
