//! Answer bodies over HTTP/2, which are not always asked for.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::Poll;

use super::download::Download;
use super::{BodyPatience, ReplyBody};
use crate::wire::MemorySum;

/// Answers over HTTP/2 under way. HTTP/2 asks for the next piece only when the client has room for it, so a client that
/// gives none would hold an upstream connection for ever, and a key that is gone would not be noticed.
pub(crate) struct Watched {
    answers: RefCell<Vec<Weak<RefCell<Download>>>>,
    /// Where what is sent counts until it has been.
    memory: MemorySum,
}

impl Watched {
    /// No answer is under way; what is sent of those to come counts in `memory` until it has been.
    pub(crate) fn new(memory: MemorySum) -> Self {
        Self { answers: RefCell::default(), memory }
    }

    /// Watches an answer. What is left of its request is sent by a task of its own, because nobody asks for an answer
    /// whose client has no room.
    pub(crate) fn watch(&self, download: Download) -> ReplyBody {
        let is_sending = download.is_sending();
        let shared = Rc::new(RefCell::new(download.watched_in(self.memory.clone())));
        self.answers.borrow_mut().push(Rc::downgrade(&shared));
        if is_sending {
            let answer = Rc::downgrade(&shared);
            let task = tokio::task::spawn_local(std::future::poll_fn(move |cx| match answer.upgrade() {
                Some(answer) => answer.borrow_mut().poll_sending(cx),
                None => Poll::Ready(()),
            }));
            shared.borrow_mut().is_sent_by(task.abort_handle());
        }
        ReplyBody::Watched(shared)
    }

    /// Gives up answers that nobody has asked for in time, and those whose key no longer holds. Their upstream
    /// connections are closed; their streams end in an error once the client listens again.
    pub(crate) fn sweep(&self, patience: &BodyPatience) {
        self.answers.borrow_mut().retain(|entry| {
            let Some(download) = entry.upgrade() else { return false };
            let mut download = download.borrow_mut();
            let is_running = download.is_running();
            if is_running {
                download.sweep(patience);
            }
            is_running
        });
    }
}
