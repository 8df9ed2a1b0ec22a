//! Requests that are still being sent although their answers are over: an upstream that answers early may want them whole.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::lent::Lender;
use super::sending::Sending;
use crate::proxy::pool::{H1Lease, H2Lease};
use crate::proxy::timer::{Timer, Timers};

/// What is left of a request although its answer is over.
pub(super) struct Rest {
    way: Way,
    seen: u64,
    /// The upstream's patience; the client's is its connection's business.
    idle: Timer,
    idle_after: Duration,
}

/// Where it goes.
pub(super) enum Way {
    /// Whoever polls it sends it.
    H1(H1Lease, Sending),
    /// A task of the connection sends it, until the body is called back.
    H2(Lender, H2Lease),
}

impl Rest {
    /// What goes that way, as long as it moves once in so long.
    pub(super) fn new(way: Way, timers: &Rc<Timers>, idle_after: Duration) -> Self {
        let idle = timers.timer();
        idle.arm(idle_after);
        Self { way, seen: 0, idle, idle_after }
    }

    /// Sends it to its end, or until either side wants no more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (is_over, sent) = match &mut self.way {
            Way::H1(lease, sending) => (sending.poll(cx, &mut lease.connection.wire).is_ready(), sending.sent_bytes()),
            Way::H2(lender, _lease) => (lender.poll_returned(cx).is_ready(), lender.sent_bytes()),
        };
        if is_over {
            return Poll::Ready(());
        }
        if std::mem::replace(&mut self.seen, sent) != sent {
            self.idle.arm(self.idle_after);
        }
        self.idle.poll_elapsed(cx)
    }
}
