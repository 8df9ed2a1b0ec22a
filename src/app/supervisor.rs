//! What the process hears from outside, and says there: signals, the service manager, the scheduler.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tells systemd; does nothing where it does not ask (`sd_notify(3)`).
pub(super) fn notify_supervisor(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the supervisor was not told");
    }
}

/// How many steps control work stands behind requests (`nice(2)`): where both want a processor, it gets a quarter of it.
const CONTROL_STEPS: i32 = 5;

/// Control work yields to requests: this thread, and every one it starts from now on. Threads that exist keep their
/// priority. Relative, because a supervisor may have given the whole process a priority of its own.
pub(super) fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        // On Linux a thread has a priority of its own.
        if let Err(error) = rustix::process::nice(CONTROL_STEPS) {
            tracing::debug!(%error, "control work keeps the priority of requests");
        }
    }
}

/// The signals a gateway listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// What is asked next is answered as if it had been told to leave.
    pub(super) leave_at_once: bool,
}

impl Signals {
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            leave_at_once: false,
        })
    }

    /// Returns at SIGTERM or SIGINT.
    pub(super) async fn told_to_leave(&mut self) {
        if std::mem::take(&mut self.leave_at_once) {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns at a signal: true to leave, false to reload.
    pub(super) async fn next(&mut self) -> bool {
        if std::mem::take(&mut self.leave_at_once) {
            return true;
        }
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }
}
