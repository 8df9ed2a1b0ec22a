//! Each section of `Settings` as YAML; `routes` has a file of its own.

use serde_yaml::Value;

use super::REDACTED;
use super::routes::route;
use super::values::{
    count, filled, flag, header_edit, list, map, on_stale, path, place, quota, rate_limit, size, span, text, word,
};
use crate::config::resolve::show_bind;
use crate::config::settings::{ApiProfile, ErrorProfile, Settings};
use crate::config::shape::net::UNUSUAL_NAMES;
use crate::domain::RateLimit;
use crate::gate::GateSettings;
use crate::lending::LendingSettings;
use crate::proxy::{
    Balance, CertificateFiles, HeaderSettings, HealthCheck, HostPolicy, NamePattern, Protocol, Target, UpstreamKind,
    UpstreamSettings,
};
use crate::route::ReadsPaths;
use crate::server::{ClientCertificates, EdgeCertificate, Limits, ListenerSettings, TlsSettings, TlsVersion, Workers};
use crate::store::{Pooler, StoreSettings};
use crate::telemetry::{LogFormat, LogLevel};

pub(super) fn settings(settings: &Settings) -> Value {
    sections(settings, list(&settings.gate.routes, |one| route(one)))
}

/// Everything, with these routes.
pub(super) fn sections(settings: &Settings, routes: Option<Value>) -> Value {
    let gate = &settings.gate;
    map([
        ("version", count(1u64)),
        ("listeners", list(&settings.listeners, listener)),
        ("tls", Some(map(settings.tls.iter().map(|tls| (tls.name.as_str(), Some(certificates(tls))))))),
        ("upstreams", Some(map(settings.upstreams.iter().map(|up| (up.name.as_str(), Some(upstream(up))))))),
        ("environments", Some(environments(gate))),
        (
            "scopes",
            Some(map(gate
                .scopes
                .iter()
                .map(|(scope, entry)| (scope.as_str(), Some(map([("title", Some(text(&entry.title)))])))))),
        ),
        (
            "roles",
            Some(map(gate
                .roles
                .iter()
                .map(|(role, grants)| (role.as_str(), list(grants, |grant| text(grant.as_str())))))),
        ),
        ("auth", Some(auth(gate))),
        ("headers", Some(headers(&settings.headers))),
        ("routes", routes),
        (
            "report",
            Some(map([
                ("until", gate.report_until.map(|until| text(until.to_string()))),
                ("known_bad", flag(gate.report_known_bad)),
            ])),
        ),
        ("store", Some(store(&settings.store))),
        (
            "sync",
            Some(map([
                ("poll_interval", span(settings.sync.poll_interval)),
                ("last_used_flush", span(settings.sync.last_used_flush)),
                ("max_staleness", span(gate.staleness.most)),
                ("on_stale", on_stale(gate.staleness.then)),
                (
                    "snapshot",
                    Some(map([
                        ("enabled", flag(settings.snapshot.is_some())),
                        ("path", settings.snapshot.as_deref().map(path)),
                    ])),
                ),
            ])),
        ),
        ("audit", Some(map([("retention", span(settings.audit.retention))]))),
        ("usage", Some(map([("retention", span(settings.usage.retention))]))),
        (
            "rate_limits",
            Some(map([
                ("headers", flag(settings.rate_limits.fields.standard)),
                ("legacy_headers", flag(settings.rate_limits.fields.legacy)),
                ("max_meters", count(settings.rate_limits.max_meters)),
                ("quota_flush", span(settings.rate_limits.quota_flush)),
                ("shared", settings.shared_limits.as_ref().map(shared_limits)),
            ])),
        ),
        ("limits", Some(limits(&settings.limits, settings.gate.failures))),
        (
            "admin",
            Some(map([
                ("bind", Some(text(settings.admin.bind.to_string()))),
                ("tls", settings.admin.tls.as_ref().map(text)),
                ("socket", Some(path(&settings.admin.socket))),
            ])),
        ),
        (
            "api",
            Some(map([(
                "profile",
                word(match settings.api {
                    ApiProfile::Standard => "standard",
                    ApiProfile::Success => "success",
                }),
            )])),
        ),
        (
            "errors",
            Some(map([(
                "profile",
                word(match settings.errors {
                    ErrorProfile::Standard => "standard",
                    ErrorProfile::Success => "success",
                }),
            )])),
        ),
        (
            "metrics",
            Some(map([
                ("bind", Some(text(settings.metrics.bind.to_string()))),
                ("max_routes", count(settings.metrics.max_routes)),
            ])),
        ),
        ("logging", Some(logging(settings))),
        ("reload", Some(map([("watch", flag(settings.reload_watch))]))),
        (
            "shutdown",
            Some(map([("delay", span(settings.shutdown.delay)), ("deadline", span(settings.shutdown.deadline))])),
        ),
        (
            "workers",
            match settings.workers {
                Workers::Auto => word("auto"),
                Workers::Count(number) => count(number),
            },
        ),
    ])
}

fn store(settings: &StoreSettings) -> Value {
    match settings {
        StoreSettings::Memory => map([("driver", word("memory"))]),
        StoreSettings::Sqlite { path: file } => map([("driver", word("sqlite")), ("path", Some(path(file)))]),
        StoreSettings::Postgres(settings) => map([
            ("driver", word("postgres")),
            ("url", Some(text(settings.address.show(REDACTED)))),
            (
                "pooler",
                word(match settings.pooler {
                    Pooler::None => "none",
                    Pooler::Transaction => "transaction",
                }),
            ),
            ("connections", count(settings.connections)),
            ("connect_timeout", span(settings.connect_timeout)),
            ("statement_timeout", span(settings.statement_timeout)),
        ]),
    }
}

fn shared_limits(settings: &LendingSettings) -> Value {
    map([
        ("url", Some(text(settings.address.show(REDACTED)))),
        ("ca", settings.ca.as_deref().map(path)),
        ("connect_timeout", span(settings.connect_timeout)),
        ("timeout", span(settings.timeout)),
        ("on_outage", word(settings.on_outage.word())),
        ("lease", span(settings.lease)),
        ("prefix", word(&settings.prefix)),
    ])
}

fn listener(listener: &ListenerSettings) -> Value {
    let proxies = filled(&listener.proxy_protocol_from, |net| text(net.to_string()));
    map([
        ("bind", Some(text(show_bind(&listener.bind)))),
        ("name", word(&listener.name)),
        ("tls", listener.tls.as_ref().map(text)),
        ("proxy_protocol", proxies.map(|from| map([("from", Some(from))]))),
        ("redirect_https", flag(listener.redirect_https)),
    ])
}

fn certificate(files: &CertificateFiles) -> Value {
    map([("cert", Some(path(&files.cert))), ("key", Some(path(&files.key)))])
}

fn edge_certificate(EdgeCertificate { files, ocsp }: &EdgeCertificate) -> Value {
    map([("cert", Some(path(&files.cert))), ("key", Some(path(&files.key))), ("ocsp", ocsp.as_deref().map(path))])
}

fn certificates(tls: &TlsSettings) -> Value {
    let clients = match &tls.client_certificates {
        ClientCertificates::NotAsked => None,
        ClientCertificates::Optional { ca } => Some((ca, false)),
        ClientCertificates::Required { ca } => Some((ca, true)),
    };
    map([
        ("certificates", list(&tls.certificates, edge_certificate)),
        (
            "min_version",
            word(match tls.min_version {
                TlsVersion::V1_2 => "1.2",
                TlsVersion::V1_3 => "1.3",
            }),
        ),
        (
            "client_certificates",
            clients.map(|(ca, required)| map([("ca", Some(path(ca))), ("required", flag(required))])),
        ),
    ])
}

fn upstream(upstream: &UpstreamSettings) -> Value {
    let tls = &upstream.tls;
    let has_tls = tls.ca.is_some() || tls.server_name.is_some() || tls.client_certificate.is_some();
    map([
        (
            "kind",
            word(match upstream.kind {
                UpstreamKind::Network => "network",
                UpstreamKind::Echo => "echo",
            }),
        ),
        ("targets", filled(&upstream.targets, target)),
        (
            "balance",
            word(match upstream.balance {
                Balance::RoundRobin => "round_robin",
                Balance::LeastRequests => "least_requests",
            }),
        ),
        (
            "ejection",
            Some(map([
                ("failures", count(upstream.ejection.failures)),
                ("base_time", span(upstream.ejection.base_time)),
                ("max_time", span(upstream.ejection.max_time)),
                ("server_errors", flag(upstream.ejection.server_errors)),
            ])),
        ),
        (
            "retry_budget",
            Some(map([
                ("percent", count(upstream.retry_budget.percent)),
                ("min_per_second", count(upstream.retry_budget.min_per_second)),
            ])),
        ),
        ("health", upstream.health.as_ref().map(health)),
        (
            "protocol",
            word(match upstream.protocol {
                Protocol::Auto => "auto",
                Protocol::H1 => "h1",
                Protocol::H2 => "h2",
                Protocol::H2c => "h2c",
            }),
        ),
        (
            "host",
            Some(match &upstream.host {
                HostPolicy::Keep => text("keep"),
                HostPolicy::Set(host) => text(String::from_utf8_lossy(host.as_bytes())),
            }),
        ),
        (
            "reads_paths",
            word(match upstream.reads_paths {
                ReadsPaths::Variously => "various",
                ReadsPaths::Exactly => "exact",
            }),
        ),
        (
            "tls",
            has_tls.then(|| {
                map([
                    ("ca", tls.ca.as_deref().map(path)),
                    ("server_name", tls.server_name.as_ref().map(text)),
                    ("client_certificate", tls.client_certificate.as_ref().map(certificate)),
                ])
            }),
        ),
        (
            "timeouts",
            Some(map([
                ("connect", span(upstream.timeouts.connect)),
                ("first_byte", span(upstream.timeouts.first_byte)),
                ("idle", span(upstream.timeouts.idle)),
            ])),
        ),
        ("max_connections", count(upstream.max_connections)),
        ("queue_timeout", span(upstream.queue_timeout)),
        ("keepalive", span(upstream.keepalive)),
        ("max_lifetime", span(upstream.max_lifetime)),
        ("dns_refresh", span(upstream.dns_refresh)),
        ("headers", Some(header_edit(&upstream.set_headers, &upstream.remove_headers))),
    ])
}

fn health(health: &HealthCheck) -> Value {
    map([
        ("path", word(&health.path)),
        ("interval", span(health.interval)),
        ("timeout", span(health.timeout)),
        ("healthy_after", count(health.healthy_after)),
        ("unhealthy_after", count(health.unhealthy_after)),
    ])
}

fn target(target: &Target) -> Value {
    map([("url", Some(text(target.url.to_string()))), ("weight", count(target.weight))])
}

fn environments(gate: &GateSettings) -> Value {
    map(gate.environments.iter().map(|(name, environment)| {
        let value = map([
            ("word", word(&environment.word)),
            ("max_key_age", environment.max_key_age.and_then(span)),
            ("upstream", environment.upstream.as_ref().map(text)),
            ("rate_limit", environment.rate_limit.map(|limit| rate_limit(limit, None))),
            ("quota", environment.quota.map(quota)),
        ]);
        (name.as_str(), Some(value))
    }))
}

fn auth(gate: &GateSettings) -> Value {
    let pepper = |id: &str| map([("id", word(id)), ("secret", word(REDACTED))]);
    map([
        ("accept", list(&gate.accept, place)),
        ("realm", word(&gate.realm)),
        ("trusted_proxies", list(&gate.trusted_proxies, |net| text(net.to_string()))),
        ("hide_routes", flag(gate.hide_routes)),
        ("browser_guard", flag(gate.browser_guard)),
        ("catalogue", word(if gate.open_catalogue { "open" } else { "closed" })),
        ("recheck_interval", span(gate.recheck_interval)),
        ("brand", word(gate.brand.as_str())),
        ("peppers", list(gate.hasher.pepper_ids(), pepper)),
    ])
}

fn headers(headers: &HeaderSettings) -> Value {
    let names = &headers.identity;
    map([
        (
            "identity",
            Some(map([
                ("key_id", word(names.key_id.as_str())),
                ("owner", word(names.owner.as_str())),
                ("environment", word(names.environment.as_str())),
                ("scopes", word(names.scopes.as_str())),
                ("auth", word(names.auth.as_str())),
            ])),
        ),
        (
            "untrusted",
            list(&headers.untrusted, |pattern| match pattern {
                NamePattern::Exact(name) => text(name),
                NamePattern::Prefix(start) => text(format!("{start}*")),
                NamePattern::Unusual => text(UNUSUAL_NAMES),
            }),
        ),
    ])
}

fn limits(limits: &Limits, failures: Option<RateLimit>) -> Value {
    map([
        ("head_size", size(limits.head_bytes)),
        ("head_fields", count(limits.head_fields)),
        ("target_size", size(limits.target_bytes)),
        ("head_timeout", span(limits.head_timeout)),
        ("keepalive_idle", span(limits.keepalive_idle)),
        ("stall_timeout", span(limits.stall_timeout)),
        ("min_body_rate", size(limits.min_body_rate)),
        ("handshake_timeout", span(limits.handshake_timeout)),
        ("tls_handshakes", count(limits.tls_handshakes)),
        ("memory", limits.memory.and_then(size)),
        ("connections_per_listener", count(limits.connections_per_listener)),
        ("connections_per_address", limits.connections_per_address.and_then(count)),
        ("failures", failures.map(|limit| rate_limit(limit, None))),
        ("h2_max_streams", count(limits.h2_max_streams)),
        ("h2_stream_window", size(limits.h2_stream_window)),
        ("h2_connection_window", size(limits.h2_connection_window)),
        ("h2_header_list_size", size(limits.h2_header_list_bytes)),
    ])
}

fn logging(settings: &Settings) -> Value {
    let logging = &settings.logging;
    map([
        (
            "format",
            word(match logging.format {
                LogFormat::Auto => "auto",
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }),
        ),
        (
            "level",
            word(match logging.level {
                LogLevel::Error => "error",
                LogLevel::Warn => "warn",
                LogLevel::Info => "info",
                LogLevel::Debug => "debug",
                LogLevel::Trace => "trace",
            }),
        ),
        ("access", Some(map([("enabled", flag(logging.access))]))),
        ("mask_addresses", flag(logging.mask_addresses)),
    ])
}
