//! From the shapes of the files to [`Settings`]: defaults, ranges, references, and what each rule demands.
//!
//! Owns every default. Must not know YAML. Each part notes its problems and goes on, so that all are found at once.

mod auth;
mod catalogue;
mod demand;
mod forward;
mod headers;
mod limits;
mod network;
mod routes;
mod store;
mod ties;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::demand::ResolvedRule;
pub(crate) use self::network::show_bind;
pub(crate) use self::routes::ResolvedRoute;
pub(crate) use self::ties::rule_of;
use super::diagnostic::{Code, Findings, Problem};
use super::file::{
    AdminFile, AuditFile, File, LimitsFile, LoggingFile, MetricsFile, ShutdownFile, SyncFile, UsageFile,
};
use super::place::PlaceId;
use super::settings::{AdminSettings, ErrorProfile, ReadFile, Settings};
use super::shape::At;
use super::shape::numbers::ByteSize;
use crate::domain::time::show_duration;
use crate::gate::{GateSettings, OnStale, Staleness};
use crate::route::RouteTable;
use crate::server::{Limits, ShutdownSettings, Workers};
use crate::store::{AuditSettings, Pooler, StoreSettings, SyncSettings, UsageSettings};
use crate::telemetry::{LogFormat, LogLevel, LogSettings, MetricsSettings};

/// Settings, and where their rules stand, for lints.
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    /// In the order of `settings.gate.routes`.
    pub(crate) routes: Vec<ResolvedRoute>,
    /// The same routes, compiled.
    pub(crate) table: RouteTable,
    pub(crate) marks: Marks,
}

/// Places that lints point at.
#[derive(Default)]
pub(crate) struct Marks {
    /// Names of upstreams.
    pub(crate) upstreams: Vec<(String, PlaceId)>,
    /// Names of `tls` entries.
    pub(crate) tls: Vec<(String, PlaceId)>,
    /// OCSP responses, each with the certificate it should be about.
    pub(crate) staples: Vec<(PathBuf, PathBuf, PlaceId)>,
    /// Scopes of the catalogue.
    pub(crate) scopes: Vec<(crate::domain::Scope, PlaceId)>,
    /// Grants of roles, with the role's name.
    pub(crate) grants: Vec<(String, crate::domain::GrantedScope, PlaceId)>,
    /// `max_connections` of upstreams, with their names.
    pub(crate) caps: Vec<(String, PlaceId)>,
    /// The global `mode`.
    pub(crate) mode: Option<PlaceId>,
    /// `report.until`.
    pub(crate) report_until: Option<PlaceId>,
    /// Settings that weaken a protection, and how.
    pub(crate) weakened: Vec<(PlaceId, String)>,
}

/// What the settings say, unless there are errors, which are noted.
pub(crate) fn resolve(file: &File, findings: &mut Findings) -> Option<Resolved> {
    if file.version.0.is_none() && !findings.is_broken("version") {
        missing_section("version", "Add `version: 1`", findings);
    }
    let mut marks = Marks::default();
    let listeners = network::listeners(file, findings);
    let tls = network::tls(file, &mut marks, findings);
    let upstreams = network::upstreams(file, &mut marks, findings);
    let base = main_directory(findings);
    let logging = file.logging.0.as_ref();
    let (headers, identity_names) = headers::headers(file, &mut marks, findings);
    let parts = auth::AuthParts::read(file, &mut marks, findings);
    let routes = routes::routes(file, &parts, &identity_names, findings);
    let serving_stale = routes.iter().filter_map(|route| route.serves_stale_at);
    marks.weakened.extend(serving_stale.map(|at| (at, SERVES_STALE.to_owned())));
    let table = ties::table(&routes, findings);
    let sync = file.sync.0.as_ref();
    let report = file.report.0.as_ref();
    marks.mode = file.mode.0.as_ref().map(|mode| mode.at);
    marks.report_until = report.and_then(|report| report.until.as_ref()).map(|until| until.at);
    let report_known_bad = flag(report.and_then(|report| report.known_bad.as_ref()), false, |at| {
        marks.weakened.push((at, "report mode lets revoked, disabled and expired keys pass".to_owned()));
    });
    let store = store::settings(file.store.0.as_ref(), &base, &mut marks, findings);
    let settings = Settings {
        files: findings.sources.files().iter().map(|file| ReadFile::new(file.path.clone(), file.text())).collect(),
        listeners,
        tls,
        upstreams,
        gate: GateSettings {
            brand: parts.brand,
            hasher: parts.hasher,
            realm: parts.realm,
            accept: parts.accept.clone(),
            trusted_proxies: parts.trusted_proxies,
            hide_routes: parts.hide_routes,
            browser_guard: parts.browser_guard,
            failures: file
                .limits
                .0
                .as_ref()
                .and_then(|limits| limits.failures.as_ref())
                .and_then(|limit| limits::rate_limit(limit, findings)),
            open_catalogue: parts.open_catalogue,
            recheck_interval: parts.recheck_interval,
            scopes: catalogue::scopes(file, &mut marks, findings),
            roles: catalogue::roles(file, &mut marks, findings),
            environments: parts.environments,
            staleness: parts.staleness,
            report_until: report.and_then(|report| report.until.as_ref()).map(|until| until.value),
            report_known_bad,
            routes: routes.iter().map(|route| Arc::clone(&route.settings)).collect(),
        },
        headers,
        api: file.api.0.as_ref().and_then(|api| api.profile).unwrap_or_default(),
        errors: file.errors.0.as_ref().and_then(|errors| errors.profile).unwrap_or(ErrorProfile::Standard),
        sync: sync_settings(sync, &store, findings),
        snapshot: snapshot(sync, &store, &base),
        store,
        audit: audit(file.audit.0.as_ref(), findings),
        usage: usage(file.usage.0.as_ref(), findings),
        rate_limits: limits::settings(file.rate_limits.0.as_ref(), findings),
        shared_limits: limits::shared(file.rate_limits.0.as_ref(), &mut marks, findings),
        limits: limits(file.limits.0.as_ref(), findings),
        admin: admin(file, &base, &mut marks, findings),
        metrics: metrics(file.metrics.0.as_ref(), findings),
        logging: log_settings(logging),
        reload_watch: file.reload.0.as_ref().and_then(|reload| reload.watch).unwrap_or(false),
        shutdown: shutdown(file.shutdown.0.as_ref(), findings),
        workers: file.workers.0.unwrap_or(Workers::Auto),
    };
    check_binds(file, &settings, findings);
    let table = table.filter(|_| !findings.has_errors())?;
    Some(Resolved { settings, routes, table, marks })
}

fn missing_section(name: &str, fix: &str, findings: &mut Findings) {
    if findings.is_misspelt(name) || findings.is_incomplete {
        return;
    }
    let file = Arc::clone(&findings.sources.file(super::place::FileId::MAIN).name);
    let start = super::place::Position { line: 1, column: 1 };
    findings.note_raw(super::diagnostic::Diagnostic {
        code: Code::MissingField,
        at: Some(super::diagnostic::Location { file, span: super::place::Span { start, end: start } }),
        path: String::new(),
        message: format!("there is no section `{name}`"),
        fix: Some(fix.to_owned()),
        labels: Vec::new(),
    });
}

/// Defaults that are relative paths are relative to the main file, like everything that stands in it.
fn main_directory(findings: &Findings) -> PathBuf {
    findings.sources.file(super::place::FileId::MAIN).path.parent().map_or_else(PathBuf::new, PathBuf::from)
}

/// A value within its range, or its default.
fn bounded<T: PartialOrd + Copy>(
    field: Option<&At<T>>,
    default: T,
    range: RangeInclusive<T>,
    show: impl Fn(T) -> String,
    findings: &mut Findings,
) -> T {
    let Some(At { value, at }) = field else { return default };
    if range.contains(value) {
        return *value;
    }
    let (least, most) = (show(*range.start()), show(*range.end()));
    let message = format!("{} is not between {least} and {most}", findings.written(*at));
    findings.note(Problem::new(Code::BadValue, *at, message).fix(format!("The default is {}", show(default))));
    default
}

fn span(
    field: Option<&At<Duration>>,
    default: Duration,
    range: RangeInclusive<Duration>,
    findings: &mut Findings,
) -> Duration {
    bounded(field, default, range, show_duration, findings)
}

fn size(field: Option<&At<ByteSize>>, default: u64, range: RangeInclusive<u64>, findings: &mut Findings) -> u64 {
    let field = field.map(|field| At { value: field.value.0, at: field.at });
    bounded(field.as_ref(), default, range, ByteSize::show, findings)
}

fn count(field: Option<&At<u64>>, default: u64, range: RangeInclusive<u64>, findings: &mut Findings) -> u64 {
    bounded(field, default, range, |number| number.to_string(), findings)
}

fn flag(field: Option<&At<bool>>, default: bool, mut when_changed: impl FnMut(PlaceId)) -> bool {
    let Some(At { value, at }) = field else { return default };
    if *value != default {
        when_changed(*at);
    }
    *value
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const fn kib(count: u64) -> u64 {
    count * 1024
}

fn sync_settings(file: Option<&SyncFile>, store: &StoreSettings, findings: &mut Findings) -> SyncSettings {
    let field = |pick: fn(&SyncFile) -> Option<&At<Duration>>| file.and_then(pick);
    // Where the database tells of changes, polling finds only what it failed to tell, and every gateway asks one server.
    let usual = match store {
        StoreSettings::Postgres(store) if store.pooler == Pooler::None => 3 * SECOND,
        StoreSettings::Postgres(_) | StoreSettings::Sqlite { .. } | StoreSettings::Memory => 100 * MS,
    };
    SyncSettings {
        poll_interval: span(field(|f| f.poll_interval.as_ref()), usual, 10 * MS..=10 * SECOND, findings),
        last_used_flush: span(field(|f| f.last_used_flush.as_ref()), 30 * SECOND, SECOND..=HOUR, findings),
    }
}

fn audit(file: Option<&AuditFile>, findings: &mut Findings) -> AuditSettings {
    let retention = file.and_then(|file| file.retention.as_ref());
    AuditSettings { retention: span(retention, 400 * DAY, DAY..=36_500 * DAY, findings) }
}

fn usage(file: Option<&UsageFile>, findings: &mut Findings) -> UsageSettings {
    let retention = file.and_then(|file| file.retention.as_ref());
    UsageSettings { retention: span(retention, 90 * DAY, DAY..=3_650 * DAY, findings) }
}

/// The directory of the snapshot. Keys in memory end with the process, so there is none of them.
fn snapshot(file: Option<&SyncFile>, store: &StoreSettings, base: &Path) -> Option<PathBuf> {
    let snapshot = file.and_then(|sync| sync.snapshot.as_ref());
    let enabled = snapshot.and_then(|snapshot| snapshot.enabled.as_ref()).is_none_or(|enabled| enabled.value);
    let path = snapshot.and_then(|snapshot| snapshot.path.as_ref());
    // Where the store may be written, the snapshot may be: beside it.
    let usual = match store {
        StoreSettings::Sqlite { path } => path.parent().map(|directory| directory.join("snapshot")),
        StoreSettings::Memory | StoreSettings::Postgres(_) => None,
    };
    let usual = || usual.unwrap_or_else(|| base.join("data/snapshot"));
    let path = path.map_or_else(usual, |path| path.value.0.clone());
    (enabled && *store != StoreSettings::Memory).then_some(path)
}

fn staleness(file: Option<&SyncFile>, marks: &mut Marks, findings: &mut Findings) -> Staleness {
    let field = file.and_then(|file| file.max_staleness.as_ref());
    let most = span(field, 24 * HOUR, STALENESS, findings);
    let on_stale = file.and_then(|file| file.on_stale.as_ref());
    if let Some(At { value: OnStale::Serve, at }) = on_stale {
        marks.weakened.push((*at, SERVES_STALE.to_owned()));
    }
    Staleness { most, then: on_stale.map_or(OnStale::Deny, |on_stale| on_stale.value) }
}

/// How old a key set may be said to be.
const STALENESS: RangeInclusive<Duration> = SECOND..=Duration::from_secs(365 * 86_400);

const SERVES_STALE: &str = "keys revoked while the store is out of reach stay valid for as long as it is";

fn limits(file: Option<&LimitsFile>, findings: &mut Findings) -> Limits {
    let usual = Limits::default();
    let Some(file) = file else { return usual };
    let to_usize = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let to_u32 = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let head = size(file.head_size.as_ref(), usual.head_bytes as u64, kib(1)..=kib(1024), findings);
    let target = size(file.target_size.as_ref(), usual.target_bytes as u64, 256..=kib(64), findings);
    if let (true, Some(at)) = (
        target >= head,
        file.target_size.as_ref().map(|field| field.at).or(file.head_size.as_ref().map(|field| field.at)),
    ) {
        let message =
            format!("a target of {} does not fit into a head of {}", ByteSize::show(target), ByteSize::show(head));
        findings.note(Problem::new(Code::Conflict, at, message).fix("Make `target_size` smaller than `head_size`"));
    }
    let stream =
        size(file.h2_stream_window.as_ref(), u64::from(usual.h2_stream_window), kib(16)..=kib(16 * 1024), findings);
    let connection = size(
        file.h2_connection_window.as_ref(),
        u64::from(usual.h2_connection_window),
        kib(64)..=kib(64 * 1024),
        findings,
    );
    Limits {
        head_bytes: to_usize(head),
        head_fields: to_usize(count(file.head_fields.as_ref(), usual.head_fields as u64, 10..=1000, findings)),
        target_bytes: to_usize(target),
        head_timeout: span(file.head_timeout.as_ref(), usual.head_timeout, 100 * MS..=5 * MINUTE, findings),
        keepalive_idle: span(file.keepalive_idle.as_ref(), usual.keepalive_idle, SECOND..=HOUR, findings),
        stall_timeout: span(file.stall_timeout.as_ref(), usual.stall_timeout, SECOND..=HOUR, findings),
        min_body_rate: size(file.min_body_rate.as_ref(), usual.min_body_rate, 0..=kib(1024), findings),
        handshake_timeout: span(
            file.handshake_timeout.as_ref(),
            usual.handshake_timeout,
            100 * MS..=5 * MINUTE,
            findings,
        ),
        tls_handshakes: to_usize(count(
            file.tls_handshakes.as_ref(),
            usual.tls_handshakes as u64,
            16..=65_536,
            findings,
        )),
        memory: file
            .memory
            .as_ref()
            .map(|field| size(Some(field), kib(32 * 1024), kib(32 * 1024)..=kib(1024 * 1024 * 1024), findings)),
        connections_per_listener: to_usize(count(
            file.connections_per_listener.as_ref(),
            usual.connections_per_listener as u64,
            1..=1_000_000,
            findings,
        )),
        connections_per_address: file
            .connections_per_address
            .as_ref()
            .map(|field| to_usize(count(Some(field), 1, 1..=1_000_000, findings))),
        h2_max_streams: to_u32(count(
            file.h2_max_streams.as_ref(),
            u64::from(usual.h2_max_streams),
            1..=10_000,
            findings,
        )),
        h2_stream_window: to_u32(stream),
        h2_connection_window: to_u32(connection),
        h2_header_list_bytes: to_u32(size(
            file.h2_header_list_size.as_ref(),
            u64::from(usual.h2_header_list_bytes),
            kib(1)..=kib(1024),
            findings,
        )),
    }
}

/// Where the management API answers unless configured.
const ADMIN_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// Where metrics and health answer unless configured.
const METRICS_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9902);

fn admin(file: &File, base: &Path, marks: &mut Marks, findings: &mut Findings) -> AdminSettings {
    let known = file;
    let file: Option<&AdminFile> = file.admin.0.as_ref();
    let tls = file.and_then(|file| file.tls.as_ref());
    if let Some(tls) = tls {
        network::check_tls_name(known, tls, findings);
    }
    let bind = file.and_then(|file| file.bind.as_ref()).filter(|bind| tls.is_none() && !bind.value.ip().is_loopback());
    if let Some(bind) = bind {
        let why = "management keys are readable on the way to this address; name an entry of `tls` as `admin.tls`";
        marks.weakened.push((bind.at, why.to_owned()));
    }
    AdminSettings {
        tls: tls.map(|tls| tls.value.clone()),
        bind: file.and_then(|file| file.bind.as_ref()).map_or(ADMIN_BIND, |bind| bind.value),
        socket: file
            .and_then(|file| file.socket.as_ref())
            .map_or_else(|| base.join("data/portcullis.sock"), |socket| socket.value.0.clone()),
    }
}

fn metrics(file: Option<&MetricsFile>, findings: &mut Findings) -> MetricsSettings {
    let most = count(file.and_then(|file| file.max_routes.as_ref()), 500, 1..=100_000, findings);
    MetricsSettings {
        bind: file.and_then(|file| file.bind.as_ref()).map_or(METRICS_BIND, |bind| bind.value),
        max_routes: usize::try_from(most).unwrap_or(usize::MAX),
    }
}

fn log_settings(file: Option<&LoggingFile>) -> LogSettings {
    LogSettings {
        format: file.and_then(|file| file.format).unwrap_or(LogFormat::Auto),
        level: file.and_then(|file| file.level).unwrap_or(LogLevel::Info),
        access: file.and_then(|file| file.access.as_ref()).and_then(|access| access.enabled).unwrap_or(true),
        mask_addresses: file.and_then(|file| file.mask_addresses).unwrap_or(false),
    }
}

fn shutdown(file: Option<&ShutdownFile>, findings: &mut Findings) -> ShutdownSettings {
    let delay = file.and_then(|file| file.delay.as_ref());
    let deadline = file.and_then(|file| file.deadline.as_ref());
    ShutdownSettings {
        delay: span(delay, Duration::ZERO, Duration::ZERO..=HOUR, findings),
        deadline: span(deadline, 30 * SECOND, Duration::ZERO..=DAY, findings),
    }
}

/// No two doors of the gateway at one address; port 0 is a different one each time.
fn check_binds(file: &File, settings: &Settings, findings: &mut Findings) {
    let admin_at = file.admin.0.as_ref().and_then(|admin| admin.bind.as_ref()).map(|bind| bind.at);
    let metrics_at = file.metrics.0.as_ref().and_then(|metrics| metrics.bind.as_ref()).map(|bind| bind.at);
    let listeners = file.listeners.0.as_ref().into_iter().flat_map(|list| &list.0);
    let mut taken: Vec<(String, PlaceId)> = listeners
        .filter(|listener| network::port_of(&listener.value.bind.value) != Some(0))
        .map(|listener| (show_bind(&listener.value.bind.value), listener.value.bind.at))
        .collect();
    for (name, bind, at) in
        [("admin.bind", settings.admin.bind, admin_at), ("metrics.bind", settings.metrics.bind, metrics_at)]
    {
        if bind.port() == 0 {
            continue;
        }
        let text = bind.to_string();
        let first = taken.iter().find(|(other, _)| *other == text).map(|(_, first)| *first);
        match (first, at) {
            (Some(first), Some(at)) => {
                let problem = Problem::new(Code::Conflict, at, taken_twice(&findings.written(at)));
                findings.note(problem.label(first, "first used here").fix("Choose another port"));
            }
            (Some(first), None) => {
                let message = format!("{} is where `{name}` is by default", findings.written(first));
                findings
                    .note(Problem::new(Code::Conflict, first, message).fix(format!("Choose another, or set `{name}`")));
            }
            (None, Some(at)) => taken.push((text, at)),
            (None, None) => {}
        }
    }
}

fn taken_twice(bind: &str) -> String {
    format!("{bind} is used twice")
}
