//! `listeners`, `tls` and `upstreams`: who connects, and to whom.

use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::diagnostic::Findings;
use super::super::node::Node;
use super::super::shape::text::{FilePath, Label};
use super::super::shape::{At, Definitions, Listed, Shape, choice, parsed, shape, unknown_word};
use super::routes::{HeaderEditFile, TimeoutsFile};
use crate::proxy::{Balance, Protocol, UpstreamKind};
use crate::route::ReadsPaths;
use crate::server::{Bind, TlsVersion};

shape! {
    /// A place where clients connect.
    pub(crate) struct ListenerFile {
        /// `127.0.0.1:8080`, `[::]:8080`, `unix:/path`; port 0 takes any.
        bind: At<Bind>,
        /// Label of metrics and logs. Without it: the bind.
        name: Option<At<Label>>,
        /// The name of the certificates in `tls`. Without it: cleartext.
        tls: Option<At<String>>,
        /// Peers that must begin with a PROXY protocol header. Without it: nobody does.
        proxy_protocol: Option<ProxyProtocolFile>,
        /// Answer every request with a redirect to https.
        redirect_https: Option<At<bool>> = false,
    }
}

shape! {
    /// Peers that must, and alone may, begin with a PROXY protocol header.
    pub(crate) struct ProxyProtocolFile {
        /// Their networks.
        from: At<Listed<IpNet>>,
    }
}

shape! {
    /// Certificates of listeners.
    pub(crate) struct TlsFile {
        /// Chosen by the name the client asks for; the first answers where none matches.
        certificates: At<Listed<EdgeCertificateFile>>,
        /// Oldest version spoken: 1.2 or 1.3.
        min_version: Option<TlsVersion> = "1.2",
        /// Certificates of clients. Without it: they are not asked.
        client_certificates: Option<ClientCertificatesFile>,
    }
}

shape! {
    /// A certificate chain, its key, and what its authority says about it.
    pub(crate) struct EdgeCertificateFile {
        /// PEM file, leaf first.
        cert: At<FilePath>,
        /// PEM file: PKCS#8, PKCS#1 or SEC1.
        key: At<FilePath>,
        /// DER file: an OCSP response about the certificate, stapled to handshakes while it is good and not expired.
        ocsp: Option<At<FilePath>>,
    }
}

shape! {
    /// A certificate chain and its key.
    pub(crate) struct CertificateFile {
        /// PEM file, leaf first.
        cert: At<FilePath>,
        /// PEM file: PKCS#8, PKCS#1 or SEC1.
        key: At<FilePath>,
    }
}

shape! {
    /// Certificates of clients.
    pub(crate) struct ClientCertificatesFile {
        /// PEM file of the authorities that sign them.
        ca: At<FilePath>,
        /// Whether clients must show one.
        required: Option<bool> = true,
    }
}

shape! {
    /// Servers behind the gateway.
    pub(crate) struct UpstreamFile {
        /// `network`: servers over the network. `echo`: built in, answers with what it was sent.
        kind: Option<At<UpstreamKind>> = "network",
        /// The servers.
        targets: Option<At<Listed<TargetFile>>>,
        /// How requests are shared out among them: `round_robin`, or `least_requests` (to the one with the fewest under way).
        balance: Option<Balance> = "round_robin",
        /// When a target that fails is left out. The last one never is.
        ejection: Option<EjectionFile>,
        /// How many requests may be sent again, or to another target; of the last seconds, on each worker.
        retry_budget: Option<RetryBudgetFile>,
        /// How its targets are asked how they are. Without it: only requests tell.
        health: Option<HealthFile>,
        /// `auto`: HTTP/1.1, or what ALPN says; gRPC over HTTP/2. Else `h1`, `h2` or `h2c`.
        protocol: Option<At<Protocol>> = "auto",
        /// The Host it is sent: `keep` the client's, or this value.
        host: Option<At<String>> = "keep",
        /// `exact`: it reads the bytes of a path as they are, so only the path itself is judged.
        reads_paths: Option<At<ReadsPaths>> = "various",
        /// TLS towards it, for https targets.
        tls: Option<At<UpstreamTlsFile>>,
        /// Bounds in time.
        timeouts: Option<TimeoutsFile>,
        /// Most connections to one target, over the whole process. 1 to 65535.
        max_connections: Option<At<u64>> = 1024,
        /// How long a request waits for a connection when all are in use, before 503. At most 5m.
        queue_timeout: Option<At<Duration>> = "1s",
        /// How long an unused connection is kept; below what the server itself allows. At most 1h.
        keepalive: Option<At<Duration>> = "55s",
        /// How often names of targets are looked up, and new addresses taken over. 1s to 24h.
        dns_refresh: Option<At<Duration>> = "30s",
        /// How long a connection is used at all. 1s to 24h.
        max_lifetime: Option<At<Duration>> = "1h",
        /// Header fields of every request to it, before the route's.
        headers: Option<HeaderEditFile>,
    }
}

shape! {
    /// One server.
    pub(crate) struct TargetFile {
        /// `http://host:port` or `https://host:port`.
        url: At<Uri>,
        /// Its share of the requests, beside the others' weights. 1 to 1000.
        weight: Option<At<u64>> = 1,
    }
}

shape! {
    /// When a target that fails is left out, and for how long.
    pub(crate) struct EjectionFile {
        /// After so many failures in a row: no connection, or one that broke before an answer. 0: never. At most 1000.
        failures: Option<At<u64>> = 3,
        /// For how long at first; then one request tries it, and the time doubles until it answers. 100ms to 1h.
        base_time: Option<At<Duration>> = "1s",
        /// The longest time. Up to 24h.
        max_time: Option<At<Duration>> = "1m",
        /// Whether answers of 500 and above count as failures, and answers that do not begin in time.
        server_errors: Option<bool> = false,
    }
}

shape! {
    /// How targets are asked how they are, whether or not there are requests.
    pub(crate) struct HealthFile {
        /// What is asked for with GET. An answer of 2xx or 3xx is good.
        path: At<String>,
        /// How often. 100ms to 1h.
        interval: Option<At<Duration>> = "10s",
        /// How long an answer may take, the connection included. 10ms to 5m.
        timeout: Option<At<Duration>> = "2s",
        /// After so many good answers in a row a target is up. 1 to 100.
        healthy_after: Option<At<u64>> = 2,
        /// After so many others in a row it is down, and left out. 1 to 100.
        unhealthy_after: Option<At<u64>> = 3,
    }
}

shape! {
    /// How many requests may be sent again.
    pub(crate) struct RetryBudgetFile {
        /// So many of a hundred requests. 0 to 100.
        percent: Option<At<u64>> = 20,
        /// And so many a second in any case. Up to 10000.
        min_per_second: Option<At<u64>> = 10,
    }
}

shape! {
    /// TLS towards an upstream.
    pub(crate) struct UpstreamTlsFile {
        /// PEM file of the authorities believed. Without it: the system's.
        ca: Option<At<FilePath>>,
        /// The name that is checked. Without it: the target's host.
        server_name: Option<At<String>>,
        /// What the gateway identifies itself with.
        client_certificate: Option<CertificateFile>,
    }
}

choice!(UpstreamKind, "network or echo", { "network" => UpstreamKind::Network, "echo" => UpstreamKind::Echo, });
choice!(Balance, "round_robin or least_requests", {
    "round_robin" => Balance::RoundRobin,
    "least_requests" => Balance::LeastRequests,
});
choice!(Protocol, "a protocol", {
    "auto" => Protocol::Auto,
    "h1" => Protocol::H1,
    "h2" => Protocol::H2,
    "h2c" => Protocol::H2c,
});
choice!(ReadsPaths, "various or exact", { "various" => ReadsPaths::Variously, "exact" => ReadsPaths::Exactly, });

impl Shape for TlsVersion {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a version of TLS", findings, |text| match text {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            other => Err(unknown_word(other, &["1.2", "1.3"])),
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}
