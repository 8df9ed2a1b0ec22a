//! The side of the metrics that a worker thread writes.
//!
//! Owns the way from labels to cells, without hashing and without locks once a combination was seen.
//! Must not know how numbers are named or shown.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::cells::{Cell, CellSource, DECISION_BOUNDS, Histogram, REQUEST_BOUNDS};
use super::labels::{
    ConnectionState, DecisionMode, DecisionResult, EnvironmentLabel, LimitLabel, ListenerLabel, MethodLabel, Retry,
    RouteLabel, UpstreamConnectionState, UpstreamLabel,
};

/// Which number a cell holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum CellKey {
    Request { listener: ListenerLabel, route: RouteLabel, method: MethodLabel, status: u16 },
    Decision(RouteLabel, DecisionKey),
    RateLimited(RouteLabel, EnvironmentLabel, LimitLabel),
    Connections(ListenerLabel, ConnectionState),
    UpstreamConnections(UpstreamLabel, UpstreamConnectionState),
    UpstreamRetries(UpstreamLabel, Retry),
}

/// What a decision is counted by, beside its route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct DecisionKey {
    pub(super) environment: EnvironmentLabel,
    pub(super) mode: DecisionMode,
    pub(super) result: DecisionResult,
    pub(super) reason: &'static str,
}

impl DecisionKey {
    /// Equality without looking at the reason's bytes. Equal texts at two addresses count as different here; both
    /// lead to the same cell.
    fn is_same(&self, other: &Self) -> bool {
        self.environment == other.environment
            && self.mode == other.mode
            && self.result == other.result
            && std::ptr::eq(self.reason, other.reason)
    }
}

/// Which distribution a histogram holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum HistogramKey {
    Request(RouteLabel),
    Auth,
    Upstream(UpstreamLabel),
}

/// Everything one worker counted, readable by the scraper.
#[derive(Debug, Default)]
pub(super) struct WorkerCells {
    pub(super) bank: Mutex<Bank>,
    /// Whether a [`WorkerMetrics`] writes here now. Cells of a worker that ended are given to the next one.
    has_writer: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Bank {
    source: CellSource,
    pub(super) cells: HashMap<CellKey, Cell>,
    pub(super) histograms: HashMap<HistogramKey, Arc<Histogram>>,
}

/// The right to write to the cells of one worker, held by its [`WorkerMetrics`] and the gauges it gave out.
#[derive(Debug)]
pub(super) struct Claim(Arc<WorkerCells>);

impl Claim {
    /// Becomes the writer of `cells`, unless there is one.
    pub(super) fn take(cells: &Arc<WorkerCells>) -> Option<Self> {
        (!cells.has_writer.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(cells)))
    }

    /// New cells and the right to write to them.
    pub(super) fn on_new_cells() -> (Arc<WorkerCells>, Self) {
        let cells = Arc::new(WorkerCells { has_writer: AtomicBool::new(true), ..WorkerCells::default() });
        (Arc::clone(&cells), Self(cells))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.has_writer.store(false, Ordering::Release);
    }
}

impl WorkerCells {
    fn cell(&self, key: CellKey) -> Cell {
        let Bank { source, cells, .. } = &mut *self.bank.lock();
        cells.entry(key).or_insert_with(|| source.cell()).clone()
    }

    fn histogram(&self, key: HistogramKey) -> Arc<Histogram> {
        let bounds = match key {
            HistogramKey::Request(_) | HistogramKey::Upstream(_) => &REQUEST_BOUNDS,
            HistogramKey::Auth => &DECISION_BOUNDS,
        };
        let mut bank = self.bank.lock();
        Arc::clone(bank.histograms.entry(key).or_insert_with(|| Arc::new(Histogram::new(bounds))))
    }
}

/// What one worker thread writes its metrics to. It may move to the thread that will use it, but not be shared.
///
/// The first use of a combination of labels allocates and takes a lock that only scrapes contend for; every further
/// use is a few plain loads and stores.
#[derive(Debug)]
pub struct WorkerMetrics {
    claim: Arc<Claim>,
    auth_duration: Arc<Histogram>,
    /// By route.
    routes: RefCell<Vec<RouteCells>>,
    /// By upstream.
    upstream_durations: RefCell<Vec<Option<Arc<Histogram>>>>,
    /// By listener.
    connections: RefCell<Vec<Option<Arc<[Cell]>>>>,
    /// By upstream.
    upstream_connections: RefCell<Vec<Option<Arc<[Cell]>>>>,
}

#[derive(Debug, Default)]
struct RouteCells {
    duration: Option<Arc<Histogram>>,
    /// Ascending by [`request_key`].
    requests: Vec<(u64, Cell)>,
    /// In order of first use; a route sees a handful of outcomes.
    decisions: Vec<(DecisionKey, Cell)>,
    /// In order of first use.
    limited: Vec<((EnvironmentLabel, LimitLabel), Cell)>,
}

fn request_key(listener: ListenerLabel, method: MethodLabel, status: StatusCode) -> u64 {
    u64::from(listener.0) << 32 | (method as u64) << 16 | u64::from(status.as_u16())
}

impl WorkerMetrics {
    pub(super) fn new(claim: Claim) -> Self {
        let auth_duration = claim.0.histogram(HistogramKey::Auth);
        Self {
            claim: Arc::new(claim),
            auth_duration,
            routes: RefCell::default(),
            upstream_durations: RefCell::default(),
            connections: RefCell::default(),
            upstream_connections: RefCell::default(),
        }
    }

    /// Counts one answered request: `duration` runs from its head to the last byte of the answer.
    #[inline]
    pub fn request(
        &self,
        listener: ListenerLabel,
        route: RouteLabel,
        method: &Method,
        status: StatusCode,
        duration: Duration,
    ) {
        let method = MethodLabel::of(method);
        let key = request_key(listener, method, status);
        if let Some(RouteCells { duration: Some(histogram), requests, .. }) = self.routes.borrow().get(route.index())
            && let Ok(at) = requests.binary_search_by_key(&key, |(known, _)| *known)
        {
            requests[at].1.add(1);
            histogram.observe(duration);
            return;
        }
        self.first_request(listener, route, method, status, duration);
    }

    #[cold]
    fn first_request(
        &self,
        listener: ListenerLabel,
        route: RouteLabel,
        method: MethodLabel,
        status: StatusCode,
        duration: Duration,
    ) {
        let cell = self.claim.0.cell(CellKey::Request { listener, route, method, status: status.as_u16() });
        cell.add(1);
        let mut routes = self.routes.borrow_mut();
        let entry = at_index(&mut routes, route.index());
        entry.duration.get_or_insert_with(|| self.claim.0.histogram(HistogramKey::Request(route))).observe(duration);
        let key = request_key(listener, method, status);
        if let Err(at) = entry.requests.binary_search_by_key(&key, |(known, _)| *known) {
            entry.requests.insert(at, (key, cell));
        }
    }

    /// Counts one decision. `reason` is the reason of a refusal, or how the caller was let in.
    #[inline]
    pub fn decision(
        &self,
        route: RouteLabel,
        environment: EnvironmentLabel,
        mode: DecisionMode,
        result: DecisionResult,
        reason: &'static str,
    ) {
        let key = DecisionKey { environment, mode, result, reason };
        if let Some(entry) = self.routes.borrow().get(route.index())
            && let Some((_, cell)) = entry.decisions.iter().find(|(known, _)| known.is_same(&key))
        {
            cell.add(1);
            return;
        }
        self.first_decision(route, key);
    }

    #[cold]
    fn first_decision(&self, route: RouteLabel, key: DecisionKey) {
        let cell = self.claim.0.cell(CellKey::Decision(route, key));
        cell.add(1);
        at_index(&mut self.routes.borrow_mut(), route.index()).decisions.push((key, cell));
    }

    /// Counts one request that ran into a limit.
    pub fn rate_limited(&self, route: RouteLabel, environment: EnvironmentLabel, limit: LimitLabel) {
        let key = (environment, limit);
        let mut routes = self.routes.borrow_mut();
        let entry = at_index(&mut routes, route.index());
        if let Some((_, cell)) = entry.limited.iter().find(|(known, _)| *known == key) {
            cell.add(1);
            return;
        }
        let cell = self.claim.0.cell(CellKey::RateLimited(route, environment, limit));
        cell.add(1);
        entry.limited.push((key, cell));
    }

    /// Counts the time one decision took.
    #[inline]
    pub fn auth_duration(&self, duration: Duration) {
        self.auth_duration.observe(duration);
    }

    /// Counts the time an upstream took from the request to the head of its answer.
    #[inline]
    pub fn upstream_request(&self, upstream: UpstreamLabel, duration: Duration) {
        if let Some(Some(histogram)) = self.upstream_durations.borrow().get(upstream.index()) {
            histogram.observe(duration);
            return;
        }
        let histogram = self.claim.0.histogram(HistogramKey::Upstream(upstream));
        histogram.observe(duration);
        *at_index(&mut self.upstream_durations.borrow_mut(), upstream.index()) = Some(histogram);
    }

    /// Counts a request that could be sent again. Takes a lock that only scrapes contend for.
    #[cold]
    pub fn upstream_retry(&self, upstream: UpstreamLabel, outcome: Retry) {
        self.claim.0.cell(CellKey::UpstreamRetries(upstream, outcome)).add(1);
    }

    /// Counts a client's connection for as long as the answer lives, under the state it is in.
    pub fn connection(&self, listener: ListenerLabel, state: ConnectionState) -> ConnectionGauge {
        let mut known = self.connections.borrow_mut();
        let cells = at_index(&mut known, listener.index()).get_or_insert_with(|| {
            ConnectionState::ALL.iter().map(|state| self.claim.0.cell(CellKey::Connections(listener, *state))).collect()
        });
        StateGauge::enter(Arc::clone(cells), Arc::clone(&self.claim), state)
    }

    /// Counts a connection to an upstream for as long as the answer lives, under the state it is in.
    pub fn upstream_connection(
        &self,
        upstream: UpstreamLabel,
        state: UpstreamConnectionState,
    ) -> UpstreamConnectionGauge {
        let mut known = self.upstream_connections.borrow_mut();
        let cells = at_index(&mut known, upstream.index()).get_or_insert_with(|| {
            UpstreamConnectionState::ALL
                .iter()
                .map(|state| self.claim.0.cell(CellKey::UpstreamConnections(upstream, *state)))
                .collect()
        });
        StateGauge::enter(Arc::clone(cells), Arc::clone(&self.claim), state)
    }
}

fn at_index<T: Default>(table: &mut Vec<T>, index: usize) -> &mut T {
    if table.len() <= index {
        table.resize_with(index + 1, T::default);
    }
    &mut table[index]
}

/// One client connection in [`ConnectionState`]s.
pub type ConnectionGauge = StateGauge<ConnectionState>;
/// One upstream connection in [`UpstreamConnectionState`]s.
pub type UpstreamConnectionGauge = StateGauge<UpstreamConnectionState>;

/// Counts one thing under the state it is in, until dropped. It stays on the thread of its [`WorkerMetrics`].
#[derive(Debug)]
pub struct StateGauge<S: GaugeState> {
    cells: Arc<[Cell]>,
    state: std::cell::Cell<S>,
    _claim: Arc<Claim>,
    /// A cell has one writer, so this must not change threads.
    stays_here: PhantomData<Rc<()>>,
}

/// States that a [`StateGauge`] can be in.
pub trait GaugeState: Copy + PartialEq {
    /// The place of the state among all, from 0.
    fn index(self) -> usize;
}

impl GaugeState for ConnectionState {
    fn index(self) -> usize {
        self as usize
    }
}

impl GaugeState for UpstreamConnectionState {
    fn index(self) -> usize {
        self as usize
    }
}

impl<S: GaugeState> StateGauge<S> {
    fn enter(cells: Arc<[Cell]>, claim: Arc<Claim>, state: S) -> Self {
        cells[state.index()].add(1);
        Self { cells, state: std::cell::Cell::new(state), _claim: claim, stays_here: PhantomData }
    }

    /// Counts it under `state` from now on.
    #[inline]
    pub fn set(&self, state: S) {
        let before = self.state.replace(state);
        if before != state {
            self.cells[before.index()].subtract(1);
            self.cells[state.index()].add(1);
        }
    }
}

impl<S: GaugeState> Drop for StateGauge<S> {
    fn drop(&mut self) {
        self.cells[self.state.get().index()].subtract(1);
    }
}
