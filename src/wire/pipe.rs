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
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::descriptors::SocketPlace;
use super::memory::MemorySum;

/// The least of a body that is worth a pipe, bytes.
pub(super) const LEAST: u64 = 256 * 1024;
/// What a pipe should hold, bytes.
const ROOM: usize = 256 * 1024;
/// A pipe with less is worse than a buffer: a kernel grants two pages where the pipes of this user hold much already
/// (`pipe-user-pages-soft`, pipe(7)).
const LEAST_ROOM: usize = 64 * 1024;
/// After a pipe was refused, so many bodies go through buffers before the next one is asked for.
const PAUSE: usize = 256;
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
    /// For how many bodies no pipe is asked for.
    pause: Cell<usize>,
    /// Whether the kernel does not do it.
    is_unable: Cell<bool>,
    memory: MemorySum,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    room: usize,
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

    /// The kernel does not do it.
    fn give_up(&self) {
        self.is_unable.set(true);
        self.free.borrow_mut().clear();
    }

    /// What came of moving bytes: how many were, or none where the kernel does not do it. Nothing at all where the socket
    /// was not ready.
    fn outcome(&self, moved: io::Result<usize>) -> Option<io::Result<Option<usize>>> {
        match moved {
            Ok(len) => Some(Ok(Some(len))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if is_inability(&error) => {
                self.give_up();
                Some(Ok(None))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// A pipe, while there are any.
    pub(super) fn lend(self: &Rc<Self>) -> Option<Pipe> {
        if self.is_unable.get() {
            return None;
        }
        let free = self.free.borrow_mut().pop();
        let ends = match free {
            Some(ends) => ends,
            None if self.pause.get() > 0 => {
                self.pause.set(self.pause.get() - 1);
                return None;
            }
            None if self.made.get() < MOST => {
                let Some(ends) = Ends::open() else {
                    self.pause.set(PAUSE);
                    return None;
                };
                self.made.set(self.made.get() + 1);
                ends
            }
            None => return None,
        };
        self.memory.add(ends.room);
        Some(Pipe { ends: Some(ends), len: 0, pipes: Rc::clone(self) })
    }
}

impl Ends {
    /// None where descriptors or room for pipes are short: buffers need neither.
    fn open() -> Option<Self> {
        let places = [SocketPlace::to_spare()?, SocketPlace::to_spare()?];
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let room = fcntl_setpipe_size(&writer, ROOM).or_else(|_| fcntl_getpipe_size(&writer)).ok()?;
        (room >= LEAST_ROOM).then_some(Self { reader, writer, room, _places: places })
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
        // No more than the pipe has room for, so it fits.
        let most = most.min(ends.room as u64) as usize;
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || moved(from, &ends.writer, most));
            if let Some(outcome) = self.pipes.outcome(moved) {
                self.len = outcome.as_ref().ok().copied().flatten().unwrap_or_default();
                return Poll::Ready(outcome);
            }
        }
    }

    /// Gives what is in it to a socket: how many bytes of it; none where the kernel does not do that: see [`Pipe::rest`].
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<Option<usize>>> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.len > 0) else { return Poll::Ready(Ok(Some(0))) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || moved(&ends.reader, to, self.len));
            if let Some(outcome) = self.pipes.outcome(moved) {
                self.len -= outcome.as_ref().ok().copied().flatten().unwrap_or_default().min(self.len);
                return Poll::Ready(outcome);
            }
        }
    }
}

impl Pipe {
    /// Takes out what is in it.
    ///
    /// # Errors
    /// When the kernel does not give it back.
    pub(super) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = vec![0; self.len];
        let mut read = 0;
        while let Some(ends) = self.ends.as_ref().filter(|_| read < rest.len()) {
            match rustix::io::read(&ends.reader, &mut rest[read..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => read += len,
            }
        }
        self.len = 0;
        Ok(rest)
    }
}

impl Drop for Pipe {
    /// An empty pipe may be used again; what is left in another goes with it.
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        self.pipes.memory.remove(ends.room);
        let is_wanted = self.pipes.free.borrow().len() < KEPT && !self.pipes.is_unable.get();
        if self.len == 0 && is_wanted {
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
    let codes = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;
