//! From cells and shared values to Prometheus text. The encoding itself is the `prometheus` crate's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::Inner;
use super::cells::{DECISION_BOUNDS, HistogramTotal};
use super::families::{self, Family};
use super::labels::{EventLabel, Reload, Shed};
use super::worker::{CellKey, HistogramKey};

/// The media type of what [`Metrics::render`](super::Metrics::render) returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The metrics could not be encoded.
#[derive(Debug)]
pub struct NotRendered(prometheus::Error);

impl fmt::Display for NotRendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the metrics could not be encoded: {}", self.0)
    }
}

impl std::error::Error for NotRendered {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

pub(super) fn render(inner: &Inner, now: Instant) -> Result<String, NotRendered> {
    let mut page = Page::default();
    worker_values(inner, &mut page);
    shared_values(inner, now, &mut page);
    let mut families = page.into_families();
    families.extend(process_families());
    TextEncoder::new().encode_to_string(&families).map_err(NotRendered)
}

/// Families under construction, by name.
#[derive(Default)]
struct Page {
    families: BTreeMap<&'static str, (&'static Family, Vec<Metric>)>,
}

impl Page {
    fn add<V: AsRef<str>>(&mut self, family: &'static Family, labels: impl IntoIterator<Item = V>, value: f64) {
        let mut metric = Metric::from_label(pairs(family, labels));
        match family.kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.push(family, metric);
    }

    fn add_plain(&mut self, family: &'static Family, value: f64) {
        self.add::<&str>(family, [], value);
    }

    fn add_histogram<V: AsRef<str>>(
        &mut self,
        family: &'static Family,
        labels: impl IntoIterator<Item = V>,
        total: &HistogramTotal,
    ) {
        let mut metric = Metric::from_label(pairs(family, labels));
        metric.set_histogram(histogram(total));
        self.push(family, metric);
    }

    fn push(&mut self, family: &'static Family, metric: Metric) {
        self.families.entry(family.name).or_insert_with(|| (family, Vec::new())).1.push(metric);
    }

    fn into_families(self) -> Vec<MetricFamily> {
        self.families
            .into_values()
            .map(|(family, metrics)| {
                let mut shown = MetricFamily::default();
                shown.set_name(family.name.to_owned());
                shown.set_help(family.help.to_owned());
                shown.set_field_type(family.kind);
                shown.set_metric(metrics);
                shown
            })
            .collect()
    }
}

fn pairs<V: AsRef<str>>(family: &Family, values: impl IntoIterator<Item = V>) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, V)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.as_ref().to_owned());
        pair
    };
    family.labels.iter().zip(values).map(pair).collect()
}

#[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53 ns")]
fn histogram(total: &HistogramTotal) -> Histogram {
    let mut cumulated = 0;
    let buckets = total.bounds.iter().zip(total.counts).map(|(bound, count)| {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e9);
        bucket.set_cumulative_count(cumulated);
        bucket
    });
    let mut shown = Histogram::default();
    shown.set_bucket(buckets.collect());
    // The count is the sum of the buckets, so that they agree although requests are counted meanwhile.
    shown.set_sample_count(total.counts.iter().sum());
    shown.set_sample_sum(total.sum_seconds);
    shown
}

/// Sums the cells of all workers and names them.
fn worker_values(inner: &Inner, page: &mut Page) {
    let mut cells: BTreeMap<CellKey, u64> = BTreeMap::new();
    let mut histograms: BTreeMap<HistogramKey, HistogramTotal> = BTreeMap::new();
    histograms.insert(HistogramKey::Auth, HistogramTotal { bounds: &DECISION_BOUNDS, ..HistogramTotal::default() });
    for worker in inner.workers.lock().iter() {
        // A worker that counts something for the first time waits for this lock: nothing is summed while it is held.
        let (counts, distributions) = {
            let bank = worker.bank.lock();
            let counts: Vec<_> = bank.cells.iter().map(|(key, cell)| (*key, cell.read())).collect();
            let distributions: Vec<_> = bank.histograms.iter().map(|(key, one)| (*key, Arc::clone(one))).collect();
            (counts, distributions)
        };
        for (key, count) in counts {
            let sum = cells.entry(key).or_default();
            *sum = sum.wrapping_add(count);
        }
        for (key, histogram) in distributions {
            histogram.add_to(histograms.entry(key).or_default());
        }
    }

    // Numbers were interned before they were used, so every number found above has a name here.
    let routes = inner.labels.routes.names();
    let listeners = inner.labels.listeners.names();
    let environments = inner.labels.environments.names();
    let upstreams = inner.labels.upstreams.names();

    for (key, value) in cells {
        match key {
            CellKey::Request { listener, route, method, status } => {
                let code = status.to_string();
                let labels = [&listeners[listener.index()], &routes[route.index()], method.text(), &code];
                page.add(&families::HTTP_REQUESTS, labels, count(value));
            }
            CellKey::Decision(route, decision) => {
                let labels = [
                    &routes[route.index()],
                    &environments[decision.environment.index()],
                    decision.mode.text(),
                    decision.result.text(),
                    decision.reason,
                ];
                page.add(&families::AUTH_DECISIONS, labels, count(value));
            }
            CellKey::RateLimited(route, environment, limit) => {
                let labels = [&routes[route.index()], &environments[environment.index()], limit.text()];
                page.add(&families::RATE_LIMITED, labels, count(value));
            }
            CellKey::Connections(listener, state) => {
                page.add(&families::CONNECTIONS, [&listeners[listener.index()], state.text()], level(value));
            }
            CellKey::UpstreamRetries(upstream, outcome) => {
                let labels = [&upstreams[upstream.index()], outcome.text()];
                page.add(&families::UPSTREAM_RETRIES, labels, count(value));
            }
            CellKey::UpstreamConnections(upstream, state) => {
                let labels = [&upstreams[upstream.index()], state.text()];
                page.add(&families::UPSTREAM_CONNECTIONS, labels, level(value));
            }
        }
    }
    for (key, total) in &histograms {
        match key {
            HistogramKey::Request(route) => {
                page.add_histogram(&families::HTTP_REQUEST_DURATION, [&routes[route.index()]], total);
            }
            HistogramKey::Auth => page.add_histogram::<&str>(&families::AUTH_DURATION, [], total),
            HistogramKey::Upstream(upstream) => {
                let labels = [&upstreams[upstream.index()]];
                page.add_histogram(&families::UPSTREAM_REQUEST_DURATION, labels, total);
            }
        }
    }
}

/// Names the values of the whole process.
fn shared_values(inner: &Inner, now: Instant, page: &mut Page) {
    let shared = &inner.shared;
    // Names are read after the numbers they belong to, as above.
    let keys = shared.keys.lock().clone();
    let environments = inner.labels.environments.names();
    for ((environment, state), keys) in &keys {
        page.add(&families::KEYS, [&environments[environment.index()], *state], count(*keys));
    }
    let targets = shared.upstream_targets.lock().clone();
    let upstreams = inner.labels.upstreams.names();
    for ((upstream, target), state) in &targets {
        let labels = [&upstreams[upstream.index()], target.as_str()];
        page.add(&families::UPSTREAM_HEALTHY, labels, flag(state.is_healthy));
        page.add(&families::UPSTREAM_EJECTIONS, labels, count(state.ejections));
    }
    for (name, not_after) in shared.certificates.lock().iter() {
        page.add(&families::TLS_NOT_AFTER, [name], seconds(not_after.unix_ms()));
    }
    for outcome in Reload::ALL {
        let reloads = shared.reloads[outcome as usize].total();
        page.add(&families::CONFIG_RELOADS, [outcome.text()], count(reloads));
    }
    for reason in Shed::ALL {
        page.add(&families::CONNECTIONS_SHED, [reason.text()], count(shared.shed[reason as usize].total()));
    }
    for event in EventLabel::ALL {
        page.add(&families::EVENTS, [event.text()], count(shared.events[event as usize].total()));
    }
    let last_sync = *shared.last_sync.lock();
    let (synced_at_ms, synced_at) = last_sync.map_or((0, shared.started), |(at, now)| (at.unix_ms(), now));
    page.add_plain(&families::SYNC_LAST_SUCCESS, seconds(synced_at_ms));
    page.add_plain(&families::SYNC_LAG, now.saturating_duration_since(synced_at).as_secs_f64());
    let mut effect = HistogramTotal::default();
    shared.revocation_effect.add_to(&mut effect);
    page.add_histogram::<&str>(&families::REVOCATION_EFFECT, [], &effect);
    page.add_plain(&families::STORE_UP, flag(shared.store_up.load(Relaxed)));
    page.add_plain(&families::SNAPSHOT_UP, flag(shared.snapshot_up.load(Relaxed)));
    page.add_plain(&families::SNAPSHOT_SIZE, count(shared.snapshot_size.load(Relaxed)));
    page.add_plain(&families::CACHE_ENTRIES, count(shared.cache_entries.load(Relaxed)));
    page.add_plain(&families::CACHE_REVISION, count(shared.cache_revision.load(Relaxed)));
    page.add_plain(&families::REPORT_MODE_ROUTES, count(shared.report_mode_routes.load(Relaxed)));
    page.add_plain(&families::CONFIG_LAST_RELOAD_SUCCESSFUL, flag(shared.last_reload_applied.load(Relaxed)));
    page.add_plain(&families::MEMORY_HELD, count(shared.memory_held.load(Relaxed)));
    page.add_plain(&families::MEMORY_LIMIT, count(shared.memory_limit.load(Relaxed)));
    page.add_plain(&families::PANICS, count(shared.panics.total()));
    page.add_plain(&families::LOG_LINES_DROPPED, count(shared.log_lines_dropped.total()));
    page.add_plain(&families::LAST_USE_MARKS_DROPPED, count(shared.last_use_marks_dropped.load(Relaxed)));
    page.add_plain(&families::USAGE_NOTES_DROPPED, count(shared.usage_notes_dropped.load(Relaxed)));
    page.add_plain(&families::RATE_METERS, count(shared.rate_meters.load(Relaxed)));
    page.add_plain(&families::RATE_METERS_EVICTED, count(shared.rate_meters_evicted.load(Relaxed)));
    if let Some(limits) = *shared.shared_limits.lock() {
        page.add_plain(&families::SHARED_LIMITS_UP, flag(limits.up));
        page.add_plain(&families::SHARED_LIMITS_OUTAGES, count(limits.outages));
        page.add_plain(&families::SHARED_LIMITS_LEASES, count(limits.leases as u64));
        for (result, asks) in [("granted", limits.granted), ("refused", limits.refused), ("failed", limits.failed)] {
            page.add(&families::SHARED_LIMITS_ASKS, [result], count(asks));
        }
        for (result, waits) in [("answered", limits.waited.saturating_sub(limits.late)), ("late", limits.late)] {
            page.add(&families::SHARED_LIMITS_WAITS, [result], count(waits));
        }
    }
    page.add(&families::BUILD_INFO, [env!("CARGO_PKG_VERSION")], 1.0);
}

/// `process_*`, in the words of the Prometheus client libraries.
#[cfg(target_os = "linux")]
fn process_families() -> Vec<MetricFamily> {
    use prometheus::core::Collector;
    prometheus::process_collector::ProcessCollector::for_self().collect()
}

/// Other systems have no `/proc`.
#[cfg(not(target_os = "linux"))]
fn process_families() -> Vec<MetricFamily> {
    Vec::new()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers; exact up to 2^53")]
fn count(value: u64) -> f64 {
    value as f64
}

/// A sum of additions and subtractions that wrapped around: negative for a moment when a subtraction was seen first.
fn level(value: u64) -> f64 {
    count(u64::try_from(value.cast_signed()).unwrap_or(0))
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any date are below 2^53")]
fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1000.0
}
