//! What a configuration file looks like: every section and field, strictly.
//!
//! Owns names, documentation and defaults as the schema tells them. Must not know what a field does to a request;
//! `resolve` turns these shapes into `Settings`.

pub(crate) mod limits;
pub(crate) mod routes;
pub(crate) mod servers;

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde_json::{Value, json};

use self::limits::{QuotaFile, RateLimitFile, RateLimitsFile};
use self::routes::{PlaceFile, RouteFile};
use self::servers::{ListenerFile, TlsFile, UpstreamFile};
use super::diagnostic::Findings;
use super::node::Node;
use super::settings::ErrorProfile;
use super::shape::numbers::ByteSize;
use super::shape::text::{FilePath, Label, Line};
use super::shape::words::KeyWord;
use super::shape::{At, Definitions, Items, Listed, Named, Secret, Section, Shape, choice, shape};
use crate::admin::ApiProfile;
use crate::domain::key_text::Brand;
use crate::domain::{GrantedScope, Timestamp};
use crate::gate::{Mode, OnStale};
use crate::proxy::NamePattern;
use crate::server::Workers;
use crate::store::Pooler;
use crate::telemetry::{LogFormat, LogLevel};

shape! {
    /// Configuration of portcullis, an authentication gateway.
    pub(crate) struct File {
        /// Version of this format: 1.
        version: Section<At<Version>>,
        /// More files, relative to this one; `*` stands for any part of a name. They may hold tls, upstreams,
        /// environments, scopes, roles and routes.
        include: Section<Listed<String>>,
        /// Where clients connect. At least one.
        listeners: Section<Items<ListenerFile>>,
        /// Certificates by name, for `listeners[].tls`.
        tls: Section<Named<TlsFile>>,
        /// The servers behind the gateway, by name.
        upstreams: Section<Named<UpstreamFile>>,
        /// Environments that keys live in. `live` and `test` exist without being named.
        environments: Section<Named<EnvironmentFile>>,
        /// The catalogue: every scope a route may demand.
        scopes: Section<Named<ScopeFile>>,
        /// Named bundles of scopes for keys. `orders:*` grants every scope below `orders:`.
        roles: Section<Named<Listed<GrantedScope>>>,
        /// How clients prove who they are.
        auth: Section<AuthFile>,
        /// Which header fields are the gateway's own, and which are not believed.
        headers: Section<HeadersFile>,
        /// What may be asked for, and what it demands. No matching route: 404.
        routes: Section<Items<RouteFile>>,
        /// What happens to refusals where a route does not say: enforce them, or report and let them pass.
        mode: Section<At<Mode>> = "enforce",
        /// Bounds of report mode.
        report: Section<ReportFile>,
        /// Where keys are kept.
        store: Section<StoreFile>,
        /// How the gateway follows the store.
        sync: Section<SyncFile>,
        /// The trail of changes.
        audit: Section<AuditFile>,
        /// What is kept of the requests of keys.
        usage: Section<UsageFile>,
        /// How limits of requests are kept and told. The limits themselves stand at environments and routes.
        rate_limits: Section<RateLimitsFile>,
        /// Bounds of every connection.
        limits: Section<LimitsFile>,
        /// Management.
        admin: Section<AdminFile>,
        /// The management API.
        api: Section<ApiFile>,
        /// Bodies of refusals.
        errors: Section<ErrorsFile>,
        /// Metrics and health.
        metrics: Section<MetricsFile>,
        /// Logs.
        logging: Section<LoggingFile>,
        /// When the files are read again, besides SIGHUP and `portcullis reload`.
        reload: Section<ReloadFile>,
        /// How the gateway leaves.
        shutdown: Section<ShutdownFile>,
        /// Data-plane threads: `auto` (one for each processor) or a number. A change needs a restart.
        workers: Section<Workers> = "auto",
    }
}

/// Whether keys may hold scopes that nobody declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Catalogue {
    /// No.
    Closed,
    /// Yes.
    Open,
}

/// The version of the file's format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version;

impl Shape for Version {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        super::shape::parsed(node, "a version", findings, |text| match text {
            "1" => Ok(Self),
            _ => Err(super::shape::Flaw::new("is no version this portcullis reads", "Write `version: 1`")),
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "const": 1 })
    }
}

shape! {
    /// An environment that keys live in.
    pub(crate) struct EnvironmentFile {
        /// The word in key texts, `pc_<word>_sk_…`: a-z and 0-9, at most 20. Without it: the environment's name.
        word: Option<KeyWord>,
        /// Keys older than this are refused. Without it: keys do not age.
        max_key_age: Option<At<Duration>>,
        /// Requests with keys of this environment go to this upstream instead of the route's.
        upstream: Option<At<String>>,
        /// How often each of its keys may ask. Without it: unlimited.
        rate_limit: Option<At<RateLimitFile>>,
        /// How often each of its keys may ask in a day or a month. Without it: unlimited.
        quota: Option<At<QuotaFile>>,
    }
}

shape! {
    /// A scope of the catalogue.
    pub(crate) struct ScopeFile {
        /// One line for people who choose scopes.
        title: Option<Line> = "",
    }
}

shape! {
    /// How clients prove who they are.
    pub(crate) struct AuthFile {
        /// Where a request may carry its key, in order. Exactly one of these places may hold a credential.
        accept: Option<At<Listed<PlaceFile>>> = [{"header": "Authorization", "scheme": "Bearer"}, {"header": "X-API-Key"}],
        /// `realm` of challenges (RFC 9110 §11.5).
        realm: Option<At<Line>> = "portcullis",
        /// Networks of proxies in front of the gateway, whose forwarding fields are believed.
        trusted_proxies: Option<Listed<IpNet>> = [],
        /// Answer 401 instead of 404 and 405 to clients without a valid key, so that routes cannot be probed.
        hide_routes: Option<bool> = false,
        /// Refuse secret keys that are sent by browsers.
        browser_guard: Option<At<bool>> = true,
        /// `closed`: a key holds only scopes that `scopes` declares or a route demands. `open`: any.
        catalogue: Option<At<Catalogue>> = "closed",
        /// How often tunnels and long streams ask whether their key still holds. 1s to 1h.
        recheck_interval: Option<At<Duration>> = "10s",
        /// The word every new key begins with: a-z and 0-9, at most 20. A change needs a restart.
        brand: Option<Brand> = "pc",
        /// Secrets that key hashes are made with, the current one first; at most two, while one replaces the other.
        peppers: Option<At<Listed<PepperFile>>> = [],
    }
}

shape! {
    /// A secret that key hashes are made with.
    pub(crate) struct PepperFile {
        /// Its name, kept beside every hash made with it.
        id: At<Label>,
        /// At least 16 bytes; best `${file:PATH}` or `${NAME}`.
        secret: At<Secret>,
    }
}

shape! {
    /// Which header fields are the gateway's own, and which are not believed.
    pub(crate) struct HeadersFile {
        /// Names of the fields that tell an upstream who calls.
        identity: Option<IdentityFile>,
        /// Fields that only trusted proxies may send. `name-*` is a beginning, `*[_.]*` any name with `_` or `.` in it.
        untrusted: Option<At<Listed<NamePattern>>>,
    }
}

shape! {
    /// Names of the fields that tell an upstream who calls.
    pub(crate) struct IdentityFile {
        /// The id of the key.
        key_id: Option<At<HeaderName>> = "X-Portcullis-Key-Id",
        /// The id of its owner.
        owner: Option<At<HeaderName>> = "X-Portcullis-Owner",
        /// Its environment.
        environment: Option<At<HeaderName>> = "X-Portcullis-Environment",
        /// Its scopes, separated by spaces.
        scopes: Option<At<HeaderName>> = "X-Portcullis-Scopes",
        /// `key`, `anonymous` or `reported`.
        auth: Option<At<HeaderName>> = "X-Portcullis-Auth",
    }
}

shape! {
    /// Bounds of report mode.
    pub(crate) struct ReportFile {
        /// From then on every route enforces: a day (its beginning in UTC) or a moment. Without it: report mode stays.
        until: Option<At<Timestamp>>,
        /// Let keys that are known to be revoked, disabled or expired pass, too.
        known_bad: Option<At<bool>> = false,
    }
}

shape! {
    /// Where keys are kept.
    pub(crate) struct StoreFile {
        /// `sqlite`: one file. `postgres`: a database that many gateways share. `memory`: keys live as long as the process.
        /// A change of anything here needs a restart.
        driver: Option<At<Driver>> = "sqlite",
        /// Of `sqlite`: the database file; created with its directory.
        path: Option<At<FilePath>> = "data/portcullis.db",
        /// Of `postgres`: postgres://user:password@host:5432/database?sslmode=verify-full; best with the password, or all
        /// of it, from `${NAME}` or `${file:PATH}`.
        url: Option<At<Secret>>,
        /// Of `postgres`: `transaction` behind a pooler that gives each transaction another connection.
        pooler: Option<At<Pooler>> = "none",
        /// Of `postgres`: most connections of this process, and one more that listens. 4 to 200.
        connections: Option<At<u64>> = 8,
        /// Of `postgres`: how long reaching the server may take. 100ms to 1m.
        connect_timeout: Option<At<Duration>> = "5s",
        /// Of `postgres`: how long one statement may take. 1s to 1h.
        statement_timeout: Option<At<Duration>> = "30s",
    }
}

/// `store.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// One file.
    Sqlite,
    /// A PostgreSQL database.
    Postgres,
    /// The process's memory.
    Memory,
}

shape! {
    /// How the gateway follows the store.
    pub(crate) struct SyncFile {
        /// How often the store is asked whether another process changed it. 10ms to 10s. Without it: 3s where a PostgreSQL
        /// database tells of changes, else 100ms.
        poll_interval: Option<At<Duration>> = "100ms",
        /// How often the time of last use and usage are written, more seldom where that takes long as very many keys are used.
        /// 1s to 1h.
        last_used_flush: Option<At<Duration>> = "30s",
        /// How old the key set may be before the gateway stops deciding by it. At least 1s.
        max_staleness: Option<At<Duration>> = "24h",
        /// What happens once it is older: `deny` answers 503, `serve` decides by the old set.
        on_stale: Option<At<OnStale>> = "deny",
        /// The key set on disk.
        snapshot: Option<SnapshotFile>,
    }
}

shape! {
    /// The key set on disk, so that a gateway starts while the store is away.
    pub(crate) struct SnapshotFile {
        /// Whether one is kept. With `store.driver: memory` there is none.
        enabled: Option<At<bool>> = true,
        /// The directory of its files, of this gateway alone. Without it: `snapshot` beside the file of `sqlite`, else
        /// data/snapshot.
        path: Option<At<FilePath>> = "data/snapshot",
    }
}

shape! {
    /// The trail of changes.
    pub(crate) struct AuditFile {
        /// How long entries are kept. 1d to 36500d.
        retention: Option<At<Duration>> = "400d",
    }
}

shape! {
    /// What is kept of the requests of keys.
    pub(crate) struct UsageFile {
        /// How long counts, networks, events and what report mode found are kept. 1d to 3650d.
        retention: Option<At<Duration>> = "90d",
    }
}

shape! {
    /// Bounds of every connection.
    pub(crate) struct LimitsFile {
        /// Largest request head; beyond: 431. 1KiB to 1MiB.
        head_size: Option<At<ByteSize>> = "32KiB",
        /// Most header fields; beyond: 431. 10 to 1000.
        head_fields: Option<At<u64>> = 100,
        /// Longest request target; beyond: 414. 256B to 64KiB, and less than `head_size`.
        target_size: Option<At<ByteSize>> = "8KiB",
        /// From the first byte of a head to its last; beyond: 408 and closed. 100ms to 5m.
        head_timeout: Option<At<Duration>> = "10s",
        /// How long an idle connection is kept. 1s to 1h.
        keepalive_idle: Option<At<Duration>> = "75s",
        /// Longest pause in a request body, and longest time a client may not take what it is sent. 1s to 1h.
        stall_timeout: Option<At<Duration>> = "30s",
        /// Fewest bytes a second of a body that a client gives, or of an answer that it takes, over each `stall_timeout`
        /// that it is waited for; below, it is given up. gRPC and tunnels may be slower. 0B to 1MiB; 0B: any.
        min_body_rate: Option<At<ByteSize>> = "240B",
        /// TLS handshake, PROXY header included. 100ms to 5m.
        handshake_timeout: Option<At<Duration>> = "10s",
        /// Most TLS handshakes of one worker that have begun; beyond, the one whose client is slowest goes. 16 to 65536.
        tls_handshakes: Option<At<u64>> = 4096,
        /// Most memory that clients may make the process hold, in buffers, windows and streams. At nine tenths of it new
        /// connections and HTTP/2 streams are answered 503, beyond it idle connections are closed. 32MiB to 1024GiB.
        /// Without it: three quarters of what keys in use leave of the machine, or of its control group; see docs/limits.md.
        memory: Option<At<ByteSize>>,
        /// Most connections of one listener. 1 to 1000000.
        connections_per_listener: Option<At<u64>> = 20000,
        /// Most connections of one client address (of IPv6 each /64); where a PROXY header comes first, of the address that
        /// it tells. Without it: unbounded.
        connections_per_address: Option<At<u64>>,
        /// How many wrong keys may come from one client address (of IPv6 each /64) before it is answered 429; a valid key
        /// never is. Without it: any number.
        failures: Option<At<RateLimitFile>>,
        /// Most concurrent streams of one HTTP/2 connection. 1 to 10000.
        h2_max_streams: Option<At<u64>> = 100,
        /// HTTP/2 flow-control window of a stream. 16KiB to 16MiB.
        h2_stream_window: Option<At<ByteSize>> = "64KiB",
        /// HTTP/2 flow-control window of a connection. 64KiB to 64MiB.
        h2_connection_window: Option<At<ByteSize>> = "1MiB",
        /// Largest HTTP/2 header list. 1KiB to 1MiB.
        h2_header_list_size: Option<At<ByteSize>> = "16KiB",
    }
}

shape! {
    /// Management.
    pub(crate) struct AdminFile {
        /// Where the management API answers.
        bind: Option<At<SocketAddr>> = "127.0.0.1:9901",
        /// The name of the entry of `tls` whose certificates it shows. Without it: plain HTTP.
        tls: Option<At<String>>,
        /// The local socket of `reload`, mode 0600.
        socket: Option<At<FilePath>> = "data/portcullis.sock",
    }
}

shape! {
    /// The management API.
    pub(crate) struct ApiFile {
        /// `standard`: records as they are. `success`: {"success":true,"data":…}, with `permissions` for `scopes`.
        profile: Option<ApiProfile> = "standard",
    }
}

shape! {
    /// Bodies of refusals.
    pub(crate) struct ErrorsFile {
        /// `standard`: application/problem+json (RFC 9457). `success`: {"success":false,"error":{"code","message"}}.
        profile: Option<ErrorProfile> = "standard",
    }
}

shape! {
    /// Metrics and health.
    pub(crate) struct MetricsFile {
        /// Where `/metrics`, `/livez` and `/readyz` answer.
        bind: Option<At<SocketAddr>> = "127.0.0.1:9902",
        /// Most values of the `route` label; further routes are counted as `other`. 1 to 100000.
        max_routes: Option<At<u64>> = 500,
    }
}

shape! {
    /// Logs.
    pub(crate) struct LoggingFile {
        /// `auto`: text on a terminal, JSON otherwise.
        format: Option<LogFormat> = "auto",
        /// Least severe event written.
        level: Option<LogLevel> = "info",
        /// One line for each request.
        access: Option<AccessFile>,
        /// Write the last octet of IPv4 and the last 80 bits of IPv6 client addresses as zero.
        mask_addresses: Option<bool> = false,
    }
}

shape! {
    /// One line for each request.
    pub(crate) struct AccessFile {
        /// Whether there is one.
        enabled: Option<bool> = true,
    }
}

shape! {
    /// When the files are read again.
    pub(crate) struct ReloadFile {
        /// When one of them changes.
        watch: Option<bool> = false,
    }
}

shape! {
    /// How the gateway leaves.
    pub(crate) struct ShutdownFile {
        /// How long it goes on accepting after `/readyz` turned 503. At most 1h.
        delay: Option<At<Duration>> = "0s",
        /// How long requests under way may take after that. At most 24h.
        deadline: Option<At<Duration>> = "30s",
    }
}

choice!(Catalogue, "closed or open", { "closed" => Catalogue::Closed, "open" => Catalogue::Open, });
choice!(Driver, "a driver", {
    "sqlite" => Driver::Sqlite,
    "postgres" => Driver::Postgres,
    "memory" => Driver::Memory,
});
choice!(Pooler, "none or transaction", { "none" => Pooler::None, "transaction" => Pooler::Transaction, });
choice!(Mode, "a mode", { "enforce" => Mode::Enforce, "report" => Mode::Report, });
choice!(OnStale, "deny or serve", { "deny" => OnStale::Deny, "serve" => OnStale::Serve, });
choice!(ApiProfile, "a profile", { "standard" => ApiProfile::Standard, "success" => ApiProfile::Success, });
choice!(ErrorProfile, "a profile", { "standard" => ErrorProfile::Standard, "success" => ErrorProfile::Success, });
choice!(LogFormat, "a format", { "auto" => LogFormat::Auto, "text" => LogFormat::Text, "json" => LogFormat::Json, });
choice!(LogLevel, "a level", {
    "error" => LogLevel::Error,
    "warn" => LogLevel::Warn,
    "info" => LogLevel::Info,
    "debug" => LogLevel::Debug,
    "trace" => LogLevel::Trace,
});
