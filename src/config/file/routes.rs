//! `routes`: what may be asked for, and what it demands.

use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::super::shape::numbers::ByteSize;
use super::super::shape::text::Label;
use super::super::shape::words::ScopeRule;
use super::super::shape::{At, Listed, Named, OneOrMore, Secret, choice, shape};
use super::limits::RouteLimitFile;
use crate::domain::Scope;
use crate::gate::{Mode, OnStale};
use crate::route::{EmptySegments, EncodedSlash, HostPattern, Normalize, PathPattern, TrailingSlash};

shape! {
    /// A route. It, or each of its methods, says what it demands: `scopes`, `auth: any_key` or `auth: none`.
    pub(crate) struct RouteFile {
        /// Label of metrics and logs. Without it: the group's, else the path.
        name: Option<At<Label>>,
        /// Label that several routes share in metrics and logs.
        group: Option<Label>,
        /// Hosts it answers for: `api.example.com`, `"*.example.com"`. Without it: any.
        hosts: Option<At<Listed<HostPattern>>>,
        /// Segment by segment: text, `{param}` or `*` for one segment, `**` at the end for the rest.
        path: At<PathPattern>,
        /// How its paths are read; strict unless the API needs otherwise.
        path_rules: Option<PathRulesFile>,
        /// The name of the upstream that answers; `portcullis`: the management API of this gateway, where each caller
        /// sees and manages the keys of its own owner.
        upstream: At<String>,
        /// With `upstream: portcullis`: the application's names for scopes of the gateway, such as
        /// { keys:manage: portcullis:keys }.
        map: Option<At<Named<OneOrMore<Scope>>>>,
        /// `none`: anyone. `any_key`: a valid key, whatever its scopes.
        auth: Option<At<AuthWord>>,
        /// Scopes a key must hold: one, a list (all of them), or { any: […], all: […] }.
        scopes: Option<At<ScopeRule>>,
        /// What single methods demand; one that says nothing (`GET: {}`) takes the route's word. `"*"` stands for GET,
        /// HEAD, POST, PUT, PATCH, DELETE and OPTIONS. Without it the route's word holds for `"*"`.
        methods: Option<At<Named<MethodFile>>>,
        /// Where requests may carry the key; replaces `auth.accept`.
        accept: Option<At<Listed<PlaceFile>>>,
        /// Leave the key in the request that is forwarded.
        forward_credential: Option<At<bool>> = false,
        /// `report`: what would be refused goes on, and is counted and logged. Replaces the global `mode`.
        mode: Option<At<Mode>>,
        /// Environments whose keys it serves. Without it: all.
        environments: Option<At<Listed<String>>>,
        /// Networks whose clients it serves. Without it: all.
        allow_ips: Option<At<Listed<IpNet>>>,
        /// How old the key set may be here; replaces `sync.max_staleness`.
        max_staleness: Option<At<Duration>>,
        /// What happens here once it is older; replaces `sync.on_stale`.
        on_stale: Option<At<OnStale>>,
        /// Let publishable keys use methods that change something.
        publishable_unsafe_methods: Option<bool> = false,
        /// How often each caller may ask, beside what limits its key. Without it: unlimited.
        rate_limit: Option<At<RouteLimitFile>>,
        /// Answers for browsers on other origins.
        cors: Option<CorsFile>,
        /// Whole segments removed from the front of the path before it is forwarded.
        strip_prefix: Option<At<String>>,
        /// Put in front of the path before it is forwarded, after stripping.
        add_prefix: Option<At<String>>,
        /// Bounds in time; each replaces the upstream's.
        timeouts: Option<At<TimeoutsFile>>,
        /// Largest request body; beyond: 413. Without it: unbounded.
        max_body: Option<ByteSize>,
        /// Header fields of the request to the upstream.
        headers: Option<At<HeaderEditFile>>,
        /// Protocols a client may upgrade to.
        upgrade: Option<At<Listed<UpgradeWord>>> = ["websocket"],
    }
}

shape! {
    /// What one method demands; nothing: what the route does.
    pub(crate) struct MethodFile {
        /// `none`: anyone. `any_key`: a valid key, whatever its scopes.
        auth: Option<At<AuthWord>>,
        /// Scopes a key must hold: one, a list (all of them), or { any: […], all: […] }.
        scopes: Option<At<ScopeRule>>,
    }
}

/// `auth` of a route or method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthWord {
    /// Anyone.
    None,
    /// A valid key.
    AnyKey,
}

/// A protocol that can be upgraded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeWord {
    /// RFC 6455.
    Websocket,
}

shape! {
    /// A place that may carry a key: exactly one of header, cookie and query.
    pub(crate) struct PlaceFile {
        /// A header field.
        header: Option<At<HeaderName>>,
        /// The scheme before the key in that field: Bearer, Basic or any other. Without it: the whole value is the key.
        scheme: Option<At<String>>,
        /// The header field of a pair's secret, where `header` carries its id.
        secret: Option<At<HeaderName>>,
        /// A cookie.
        cookie: Option<At<String>>,
        /// A query parameter; on routes only. It is removed from what is forwarded and from logs.
        query: Option<At<String>>,
    }
}

shape! {
    /// How paths are read.
    pub(crate) struct PathRulesFile {
        /// `%2F`: `keep` it as data of its segment, or `refuse` the request.
        encoded_slash: Option<EncodedSlash> = "refuse",
        /// `//`: `merge` into one slash, or `refuse` the request.
        empty_segments: Option<EmptySegments> = "refuse",
        /// `exact`: `/a` and `/a/` are two paths. `either`: the route matches both.
        trailing_slash: Option<TrailingSlash> = "exact",
        /// A path that is not in normal form: `rewrite` it, or `refuse` the request.
        normalize: Option<Normalize> = "rewrite",
    }
}

shape! {
    /// Answers for browsers on other origins (CORS).
    pub(crate) struct CorsFile {
        /// Origins as browsers send them, `https://app.example.com`; or one `"*"`.
        origins: At<Listed<String>>,
        /// Methods that preflights are told. Without it: the route's.
        methods: Option<Listed<Method>>,
        /// Request fields that preflights are told.
        headers: Option<Listed<HeaderName>> = [],
        /// How long browsers may remember a preflight. At most 24h. Without it: the browser's own default.
        max_age: Option<At<Duration>>,
    }
}

shape! {
    /// Bounds in time towards an upstream.
    pub(crate) struct TimeoutsFile {
        /// Opening a connection, TLS included. 10ms to 5m. Default of an upstream: 5s.
        connect: Option<At<Duration>>,
        /// From the last byte of a request to the head of its answer. 10ms to 24h. Default of an upstream: 1m.
        first_byte: Option<At<Duration>>,
        /// Between two pieces of a body in either direction. 10ms to 24h. Default of an upstream: 1m.
        idle: Option<At<Duration>>,
    }
}

shape! {
    /// Header fields of requests to an upstream.
    pub(crate) struct HeaderEditFile {
        /// Fields set, by name; what stood there is replaced. Values are kept out of logs.
        set: Option<Named<At<Secret>>>,
        /// Fields removed.
        remove: Option<Listed<HeaderName>> = [],
    }
}

choice!(AuthWord, "none or any_key", { "none" => AuthWord::None, "any_key" => AuthWord::AnyKey, });
choice!(UpgradeWord, "a protocol", { "websocket" => UpgradeWord::Websocket, });
choice!(EncodedSlash, "refuse or keep", { "refuse" => EncodedSlash::Refuse, "keep" => EncodedSlash::Keep, });
choice!(EmptySegments, "refuse or merge", { "refuse" => EmptySegments::Refuse, "merge" => EmptySegments::Merge, });
choice!(TrailingSlash, "exact or either", { "exact" => TrailingSlash::Exact, "either" => TrailingSlash::Either, });
choice!(Normalize, "rewrite or refuse", { "rewrite" => Normalize::Rewrite, "refuse" => Normalize::Refuse, });
