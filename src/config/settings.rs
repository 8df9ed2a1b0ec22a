//! The whole configuration, resolved: what `App` is built from. Plain values, no YAML, no environment.

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::admin::ApiProfile;
use sha2::{Digest, Sha256};

use crate::cache::SnapshotSeal;
use crate::gate::GateSettings;
use crate::lending::LendingSettings;
use crate::limit::LimitSettings;
use crate::proxy::{HeaderSettings, UpstreamSettings};
pub use crate::reply::ErrorProfile;
use crate::server::{Limits, ListenerSettings, ShutdownSettings, TlsSettings, Workers};
use crate::store::{AuditSeal, AuditSettings, StoreSettings, SyncSettings, UsageSettings};
use crate::telemetry::{LogSettings, MetricsSettings};

/// Every setting of the gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The files it was read from, the main one first, for watching and for messages.
    pub files: Vec<ReadFile>,
    /// Data listeners; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Certificates by name.
    pub tls: Vec<TlsSettings>,
    /// Servers behind us.
    pub upstreams: Vec<UpstreamSettings>,
    /// The decision.
    pub gate: GateSettings,
    /// Which fields are ours, and which are not believed.
    pub headers: HeaderSettings,
    /// Shape of the management API's bodies.
    pub api: ApiProfile,
    /// Shape of error bodies.
    pub errors: ErrorProfile,
    /// Keys.
    pub store: StoreSettings,
    /// Following the store.
    pub sync: SyncSettings,
    /// The directory of the key set on disk; none: it is not kept.
    pub snapshot: Option<PathBuf>,
    /// The trail of changes.
    pub audit: AuditSettings,
    /// What is kept of requests.
    pub usage: UsageSettings,
    /// Metering.
    pub rate_limits: LimitSettings,
    /// Where gateways that count rates together keep them; none: each counts its own.
    pub shared_limits: Option<LendingSettings>,
    /// Bounds of connections.
    pub limits: Limits,
    /// Management.
    pub admin: AdminSettings,
    /// Metrics and health.
    pub metrics: MetricsSettings,
    /// Logs.
    pub logging: LogSettings,
    /// Reload when a file changes.
    pub reload_watch: bool,
    /// Leaving.
    pub shutdown: ShutdownSettings,
    /// Data-plane threads.
    pub workers: Workers,
}

/// What the keys that seal the audit trail are for. Never changed: entries that exist need the same keys.
const AUDIT_PURPOSE: &str = "portcullis audit chain";

/// What the keys that seal the snapshot are for. Where it changes, snapshots are made anew.
const SNAPSHOT_PURPOSE: &str = "portcullis snapshot seal";

impl Settings {
    /// What the snapshot is sealed with.
    pub fn snapshot_seal(&self) -> SnapshotSeal {
        SnapshotSeal::new(self.gate.hasher.keys_for(SNAPSHOT_PURPOSE))
    }

    /// What entries of the audit trail are sealed with.
    pub fn audit_seal(&self) -> AuditSeal {
        AuditSeal::new(self.gate.hasher.keys_for(AUDIT_PURPOSE))
    }
}

/// A file of the configuration, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// Where it is.
    pub path: PathBuf,
    /// `sha256:` and 64 hexadecimal digits of its bytes.
    pub digest: String,
}

impl ReadFile {
    /// The file at `path` with this content.
    pub(super) fn new(path: PathBuf, content: &str) -> Self {
        let digits = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { path, digest: format!("sha256:{digits}") }
    }
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where the management API answers.
    pub bind: SocketAddr,
    /// The name of the entry of `tls` that it speaks with; none: plain HTTP.
    pub tls: Option<String>,
    /// The local socket of `reload`, mode 0600.
    pub socket: PathBuf,
}
