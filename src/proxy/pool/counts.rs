//! What counts for as long as it lives.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::TargetPool;
use crate::proxy::target::Target;

/// Counts a request among those that wait, for as long as it lives.
pub(super) struct Waiting<'a>(&'a Target);

impl<'a> Waiting<'a> {
    pub(super) fn begin(target: &'a Target) -> Self {
        target.waiting.fetch_add(1, Ordering::Relaxed);
        Self(target)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts something of this worker for as long as it lives.
pub(super) struct Local<'a>(&'a Cell<usize>);

impl<'a> Local<'a> {
    pub(super) fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Counts an HTTP/1.1 connection among the open ones.
pub(super) struct Open(Rc<TargetPool>);

impl Open {
    pub(super) fn begin(pool: &Rc<TargetPool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Rc::clone(pool))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

/// Counts a connection that is being opened; with HTTP/2, keeps other requests from opening another.
pub(super) struct Dialing {
    pool: Rc<TargetPool>,
    is_h2: bool,
}

impl Dialing {
    pub(super) fn begin(pool: &Rc<TargetPool>, is_h2: bool) -> Self {
        if is_h2 {
            pool.dialing_h2.set(true);
        } else {
            pool.dialing.set(pool.dialing.get() + 1);
        }
        Self { pool: Rc::clone(pool), is_h2 }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if self.is_h2 {
            self.pool.dialing_h2.set(false);
        } else {
            self.pool.dialing.set(self.pool.dialing.get().saturating_sub(1));
        }
        self.pool.changed.notify_waiters();
    }
}
