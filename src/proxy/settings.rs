//! What is known about each upstream, and which fields are removed from and added to requests.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::route::ReadsPaths;

/// [`UpstreamSettings::max_connections`] unless configured.
pub const USUAL_CONNECTIONS: usize = 1024;

/// One entry of `upstreams`.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Its name in the file and in metrics.
    pub name: String,
    /// Where it listens; at least one. Ignored by [`UpstreamKind::Echo`].
    pub targets: Vec<Target>,
    /// What it is.
    pub kind: UpstreamKind,
    /// Which HTTP it speaks.
    pub protocol: Protocol,
    /// What its `Host` is.
    pub host: HostPolicy,
    /// How it reads paths; each route to it says so too.
    pub reads_paths: ReadsPaths,
    /// TLS towards it; used for `https` targets.
    pub tls: UpstreamTls,
    /// Bounds in time.
    pub timeouts: UpstreamTimeouts,
    /// How requests are shared out among its targets.
    pub balance: Balance,
    /// When a target that fails is left out.
    pub ejection: Ejection,
    /// How much may be tried again.
    pub retry_budget: RetryBudget,
    /// How its targets are asked how they are; none: they are not.
    pub health: Option<HealthCheck>,
    /// How often the names of its targets are looked up. Default 30 s.
    pub dns_refresh: Duration,
    /// Most connections to one target, counted over the whole process. Default 1024.
    pub max_connections: usize,
    /// How long a request waits for a connection when all are in use, before 503. Default 1 s.
    pub queue_timeout: Duration,
    /// How long an unused connection is kept. Default 55 s.
    pub keepalive: Duration,
    /// How long a connection is used at all. Default 1 h.
    pub max_lifetime: Duration,
    /// Fields set on every request to it, before the route's.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields removed from every request to it.
    pub remove_headers: Vec<HeaderName>,
}

/// What stands behind an upstream's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Servers over the network.
    Network,
    /// The built-in server that answers with what it was sent; `dev` uses it.
    Echo,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http://host:port`, `https://host:port`, without path.
    pub url: Uri,
    /// Its share of the requests, beside the others'. 1 to 1000, default 1.
    pub weight: u32,
}

/// How requests are shared out among the targets of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// To the one with the fewest requests under way for its weight, counted over the whole process.
    LeastRequests,
}

/// When a target that fails is left out, and for how long. The last one is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row: no connection, or one that broke before an answer began. 0: never. Default 3.
    pub failures: u32,
    /// For how long at first; twice as long each time, until it answers. Default 1 s.
    pub base_time: Duration,
    /// At most so long. Default 1 min.
    pub max_time: Duration,
    /// Whether an answer of 500 and above is a failure, and one that does not begin in time. Default no.
    pub server_errors: bool,
}

/// How the targets of an upstream are asked how they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for with GET; an answer of 2xx or 3xx is good.
    pub path: String,
    /// How often, up to a quarter sooner by chance. Default 10 s.
    pub interval: Duration,
    /// How long an answer may take, the connection included. Default 2 s.
    pub timeout: Duration,
    /// After so many good answers in a row a target is up. Default 2.
    pub healthy_after: u32,
    /// After so many others in a row it is down. Default 3.
    pub unhealthy_after: u32,
}

/// How many requests may be sent again, or to another target. On each worker, of the last five to ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// So many of a hundred requests. Default 20.
    pub percent: u32,
    /// And so many a second in any case. Default 10.
    pub min_per_second: u32,
}

/// Which HTTP an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or what ALPN says over TLS. gRPC requests go over HTTP/2, what may become a tunnel over HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 in the clear, with prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// What `Host` (or `:authority`) an upstream is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    Keep,
    /// This one.
    Set(HeaderValue),
}

/// TLS towards an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file of the certificate authorities believed; none: the host system's.
    pub ca: Option<PathBuf>,
    /// The name checked and sent as SNI; none: the target's host.
    pub server_name: Option<String>,
    /// PEM files of certificate chain and key that identify us.
    pub client_certificate: Option<CertificateFiles>,
}

/// A certificate chain and its key on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub cert: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Bounds in time towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// Opening a connection, TLS included. Default 5 s.
    pub connect: Duration,
    /// From the request's last byte to the answer's head. Default 60 s.
    pub first_byte: Duration,
    /// Between two pieces of a body in either direction. Default 60 s; tunnels 1 h.
    pub idle: Duration,
}

/// `headers`: which names are ours and which are not believed from clients.
#[derive(Debug, Clone)]
pub struct HeaderSettings {
    /// Names of the identity fields.
    pub identity: IdentityNames,
    /// Names, or `prefix-*`, that only `trusted_proxies` may send (contract §5).
    pub untrusted: Vec<NamePattern>,
}

/// What the identity fields are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityNames {
    /// `X-Portcullis-Key-Id`.
    pub key_id: HeaderName,
    /// `X-Portcullis-Owner`.
    pub owner: HeaderName,
    /// `X-Portcullis-Environment`.
    pub environment: HeaderName,
    /// `X-Portcullis-Scopes`.
    pub scopes: HeaderName,
    /// `X-Portcullis-Auth`.
    pub auth: HeaderName,
}

/// A field name or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// Exactly this name, in lower case.
    Exact(String),
    /// Every name that begins with this, in lower case.
    Prefix(String),
    /// Every name with a `_` or a `.` in it.
    Unusual,
}
