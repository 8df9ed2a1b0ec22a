//! The memory that messages are read into: lent while there is something in it, shared by all connections of a worker.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::memory::MemorySum;
use super::pipe::{Pipe, Pipes};
use crate::domain::fields::FieldTable;

/// What a connection reads into: large enough for nearly every message whole.
pub(super) const BYTES: usize = 16 * 1024;
/// The beginning of a head up to this size waits for its rest in memory of just that size: many wait, of slow clients.
const WAITS_APART: usize = 2 * 1024;
/// What a body is read into once it has shown that it fills [`BYTES`] in one read.
const LARGE_BYTES: usize = 128 * 1024;
/// Most buffers of a worker that wait for use.
const KEPT: usize = 256;
/// Most large buffers of a worker, in use or waiting: 8 MiB. Streams beyond that go on in small ones.
const MOST_LARGE: usize = 64;
/// Most heads under construction that wait for use, and the largest that is kept.
const KEPT_OUT: usize = 256;
const KEPT_OUT_BYTES: usize = 8 * 1024;

/// Bytes that were read and not used, in memory of their own. Without memory while empty.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    /// How much of it counts as held.
    counted: usize,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What was read and not used.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn has_memory(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Forgets the first `len` bytes.
    #[inline]
    pub(super) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Adds bytes behind the others.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Room for `len` bytes behind those there are.
    fn make_room(&mut self, len: usize) {
        if self.bytes.len() - self.end >= len {
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() - self.end < len {
            let mut larger = vec![0; (self.end + len).next_power_of_two().max(BYTES)];
            larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
            self.bytes = larger.into_boxed_slice();
        }
    }

    /// Reads once. The number of bytes that came; 0 at the end of the stream.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        self.make_room(1);
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Whether the last read filled it to the brim, so that more is likely to wait.
    pub(super) fn is_full(&self) -> bool {
        self.end == self.bytes.len() && self.start == 0
    }
}

/// What one connection reads into, on loan from its worker.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) buffer: Buffer,
    /// Where the fields of the head at hand stand.
    pub(super) table: FieldTable,
    buffers: Rc<Buffers>,
}

impl Inbox {
    pub(super) fn new(buffers: Rc<Buffers>) -> Self {
        Self { buffer: Buffer::default(), table: FieldTable::new(), buffers }
    }

    /// Gives it memory if it has none.
    #[inline]
    pub(super) fn borrow_memory(&mut self) {
        self.buffers.lend(&mut self.buffer);
    }

    /// Gives an empty buffer that its stream has just filled to the brim a larger one.
    #[inline]
    pub(super) fn grow_if_full(&mut self, was_full: bool) {
        if was_full && self.buffer.is_empty() {
            self.buffers.lend_large(&mut self.buffer);
        }
    }

    /// A pipe for what does not have to be looked at, while the worker has any.
    pub(super) fn borrow_pipe(&self) -> Option<Pipe> {
        self.buffers.pipes.lend()
    }

    /// Gives the memory back if there is nothing in it.
    #[inline]
    pub(super) fn release_if_empty(&mut self) {
        if self.buffer.is_empty() && self.buffer.has_memory() {
            self.buffers.take_back(&mut self.buffer);
        }
    }

    /// Keeps a short beginning in memory of its own size, and gives the rest back: the client may take its time.
    pub(super) fn wait(&mut self) {
        self.recount();
        if self.buffer.bytes.len() > WAITS_APART && self.buffer.data().len() <= WAITS_APART {
            let bytes: Box<[u8]> = self.buffer.data().into();
            self.buffers.take_back(&mut self.buffer);
            self.buffers.memory.add(bytes.len());
            self.buffer = Buffer { counted: bytes.len(), start: 0, end: bytes.len(), bytes };
        }
    }

    /// Counts what it holds: memory of a beginning's own size may have grown.
    pub(super) fn recount(&mut self) {
        let grown = self.buffer.bytes.len().saturating_sub(self.buffer.counted);
        self.buffers.memory.add(grown);
        self.buffer.counted += grown;
    }

    /// Gives the table back, too: nothing is being read.
    pub(super) fn rest(&mut self) {
        self.release_if_empty();
        if self.buffer.is_empty() {
            self.buffers.take_back_table(std::mem::take(&mut self.table));
        }
    }

    /// Makes sure that it can note fields without allocating.
    #[inline]
    pub(super) fn borrow_table(&mut self) {
        if !self.table.has_memory() {
            self.table = self.buffers.table();
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.buffers.take_back(&mut self.buffer);
        self.buffers.take_back_table(std::mem::take(&mut self.table));
    }
}

/// One worker's spare memory.
#[derive(Debug, Default)]
pub struct Buffers {
    memory: MemorySum,
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Large>,
    tables: RefCell<Vec<FieldTable>>,
    out: RefCell<Vec<Vec<u8>>>,
    pipes: Rc<Pipes>,
}

#[derive(Debug, Default)]
struct Large {
    free: Vec<Box<[u8]>>,
    made: usize,
}

impl Buffers {
    /// Buffers that count as held by `memory` while they are lent.
    pub fn counted_in(memory: MemorySum) -> Self {
        Self { pipes: Rc::new(Pipes::counted_in(memory.clone())), memory, ..Self::default() }
    }

    /// What they are counted in.
    pub fn memory(&self) -> &MemorySum {
        &self.memory
    }

    #[inline]
    fn lend(&self, buffer: &mut Buffer) {
        if !buffer.has_memory() {
            let bytes = self.small.borrow_mut().pop().unwrap_or_else(|| vec![0; BYTES].into_boxed_slice());
            self.memory.add(BYTES);
            *buffer = Buffer { bytes, counted: BYTES, start: 0, end: 0 };
        }
    }

    /// While there are any.
    fn lend_large(&self, buffer: &mut Buffer) {
        if buffer.bytes.len() >= LARGE_BYTES {
            return;
        }
        let mut large = self.large.borrow_mut();
        let bytes = match large.free.pop() {
            Some(bytes) => bytes,
            None if large.made < MOST_LARGE => {
                large.made += 1;
                vec![0; LARGE_BYTES].into_boxed_slice()
            }
            None => return,
        };
        drop(large);
        self.take_back(buffer);
        self.memory.add(LARGE_BYTES);
        *buffer = Buffer { bytes, counted: LARGE_BYTES, start: 0, end: 0 };
    }

    #[inline]
    fn take_back(&self, buffer: &mut Buffer) {
        let Buffer { bytes, counted, .. } = std::mem::take(buffer);
        self.memory.remove(counted);
        match bytes.len() {
            BYTES if self.small.borrow().len() < KEPT => self.small.borrow_mut().push(bytes),
            LARGE_BYTES => {
                let mut large = self.large.borrow_mut();
                // Memory that a head grew to this size is not one of those counted.
                if large.free.len() < large.made {
                    large.free.push(bytes);
                }
            }
            _ => {}
        }
    }

    fn table(&self) -> FieldTable {
        self.tables.borrow_mut().pop().unwrap_or_default()
    }

    fn take_back_table(&self, mut table: FieldTable) {
        // Whoever gets it next may have read the beginning of its head already, and will not clear it.
        table.clear();
        if table.has_memory() && self.tables.borrow().len() < KEPT {
            self.tables.borrow_mut().push(table);
        }
    }

    /// Empty memory for something to be written.
    #[inline]
    pub fn out(&self) -> Vec<u8> {
        self.out.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Takes such memory back.
    #[inline]
    pub fn take_back_out(&self, mut memory: Vec<u8>) {
        if memory.capacity() > 0 && memory.capacity() <= KEPT_OUT_BYTES && self.out.borrow().len() < KEPT_OUT {
            memory.clear();
            self.out.borrow_mut().push(memory);
        }
    }
}
