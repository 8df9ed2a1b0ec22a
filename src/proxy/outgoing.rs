//! The request as the upstream gets it: what a client may not say is left out, our own is put in last.
//!
//! It is written as the head of an HTTP/1.1 message, whatever it is sent over: once for all tries, and taken apart again
//! for HTTP/2.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use http::header;
use http::{HeaderName, HeaderValue, Method, Version};
use smallvec::SmallVec;

use super::asked::Asked;
use super::body::{Sending, Upload, UploadProgress};
use super::engine::{Context, Routed};
use super::headers::{Peer, TrailerRule, is_hop_by_hop, is_nominated, nominates};
use super::live::Current;
use super::observed::Exchange;
use super::settings::{HostPolicy, UpstreamSettings, UpstreamTimeouts};
use super::tripwire::Tripwire;
use super::watch::KeyWatch;
use crate::credential::{self, Place, Stripped};
use crate::domain::fields::Field;
use crate::domain::{FieldLines, Fields, Known};
use crate::gate::{Admitted, ForwardSettings, Identity, RouteSettings};
use crate::route::RouteIx;

/// A request ready to be sent to one upstream.
pub(super) struct Outgoing {
    pub(crate) method: Method,
    /// Request line and fields of an HTTP/1.1 request, without the empty line and without what frames the body.
    head: Vec<u8>,
    target: Range<usize>,
    /// Where the fields stand.
    fields: Range<usize>,
    /// Whether `Host` stands in them. Where the client sent none, each target gets its own when the head is taken.
    has_host: bool,
    /// The body, when there is one.
    pub(crate) upload: Option<Box<Upload>>,
    /// Whether the client framed its empty body: a length of zero is passed on.
    says_empty: bool,
    /// What the engine sees of the body while it is sent.
    pub(crate) progress: Option<Rc<UploadProgress>>,
    /// The protocol asked for, when both sides may.
    pub(crate) wants_tunnel: Option<String>,
    pub(crate) timeouts: UpstreamTimeouts,
    /// Whether the key that admitted it still holds.
    pub(super) recheck: Option<KeyWatch>,
}

/// Writes the path that was matched, or what `strip_prefix` leaves of it, behind `add_prefix`.
pub(super) fn push_path(out: &mut Vec<u8>, forward: &ForwardSettings, path: &str) {
    let rest = match &forward.strip_prefix {
        Some(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or(path),
        None => path,
    };
    out.extend_from_slice(forward.add_prefix.as_deref().unwrap_or("").as_bytes());
    if !rest.starts_with('/') && rest != "*" {
        out.push(b'/');
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Writes path and query as the upstream gets them: the path that was matched, or what `strip_prefix` leaves of it, and
/// the query byte for byte, save an accepted credential parameter.
fn push_target(out: &mut Vec<u8>, route: &RouteSettings, path: &str, query: Option<&str>, keeps_credential: bool) {
    let stripped_query = match query {
        Some(query) if !keeps_credential => credential::strip_query(query, &route.accept),
        Some(_) | None => None,
    };
    let query = stripped_query.as_deref().or(query);
    push_path(out, &route.forward, path);
    // A query that held nothing but the credential leaves no question mark behind.
    let emptied = stripped_query.as_deref() == Some("");
    if let Some(query) = query.filter(|_| !emptied) {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

/// The number of the upstream that a request goes to: the route's, unless the key's environment has its own.
pub(super) fn upstream_of(current: &Current, route: RouteIx, admitted: &Admitted) -> usize {
    let own = match admitted.identity() {
        Identity::Key(authenticated) => current.gate.environment(authenticated.slot().environment),
        Identity::Anonymous | Identity::Reported { .. } => None,
    };
    let own = own.and_then(|environment| environment.settings.as_ref()?.upstream.as_deref());
    own.and_then(|name| current.plan.upstreams.iter().position(|upstream| upstream.settings.name == name))
        .unwrap_or(current.gate.rules.route(route).upstream as usize)
}

impl Outgoing {
    /// Writes `asked` for the upstream.
    pub(super) fn prepare(
        cx: &Context,
        upstream: usize,
        asked: Asked<'_>,
        admitted: &Admitted,
        routed: Routed<'_>,
        exchange: &Exchange,
    ) -> Self {
        let current = &*cx.current;
        let upstream = &current.plan.upstreams[upstream].settings;
        let route = &current.gate.rules.route(routed.route).settings;
        let mut head = cx.engine.buffers.out();
        head.extend_from_slice(asked.method.as_str().as_bytes());
        head.push(b' ');
        let target = head.len();
        let is_reported = matches!(admitted.identity(), Identity::Reported { .. });
        let keeps_credential = route.forward_credential || is_reported;
        push_target(&mut head, route, routed.path, asked.query, keeps_credential);
        let target = target..head.len();
        head.extend_from_slice(b" HTTP/1.1\r\n");
        let fields_at = head.len();
        let host = match &upstream.host {
            HostPolicy::Set(host) => host.as_bytes(),
            HostPolicy::Keep => routed.authority.as_bytes(),
        };
        let mut writer = Writer {
            lines: FieldLines::continuing(head),
            overrides: Overrides { upstream, route },
            // Nearly no configuration overrides anything.
            has_overrides: Overrides { upstream, route }.are_any(),
        };
        if !host.is_empty() {
            writer.lines.push(b"host", host);
        }
        let credentials = (!keeps_credential).then_some(&route.accept[..]);
        client_fields(cx, &mut writer, asked.fields, credentials);
        forwarding(cx, &mut writer, asked.fields, asked.version, routed.authority);
        identity(current, &mut writer, admitted);
        writer.overridden();
        if cx.is_grpc && asked.fields.first(Known::Te).is_some_and(|te| te.eq_ignore_ascii_case(b"trailers")) {
            writer.lines.push(b"te", b"trailers");
        }
        if let Some(protocol) = &routed.wants_tunnel {
            writer.lines.push(b"connection", b"upgrade");
            writer.lines.push(b"upgrade", protocol.as_bytes());
        }
        let says_empty = !asked.body.is_some() && asked.fields.has(Known::ContentLength);
        let progress = asked.body.is_some().then(|| Rc::new(UploadProgress::default()));
        let trailers = if cx.is_grpc {
            TrailerRule::Clean {
                rules: Arc::clone(&current.plan.headers),
                peer: cx.trust,
                credentials: credential_names(&route.accept),
            }
        } else {
            TrailerRule::Drop
        };
        let recheck = match admitted.identity() {
            Identity::Key(authenticated) => Some(KeyWatch::new(&cx.engine.live, *authenticated, route.staleness)),
            Identity::Anonymous | Identity::Reported { .. } => None,
        };
        let upload = progress.as_ref().and_then(|progress| {
            exchange.watch_upload(progress);
            Upload::new(
                asked.body,
                route.forward.max_body,
                &cx.engine.timers,
                current.plan.patience,
                trailers,
                Rc::clone(progress),
                recheck.clone(),
            )
        });
        let head = writer.lines.into_memory();
        let bounds = &upstream.timeouts;
        let own = &route.forward.timeouts;
        Self {
            method: asked.method,
            target,
            fields: fields_at..head.len(),
            head,
            has_host: !host.is_empty(),
            upload: upload.map(Box::new),
            says_empty,
            progress,
            wants_tunnel: routed.wants_tunnel,
            timeouts: UpstreamTimeouts {
                connect: own.connect.unwrap_or(bounds.connect),
                first_byte: own.first_byte.unwrap_or(bounds.first_byte),
                idle: own.idle.unwrap_or(bounds.idle),
            },
            recheck,
        }
    }

    /// Takes a request back that was made of this and of which nothing was sent, or that has no body: as it was before
    /// [`Outgoing::take_h1_head`].
    pub(super) fn put_back(&mut self, sending: Sending) {
        let (mut head, upload) = sending.into_parts();
        let host_len = if self.has_host { 0 } else { line_len(&head[self.fields.start..]) };
        head.truncate(self.fields.end + host_len);
        head.drain(self.fields.start..self.fields.start + host_len);
        self.head = head;
        self.upload = upload;
    }

    /// Path and query.
    pub(super) fn target(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(&self.head[self.target.clone()]).unwrap_or("/")
    }

    /// The fields as they are sent.
    pub(super) fn lines(&self) -> FieldLines {
        FieldLines::continuing(self.head[self.fields.clone()].to_vec())
    }

    /// The head of an HTTP/1.1 request, whole, for a target with this authority; and whether the body behind it goes out
    /// in chunks. Takes the head's memory along.
    pub(super) fn take_h1_head(&mut self, authority: &HeaderValue) -> (Vec<u8>, bool) {
        Tripwire::Forward.sees([&self.head[..]]);
        let mut head = std::mem::take(&mut self.head);
        if !self.has_host {
            let line = [b"host: ", authority.as_bytes(), b"\r\n"].concat();
            head.splice(self.fields.start..self.fields.start, line);
        }
        let length = match &self.upload {
            None => self.says_empty.then_some(0),
            Some(upload) => upload.exact_len(),
        };
        let is_chunked = self.upload.is_some() && length.is_none();
        let mut lines = FieldLines::continuing(head);
        match length {
            Some(length) => lines.push_number(b"content-length", length),
            None if is_chunked => lines.push(b"transfer-encoding", b"chunked"),
            None => {}
        }
        let mut head = lines.into_memory();
        head.extend_from_slice(b"\r\n");
        (head, is_chunked)
    }
}

/// Writes fields, each unless the configuration says something else about its name.
struct Writer<'a> {
    lines: FieldLines,
    overrides: Overrides<'a>,
    has_overrides: bool,
}

/// What upstream and route remove and set; the route has the last word.
#[derive(Clone, Copy)]
struct Overrides<'a> {
    upstream: &'a UpstreamSettings,
    route: &'a RouteSettings,
}

impl Overrides<'_> {
    fn are_any(self) -> bool {
        let (upstream, route) = (self.upstream, &self.route.forward);
        !(upstream.remove_headers.is_empty()
            && upstream.set_headers.is_empty()
            && route.remove_headers.is_empty()
            && route.set_headers.is_empty())
    }

    /// Whether a field of this name that is not set by the configuration is not sent.
    fn concern(self, name: &[u8]) -> bool {
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
        self.upstream.remove_headers.iter().any(is)
            || self.upstream.set_headers.iter().any(|(name, _)| is(name))
            || self.of_route(name)
    }

    fn of_route(self, name: &[u8]) -> bool {
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
        let route = &self.route.forward;
        route.remove_headers.iter().any(is) || route.set_headers.iter().any(|(name, _)| is(name))
    }
}

impl Writer<'_> {
    #[inline]
    fn is_overridden(&self, name: &[u8]) -> bool {
        self.has_overrides && self.overrides.concern(name)
    }

    #[inline]
    fn push(&mut self, name: &[u8], value: &[u8]) {
        if !self.is_overridden(name) {
            self.lines.push(name, value);
        }
    }

    #[inline]
    fn push_pieces(&mut self, name: &[u8], pieces: &[&[u8]]) {
        if !self.is_overridden(name) {
            self.lines.push_pieces(name, pieces);
        }
    }

    /// What the configuration sets.
    fn overridden(&mut self) {
        if !self.has_overrides {
            return;
        }
        let Overrides { upstream, route } = self.overrides;
        let sets = |set: &[(HeaderName, HeaderValue)], at: usize| {
            // A name that is set twice is set to the last.
            !set[at + 1..].iter().any(|(name, _)| *name == set[at].0)
        };
        for (at, (name, value)) in upstream.set_headers.iter().enumerate() {
            let name = name.as_str().as_bytes();
            if sets(&upstream.set_headers, at) && !self.overrides.of_route(name) && !is_ours_alone(name) {
                self.lines.push(name, value.as_bytes());
            }
        }
        let set = &route.forward.set_headers;
        for (at, (name, value)) in set.iter().enumerate() {
            let name = name.as_str().as_bytes();
            if sets(set, at) && !is_ours_alone(name) {
                self.lines.push(name, value.as_bytes());
            }
        }
    }
}

/// What frames a message or says where it goes is no field like others: `host` has a setting of its own.
fn is_ours_alone(name: &[u8]) -> bool {
    let known = Known::of(name);
    is_hop_by_hop(known) || matches!(known, Known::Host | Known::ContentLength)
}

/// What the client sent, without what it may not say and without the credentials that the route accepts.
fn client_fields(cx: &Context, writer: &mut Writer<'_>, fields: Fields<'_>, credentials: Option<&[Place]>) {
    let rules = &cx.current.plan.headers;
    let nominates = nominates(fields);
    let mut cookies: Option<Vec<u8>> = None;
    let has_crumbs = fields.all(Known::Cookie).nth(1).is_some();
    for field in fields.iter() {
        let is_ours = match field.known {
            Known::Host | Known::ContentLength | Known::Expect | Known::XRequestId => true,
            Known::Trailer => !cx.is_grpc,
            Known::Forwarded | Known::XForwardedFor => {
                cx.trust == Peer::Untrusted || field.known == Known::XForwardedFor
            }
            Known::XForwardedHost | Known::XForwardedProto => cx.trust == Peer::Untrusted,
            other => is_hop_by_hop(other),
        };
        if is_ours || rules.is_refused(field.name, cx.trust) || nominates && is_nominated(fields, field.name) {
            continue;
        }
        let stripped = credentials.map_or(Stripped::Unchanged, |accept| credential::strip_field(&field, accept));
        let value = match &stripped {
            Stripped::Unchanged => field.value,
            Stripped::Removed => continue,
            Stripped::Rewritten(value) => value,
        };
        if field.known == Known::Cookie && has_crumbs {
            // HTTP/2 may send a cookie in crumbs; HTTP/1.1 has one field (RFC 9113 §8.2.3).
            let all = cookies.get_or_insert_default();
            if !all.is_empty() {
                all.extend_from_slice(b"; ");
            }
            all.extend_from_slice(value);
            continue;
        }
        let Field { name, .. } = field;
        writer.push(name, value);
    }
    if let Some(cookies) = cookies {
        writer.push(b"cookie", &cookies);
    }
}

/// Who the client is and how it asked: rebuilt, so that only we and trusted proxies have a say.
fn forwarding(cx: &Context, writer: &mut Writer<'_>, fields: Fields<'_>, version: Version, host: &str) {
    let connection = &cx.connection;
    // What a trusted peer said goes on, unless its own `Connection` took it away.
    let is_kept = |known: Known| {
        let name = known.text().unwrap_or_default().as_bytes();
        fields.has(known) && !(nominates(fields) && is_nominated(fields, name))
    };
    let is_trusted = cx.trust == Peer::Trusted;
    if is_trusted && is_kept(Known::XForwardedFor) {
        let mut chain: Vec<u8> = Vec::new();
        for hop in fields.all(Known::XForwardedFor) {
            chain.extend_from_slice(hop);
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(connection.address.as_bytes());
        writer.push(b"x-forwarded-for", &chain);
    } else {
        writer.push(b"x-forwarded-for", connection.address.as_bytes());
    }
    if !(is_trusted && is_kept(Known::XForwardedProto)) {
        writer.push(b"x-forwarded-proto", connection.scheme().as_bytes());
    }
    if !(is_trusted && is_kept(Known::XForwardedHost)) {
        writer.push(b"x-forwarded-host", host.as_bytes());
    }
    // RFC 7239 §4.
    let scheme = connection.scheme().as_bytes();
    let node = connection.forwarded_node.as_bytes();
    writer.push_pieces(b"forwarded", &[b"for=", node, b";host=\"", host.as_bytes(), b"\";proto=", scheme]);
    writer.push(b"via", via(version));
    writer.push(b"x-request-id", cx.request_id.as_bytes());
    if !is_kept(Known::Traceparent) {
        // A W3C trace context of our own (Trace Context §3.2.2): the request id names the trace, nothing is sampled yet.
        let trace = cx.request_id.trace_id().unwrap_or(&NO_TRACE);
        writer.push_pieces(b"traceparent", &[b"00-", trace, b"-", &trace[..16], b"-00"]);
    }
}

/// The protocol it was received in, and our pseudonym (RFC 9110 §7.6.3).
const fn via(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"1.0 portcullis",
        Version::HTTP_2 => b"2 portcullis",
        // The only other one that is spoken.
        _ => b"1.1 portcullis",
    }
}

/// Stands for a request whose id, kept from a trusted proxy, is no trace id.
const NO_TRACE: [u8; 32] = *b"00000000000000000000000000000001";

/// Who asks, in our words. No field of these names is taken from the request.
fn identity(current: &Current, writer: &mut Writer<'_>, admitted: &Admitted) {
    let names = current.plan.headers.identity();
    let mut push = |name: &HeaderName, value: &[u8]| writer.push(name.as_str().as_bytes(), value);
    let auth: &[u8] = match admitted.identity() {
        Identity::Anonymous => b"anonymous",
        Identity::Reported { .. } => b"reported",
        Identity::Key(authenticated) => {
            let slot = authenticated.slot();
            push(&names.key_id, &slot.id.text());
            if let Some(owner) = slot.owner.and_then(|owner| current.gate.directory.owner(owner)) {
                push(&names.owner, &owner.id.text());
            }
            if let Some(environment) = current.gate.environment(slot.environment) {
                push(&names.environment, environment.header.as_bytes());
            }
            if let Some(grant) = current.gate.grant(slot.profile) {
                push(&names.scopes, grant.header.as_bytes());
            }
            b"key"
        }
    };
    push(&names.auth, auth);
}

/// How long the first line is, its end included.
fn line_len(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn credential_names(accept: &[Place]) -> SmallVec<[HeaderName; 2]> {
    accept
        .iter()
        .flat_map(|place| match place {
            Place::Header { name, .. } => [Some(name.clone()), None],
            Place::Pair { id, secret } => [Some(id.clone()), Some(secret.clone())],
            Place::Cookie { .. } => [Some(header::COOKIE), None],
            Place::Query { .. } => [None, None],
        })
        .flatten()
        .collect()
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
