//! Taking over a new configuration: compile first, swap whole, keep the old one on any error and say so.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::doors::{Listeners, admin_tls, listener_keys};
use super::error::RunError;
use super::generation::{Generation, Previous, export_certificates};
use super::run::Gateway;
use super::secrets::refuse_other_secret;
use super::supervisor::{Signals, notify_supervisor};
use crate::admin::{ApiSettings, ReloadReport};
use crate::config::{self, Loaded, Settings, Severity};
use crate::domain::Timestamp;
use crate::domain::time;
use crate::gate::{Demand, MethodSelector, Mode, RouteSettings};
use crate::server::{EdgeTls, Listener, listen};
use crate::store::{Actor, Note};
use crate::telemetry::Reload;

/// Most keys named by a dry run.
const MAX_LOSING_KEYS: usize = 100;
/// How long nobody must have written to a file before what stands in it is believed to be all of it.
const SETTLE: Duration = Duration::from_millis(200);
/// How often a reload reads again because somebody still writes.
const MAX_READINGS: usize = 50;
/// How long a reload waits for its files to be read, and once more for what is compiled of them.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// How long a reload waits for its audit row. It is written all the same when the store gets to it.
const NOTE_PATIENCE: Duration = Duration::from_secs(2);
/// How often certificate files are read again.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);

/// Why a reload happens.
pub(super) enum Trigger {
    /// A file changed.
    FileChanged,
    /// Somebody asks, through the local socket or the management API.
    Asked { by: Actor, dry_run: bool, answer: oneshot::Sender<ReloadReport> },
}

/// Owns what a reload replaces.
pub(super) struct Reloader {
    settings: Arc<Settings>,
    source: Option<PathBuf>,
    tls: BTreeMap<String, Arc<EdgeTls>>,
    listeners: Listeners,
    inbox: mpsc::Receiver<Trigger>,
    triggers: mpsc::Sender<Trigger>,
    /// The watcher and what it watches.
    watcher: Option<(notify::RecommendedWatcher, Vec<PathBuf>)>,
    /// The last work with files, when it took too long.
    hanging: Option<AbortHandle>,
}

/// Why work beside control came to nothing.
#[derive(Debug)]
enum Hindrance {
    Hangs,
    Panicked,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangs => "the files are not read to their end; the file system does not answer",
            Self::Panicked => "reading the files panicked",
        })
    }
}

impl From<Hindrance> for io::Error {
    fn from(hindrance: Hindrance) -> Self {
        Self::other(hindrance.to_string())
    }
}

impl Reloader {
    pub(super) fn new(
        settings: Settings,
        source: Option<PathBuf>,
        tls: BTreeMap<String, Arc<EdgeTls>>,
        listeners: Listeners,
        inbox: mpsc::Receiver<Trigger>,
        triggers: mpsc::Sender<Trigger>,
    ) -> Self {
        let settings = Arc::new(settings);
        let mut reloader = Self { settings, source, tls, listeners, inbox, triggers, watcher: None, hanging: None };
        reloader.watch();
        reloader
    }

    /// Reloads whenever there is reason to, until the process is told to leave.
    pub(super) async fn until_told_to_leave(&mut self, gateway: &Gateway, signals: &mut Signals) {
        let mut certificates = tokio::time::interval(CERTIFICATE_INTERVAL);
        certificates.tick().await;
        loop {
            tokio::select! {
                leave = signals.next() => {
                    if leave {
                        return;
                    }
                    self.reload(gateway, itself(), false).await;
                }
                Some(trigger) = self.inbox.recv() => match trigger {
                    Trigger::FileChanged => {
                        self.reload(gateway, itself(), false).await;
                    }
                    Trigger::Asked { by, dry_run, answer } => {
                        let report = self.reload(gateway, by, dry_run).await;
                        // The asker may be gone; the reload stands all the same.
                        let _told = answer.send(report);
                    }
                },
                _ = certificates.tick() => self.read_certificates_again(gateway).await,
            }
        }
    }

    async fn reload(&mut self, gateway: &Gateway, by: Actor, dry_run: bool) -> ReloadReport {
        let Some(source) = self.source.clone() else {
            return ReloadReport::refused("this gateway runs without a configuration file");
        };
        if !dry_run {
            let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let microseconds = i128::from(since_boot.tv_sec) * 1_000_000 + i128::from(since_boot.tv_nsec) / 1_000;
            notify_supervisor(&[
                sd_notify::NotifyState::Reloading,
                sd_notify::NotifyState::MonotonicUsec(microseconds),
            ]);
        }
        let before = digests(&self.settings);
        let mut report = self.take_over(gateway, &source, dry_run).await;
        report.file = Some(std::path::absolute(&source).unwrap_or(source).display().to_string());
        if dry_run {
            return report;
        }
        if report.ok {
            gateway.metrics.count_reload(Reload::Applied);
            let (routes, settings) = (report.changed_routes.len(), report.changed_settings.len());
            tracing::info!(changed_routes = routes, changed_settings = settings, "configuration reloaded");
            note(gateway, by, before, digests(&self.settings)).await;
        } else {
            gateway.metrics.count_reload(Reload::Refused);
            for problem in &report.problems {
                tracing::error!(%problem, "configuration not reloaded; the old one stays in force");
            }
        }
        notify_supervisor(&[sd_notify::NotifyState::Ready]);
        report
    }

    async fn take_over(&mut self, gateway: &Gateway, source: &Path, dry_run: bool) -> ReloadReport {
        let settings = match self.read(source).await {
            Ok(settings) => settings,
            Err(problems) => return ReloadReport { problems, ..ReloadReport::default() },
        };
        match self.swap(gateway, settings, dry_run).await {
            Ok(report) => report,
            Err(error) => ReloadReport::refused(error.to_string()),
        }
    }

    /// Reads the files beside everything else that control does, revocations first of all, and again as long as one of them
    /// was written to just before: the beginning of a file is a file, too, and without its last rules it may let in whom
    /// they keep out.
    async fn read(&mut self, source: &Path) -> Result<Settings, Vec<String>> {
        let mut readings = 1;
        loop {
            let source = source.to_owned();
            let reading = self.beside(move || {
                let Loaded { settings, diagnostics, sources } = config::load(&source, &|name| std::env::var(name).ok());
                let is_fresh = sources.files().iter().any(|file| is_fresh(&file.path));
                let errors = diagnostics.iter().filter(|found| found.severity() == Severity::Error);
                (settings.ok_or_else(|| errors.map(ToString::to_string).collect()), is_fresh)
            });
            match reading.await {
                Ok((_, true)) if readings < MAX_READINGS => {
                    readings += 1;
                    tokio::time::sleep(SETTLE).await;
                }
                Ok((read, _)) => return read,
                Err(problem) => return Err(vec![problem.to_string()]),
            }
        }
    }

    /// Does what reads files, or takes long, on a thread where nothing waits for it but this reload, and that not for ever.
    /// Nothing is begun beside work that hangs.
    async fn beside<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Hindrance> {
        if self.hanging.as_ref().is_some_and(|work| !work.is_finished()) {
            return Err(Hindrance::Hangs);
        }
        let mut doing = tokio::task::spawn_blocking(work);
        match tokio::time::timeout(READ_PATIENCE, &mut doing).await {
            Ok(done) => done.map_err(|_| Hindrance::Panicked),
            Err(_) => {
                self.hanging = Some(doing.abort_handle());
                Err(Hindrance::Hangs)
            }
        }
    }

    /// Everything that can fail comes first; from the first change on nothing can.
    async fn swap(&mut self, gateway: &Gateway, settings: Settings, dry_run: bool) -> Result<ReloadReport, RunError> {
        self.refuse_restarts(&settings)?;
        refuse_other_secret(&gateway.store, &settings.audit_seal()).await?;
        let (report, prepared) = self.prepare(gateway, settings, dry_run).await?;
        let Some((settings, generation)) = prepared else { return Ok(report) };
        let listener_for = |listener: &crate::server::ListenerSettings| {
            let tls = listener.tls.as_ref().and_then(|name| generation.tls.get(name).cloned());
            Arc::new(Listener::new(listener.clone(), tls, gateway.metrics.listener(&listener.name)))
        };
        let mut opened = Vec::new();
        let keys = listener_keys(&settings.listeners);
        for (number, (listener, key)) in settings.listeners.iter().zip(&keys).enumerate() {
            if !self.listeners.contains_key(key) {
                let socket = listen(&listener.bind, &format!("listeners[{number}].bind")).map_err(RunError::Listen)?;
                opened.push((listener, key, socket));
            }
        }
        let admin_tls = admin_tls(&settings, &generation.tls)?;
        let plan = generation.plan(&settings, &gateway.metrics, &gateway.rule_names);
        // Before workers go by it: they may find a target broken at once.
        generation.export(&gateway.metrics);
        gateway.live.replace(Arc::clone(&generation.rules), Arc::clone(&plan));
        gateway.upkeep.follow(&plan);
        gateway.api.store(Arc::new(ApiSettings {
            rules: Arc::clone(&generation.rules),
            profile: settings.api,
            mask_addresses: settings.logging.mask_addresses,
        }));
        gateway.limits.store(Arc::new(settings.limits.clone()));
        gateway.meters.set_most(settings.rate_limits.max_meters);
        gateway.limit_settings.store(Arc::new(settings.rate_limits));
        gateway.logging.apply(&settings.logging);
        gateway.store.seal_with(settings.audit_seal());
        gateway.snapshot_seal.store(Arc::new(settings.snapshot_seal()));
        gateway.audit.send_replace(settings.audit);
        gateway.admin_tls.store(admin_tls);
        gateway.usage.send_replace(settings.usage);
        gateway.max_staleness.send_replace(settings.gate.longest_staleness());
        gateway.masks_addresses.store(settings.logging.mask_addresses, Ordering::Relaxed);
        for (listener, key, socket) in opened {
            let doing = "accept connections";
            let accepting = gateway.accept.accept_from(socket, listener_for(listener)).await;
            let accepting = accepting.map_err(|source| RunError::System { doing, source })?;
            tracing::info!(role = "data", listener = %listener.name, address = %accepting.address, "listening");
            self.listeners.insert(key.clone(), accepting);
        }
        let configured = |key: &(crate::server::Bind, usize)| {
            keys.iter().position(|known| known == key).map(|at| &settings.listeners[at])
        };
        self.listeners.retain(|key, accepting| match configured(key) {
            Some(listener) => {
                accepting.replace(listener_for(listener));
                true
            }
            None => {
                tracing::info!(role = "data", address = %accepting.address, "no longer listening");
                accepting.listener().leave();
                false
            }
        });
        self.tls = generation.tls;
        self.settings = Arc::new(settings);
        self.watch();
        Ok(report)
    }

    /// Compiles and compares, and keeps what is to be taken over: with thousands of routes that takes a tenth of a second, and
    /// keys are looked through where a profile loses access. Certificates are read for it, too.
    async fn prepare(
        &mut self,
        gateway: &Gateway,
        settings: Settings,
        dry_run: bool,
    ) -> Result<(ReloadReport, Option<(Settings, Generation)>), RunError> {
        let (before, tls, live) = (Arc::clone(&self.settings), self.tls.clone(), Arc::clone(&gateway.live));
        let preparing = self.beside(move || {
            // Nothing else of what is in force: whoever holds that when it is replaced keeps it from being freed.
            let plan = Arc::clone(&live.current().plan);
            let generation = Generation::compile(&settings, Some(Previous { plan: &plan, tls: &tls }))?;
            let report = ReloadReport {
                ok: true,
                file: None,
                changed_settings: config::changed_settings(&before, &settings),
                changed_routes: changed_routes(&before.gate.routes, &settings.gate.routes),
                losing_keys: live.losing_keys(&generation.rules, MAX_LOSING_KEYS, time::now()),
                problems: Vec::new(),
            };
            Ok((report, (!dry_run).then_some((settings, generation))))
        });
        let doing = "compile the configuration";
        preparing.await.unwrap_or_else(|hindrance| Err(RunError::System { doing, source: hindrance.into() }))
    }

    fn refuse_restarts(&self, next: &Settings) -> Result<(), RunError> {
        let now = &self.settings;
        let changed = [
            ("workers", now.workers != next.workers),
            ("store", now.store != next.store),
            ("sync.snapshot", now.snapshot != next.snapshot),
            ("rate_limits.shared", now.shared_limits != next.shared_limits),
            ("auth.brand", now.gate.brand != next.gate.brand),
            ("admin.socket", now.admin.socket != next.admin.socket),
            ("metrics.bind", now.metrics.bind != next.metrics.bind),
            ("admin.bind", now.admin.bind != next.admin.bind),
            // A listener that spoke TLS never falls back to what anybody can read.
            ("admin.tls", now.admin.tls.is_some() != next.admin.tls.is_some()),
        ];
        match changed.into_iter().find(|(_, is_changed)| *is_changed) {
            Some((setting, _)) => Err(RunError::NeedsRestart { setting }),
            None => Ok(()),
        }
    }

    async fn read_certificates_again(&mut self, gateway: &Gateway) {
        let tls = self.tls.clone();
        let reading = self.beside(move || {
            let now = time::now();
            for (name, tls) in &tls {
                let known = tls.warnings(now);
                match tls.reload() {
                    Ok(()) => {
                        tracing::debug!(tls = %name, "certificates were read again");
                        for warning in tls.warnings(now).iter().filter(|warning| !known.contains(warning)) {
                            tracing::warn!(tls = %name, %warning, "a certificate needs attention");
                        }
                    }
                    Err(problems) => {
                        for error in problems {
                            tracing::error!(tls = %name, %error, "certificates not read again; the old ones stay");
                        }
                    }
                }
            }
        });
        if let Err(problem) = reading.await {
            tracing::error!(%problem, "certificates not read again; the old ones stay");
        }
        export_certificates(&gateway.metrics, &self.tls);
    }

    /// Watches the directories of all files: a mounted ConfigMap changes by a symbolic link beside the file.
    fn watch(&mut self) {
        use notify::Watcher;
        if !self.settings.reload_watch {
            self.watcher = None;
            return;
        }
        let of_tls = self.tls.values().flat_map(|tls| tls.files().into_iter().map(Path::to_owned));
        let files: Vec<PathBuf> = self.settings.files.iter().map(|file| file.path.clone()).chain(of_tls).collect();
        // A watcher that is replaced loses what happens meanwhile: one that watches the same goes on.
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == files) {
            return;
        }
        let triggers = self.triggers.clone();
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns_us = |path: &PathBuf| path.file_name().is_some_and(|name| is_ours(name, &names));
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(concerns_us)) {
                // A full queue means that a reload is about to happen anyway.
                let _queued = triggers.try_send(Trigger::FileChanged);
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => return tracing::warn!(%error, "files are not watched"),
        };
        let mut directories: Vec<_> = files.iter().filter_map(|file| file.parent()).collect();
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            if let Err(error) = watcher.watch(directory, notify::RecursiveMode::NonRecursive) {
                tracing::warn!(%error, "changes in {} go unnoticed", directory.display());
            }
        }
        let is_replaced = self.watcher.replace((watcher, files)).is_some();
        if is_replaced {
            // For what happened between the two.
            let _queued = self.triggers.try_send(Trigger::FileChanged);
        }
    }
}

/// Whether somebody may still be writing to a file.
fn is_fresh(path: &Path) -> bool {
    let Ok(data) = path.metadata() else { return false };
    let written = data.modified().ok().and_then(|moment| moment.duration_since(std::time::UNIX_EPOCH).ok());
    let Some(written) = written.filter(|_| data.is_file()) else { return false };
    let written = Timestamp::from_unix_ms(i64::try_from(written.as_millis()).unwrap_or(i64::MAX));
    // A time in the future says nothing.
    let now = time::now();
    written <= now && now.since(written) < SETTLE
}

/// Who reloads when nobody asks by name: a signal, or a file that changed.
fn itself() -> Actor {
    Actor::named("gateway:reload")
}

/// The files of a configuration and their digests.
fn digests(settings: &Settings) -> Value {
    settings.files.iter().map(|file| (file.path.display().to_string(), Value::from(file.digest.as_str()))).collect()
}

/// Writes a reload into the audit trail. It stands even where that fails.
async fn note(gateway: &Gateway, by: Actor, before: Value, after: Value) {
    let noting = gateway.store.writer().note(Note::ConfigReload { before, after }, by, time::now());
    match tokio::time::timeout(NOTE_PATIENCE, noting).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "the reload is missing in the audit trail"),
        Err(_) => tracing::warn!("the store is slow: the reload may be missing in the audit trail"),
    }
}

/// Whether a change of this file in a watched directory can change the configuration: a file that was read, one that an
/// `include` may find, or the link that a ConfigMap swaps (`..data`). The store may live in the same directory.
fn is_ours(name: &std::ffi::OsStr, read: &[std::ffi::OsString]) -> bool {
    let text = name.to_string_lossy();
    read.iter().any(|known| known == name)
        || text.starts_with("..")
        || text.ends_with(".yaml")
        || text.ends_with(".yml")
}

/// Routes whose demands differ, by path and name, each once.
fn changed_routes(before: &[Arc<RouteSettings>], after: &[Arc<RouteSettings>]) -> Vec<String> {
    type Demands<'a> = BTreeMap<(String, String, String), ((&'a Demand, Mode), String)>;
    fn demands(routes: &[Arc<RouteSettings>]) -> Demands<'_> {
        let mut all = BTreeMap::new();
        for route in routes {
            let hosts: Vec<&str> = route.hosts.iter().map(|host| host.as_str()).collect();
            let path = route.path.as_str();
            let label = match &route.name {
                Some(name) => format!("{path} ({name})"),
                None => path.to_owned(),
            };
            for method in &route.methods {
                let name = match &method.selector {
                    MethodSelector::Named(method) => method.to_string(),
                    MethodSelector::All => "*".to_owned(),
                };
                all.insert((hosts.join(","), path.to_owned(), name), ((&method.demand, route.mode), label.clone()));
            }
        }
        all
    }
    let (old, new) = (demands(before), demands(after));
    let mut labels: Vec<String> = Vec::new();
    let mut note = |label: &str| {
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
    };
    for (rule, (demand, label)) in &new {
        if old.get(rule).is_none_or(|(before, _)| before != demand) {
            note(label);
        }
    }
    for (rule, (_, label)) in &old {
        if !new.contains_key(rule) {
            note(label);
        }
    }
    labels
}
