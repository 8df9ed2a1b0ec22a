//! The request as the upstream gets it: what a client may not say is taken out first, our own is put in last.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Version};
use hyper::body::{Body, Incoming};
use smallvec::SmallVec;

use super::body::{Recheck, RequestBody, Upload, UploadProgress};
use super::client::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID};
use super::engine::{Context, KeyRecheck, Routed};
use super::headers::{Peer, TrailerRule};
use super::live::Current;
use super::observe::Exchange;
use super::settings::{HostPolicy, UpstreamTimeouts};
use crate::credential::{self, Place};
use crate::gate::{Admitted, Identity, RouteSettings};
use crate::reply::Failure;
use crate::route::RouteIx;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED: HeaderName = header::FORWARDED;

/// A request ready to be sent to one upstream.
pub(super) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// What the engine sees of the body while it is sent.
    pub(crate) upload: Rc<UploadProgress>,
    /// The protocol asked for, when both sides may.
    pub(crate) wants_tunnel: Option<String>,
    pub(crate) timeouts: UpstreamTimeouts,
    /// Whether the key that admitted it still holds.
    pub(super) recheck: Option<Box<dyn Recheck>>,
}

/// Path and query as the upstream gets them: the path that was matched, or what `strip_prefix` leaves of it, and the
/// query byte for byte, save an accepted credential parameter.
///
/// # Errors
/// When the prefix leaves nothing that can stand in a request line.
pub(super) fn target_uri(
    route: &RouteSettings,
    path: &str,
    query: Option<&str>,
    keeps_credential: bool,
) -> Result<PathAndQuery, Failure> {
    let forward = &route.forward;
    let stripped_query = match query {
        Some(query) if !keeps_credential => credential::strip_query(query, &route.accept),
        Some(_) | None => None,
    };
    let query = stripped_query.as_deref().or(query);
    let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 2);
    let rest = match &forward.strip_prefix {
        Some(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or(path),
        None => path,
    };
    text.push_str(forward.add_prefix.as_deref().unwrap_or(""));
    if !rest.starts_with('/') {
        text.push('/');
    }
    text.push_str(rest);
    // A query that held nothing but the credential leaves no question mark behind.
    let emptied = stripped_query.as_deref() == Some("");
    if let Some(query) = query.filter(|_| !emptied) {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| Failure::BadRequest { detail: "The request target is malformed." })
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
    /// Rewrites `request` for the upstream: what a client may not say is taken out first, our own is put in last.
    pub(super) fn prepare(
        cx: &Context,
        upstream: usize,
        request: Request<Incoming>,
        admitted: Admitted,
        routed: Routed,
        exchange: &Exchange,
    ) -> Self {
        let current = &*cx.current;
        let upstream = &current.plan.upstreams[upstream];
        let route = &current.gate.rules.route(routed.route).settings;
        let (parts, incoming) = request.into_parts();
        let mut headers = parts.headers;
        let te_trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        let is_reported = matches!(admitted.identity(), Identity::Reported { .. });
        if !route.forward_credential && !is_reported {
            credential::strip_headers(&mut headers, &route.accept);
        }
        current.plan.headers.clean_request(&mut headers, cx.trust);
        headers.remove(header::EXPECT);
        if !cx.is_grpc {
            headers.remove(header::TRAILER);
        }
        forwarding(cx, &mut headers, parts.version, &routed);
        identity(current, &mut headers, &admitted);
        for settings in [
            (&upstream.settings.remove_headers, &upstream.settings.set_headers),
            (&route.forward.remove_headers, &route.forward.set_headers),
        ] {
            settings.0.iter().for_each(|name| drop(headers.remove(name)));
            settings.1.iter().for_each(|(name, value)| drop(headers.insert(name.clone(), value.clone())));
        }
        if te_trailers && cx.is_grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = &routed.wants_tunnel
            && let Ok(value) = HeaderValue::from_str(protocol)
        {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, value);
        }
        let host = match &upstream.settings.host {
            HostPolicy::Set(host) => Some(host.clone()),
            HostPolicy::Keep => HeaderValue::from_str(&routed.authority).ok().filter(|host| !host.is_empty()),
        };
        if let Some(host) = host {
            headers.insert(header::HOST, host);
        }
        let upload = Rc::new(UploadProgress::default());
        let body = if incoming.is_end_stream() {
            upload.finished.set(true);
            RequestBody::Empty
        } else {
            let trailers = if cx.is_grpc {
                TrailerRule::Clean {
                    rules: Arc::clone(&current.plan.headers),
                    peer: cx.trust,
                    credentials: credential_names(&route.accept),
                }
            } else {
                TrailerRule::Drop
            };
            let timer = cx.engine.timers.timer();
            let stall = current.plan.stall_timeout;
            let max = route.forward.max_body;
            RequestBody::Upload(Box::new(Upload::new(incoming, max, timer, stall, trailers, Rc::clone(&upload))))
        };
        exchange.watch_upload(&upload);
        let recheck: Option<Box<dyn Recheck>> = match admitted.identity() {
            Identity::Key(authenticated) => Some(Box::new(KeyRecheck {
                live: Rc::clone(&cx.engine.live),
                authenticated: RefCell::new(*authenticated),
            })),
            Identity::Anonymous | Identity::Reported { .. } => None,
        };
        let bounds = &upstream.settings.timeouts;
        let own = &route.forward.timeouts;
        Self {
            method: parts.method,
            uri: routed.uri,
            headers,
            body,
            upload,
            wants_tunnel: routed.wants_tunnel,
            timeouts: UpstreamTimeouts {
                connect: own.connect.unwrap_or(bounds.connect),
                first_byte: own.first_byte.unwrap_or(bounds.first_byte),
                idle: own.idle.unwrap_or(bounds.idle),
            },
            recheck,
        }
    }
}

/// Who the client is and how it asked: rebuilt, so that only we and trusted proxies have a say.
fn forwarding(cx: &Context, headers: &mut HeaderMap, version: Version, routed: &Routed) {
    let connection = &cx.connection;
    let scheme = HeaderValue::from_static(connection.scheme());
    let host = HeaderValue::from_str(&routed.authority).unwrap_or_else(|_| HeaderValue::from_static(""));
    match cx.trust {
        Peer::Trusted => {
            let hops = headers.get_all(&X_FORWARDED_FOR).iter().map(|v| v.as_bytes().to_vec());
            let mut chain: Vec<Vec<u8>> = hops.collect();
            chain.push(connection.address_value.as_bytes().to_vec());
            if let Ok(value) = HeaderValue::from_bytes(&chain.join(&b", "[..])) {
                headers.insert(X_FORWARDED_FOR, value);
            }
            headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
            headers.append(FORWARDED, connection.forwarded(&host));
        }
        Peer::Untrusted => {
            headers.insert(X_FORWARDED_FOR, connection.address_value.clone());
            headers.insert(X_FORWARDED_PROTO, scheme);
            headers.insert(FORWARDED, connection.forwarded(&host));
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
    headers.append(header::VIA, via(version));
    headers.insert(X_REQUEST_ID, cx.request_id.clone());
    if !headers.contains_key(&TRACEPARENT) {
        headers.insert(TRACEPARENT, traceparent(&cx.request_id));
    }
}

/// The protocol it was received in, and our pseudonym (RFC 9110 §7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 portcullis",
        Version::HTTP_2 => "2 portcullis",
        // The only other one that is spoken.
        _ => "1.1 portcullis",
    })
}

/// A W3C trace context of our own (Trace Context §3.2.2): the request id names the trace, nothing is sampled yet.
fn traceparent(request_id: &HeaderValue) -> HeaderValue {
    let id = request_id.as_bytes();
    let is_ours = id.len() == 32 && id.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let (trace, span) = if is_ours { (id, &id[..16]) } else { (&NO_TRACE[..], &NO_TRACE[..16]) };
    let mut text = Vec::with_capacity(55);
    text.extend_from_slice(b"00-");
    text.extend_from_slice(trace);
    text.push(b'-');
    text.extend_from_slice(span);
    text.extend_from_slice(b"-00");
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Stands for a request whose id, kept from a trusted proxy, is no trace id.
const NO_TRACE: [u8; 32] = *b"00000000000000000000000000000001";

/// Who asks, in our words. Every name set here was removed from the request before.
fn identity(current: &Current, headers: &mut HeaderMap, admitted: &Admitted) {
    let names = current.plan.headers.identity();
    let auth = match admitted.identity() {
        Identity::Anonymous => "anonymous",
        Identity::Reported { .. } => "reported",
        Identity::Key(authenticated) => {
            let slot = authenticated.slot();
            if let Ok(id) = HeaderValue::from_str(&slot.id.to_string()) {
                headers.insert(names.key_id.clone(), id);
            }
            if let Some(owner) = slot.owner.and_then(|owner| current.gate.directory.owner(owner))
                && let Ok(id) = HeaderValue::from_str(&owner.id.to_string())
            {
                headers.insert(names.owner.clone(), id);
            }
            if let Some(environment) = current.gate.environment(slot.environment) {
                headers.insert(names.environment.clone(), environment.header.clone());
            }
            if let Some(grant) = current.gate.grant(slot.profile) {
                headers.insert(names.scopes.clone(), grant.header.clone());
            }
            "key"
        }
    };
    headers.insert(names.auth.clone(), HeaderValue::from_static(auth));
}

fn credential_names(accept: &[Place]) -> SmallVec<[HeaderName; 2]> {
    accept
        .iter()
        .filter_map(|place| match place {
            Place::Header { name, .. } => Some(name.clone()),
            Place::Cookie { .. } => Some(header::COOKIE),
            Place::Query { .. } => None,
        })
        .collect()
}
