//! Listeners, their certificates, and upstreams.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::File;
use super::super::file::routes::TimeoutsFile;
use super::super::file::servers::{
    CertificateFile, EdgeCertificateFile, EjectionFile, HealthFile, ListenerFile, RetryBudgetFile, UpstreamFile,
    UpstreamTlsFile,
};
use super::super::shape::text::FilePath;
use super::super::shape::{At, Listed, NamedEntry};
use super::{DAY, HOUR, MINUTE, MS, Marks, SECOND, count, forward, missing_section, span, taken_twice};
use crate::proxy::{
    Balance, CertificateFiles, Ejection, HealthCheck, HostPolicy, Protocol, RetryBudget, Target, TlsError,
    USUAL_CONNECTIONS, UpstreamKind, UpstreamSettings, UpstreamTimeouts, UpstreamTls, authorities_fault, pair_fault,
};
use crate::route::ReadsPaths;
use crate::server::{Bind, ClientCertificates, EdgeCertificate, ListenerSettings, TlsSettings, TlsVersion};

/// How a bind is written.
pub(crate) fn show_bind(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The port of a bind that has one.
pub(super) fn port_of(bind: &Bind) -> Option<u16> {
    match bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix(_) => None,
    }
}

pub(super) fn listeners(file: &File, findings: &mut Findings) -> Vec<ListenerSettings> {
    let list: &[At<ListenerFile>] = file.listeners.0.as_ref().map_or(&[], |list| &list.0);
    if list.is_empty() && !findings.is_broken("listeners") {
        missing_section("listeners", "Add `listeners: [{ bind: \"127.0.0.1:8080\" }]`", findings);
    }
    for (index, listener) in list.iter().enumerate() {
        let listener = &listener.value;
        let same = |other: &&At<ListenerFile>| {
            port_of(&listener.bind.value) != Some(0) && other.value.bind.value == listener.bind.value
        };
        if let Some(first) = list[..index].iter().find(same) {
            let problem =
                Problem::new(Code::Duplicate, listener.bind.at, taken_twice(&findings.written(listener.bind.at)));
            findings
                .note(problem.label(first.value.bind.at, "first used here").fix("Remove one, or choose another port"));
        }
        let same_name = |other: &&At<ListenerFile>| {
            other.value.name.as_ref().map(|name| &name.value) == listener.name.as_ref().map(|name| &name.value)
        };
        if let (Some(name), Some(first)) = (&listener.name, list[..index].iter().find(same_name)) {
            let problem = Problem::new(
                Code::Duplicate,
                name.at,
                format!("two listeners are called `{}`", findings.written(name.at)),
            );
            findings.note(problem.label(first.at, "the first one").fix("Rename one"));
        }
        check_tls_reference(file, listener, findings);
    }
    list.iter().map(|listener| listener_settings(&listener.value, findings)).collect()
}

fn check_tls_reference(file: &File, listener: &ListenerFile, findings: &mut Findings) {
    let Some(tls) = &listener.tls else { return };
    if let Some(At { value: true, at }) = listener.redirect_https {
        let problem = Problem::new(Code::Conflict, at, "a listener with `tls` is what a redirect to https leads to");
        findings.note(problem.fix("Redirect on the cleartext listener"));
    }
    check_tls_name(file, tls, findings);
}

/// Notes a reference to an entry of `tls` that is not there.
pub(super) fn check_tls_name(file: &File, tls: &At<String>, findings: &mut Findings) {
    let known = file.tls.0.as_ref();
    if known.is_some_and(|known| known.find(&tls.value).is_some()) || findings.is_broken("tls") {
        return;
    }
    let names = known.into_iter().flat_map(|known| known.names());
    note_unknown("entry of `tls`", tls, names, findings);
}

/// Notes that there is nothing of this name.
pub(super) fn note_unknown<'a>(
    what: &str,
    name: &At<String>,
    known: impl IntoIterator<Item = &'a str>,
    findings: &mut Findings,
) {
    // It may be defined in the file that could not be read.
    if findings.is_incomplete {
        return;
    }
    let message = format!("there is no {what} called {:?}", findings.written(name.at));
    let problem = Problem::new(Code::UnknownReference, name.at, message);
    let known: Vec<&str> = known.into_iter().collect();
    let problem = match crate::domain::did_you_mean(&name.value, known.iter().copied()) {
        Some(word) => problem.fix(format!("Did you mean `{word}`?")),
        None if known.is_empty() => problem.fix("Define it; none is defined yet"),
        None => problem.fix(format!("Define it, or use one of {}", known.join(", "))),
    };
    findings.note(problem);
}

fn listener_settings(listener: &ListenerFile, findings: &mut Findings) -> ListenerSettings {
    let proxies = listener.proxy_protocol.as_ref().map(|proxy| &proxy.from);
    if let Some(At { value: Listed(list), at }) = proxies
        && list.is_empty()
    {
        let problem = Problem::new(Code::BadValue, *at, "nobody may send the PROXY header, so nobody can connect");
        findings.note(problem.fix("Name the networks of your load balancers, or remove `proxy_protocol`"));
    }
    ListenerSettings {
        name: listener.name.as_ref().map_or_else(|| show_bind(&listener.bind.value), |name| name.value.0.clone()),
        bind: listener.bind.value.clone(),
        tls: listener.tls.as_ref().map(|tls| tls.value.clone()),
        proxy_protocol_from: proxies.into_iter().flat_map(|from| from.value.iter()).map(|net| net.value).collect(),
        redirect_https: listener.redirect_https.as_ref().is_some_and(|redirect| redirect.value),
    }
}

pub(super) fn tls(file: &File, marks: &mut Marks, findings: &mut Findings) -> Vec<TlsSettings> {
    let mut all = Vec::new();
    for NamedEntry { name, name_at, value, .. } in file.tls.0.iter().flat_map(|tls| tls.iter()) {
        marks.tls.push((name.clone(), *name_at));
        let Some(value) = value else { continue };
        if value.certificates.value.is_empty() {
            let problem = Problem::new(Code::BadValue, value.certificates.at, "there is no certificate");
            findings.note(problem.fix("Add `- { cert: F, key: F }`"));
        }
        let client_certificates = match &value.client_certificates {
            None => ClientCertificates::NotAsked,
            Some(client) => {
                let ca = authorities(&client.ca, findings);
                if client.required.unwrap_or(true) {
                    ClientCertificates::Required { ca }
                } else {
                    ClientCertificates::Optional { ca }
                }
            }
        };
        all.push(TlsSettings {
            name: name.clone(),
            certificates: value
                .certificates
                .value
                .iter()
                .map(|certificate| edge_certificate(&certificate.value, marks, findings))
                .collect(),
            min_version: value.min_version.unwrap_or(TlsVersion::V1_2),
            client_certificates,
        });
    }
    all
}

/// The OCSP response may come later than the configuration: whether it is there and usable is for the lint to say.
fn edge_certificate(file: &EdgeCertificateFile, marks: &mut Marks, findings: &mut Findings) -> EdgeCertificate {
    let files = usable_pair(&file.cert, &file.key, findings);
    let ocsp = file.ocsp.as_ref().map(|ocsp| {
        marks.staples.push((ocsp.value.0.clone(), files.cert.clone(), ocsp.at));
        ocsp.value.0.clone()
    });
    EdgeCertificate { files, ocsp }
}

fn certificate(pair: &CertificateFile, findings: &mut Findings) -> CertificateFiles {
    usable_pair(&pair.cert, &pair.key, findings)
}

/// The files of a certificate and its key, once it is known that they are there and belong together. Reads both.
fn usable_pair(cert: &At<FilePath>, key: &At<FilePath>, findings: &mut Findings) -> CertificateFiles {
    let files = CertificateFiles { cert: existing(cert, findings), key: existing(key, findings) };
    if let Some(fault) = pair_fault(&files).filter(|_| files.cert.is_file() && files.key.is_file()) {
        let at = if fault.is_about(&files.key) { key.at } else { cert.at };
        findings.note(Problem::new(code_of(&fault), at, fault.to_string()));
    }
    files
}

/// The file of certificate authorities, once it is known that all in it can be used. Reads it.
fn authorities(path: &At<FilePath>, findings: &mut Findings) -> std::path::PathBuf {
    let file = existing(path, findings);
    if let Some(fault) = authorities_fault(&file).filter(|_| file.is_file()) {
        findings.note(Problem::new(code_of(&fault), path.at, fault.to_string()));
    }
    file
}

/// What this user may not read may be readable for the gateway's user, who is often another one.
fn code_of(fault: &TlsError) -> Code {
    if fault.is_denied() { Code::MayNotRead } else { Code::BadCertificate }
}

/// The path, once it is known that a file is there. Its content is looked at by whoever uses it.
fn existing(path: &At<FilePath>, findings: &mut Findings) -> std::path::PathBuf {
    let file = &path.value.0;
    if !file.is_file() {
        let shown = findings.sources.base_of(path.at).join(findings.written(path.at));
        let problem = Problem::new(Code::MissingFile, path.at, format!("there is no file {}", shown.display()));
        findings.note(problem.fix("Create it, or correct the path; it is relative to this file"));
    }
    file.clone()
}

pub(super) fn upstreams(file: &File, marks: &mut Marks, findings: &mut Findings) -> Vec<UpstreamSettings> {
    let mut all = Vec::new();
    for entry in file.upstreams.0.iter().flat_map(|upstreams| upstreams.iter()) {
        marks.upstreams.push((entry.name.clone(), entry.name_at));
        if let Err(flaw) = super::super::shape::text::Label::parse(&entry.name) {
            let problem = Problem::new(Code::BadValue, entry.name_at, format!("{:?} {}", entry.name, flaw.problem));
            findings.note(problem.fix(flaw.fix));
        }
        if let Some(value) = &entry.value {
            marks.caps.extend(value.max_connections.as_ref().map(|cap| (entry.name.clone(), cap.at)));
            all.push(upstream(entry, value, findings));
        }
    }
    all
}

fn upstream(entry: &NamedEntry<UpstreamFile>, value: &UpstreamFile, findings: &mut Findings) -> UpstreamSettings {
    let kind = value.kind.as_ref().map_or(UpstreamKind::Network, |kind| kind.value);
    let protocol = value.protocol.as_ref().map_or(Protocol::Auto, |protocol| protocol.value);
    let edit = forward::header_edit(value.headers.as_ref(), &[], findings);
    UpstreamSettings {
        name: entry.name.clone(),
        targets: targets(entry, value, kind, findings),
        kind,
        protocol,
        host: value.host.as_ref().map_or(HostPolicy::Keep, |host| host_policy(host, findings)),
        reads_paths: value.reads_paths.as_ref().map_or(ReadsPaths::Variously, |reads| reads.value),
        tls: value.tls.as_ref().map_or_else(UpstreamTls::default, |tls| upstream_tls(&tls.value, findings)),
        timeouts: UpstreamTimeouts {
            connect: timeout(value.timeouts.as_ref(), |t| t.connect.as_ref(), 5 * MINUTE, findings)
                .unwrap_or(5 * SECOND),
            first_byte: timeout(value.timeouts.as_ref(), |t| t.first_byte.as_ref(), DAY, findings).unwrap_or(MINUTE),
            idle: timeout(value.timeouts.as_ref(), |t| t.idle.as_ref(), DAY, findings).unwrap_or(MINUTE),
        },
        balance: value.balance.unwrap_or(Balance::RoundRobin),
        ejection: ejection(value.ejection.as_ref(), findings),
        retry_budget: retry_budget(value.retry_budget.as_ref(), findings),
        health: value.health.as_ref().map(|health| health_check(health, findings)),
        dns_refresh: span(value.dns_refresh.as_ref(), 30 * SECOND, SECOND..=DAY, findings),
        max_connections: usize::try_from(count(
            value.max_connections.as_ref(),
            USUAL_CONNECTIONS as u64,
            1..=65_535,
            findings,
        ))
        .unwrap_or(usize::MAX),
        queue_timeout: span(value.queue_timeout.as_ref(), SECOND, Duration::ZERO..=5 * MINUTE, findings),
        keepalive: span(value.keepalive.as_ref(), 55 * SECOND, Duration::ZERO..=HOUR, findings),
        max_lifetime: span(value.max_lifetime.as_ref(), HOUR, SECOND..=DAY, findings),
        set_headers: edit.set,
        remove_headers: edit.remove,
    }
}

fn ejection(file: Option<&EjectionFile>, findings: &mut Findings) -> Ejection {
    let base_time = span(file.and_then(|file| file.base_time.as_ref()), SECOND, 100 * MS..=HOUR, findings);
    let max_time = file.and_then(|file| file.max_time.as_ref());
    Ejection {
        failures: number(file.and_then(|file| file.failures.as_ref()), 3, 0..=1000, findings),
        base_time,
        max_time: span(max_time, MINUTE.max(base_time), base_time..=DAY, findings),
        server_errors: file.and_then(|file| file.server_errors).unwrap_or(false),
    }
}

fn retry_budget(file: Option<&RetryBudgetFile>, findings: &mut Findings) -> RetryBudget {
    RetryBudget {
        percent: number(file.and_then(|file| file.percent.as_ref()), 20, 0..=100, findings),
        min_per_second: number(file.and_then(|file| file.min_per_second.as_ref()), 10, 0..=10_000, findings),
    }
}

fn health_check(file: &HealthFile, findings: &mut Findings) -> HealthCheck {
    let path = &file.path.value;
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        let message = format!("{:?} is no path of a request", findings.written(file.path.at));
        findings.note(Problem::new(Code::BadValue, file.path.at, message).fix("Write one such as /healthz"));
    }
    HealthCheck {
        path: path.clone(),
        interval: span(file.interval.as_ref(), 10 * SECOND, 100 * MS..=HOUR, findings),
        timeout: span(file.timeout.as_ref(), 2 * SECOND, 10 * MS..=5 * MINUTE, findings),
        healthy_after: number(file.healthy_after.as_ref(), 2, 1..=100, findings),
        unhealthy_after: number(file.unhealthy_after.as_ref(), 3, 1..=100, findings),
    }
}

/// A count that fits into 32 bits.
fn number(field: Option<&At<u64>>, default: u64, range: RangeInclusive<u64>, findings: &mut Findings) -> u32 {
    u32::try_from(count(field, default, range, findings)).unwrap_or(u32::MAX)
}

/// A bound in time from 10 ms to `most`.
pub(super) fn timeout(
    file: Option<&TimeoutsFile>,
    pick: fn(&TimeoutsFile) -> Option<&At<Duration>>,
    most: Duration,
    findings: &mut Findings,
) -> Option<Duration> {
    let field = file.and_then(pick)?;
    Some(span(Some(field), most.min(MINUTE), 10 * MS..=most, findings))
}

fn targets(
    entry: &NamedEntry<UpstreamFile>,
    value: &UpstreamFile,
    kind: UpstreamKind,
    findings: &mut Findings,
) -> Vec<Target> {
    let list: &[_] = value.targets.as_ref().map_or(&[], |targets| &targets.value.0);
    let place = value.targets.as_ref().map_or(entry.name_at, |targets| targets.at);
    match kind {
        UpstreamKind::Echo if value.targets.is_some() => {
            let problem = Problem::new(Code::Conflict, place, "the built-in echo has no targets");
            findings.note(problem.fix("Remove `targets`, or `kind: echo`"));
        }
        UpstreamKind::Network if list.is_empty() && !findings.is_broken(&format!("upstreams.{}", entry.name)) => {
            let problem = Problem::new(Code::MissingField, place, format!("`{}` has no target", entry.name));
            findings.note(problem.fix("Add `targets: [{ url: \"http://127.0.0.1:9000\" }]`"));
        }
        UpstreamKind::Echo | UpstreamKind::Network => {}
    }
    let protocol = value.protocol.as_ref();
    for (index, target) in list.iter().enumerate() {
        let url = &target.value.url;
        let wrong = match (protocol.map(|protocol| protocol.value), url.value.scheme_str()) {
            (Some(Protocol::H2), Some("http")) => Some(("h2 is spoken over TLS", "Write `protocol: h2c`, or https://")),
            (Some(Protocol::H2c), Some("https")) => {
                Some(("h2c is spoken in the clear", "Write `protocol: h2`, or http://"))
            }
            (_, _) => None,
        };
        if let (Some((message, fix)), Some(protocol)) = (wrong, protocol) {
            findings.note(Problem::new(Code::Conflict, url.at, message).label(protocol.at, "says so here").fix(fix));
        }
        if let Some(first) = list[..index].iter().find(|first| first.value.url.value == url.value) {
            let problem = Problem::new(Code::Duplicate, url.at, "this target stands twice");
            findings.note(problem.label(first.value.url.at, "first defined here").fix("Remove one"));
        }
    }
    if let (Some(tls), false) = (&value.tls, list.iter().any(|t| t.value.url.value.scheme_str() == Some("https")))
        && !list.is_empty()
    {
        let problem = Problem::new(Code::Conflict, tls.at, "no target of this upstream is https");
        findings.note(problem.fix("Write https:// targets, or remove `tls`"));
    }
    list.iter()
        .map(|target| Target {
            url: target.value.url.value.clone(),
            weight: number(target.value.weight.as_ref(), 1, 1..=1000, findings),
        })
        .collect()
}

fn host_policy(host: &At<String>, findings: &mut Findings) -> HostPolicy {
    if host.value == "keep" {
        return HostPolicy::Keep;
    }
    let authority =
        host.value.parse::<http::uri::Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
    match authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        Some(value) => HostPolicy::Set(value),
        None => {
            let message = format!("{:?} is no host", findings.written(host.at));
            findings.note(Problem::new(Code::BadValue, host.at, message).fix("Write `keep`, or host or host:port"));
            HostPolicy::Keep
        }
    }
}

fn upstream_tls(tls: &UpstreamTlsFile, findings: &mut Findings) -> UpstreamTls {
    if let Some(name) = &tls.server_name
        && rustls_pki_types::ServerName::try_from(name.value.as_str()).is_err()
    {
        let message = format!("{:?} is no name of a server", findings.written(name.at));
        findings.note(Problem::new(Code::BadValue, name.at, message).fix("Write a host name or an address"));
    }
    UpstreamTls {
        ca: tls.ca.as_ref().map(|ca| authorities(ca, findings)),
        server_name: tls.server_name.as_ref().map(|name| name.value.clone()),
        client_certificate: tls.client_certificate.as_ref().map(|pair| certificate(pair, findings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severity;

    #[test]
    fn what_only_this_user_may_not_read_is_worth_a_warning() {
        let unreadable = |kind| TlsError::Unreadable { file: "t.key".into(), source: std::io::Error::from(kind) };
        let severity = |fault| code_of(&fault).severity();
        assert_eq!(severity(unreadable(std::io::ErrorKind::PermissionDenied)), Severity::Warning);
        assert_eq!(severity(unreadable(std::io::ErrorKind::StaleNetworkFileHandle)), Severity::Error);
        assert_eq!(severity(TlsError::Damaged { file: "t.key".into() }), Severity::Error);
    }
}
