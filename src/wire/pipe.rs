//! Large bodies on their way from one socket to another without passing through memory of ours: `splice(2)` moves the
//! pages that the kernel received into a pipe, and from there to the other socket.
//!
//! Copying them out of the kernel and back takes half of the time that a large body costs. Where the kernel cannot do
//! this, or a worker has no pipe left, bodies go through buffers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::descriptors::SocketPlace;
use super::memory::MemorySum;

/// The least of a body that is worth a pipe, bytes.
pub(super) const LEAST: u64 = 256 * 1024;
/// What a pipe holds, bytes, where the kernel grants it; otherwise 64 KiB (pipe(7)).
const ROOM: usize = 256 * 1024;
/// Most pipes of a worker, in use or waiting. Bodies beyond that go through buffers.
const MOST: usize = 32;
/// Most of them that wait for use.
const KEPT: usize = 8;

/// One worker's pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// Empty ones.
    free: RefCell<Vec<Ends>>,
    made: Cell<usize>,
    /// Whether the kernel does not do it.
    is_unable: Cell<bool>,
    memory: MemorySum,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Its descriptors could be those of clients.
    _places: [SocketPlace; 2],
}

/// A pipe on loan from its worker, and what is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    /// None once they went back.
    ends: Option<Ends>,
    len: usize,
    pipes: Rc<Pipes>,
}

impl Pipes {
    /// Pipes that count as held by `memory` while they are lent.
    pub(super) fn counted_in(memory: MemorySum) -> Self {
        Self { memory, ..Self::default() }
    }

    /// A pipe, while there are any.
    pub(super) fn lend(self: &Rc<Self>) -> Option<Pipe> {
        if self.is_unable.get() {
            return None;
        }
        let free = self.free.borrow_mut().pop();
        let ends = match free {
            Some(ends) => ends,
            None if self.made.get() < MOST => {
                let ends = Ends::open()?;
                self.made.set(self.made.get() + 1);
                ends
            }
            None => return None,
        };
        self.memory.add(ROOM);
        Some(Pipe { ends: Some(ends), len: 0, pipes: Rc::clone(self) })
    }
}

impl Ends {
    /// None where descriptors are short: buffers need none.
    fn open() -> Option<Self> {
        let places = [SocketPlace::for_client()?, SocketPlace::for_client()?];
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Refused where the pipes of this user hold much already; it works with less.
        let _granted = fcntl_setpipe_size(&writer, ROOM);
        Some(Self { reader, writer, _places: places })
    }
}

impl Pipe {
    /// How many bytes are in it.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Takes up to `most` bytes from a socket while it is empty: how many came, 0 at the end of the stream; none where the
    /// kernel does not do that, and nothing was taken.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<Option<usize>>> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.len == 0) else { return Poll::Ready(Ok(None)) };
        // No more than a pipe has room for, so it fits.
        let most = most.min(ROOM as u64) as usize;
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || moved(from, &ends.writer, most)) {
                Ok(len) => {
                    self.len = len;
                    return Poll::Ready(Ok(Some(len)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_inability(&error) => {
                    self.pipes.is_unable.set(true);
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives what is in it to a socket: how many bytes of it.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.len > 0) else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || moved(&ends.reader, to, self.len)) {
                Ok(len) => {
                    self.len -= len.min(self.len);
                    return Poll::Ready(Ok(len));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    /// An empty pipe may be used again; what is left in another goes with it.
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        self.pipes.memory.remove(ROOM);
        if self.len == 0 && self.pipes.free.borrow().len() < KEPT {
            self.pipes.free.borrow_mut().push(ends);
        } else {
            self.pipes.made.set(self.pipes.made.get().saturating_sub(1));
        }
    }
}

fn moved(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Whether the kernel says that it does not move bytes between these at all: sandboxes that filter system calls do.
fn is_inability(error: &io::Error) -> bool {
    let codes = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;
