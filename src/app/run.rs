//! Starting, waiting, leaving.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use super::clock;
use super::descriptors;
use super::doors::{AcceptThread, Listeners, admin_tls, listener_keys, open_data_sockets, serve_api, serve_operators};
use super::error::RunError;
use super::forgetting;
use super::generation::Generation;
use super::memory;
use super::metering::{self, QuotaCounts};
use super::nodes::{Parting, Place, Standing};
use super::operations::Process;
use super::panics;
use super::reload::Reloader;
use super::secrets::refuse_other_secret;
use super::self_service;
use super::socket;
use super::supervisor::{Signals, be_nice, notify_supervisor};
use super::tasks::keep;
use super::vitals::{Effects, Health};
use crate::admin::{Api, ApiSettings};
use crate::cache::{KeySet, SnapshotClaim, SnapshotSeal, SyncTask, holds_snapshot};
use crate::config::Settings;
use crate::domain::{NodeId, time};
use crate::lending::Lender;
use crate::limit::{LimitSettings, Meters};
use crate::proxy::{Inquiries, Live, Upkeep, WorkerTally};
use crate::server::{Acceptor, Bind, EdgeTls, Inherited, Listener, Memory, Worker, WorkerParts, listen};
use crate::store::{self, AuditSettings, OpenMode, Opening, Outage, Store, StoreError, StoreSettings, UsageSettings};
use crate::telemetry::{LogOutput, Logging, Metrics, Recall};
use crate::usage::{Graces, Ledger, RuleNames, Tally};

/// What a gateway is started from.
pub struct Options {
    /// The configuration.
    pub settings: Settings,
    /// The file it came from, read again at a reload; none where there is no file.
    pub source: Option<PathBuf>,
    /// Where log lines go.
    pub log: LogOutput,
    /// Called once, when every socket is open and the key set is loaded.
    pub announce: Box<dyn FnOnce(&Started)>,
}

/// A gateway that has just started.
pub struct Started {
    /// Data listeners: name and address.
    pub data: Vec<(String, String)>,
    /// Where metrics and health answer.
    pub metrics: String,
    /// The open store.
    pub store: Arc<Store>,
}

/// Runs a gateway on this thread until it has drained.
///
/// Leaves on SIGTERM and SIGINT: `/readyz` turns 503, after `shutdown.delay` nothing more is accepted, requests under
/// way get `shutdown.deadline`.
///
/// # Errors
/// Whatever keeps it from starting. Once it runs, trouble is logged.
pub fn run(options: Options) -> Result<(), RunError> {
    let system = |doing| move |source| RunError::System { doing, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control-blocking")
        .build()
        .map_err(system("start the control runtime"))?;
    let place = Place::default();
    let ended = runtime.block_on(async {
        let ended = run_on_control(options, &place).await;
        place.leave().await;
        ended
    });
    // A file system that does not answer keeps nobody from leaving.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Everything that lives until the process has drained.
pub(super) struct Gateway {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) live: Arc<Live>,
    /// Looks after upstreams.
    pub(crate) upkeep: Upkeep,
    /// What the management API is configured with.
    pub(crate) api: Arc<ArcSwap<ApiSettings>>,
    pub(crate) limits: Arc<ArcSwap<crate::server::Limits>>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) limit_settings: Arc<ArcSwap<LimitSettings>>,
    pub(crate) workers: Arc<Vec<Worker>>,
    pub(crate) accept: AcceptThread,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) logging: Logging,
    pub(crate) store: Arc<Store>,
    /// What the snapshot is sealed with.
    pub(crate) snapshot_seal: Arc<ArcSwap<SnapshotSeal>>,
    pub(crate) audit: watch::Sender<AuditSettings>,
    /// What the management listener speaks TLS with.
    pub(crate) admin_tls: Arc<ArcSwapOption<EdgeTls>>,
    pub(crate) usage: watch::Sender<UsageSettings>,
    /// How long keys are let pass without the store; none: for ever.
    pub(crate) max_staleness: watch::Sender<Option<Duration>>,
    pub(crate) rule_names: Arc<RuleNames>,
    /// Whether usage is noted without the last part of addresses.
    pub(crate) masks_addresses: Arc<AtomicBool>,
}

async fn run_on_control(options: Options, place: &Place) -> Result<(), RunError> {
    let Options { settings, source, log, announce } = options;
    let system = |doing| move |source| RunError::System { doing, source };
    let metrics = Arc::new(Metrics::new(settings.metrics.max_routes, time::monotonic_now()));
    let logging =
        Logging::start(&settings.logging, log, metrics.log_lines_dropped()).map_err(system("start the log thread"))?;
    if logging.install().is_err() {
        return Err(RunError::System {
            doing: "send events to the log",
            source: std::io::Error::other("they have a destination already"),
        });
    }
    panics::install_panic_hook(&metrics);
    descriptors::raise_limit();
    descriptors::warn_if_few(&settings);
    let rule_names = Arc::new(RuleNames::default());
    let mut generation = Generation::compile(&settings, None)?;
    let plan = generation.plan(&settings, &metrics, &rule_names);
    let mut inherited = Inherited::from_environment();
    let sockets = open_data_sockets(&settings, &mut inherited)?;
    let mut operators_socket = |bind, setting| match inherited.take(&bind) {
        Some(socket) => Ok(socket),
        None => listen(&bind, setting).map_err(RunError::Listen),
    };
    let metrics_socket = operators_socket(Bind::Tcp(settings.metrics.bind), "metrics.bind")?;
    let admin_socket = operators_socket(Bind::Tcp(settings.admin.bind), "admin.bind")?;
    let keys = KeySet::new();
    let live = Arc::new(Live::new(Arc::clone(&generation.rules), Arc::clone(&plan), Arc::clone(&keys)));
    let worker_count = settings.workers.count();
    let (recall, recalls) = Recall::new(worker_count);
    let tally = Tally::new(worker_count);
    let limits = Arc::new(ArcSwap::from_pointee(settings.limits.clone()));
    let (meters, lender) = metering::start(&settings).map_err(system("start the thread for shared limits"))?;
    let limit_settings = Arc::new(ArcSwap::from_pointee(settings.rate_limits));
    let (inquiries, asked) = Inquiries::channel();
    let memory = Memory::new(worker_count, memory::for_this_process(), Arc::clone(&keys));
    let workers = (0..worker_count)
        .zip(recalls)
        .map(|(worker, recall)| {
            let parts = WorkerParts {
                live: Arc::clone(&live),
                metrics: Arc::clone(&metrics),
                limits: Arc::clone(&limits),
                access: logging.access_log(),
                recall,
                tally: WorkerTally { shared: Arc::clone(&tally), worker },
                meters: Arc::clone(&meters),
                inquiries: inquiries.clone(),
                memory: Arc::clone(&memory),
            };
            Worker::start(worker, parts)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(system("start a worker thread"))?;
    let workers = Arc::new(workers);
    let accept = AcceptThread::start(Acceptor::new(
        Arc::clone(&workers),
        Arc::clone(&limits),
        Arc::clone(&metrics),
        Arc::clone(&memory),
    ))
    .map_err(system("start the accept thread"))?;
    // Threads take over the priority of the one that starts them: whatever starts from here on is control.
    be_nice();
    let upkeep = Upkeep::new(&metrics);
    upkeep.follow(&plan);
    let (store, opening) = open_store(&settings)?;
    if opening.is_none() {
        refuse_other_secret(&store, &settings.audit_seal()).await?;
    }
    let snapshot_seal = Arc::new(ArcSwap::from_pointee(settings.snapshot_seal()));
    let snapshot = settings.snapshot.clone();
    let snapshot = snapshot.map(|directory| SnapshotClaim::take(directory, Arc::clone(&snapshot_seal)));
    let id = snapshot.as_ref().map_or_else(NodeId::generate, SnapshotClaim::node_id);
    let stays_when_alone = matches!(settings.store, StoreSettings::Sqlite { .. });
    let parting = snapshot.as_ref().map(|claim| Parting { farewell: claim.farewell(), stays_when_alone });
    let effects = Arc::new(Effects { live: Arc::clone(&live), metrics: Arc::clone(&metrics) });
    let (feed, publish) = (Arc::clone(store.feed()), effects as _);
    let (sync, sync_handle) = SyncTask::new(feed, Arc::clone(&keys), publish, &settings.sync, snapshot);
    let max_staleness = watch::Sender::new(settings.gate.longest_staleness());
    let standing = Standing::new(id, &keys, &sync_handle, max_staleness.subscribe());
    // Before the first load: whoever asks later which nodes there are finds one that may have loaded too little.
    place.take(standing.clone(), Arc::clone(store.nodes()), parting).await;
    let syncing = tokio::spawn(sync.run());
    let opening = opening.map(|opening| tokio::spawn(open_in_the_end(opening)));
    let (audit, usage) = (watch::Sender::new(settings.audit), watch::Sender::new(settings.usage));
    let forgetting = {
        let (store, audit, usage) = (Arc::clone(&store), audit.subscribe(), usage.subscribe());
        keep("retention", move || forgetting::forget_hourly(Arc::clone(&store), audit.clone(), usage.clone()))
    };
    let quota_counts = QuotaCounts::new(Arc::clone(&meters), Arc::clone(store.quotas()));
    if let Err(error) = quota_counts.load().await {
        tracing::warn!(%error, "counts of quotas cannot be read; they are added as soon as the store can be written");
    }
    let (stop_counting, told_to_stop) = tokio::sync::oneshot::channel();
    let counting = tokio::spawn(quota_counts.run(Arc::clone(&limit_settings), told_to_stop));
    let masks_addresses = Arc::new(AtomicBool::new(settings.logging.mask_addresses));
    let graces = Graces::new(Arc::clone(&keys), Arc::clone(&tally), Arc::clone(store.writer()));
    let ledger = Ledger::new(
        Arc::clone(&tally),
        Arc::clone(&rule_names),
        &store,
        Arc::clone(&graces),
        Metrics::clone(&metrics),
        Arc::clone(&masks_addresses),
    );
    let (stop_noting, told_to_stop) = tokio::sync::oneshot::channel();
    let noting = tokio::spawn(ledger.run(settings.sync.last_used_flush, told_to_stop));
    let ended = Arc::clone(&graces);
    let ending = keep("graces", move || Arc::clone(&ended).run());
    let swept = Arc::clone(&meters);
    let clock_watch = keep("clock", clock::watch);
    let sweeping = keep("meters", move || metering::sweep(Arc::clone(&swept)));
    let replaced = Arc::clone(&live);
    let freeing = keep("replaced rules", move || Arc::clone(&replaced).free_replaced());
    let draining = Arc::new(AtomicBool::new(false));
    let is_accepting = Arc::new(AtomicBool::new(false));
    let health = Arc::new(Health {
        metrics: Arc::clone(&metrics),
        keys: Arc::clone(&keys),
        sync: sync_handle.clone(),
        tally: Arc::clone(&tally),
        meters: Arc::clone(&meters),
        lending: lender.as_ref().map(Lender::status),
        draining: Arc::clone(&draining),
        accepting: Arc::clone(&is_accepting),
        memory,
        limits: Arc::clone(&limits),
        max_staleness: max_staleness.subscribe(),
    });
    let metrics_address = serve_operators("metrics", metrics_socket, health)?;
    let rules = Arc::clone(&generation.rules);
    let mask_addresses = settings.logging.mask_addresses;
    let api_settings = Arc::new(ArcSwap::from_pointee(ApiSettings { rules, profile: settings.api, mask_addresses }));
    let (triggers, inbox) = mpsc::channel(16);
    let process = Arc::new(Process {
        recall,
        settings: Arc::clone(&api_settings),
        store: Arc::clone(&store),
        keys: Arc::clone(&keys),
        triggers: triggers.clone(),
        standing,
    });
    let current = Arc::clone(&api_settings);
    let api = Api::new(
        Arc::clone(&store),
        Arc::clone(&keys),
        sync_handle.clone(),
        Arc::clone(&meters),
        tally,
        Arc::clone(&process) as _,
        move || (**current.load()).clone(),
    );
    let api = Arc::new(api);
    drop(tokio::spawn(self_service::serve(asked, Arc::clone(&api))));
    let admin_tls = Arc::new(ArcSwapOption::new(admin_tls(&settings, &generation.tls)?));
    let admin_address = serve_api(admin_socket, api, Arc::clone(&admin_tls))?;
    tracing::info!(role = "admin", address = %admin_address, "listening");
    if settings.admin.tls.is_none() && !settings.admin.bind.ip().is_loopback() {
        tracing::warn!(address = %admin_address, "management keys are readable on the way here: `admin.tls` is not set");
    }
    generation.export(&metrics);
    let mut signals = Signals::install().map_err(system("watch signals"))?;
    wait_until_loaded(&sync_handle, lender.as_ref(), &mut signals).await;
    let keeping_room = keep("descriptors", descriptors::keep_room);
    let mut accepting = Listeners::new();
    let listener_keys = listener_keys(&settings.listeners);
    for ((listener, key), socket) in settings.listeners.iter().zip(&listener_keys).zip(sockets) {
        let listener = Arc::new(Listener::new(
            listener.clone(),
            listener.tls.as_ref().and_then(|name| generation.tls.get(name).cloned()),
            metrics.listener(&listener.name),
        ));
        let name = Arc::clone(&listener.name);
        let opened = accept.accept_from(socket, listener).await.map_err(system("accept connections"))?;
        tracing::info!(role = "data", listener = %name, address = %opened.address, "listening");
        accepting.insert(key.clone(), opened);
    }
    is_accepting.store(true, Ordering::Relaxed);
    let gateway = Gateway {
        snapshot_seal,
        metrics,
        live,
        upkeep,
        api: api_settings,
        limits,
        meters,
        limit_settings,
        workers,
        accept,
        draining,
        logging,
        store: Arc::clone(&store),
        audit,
        admin_tls,
        usage,
        max_staleness,
        rule_names,
        masks_addresses,
    };
    let _socket = match socket::serve(&settings.admin.socket, process) {
        Ok(guard) => Some(guard),
        Err(error) => {
            let path = settings.admin.socket.display();
            tracing::warn!(%error, "no local socket at {path}: `portcullis reload`, `explain REQUEST_ID` and `nodes` will not reach it");
            None
        }
    };
    let started = Started {
        data: settings
            .listeners
            .iter()
            .zip(&listener_keys)
            .filter_map(|(listener, key)| Some((listener.name.clone(), accepting.get(key)?.address.clone())))
            .collect(),
        metrics: metrics_address,
        store: Arc::clone(&store),
    };
    announce(&started);
    notify_supervisor(&[sd_notify::NotifyState::Ready]);
    tracing::info!(keys = keys.len(), revision = %keys.revision(), "ready");
    let shutdown = settings.shutdown;
    generation.tls.retain(|name, _| {
        let serves = |tls: &Option<String>| tls.as_ref() == Some(name);
        serves(&settings.admin.tls) || settings.listeners.iter().any(|listener| serves(&listener.tls))
    });
    let mut reloader = Reloader::new(settings, source, generation.tls, accepting, inbox, triggers);
    reloader.until_told_to_leave(&gateway, &mut signals).await;
    leave(gateway, reloader, shutdown, &mut signals).await;
    if let Some(lender) = lender {
        lender.stop();
    }
    // The workers are gone: what they counted and noted is all there.
    drop((stop_counting, stop_noting));
    if counting.await.is_err() {
        tracing::error!("counting requests of quotas had panicked");
    }
    if noting.await.is_err() {
        tracing::error!("noting usage had panicked");
    }
    // It may be writing; what does not arrive is written again.
    ending.abort();
    let _aborted = ending.await;
    Outage::of("ends of graces").attempt(graces.end(), true).await;
    syncing.abort();
    opening.inspect(tokio::task::JoinHandle::abort);
    clock_watch.abort();
    sweeping.abort();
    keeping_room.abort();
    forgetting.abort();
    freeing.abort();
    Ok(())
}

/// Opens the store. Where it is not there and a snapshot is, the gateway starts from that, and the store is opened later.
fn open_store(settings: &Settings) -> Result<(Arc<Store>, Option<Opening>), RunError> {
    let snapshot = settings.snapshot.as_deref().filter(|directory| holds_snapshot(directory));
    // A store that this gateway has followed and that is gone is missed, not made anew.
    let mode = if snapshot.is_some() { OpenMode::Existing } else { OpenMode::Create };
    match (store::open(&settings.store, mode, settings.audit_seal()), snapshot) {
        (Ok(store), _) => Ok((store, None)),
        (Err(error @ (StoreError::Unavailable { .. } | StoreError::Damaged { .. })), Some(snapshot)) => {
            tracing::error!(
                %error,
                "the store cannot be opened: starting from the snapshot in {0}, and trying again; to begin with an empty \
                 store instead, stop this gateway and remove {0}",
                snapshot.display()
            );
            let (store, opening) = store::open_later(settings.store.clone(), settings.audit_seal(), error);
            Ok((store, Some(opening)))
        }
        (Err(error), _) => Err(RunError::Store(error)),
    }
}

/// Between two attempts to open the store.
const OPENING_PAUSE: Duration = Duration::from_secs(1);

/// Opens the store once it is there.
async fn open_in_the_end(opening: Opening) {
    loop {
        tokio::time::sleep(OPENING_PAUSE).await;
        let attempt = opening.clone();
        match tokio::task::spawn_blocking(move || attempt.attempt()).await {
            Ok(Ok(())) => return tracing::info!("the store is open"),
            Ok(Err(error)) => tracing::debug!(%error, "the store cannot be opened yet"),
            Err(error) => tracing::error!(%error, "opening the store panicked; tried again"),
        }
    }
}

/// Stops accepting, lets requests under way end, then ends what is left.
async fn leave(gateway: Gateway, reloader: Reloader, shutdown: crate::server::ShutdownSettings, signals: &mut Signals) {
    notify_supervisor(&[sd_notify::NotifyState::Stopping]);
    tracing::info!(delay = ?shutdown.delay, deadline = ?shutdown.deadline, "leaving");
    gateway.draining.store(true, Ordering::Relaxed);
    gateway.workers.iter().for_each(Worker::drain);
    if !shutdown.delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(shutdown.delay) => {}
            () = signals.told_to_leave() => {}
        }
    }
    drop(reloader);
    let all_gone = async {
        while gateway.workers.iter().any(|worker| worker.connections() > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = all_gone => {}
        () = tokio::time::sleep(shutdown.deadline) => {
            let left: usize = gateway.workers.iter().map(Worker::connections).sum();
            tracing::warn!(connections = left, "the deadline came first: connections are cut");
        }
        () = signals.told_to_leave() => tracing::warn!("told again to leave: connections are cut"),
    }
    gateway.accept.stop();
    if let Ok(workers) = Arc::try_unwrap(gateway.workers) {
        for worker in workers {
            if !worker.stop() {
                tracing::error!("a worker thread had panicked");
            }
        }
    }
    tracing::info!("gone");
    drop(gateway.logging);
}

/// How long connections wait in the sockets' backlogs for the key set. After that they are accepted, and what needs a
/// key is answered 503.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);

/// And how long for the server of shared limits.
const LENDING_PATIENCE: Duration = Duration::from_secs(3);

/// Returns once the key set is loaded, or the process is told to leave, or waiting longer helps nobody. The sockets are
/// open meanwhile: whoever connects waits instead of being refused.
async fn wait_until_loaded(sync: &crate::cache::SyncHandle, lender: Option<&Lender>, signals: &mut Signals) {
    let mut sync = sync.clone();
    // A fleet that starts together does not begin with limits of each.
    let lending = async {
        if let Some(lender) = lender {
            let _tried = tokio::time::timeout(LENDING_PATIENCE, lender.tried()).await;
        }
    };
    let loading = futures_util::future::join(sync.loaded(), lending);
    tokio::select! {
        (loaded, ()) = loading => {
            if let Err(error) = loaded {
                tracing::error!(%error, "the key set was not loaded");
            }
        }
        () = signals.told_to_leave() => signals.leave_at_once = true,
        () = tokio::time::sleep(LOAD_PATIENCE) => {
            tracing::warn!("the key set is not loaded yet; what needs a key is answered 503 until it is");
        }
    }
}
