//! Listeners, TLS at the edge, and the bounds every connection lives within.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::proxy::CertificateFiles;

/// One entry of `listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Label of metrics and logs: the bind as written, unless `name` says otherwise.
    pub name: String,
    /// Where it listens.
    pub bind: Bind,
    /// The name of the `tls` entry it serves; none: cleartext.
    pub tls: Option<String>,
    /// Peers that must, and alone may, begin with a PROXY protocol header; empty: nobody does.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Whether every request is answered with a redirect to https.
    pub redirect_https: bool,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bind {
    /// IPv4 or IPv6 and a port; port 0 takes any.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// One entry of `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Its name.
    pub name: String,
    /// Chosen by SNI; the first answers where no name matches.
    pub certificates: Vec<EdgeCertificate>,
    /// Oldest version spoken.
    pub min_version: TlsVersion,
    /// Certificates of clients.
    pub client_certificates: ClientCertificates,
}

/// A certificate that listeners show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeCertificate {
    /// Its chain and key.
    pub files: CertificateFiles,
    /// DER file of an OCSP response about it, stapled for as long as it is usable (RFC 6960); none: nothing is stapled.
    pub ocsp: Option<PathBuf>,
}

/// TLS versions that can be the oldest one spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246, with the safe suites only.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    NotAsked,
    /// They are asked; one that is shown must be signed by `ca`.
    Optional {
        /// PEM file of certificate authorities.
        ca: PathBuf,
    },
    /// They must show one signed by `ca`.
    Required {
        /// PEM file of certificate authorities.
        ca: PathBuf,
    },
}

/// `limits`: the bounds of every connection. All of them apply unless configured otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head in bytes; beyond: 431. Default 32 KiB.
    pub head_bytes: usize,
    /// Most header fields; beyond: 431. Default 100.
    pub head_fields: usize,
    /// Longest request target in bytes; beyond: 414. Default 8 KiB.
    pub target_bytes: usize,
    /// From a head's first byte to its last; beyond: 408 and closed. Default 10 s.
    pub head_timeout: Duration,
    /// How long an idle connection is kept. Default 75 s.
    pub keepalive_idle: Duration,
    /// Longest pause in a request body, and longest time a client may not take what it is sent. Default 30 s.
    pub stall_timeout: Duration,
    /// Fewest bytes a second of a body that a client gives, or of an answer that it takes, over each `stall_timeout` that
    /// it is waited for; below: 408, or the end. 0: any. Default 240.
    pub min_body_rate: u64,
    /// TLS handshake, PROXY header included. Default 10 s.
    pub handshake_timeout: Duration,
    /// Most TLS handshakes of one worker that have begun; one more, and the one whose client has kept it waiting longest
    /// is dropped. Default 4096: a worker begins some thousands in a second, so under the worst flood clients still have
    /// about a second to answer; each takes some 15 KB meanwhile, all of them 60 MB.
    pub tls_handshakes: usize,
    /// Most memory that clients may make all workers together hold, in bytes; at nine tenths of it new connections and
    /// streams are answered 503. None: three quarters of the memory for this process that keys in use leave.
    pub memory: Option<u64>,
    /// Most connections of one listener. Default 20,000.
    pub connections_per_listener: usize,
    /// Most connections of one client address; none: unbounded.
    pub connections_per_address: Option<usize>,
    /// Most concurrent streams of one HTTP/2 connection. Default 100.
    pub h2_max_streams: u32,
    /// HTTP/2 flow-control window of a stream in bytes. Default 64 KiB.
    pub h2_stream_window: u32,
    /// HTTP/2 flow-control window of a connection in bytes. Default 1 MiB.
    pub h2_connection_window: u32,
    /// Largest HTTP/2 header list in bytes (RFC 9113 §6.5.2). Default 16 KiB.
    pub h2_header_list_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            head_fields: 100,
            target_bytes: 8 * 1024,
            head_timeout: Duration::from_secs(10),
            keepalive_idle: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            min_body_rate: 240,
            handshake_timeout: Duration::from_secs(10),
            tls_handshakes: 4096,
            memory: None,
            connections_per_listener: 20_000,
            connections_per_address: None,
            h2_max_streams: 100,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 1024 * 1024,
            h2_header_list_bytes: 16 * 1024,
        }
    }
}

/// `shutdown`: how the gateway leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long it goes on accepting after `/readyz` turned 503. Default 0.
    pub delay: Duration,
    /// How long requests under way may take after that. Default 30 s.
    pub deadline: Duration,
}

/// `workers`: data-plane threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each processor this process may use.
    Auto,
    /// This many; at least one.
    Count(usize),
}

impl Workers {
    /// How many that are here.
    pub fn count(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            Self::Count(count) => count.max(1),
        }
    }
}
