//! One worker's open connections to every target.
//!
//! HTTP/1.1: the connection used last is used next (it is warm, and the others can expire). HTTP/2: requests share
//! connections up to what the peer allows. The number of connections to a target is capped over the whole process.
//! Must not know what is sent over a connection.

mod counts;
mod dial;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use self::counts::{Dialing, Local, Open, Waiting};
use self::dial::Dial;
use super::connect::{H1Connection, H2Connection, Tunnel};
use super::observe::Observer;
use super::settings::{Protocol, UpstreamSettings};
use super::target::{Target, Upstream};
use super::timer::{Elapsed, Timers};
use crate::reply::Failure;
use crate::telemetry::UpstreamConnectionState;
use crate::wire::Buffers;

/// Most requests in flight on one HTTP/2 connection, whatever the peer would allow.
const MAX_STREAMS: usize = 200;

/// HTTP/1.1 connections that may be opened at a time where fewer are open.
const FIRST_DIALS: usize = 32;
/// How long a request waits for its turn to open one.
const DIAL_PATIENCE: Duration = Duration::from_millis(100);

/// What a client is told that wants to leave HTTP where the upstream speaks HTTP/2 alone, which nobody can leave.
pub(crate) const NO_TUNNEL: Failure =
    Failure::BadRequest { detail: "What stands behind this path speaks HTTP/2 alone, which has no upgrades." };

/// One worker's connections.
pub(crate) struct Pool {
    timers: Rc<Timers>,
    buffers: Rc<Buffers>,
    observer: Rc<Observer>,
    targets: RefCell<HashMap<u64, Rc<TargetPool>>>,
}

/// One worker's connections to one target.
pub(crate) struct TargetPool {
    target: Arc<Target>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<H2Connection>>,
    /// Whether the last TLS connection under `protocol: auto` turned out to speak HTTP/2.
    speaks_h2: Cell<bool>,
    dialing_h2: Cell<bool>,
    /// HTTP/1.1 connections being opened, and open ones, whether idle or in use.
    dialing: Cell<usize>,
    open: Cell<usize>,
    /// Requests that wait for one of them.
    waiting: Cell<usize>,
    /// Those that wait because all connections of the process are in use.
    queued: Cell<usize>,
    /// The same over the whole process, when it was last looked at; clients that hold others up take them off.
    held_up: Rc<Cell<usize>>,
    changed: Notify,
    keepalive_ms: Cell<u64>,
    max_lifetime_ms: Cell<u64>,
}

struct Idle {
    connection: Box<H1Connection>,
    open: Open,
    opened_ms: u64,
    idle_since_ms: u64,
}

/// Whom a connection is wanted to.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The upstream.
    pub(crate) upstream: &'a Arc<Upstream>,
    /// One of its targets.
    pub(crate) target: &'a Arc<Target>,
    /// Which HTTP.
    pub(crate) protocol: Protocol,
    /// Whether the target had been left out and this shows whether it still should be.
    pub(crate) is_trial: bool,
}

/// How long opening a connection may take.
#[derive(Clone, Copy)]
pub(crate) struct DialTime {
    /// In all. It goes on when the request that began it does not wait for it any longer, and goes to the pool.
    pub(crate) most: Duration,
    /// So long the request waits for it.
    pub(crate) patience: Duration,
}

/// A connection in use by one request.
pub(crate) enum Lease {
    /// An HTTP/1.1 connection of one's own. Given back, or closed when dropped.
    H1(H1Lease),
    /// A place on a shared HTTP/2 connection.
    H2(H2Lease),
}

/// An HTTP/1.1 connection in use. Dropping it closes the connection.
pub(crate) struct H1Lease {
    /// The connection.
    pub(crate) connection: Box<H1Connection>,
    /// Whether it was used before.
    pub(crate) reused: bool,
    opened_ms: u64,
    open: Open,
    pool: Rc<TargetPool>,
}

/// A place on a shared HTTP/2 connection; dropping it gives the place back.
pub(crate) struct H2Lease {
    /// The connection.
    pub(crate) connection: H2Connection,
    pool: Rc<TargetPool>,
    timers: Rc<Timers>,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(timers: Rc<Timers>, observer: Rc<Observer>, buffers: Rc<Buffers>) -> Self {
        Self { timers, observer, buffers, targets: RefCell::default() }
    }

    /// An idle HTTP/1.1 connection, if there is one that can be used. Never waits.
    pub(crate) fn lease_idle(&self, wanted: Wanted<'_>) -> Option<Lease> {
        let pool = self.target_pool(wanted.target, &wanted.upstream.settings);
        if pool.wants_h2(wanted.protocol) { None } else { pool.take_idle(self.timers.now_ms()) }
    }

    /// Whether a request to this target would have to wait for a connection that another one has; asked when
    /// [`Pool::lease_idle`] had none.
    pub(crate) fn is_full(&self, wanted: Wanted<'_>) -> bool {
        if wanted.target.permits.available_permits() > 0 {
            return false;
        }
        let pool = self.target_pool(wanted.target, &wanted.upstream.settings);
        let now = self.timers.now_ms();
        if pool.wants_h2(wanted.protocol) { !pool.has_room(now, Age::Any) } else { pool.idle.borrow().is_empty() }
    }

    /// Whether a request whose body is still coming would have to wait for [`Pool::leave`].
    pub(crate) fn has_no_leave(&self, target: &Target) -> bool {
        let shares = self.targets.borrow().get(&target.id).is_some_and(|pool| pool.speaks_h2.get());
        !shares && target.leaves.available_permits() == 0
    }

    /// Leave to have a connection, of those that no other request shares, while the request's body is still coming; none is
    /// needed where requests share them.
    ///
    /// # Errors
    /// [`Failure::UpstreamBusy`] when other such requests have all of them for `queue_timeout`.
    pub(crate) async fn leave(&self, wanted: Wanted<'_>) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let Wanted { upstream, target, protocol, .. } = wanted;
        if self.target_pool(target, &upstream.settings).wants_h2(protocol) {
            return Ok(None);
        }
        let free = Arc::clone(&target.leaves).acquire_owned();
        let leave = self.timers.timer().bound(upstream.settings.queue_timeout, free).await;
        leave.ok().and_then(Result::ok).map(Some).ok_or(Failure::UpstreamBusy)
    }

    /// A connection, idle or newly opened.
    ///
    /// # Errors
    /// [`Failure::UpstreamBusy`] when all are in use for `queue_timeout`, [`Failure::UpstreamTimeout`] when opening
    /// takes longer than `time` allows, [`Failure::UpstreamUnreachable`] when it fails.
    pub(crate) async fn lease(&self, wanted: Wanted<'_>, time: DialTime) -> Result<Lease, Failure> {
        let Wanted { upstream, target, protocol, is_trial } = wanted;
        let settings = &upstream.settings;
        let pool = self.target_pool(target, settings);
        let timer = self.timers.timer();
        let patience_ms = u64::try_from(time.patience.as_millis()).unwrap_or(u64::MAX);
        let mut until_ms = self.timers.now_ms().saturating_add(patience_ms);
        let left = |until_ms: u64| Duration::from_millis(until_ms.saturating_sub(self.timers.now_ms()));
        let mut has_waited = false;
        loop {
            // What a target speaks may turn out meanwhile.
            let wants_h2 = pool.wants_h2(protocol);
            if !wants_h2 && let Some(lease) = pool.take_idle(self.timers.now_ms()) {
                return Ok(lease);
            }
            if wants_h2 {
                if let Some(lease) = pool.take_shared(&self.timers, Age::InTime) {
                    return Ok(lease);
                }
                if pool.dialing_h2.get() {
                    // In all, however many others open one before and fail.
                    if left(until_ms).is_zero() {
                        return Err(Failure::UpstreamTimeout);
                    }
                    let arrived = timer.bound(left(until_ms), pool.changed.notified()).await;
                    arrived.map_err(|Elapsed| Failure::UpstreamTimeout)?;
                    continue;
                }
            } else if !has_waited && !pool.may_dial() {
                // A courtesy to the target, not a queue: whoever waited for a turn opens a connection in any case.
                let freed = pool.freed(&self.timers, TargetPool::may_dial);
                has_waited = true;
                match timer.bound(DIAL_PATIENCE.min(left(until_ms)), freed).await {
                    Ok(Some(lease)) => return Ok(lease),
                    Ok(None) | Err(Elapsed) => continue,
                }
            }
            let permit = match Arc::clone(&target.permits).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) if wants_h2 && let Some(lease) = pool.take_shared(&self.timers, Age::Any) => return Ok(lease),
                Err(_) => match pool.wait(&self.timers, protocol, settings).await? {
                    Waited::Lease(lease) => return Ok(lease),
                    Waited::Permit(permit) => {
                        until_ms = self.timers.now_ms().saturating_add(patience_ms);
                        permit
                    }
                },
            };
            let (hand_over, dialed) = oneshot::channel();
            let dial = Dial {
                pool: Rc::clone(&pool),
                timers: Rc::clone(&self.timers),
                observer: Rc::clone(&self.observer),
                buffers: Rc::clone(&self.buffers),
                upstream: Arc::clone(upstream),
                protocol,
                is_trial,
                most: time.most,
                _dialing: Dialing::begin(&pool, wants_h2),
            };
            drop(tokio::task::spawn_local(dial.run(permit, hand_over)));
            // The task ends by itself, and tells what came of it unless the worker ends.
            let dialed = async { dialed.await.unwrap_or(Err(Failure::UpstreamUnreachable)) };
            let arrived = async {
                if wants_h2 {
                    return dialed.await;
                }
                // Another request may be done with its connection first. This one's goes to the pool then.
                tokio::select! {
                    biased;
                    lease = dialed => lease,
                    Some(lease) = pool.freed(&self.timers, |_| false) => Ok(lease),
                }
            };
            if time.patience >= time.most {
                // It ends in time by itself.
                return arrived.await;
            }
            return timer.bound(left(until_ms), arrived).await.unwrap_or(Err(Failure::UpstreamTimeout));
        }
    }

    /// Closes connections that were idle or alive too long or lead to where the target's name no longer does, and some of
    /// those others in the process wait for.
    /// Targets that `is_current` does not know any more are forgotten.
    pub(crate) fn sweep(&self, is_current: impl Fn(u64) -> bool) {
        let now = self.timers.now_ms();
        self.targets.borrow_mut().retain(|_, pool| {
            let addresses = &pool.target.endpoint.addresses;
            let leads_there = |address| !addresses.is_name() || addresses.has(address);
            let mut idle = pool.idle.borrow_mut();
            idle.retain_mut(|entry| {
                entry.is_usable(pool, now) && leads_there(entry.connection.address) && entry.connection.wire.is_fresh()
            });
            let waiting = pool.target.waiting.load(Ordering::Relaxed);
            let mut wanted = waiting;
            let given = wanted.min(idle.len());
            idle.drain(..given);
            wanted -= given;
            // Requests under way on one that is let go end on it.
            let mut shared = pool.shared.borrow_mut();
            shared.retain(|connection| {
                let is_given = wanted > 0 && connection.streams.get() == 0;
                wanted -= usize::from(is_given);
                !is_given && connection.is_usable(pool, now) && leads_there(connection.address)
            });
            if wanted > 0 && waiting > pool.queued.get() && shared.len() > 1 {
                // No request of another worker gets anything of what requests share here.
                let least = (0..shared.len()).min_by_key(|at| shared[*at].streams.get()).unwrap_or(0);
                shared.swap_remove(least);
            }
            pool.held_up.set(wanted);
            // A target that a reload removed goes with its connections, once no request is on its way to it.
            is_current(pool.target.id) || Rc::strong_count(pool) > 1
        });
    }

    fn target_pool(&self, target: &Arc<Target>, settings: &UpstreamSettings) -> Rc<TargetPool> {
        let mut targets = self.targets.borrow_mut();
        let pool = targets.entry(target.id).or_insert_with(|| {
            Rc::new(TargetPool {
                target: Arc::clone(target),
                idle: RefCell::default(),
                shared: RefCell::default(),
                speaks_h2: Cell::new(false),
                dialing_h2: Cell::new(false),
                dialing: Cell::new(0),
                open: Cell::new(0),
                waiting: Cell::new(0),
                queued: Cell::new(0),
                held_up: Rc::default(),
                changed: Notify::new(),
                keepalive_ms: Cell::default(),
                max_lifetime_ms: Cell::default(),
            })
        });
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        pool.keepalive_ms.set(milliseconds(settings.keepalive));
        pool.max_lifetime_ms.set(milliseconds(settings.max_lifetime));
        Rc::clone(pool)
    }
}

/// How long a shared connection may have been open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// No longer than `max_lifetime`.
    InTime,
    /// As long as it likes: there is no other.
    Any,
}

enum Waited {
    Lease(Lease),
    Permit(OwnedSemaphorePermit),
}

impl TargetPool {
    /// Whether requests go over HTTP/2, as far as is known.
    fn wants_h2(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::H2 | Protocol::H2c => true,
            Protocol::Auto => self.speaks_h2.get(),
            Protocol::H1 => false,
        }
    }

    fn take_idle(self: &Rc<Self>, now: u64) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        while let Some(entry) = idle.pop() {
            if entry.is_usable(self, now) {
                let Idle { mut connection, open, opened_ms, .. } = entry;
                if !connection.wire.is_fresh() {
                    continue;
                }
                connection.gauge.set(UpstreamConnectionState::Active);
                return Some(Lease::H1(H1Lease { connection, reused: true, opened_ms, open, pool: Rc::clone(self) }));
            }
        }
        None
    }

    fn take_shared(self: &Rc<Self>, timers: &Rc<Timers>, age: Age) -> Option<Lease> {
        let now = timers.now_ms();
        let connection = self.shared.borrow().iter().find(|connection| connection.has_room(self, now, age))?.clone();
        Some(Lease::H2(H2Lease::take(connection, self, timers)))
    }

    fn has_room(&self, now: u64, age: Age) -> bool {
        self.shared.borrow().iter().any(|connection| connection.has_room(self, now, age))
    }

    /// Whether another connection may be opened now. As many at a time as there are already, and a few to begin with: a
    /// burst that finds none opens them in waves that double, instead of all at once against a server that has just come
    /// back. Whoever waits takes what comes free.
    fn may_dial(&self) -> bool {
        self.dialing.get() < self.open.get().max(FIRST_DIALS)
    }

    /// Waits for an idle connection; none once `other` holds.
    async fn freed(self: &Rc<Self>, timers: &Rc<Timers>, other: impl Fn(&Self) -> bool) -> Option<Lease> {
        let _waiting = Local::begin(&self.waiting);
        loop {
            self.changed.notified().await;
            if let Some(lease) = self.take_idle(timers.now_ms()) {
                return Some(lease);
            }
            if other(self) {
                return None;
            }
        }
    }

    /// Waits for a permit, or for a connection of this worker to come free, whichever is first.
    async fn wait(
        self: &Rc<Self>,
        timers: &Rc<Timers>,
        protocol: Protocol,
        settings: &UpstreamSettings,
    ) -> Result<Waited, Failure> {
        let (_waiting, _own) = (Waiting::begin(&self.target), Local::begin(&self.queued));
        let timer = timers.timer();
        let free = async {
            // It keeps its place in the queue, whatever comes free here meanwhile.
            let mut permit = std::pin::pin!(Arc::clone(&self.target.permits).acquire_owned());
            loop {
                tokio::select! {
                    biased;
                    permit = &mut permit => {
                        break permit.map(Waited::Permit).map_err(|_| Failure::UpstreamBusy);
                    }
                    () = self.changed.notified() => {
                        // What a target speaks may have turned out meanwhile.
                        let lease = if self.wants_h2(protocol) { self.take_shared(timers, Age::Any) } else { self.take_idle(timers.now_ms()) };
                        if let Some(lease) = lease {
                            break Ok(Waited::Lease(lease));
                        }
                    }
                }
            }
        };
        timer.bound(settings.queue_timeout, free).await.map_err(|Elapsed| Failure::UpstreamBusy)?
    }
}

impl H2Connection {
    fn is_usable(&self, pool: &TargetPool, now: u64) -> bool {
        let is_idle = self.streams.get() == 0;
        let idle_for = now.saturating_sub(self.idle_since_ms.get());
        let is_over = is_idle && (idle_for >= pool.keepalive_ms.get() || self.is_too_old(pool, now));
        !self.sender.is_closed() && !self.broken.get() && !is_over
    }

    /// Whether it takes another request.
    fn has_room(&self, pool: &TargetPool, now: u64, age: Age) -> bool {
        !self.sender.is_closed()
            && !self.broken.get()
            && self.streams.get() < self.allowed.get().min(MAX_STREAMS)
            && (age == Age::Any || !self.is_too_old(pool, now))
    }

    fn is_too_old(&self, pool: &TargetPool, now: u64) -> bool {
        now.saturating_sub(self.opened_ms) >= pool.max_lifetime_ms.get()
    }
}

impl Idle {
    fn is_usable(&self, pool: &TargetPool, now: u64) -> bool {
        now.saturating_sub(self.idle_since_ms) < pool.keepalive_ms.get()
            && now.saturating_sub(self.opened_ms) < pool.max_lifetime_ms.get()
    }
}

impl H1Lease {
    /// How many requests wait for such a connection.
    pub(crate) fn held_up(&self) -> &Rc<Cell<usize>> {
        &self.pool.held_up
    }

    /// What is left of the connection behind a 101.
    pub(crate) fn into_tunnel(self) -> Tunnel {
        self.connection.into_tunnel()
    }

    /// Keeps the connection for the next request. Call it once the answer was read to its end and the request was
    /// written to its end; otherwise drop the lease.
    pub(crate) fn give_back(self, now_ms: u64) {
        let Self { connection, opened_ms, open, pool, .. } = self;
        let is_reusable = connection.wire.is_reusable();
        let entry = Idle { connection, open, opened_ms, idle_since_ms: now_ms };
        if is_reusable && entry.is_usable(&pool, now_ms) {
            entry.connection.gauge.set(UpstreamConnectionState::Idle);
            pool.idle.borrow_mut().push(entry);
        }
        if pool.waiting.get() > 0 || pool.target.waiting.load(Ordering::Relaxed) > 0 {
            pool.changed.notify_one();
        }
    }
}

impl H2Lease {
    fn take(connection: H2Connection, pool: &Rc<TargetPool>, timers: &Rc<Timers>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.gauge.set(UpstreamConnectionState::Active);
        Self { connection, pool: Rc::clone(pool), timers: Rc::clone(timers) }
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        let streams = self.connection.streams.get().saturating_sub(1);
        self.connection.streams.set(streams);
        if streams == 0 {
            self.connection.idle_since_ms.set(self.timers.now_ms());
            self.connection.gauge.set(UpstreamConnectionState::Idle);
        }
        self.pool.changed.notify_one();
    }
}
