//! One read or write of a TCP connection, in the clear or of what TLS makes of it, by a system call of our own.
//!
//! The C library makes `recv(2)` and `send(2)` points where a thread can be cancelled, and so switches its cancellation
//! on and off around each in a process with threads. No thread of ours is ever cancelled.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// Receives once into the free part of `buf`, all of which was initialised before; nothing at the end of the stream.
///
/// # Errors
/// The socket's.
#[inline]
pub(super) fn poll_recv(stream: &TcpStream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let room = buf.initialize_unfilled();
    let most = room.len();
    let len =
        ready!(once(stream, Interest::READABLE, cx, most, || Ok(recv(stream, &mut *room, RecvFlags::empty())?.0)))?;
    buf.advance(len);
    Poll::Ready(Ok(()))
}

/// Sends some of `data` once: how much of it.
///
/// # Errors
/// The socket's. A peer that is gone raises no signal.
#[inline]
pub(super) fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    once(stream, Interest::WRITABLE, cx, data.len(), || Ok(send(stream, data, SendFlags::NOSIGNAL)?))
}

/// Moves up to `most` bytes when the socket is likely to be ready.
///
/// Fewer than asked for mean that it will not be ready again before it says so: epoll(7), which tells changes, has that
/// for its question 9. So they spare the call that would move nothing.
#[inline]
fn once(
    stream: &TcpStream,
    side: Interest,
    cx: &mut Context<'_>,
    most: usize,
    mut moving: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(if side.is_readable() { stream.poll_read_ready(cx) } else { stream.poll_write_ready(cx) })?;
        let mut moved = None;
        let tried = stream.try_io(side, || {
            let len = moving()?;
            moved = Some(len);
            // To the runtime this says that it is not ready any more.
            if 0 < len && len < most { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (moved, tried) {
            (Some(len), _) => return Poll::Ready(Ok(len)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
